/* Totals of a run by block (warm-up, steady, partial): cells, kernels, tokens per expert.
 * Fed with the record stream and with the steps that mp_steps closes; one owner thread.
 * Pure but for rp_sums_write. */
#ifndef RP_SUMS_H
#define RP_SUMS_H

#include "report/kernel_sum.h"

struct rp_sums; /* opaque */

struct rp_sums *rp_sums_new(void);
void rp_sums_free(struct rp_sums *s);

/* A record as it comes; only kernels of the job count. Errors: MP_ENOMEM. */
int rp_sums_record(struct rp_sums *s, const union mp_record *record);
/* A closed step; kernels seen for it go to the step's block. Errors: MP_ENOMEM. */
int rp_sums_step(struct rp_sums *s, const struct mp_step *step);

/* All blocks into the profile, in place of what stood there. */
int rp_sums_write(struct rp_sums *s, struct rp_profile *p, struct mp_err *err);

/* The block of the next step, given how many whole ones came before it; counts it there. Whole is what
 * mp_mfu_counts says. */
int rp_block_of(const struct mp_step *step, uint32_t *n_whole);

#endif
