/* The builtin module `_moeprof` that hook.py sees; the contract is BRIDGE.md. */
#ifndef INJ_PYMODULE_H
#define INJ_PYMODULE_H

#include "injector/pysym.h"

/* A new module object with all functions; NULL with a Python error set. */
PyObject *inj_pymodule_new(void);

#endif
