/* The guest's Python side: runs hook.py in the job's interpreter and serves what it calls. */
#ifndef INJ_PYBRIDGE_H
#define INJ_PYBRIDGE_H

#include "profiler/core/base.h"

/* Agent: if torch is imported in this process, runs hook.py under the GIL.
 * MP_EGONE: no Python or no torch yet, ask again; other codes are final (and said). */
int inj_py_hook(void);

/* CUDA device index and context of the thread that trains; known once a model has been found. */
int inj_py_device(void);
void *inj_py_context(void);

#endif
