/* registry.h: one row for each implementation of an operation. The choice is the first row that fits. */
#ifndef KERNELS_REGISTRY_H
#define KERNELS_REGISTRY_H

#include "kernels/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* fits() answers MK_OK or why not, from shape, types, layouts and pointers alone. */
struct mk_impl {
    struct mk_row row;
    bool lora; /* takes adapters */
    int (*fits_forward)(const struct mk_forward *a);
    int (*forward)(const struct mk_forward *a, const struct mk_plan *plan, mk_stream stream);
    int (*fits_backward)(const struct mk_backward *a);
    int (*backward)(const struct mk_backward *a, const struct mk_plan *plan, mk_stream stream);
};

extern const struct mk_impl mk_registry[];
extern const size_t mk_registry_count;

/* Compute capability times ten of the current device (90 for 9.0), or MK_EDEVICE. */
int mk_device_sm(void);

#ifdef __cplusplus
}
#endif
#endif
