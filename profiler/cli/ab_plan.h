/* The order of blocks as the course of a before/after goes by it: slots speak of the arms of the record, and
 * an arm that drops out takes its pairs with it. Pure. */
#ifndef CLI_AB_PLAN_H
#define CLI_AB_PLAN_H

#include "report/ab.h"

/* Slots of the arms that are still to be measured, NULL without memory; *n is 0 when the base or all others
 * are not. The caller frees. */
struct rp_plan_slot *ab_plan_make(size_t *n, const struct rp_ab_record *r, unsigned n_block);

/* Takes the pairs of that arm out of slots [from, n), and what is left of a pair that it has broken.
 * Returns the new n. */
size_t ab_plan_drop(struct rp_plan_slot *slot, size_t n, size_t from, unsigned arm);

/* The block of that slot, its arm running from from_step on: cut until it came to its end. */
void ab_plan_block(struct rp_ab_block *out, const struct rp_plan_slot *slot,
                   const struct rp_ab_record *r, uint32_t from_step, uint32_t settles_from);

#endif
