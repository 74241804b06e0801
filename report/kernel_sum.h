/* Kernel time by (name, layer, phase, pass): an open-addressing table. One owner, any thread. */
#ifndef RP_KERNEL_SUM_H
#define RP_KERNEL_SUM_H

#include "report/profile_file.h"

struct rp_kernel_sum {
    struct rp_kernel *slot; /* (cap); n == 0 is a free one */
    size_t cap, used;       /* cap is 0 or a power of two */
};

void rp_kernel_sum_release(struct rp_kernel_sum *s);
/* Forgets all rows, keeps the room. */
void rp_kernel_sum_clear(struct rp_kernel_sum *s);
/* Adds k to the row of the same key. Errors: MP_ENOMEM. */
int rp_kernel_sum_add(struct rp_kernel_sum *s, const struct rp_kernel *k);
int rp_kernel_sum_merge(struct rp_kernel_sum *to, const struct rp_kernel_sum *from);

#endif
