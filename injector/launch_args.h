/* The arguments of a launch, and the weights among them. In the callback: no allocation, no lock. */
#ifndef INJ_LAUNCH_ARGS_H
#define INJ_LAUNCH_ARGS_H

#include "injector/func.h"
#include "profiler/core/ranges.h"

#include <stddef.h>

struct inj_args {
    void *func;
    void **params, **extra; /* as the driver takes them: one of the two, or neither */
};

#define INJ_ANY_LAYER (-2)

/* Finds the first weight, of the layer or of any, that a kernel is given; false: none. */
bool inj_args_weight(struct mp_hit *hit, const struct mp_ranges *r, const struct inj_func *f,
                     const struct inj_args *a, int layer);

/* cuBLAS hands its arguments over as one buffer: where it is, NULL if nowhere, and its bytes. */
const void *inj_args_extra(void **extra, size_t *bytes);

#endif
