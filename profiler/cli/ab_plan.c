/* See ab_plan.h. */
#include "profiler/cli/ab_plan.h"

#include <math.h>
#include <stdlib.h>

struct rp_plan_slot *ab_plan_make(size_t *n, const struct rp_ab_record *r, unsigned n_block)
{
    unsigned left[RP_AB_ARMS], n_left = 0;
    struct rp_plan_slot *slot;

    for (unsigned i = 0; i < r->n_arm; i++)
        if (r->arm[i].status == RP_ARM_MEASURED)
            left[n_left++] = i;
    *n = n_left >= 2 && left[0] == 0 ? rp_plan_size(n_left, n_block) : 0;
    slot = calloc(*n + 1, sizeof *slot);
    if (!slot || !*n)
        return slot;
    rp_plan_make(slot, n_left, n_block, r->seed);
    for (size_t i = 0; i < *n; i++)
        slot[i].arm = left[slot[i].arm];
    return slot;
}

/* The two slots of a pair stand beside each other. */
static bool is_of(const struct rp_plan_slot *slot, size_t n, size_t i, unsigned arm)
{
    size_t other = i > 0 && slot[i - 1].pair == slot[i].pair       ? i - 1
                   : i + 1 < n && slot[i + 1].pair == slot[i].pair ? i + 1
                                                                   : i;

    return slot[i].arm == arm || slot[other].arm == arm;
}

size_t ab_plan_drop(struct rp_plan_slot *slot, size_t n, size_t from, unsigned arm)
{
    size_t kept = from;

    for (size_t i = from; i < n;
         i++) /* what was moved down is behind, so both neighbours are as they were */
        if (!is_of(slot, n, i, arm))
            slot[kept++] = slot[i];
    return kept;
}

void ab_plan_block(struct rp_ab_block *out, const struct rp_plan_slot *slot,
                   const struct rp_ab_record *r, uint32_t from_step, uint32_t settles_from)
{
    struct rp_ab_block b = {.arm = slot->arm,
                            .pair = slot->pair,
                            .from_step = from_step,
                            .first_step = settles_from + r->n_drop,
                            .loss = NAN,
                            .is_cut = true};

    b.last_step = b.first_step + r->n_step - 1;
    b.traced_from = r->is_untraced ? b.last_step + 1 : b.first_step;
    b.traced_to = r->is_untraced ? b.last_step + r->n_traced : b.last_step;
    for (int k = 0; k < RP_AB_MEMORY; k++)
        b.memory[k] = NAN;
    *out = b;
}
