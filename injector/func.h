/* What is known of a kernel, by its handle: found out at its first launch, for all after it. */
#ifndef INJ_FUNC_H
#define INJ_FUNC_H

#include "profiler/core/kname.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define INJ_FUNC_PARAMS 32

struct inj_func {
    _Atomic(void *) handle;     /* NULL free; set last, release */
    _Atomic(const char *) name; /* never read through: its module may be gone */
    uint64_t name_hash;
    uint8_t kclass;  /* enum mp_kclass */
    uint8_t n_param; /* 0 for kernels that take no weights */
    uint16_t param_bytes[INJ_FUNC_PARAMS];
};

/* The row of a handle; NULL when the table is full or another thread is adding. A handle that was
 * unloaded and given to another kernel is told by its name. Any thread, in the callback. */
const struct inj_func *inj_func_get(void *handle, const char *name);

/* Kernels that take a weight: products, and generated kernels, which may be anything. */
bool inj_func_takes_weights(enum mp_kclass kclass);

#endif
