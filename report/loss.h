/* Loss parity of a before/after: whether the loss under an arm differs from that under the base by more than
 * chance. Blocks see different data and the training goes on, so only pairs that stand beside each other are
 * compared, as their times are; how far equal arms stray comes from neighbours of one arm. Pure; any thread. */
#ifndef RP_LOSS_H
#define RP_LOSS_H

#include "report/blocks.h"

enum rp_loss_status { RP_LOSS_UNKNOWN = 0, RP_LOSS_AGREES, RP_LOSS_DIFFERS, RP_LOSS_STATUS_COUNT };

/* "unknown", "agrees", "differs". */
const char *rp_loss_name(enum rp_loss_status s);

struct rp_loss {
    enum rp_loss_status status; /* unknown with fewer than RP_MIN_PAIRS pairs */
    unsigned n_pair;
    bool is_known;                 /* the figures below: n_pair >= 2 */
    double base, arm;              /* means over the pairs */
    struct rp_interval difference; /* arm minus base, 95 % */
    struct mp_val floor;           /* how far equal arms stray, 95 % */
    struct mp_val detectable; /* the smallest difference that would have been seen in 4 of 5 runs */
};

/* Blocks in the order of time; those without a loss take no part. Errors: MP_ENOMEM. */
int rp_loss_compare(struct rp_loss *out, const struct rp_ab_block *block, size_t n, unsigned arm,
                    uint64_t seed);

#endif
