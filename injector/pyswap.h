/* The functions of `_moeprof` that swap.py calls: control (pyctl.c) and kernels (pyswap.c).
 * On the training thread, under the GIL. */
#ifndef INJ_PYSWAP_H
#define INJ_PYSWAP_H

#include "injector/pysym.h"

extern struct py_method inj_pyctl_method[];
extern const size_t inj_pyctl_count;
extern struct py_method inj_pyswap_method[];
extern const size_t inj_pyswap_count;

#endif
