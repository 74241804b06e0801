/* ref_moe.h: the CPU reference, the oracle of every test. Obvious, slow, one thread; computes in fp64 or fp32 and rounds
 * to the problem's types only where the GPU paths store (saved pre-activations, outputs). */
#ifndef KERNELS_REF_MOE_H
#define KERNELS_REF_MOE_H

#include "kernels/moe_kernels.h"

int mk_ref_forward(const struct mk_forward *a);
int mk_ref_backward(const struct mk_backward *a);

/* One element of an array of any type, as double, and back (round to nearest even). */
double mk_ref_get(const void *base, uint32_t dtype, int64_t at);
void mk_ref_put(void *base, uint32_t dtype, int64_t at, double v);

#endif
