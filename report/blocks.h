/* Before/after inside one job: which arm runs when, what a block of steps amounts to, and what the
 * difference of two arms is worth. Pure; any thread.
 *
 * A block is `drop` steps that settle after the switch, then the steps that count. The block is the unit:
 * its rate is the sum of its work over the sum of its time. Blocks stand in pairs, base and another arm
 * beside each other, in the order ABBA or BAAB by a coin whose seed is recorded: a drift in time falls on
 * both arms alike. What is compared is the log-ratio of the two rates of a pair.
 */
#ifndef RP_BLOCKS_H
#define RP_BLOCKS_H

#include "report/stats.h"

#define RP_AB_ARMS   8  /* in one run; arm 0 is the base that the others are compared with */
#define RP_AB_STEPS  8  /* counted in a block, unless told otherwise */
#define RP_AB_DROP   2  /* after each switch: autotuning, allocator, caches, clock */
#define RP_AB_BLOCKS 10 /* an arm */
#define RP_AB_NAME   64
#define RP_MIN_PAIRS 6    /* the fewest whose signs alone can reach 5 %; fewer are inconclusive */
#define RP_MARGIN    0.01 /* differences below it interest nobody, and no clock holds them */
#define RP_SAME_MAX  0.03 /* an interval that reaches beyond it never says "no difference" */

/* ---- the order ---------------------------------------------------------------------------------- */

struct rp_plan_slot {
    uint32_t arm, pair; /* slots of one pair stand beside each other */
};

/* Slots for n_block blocks of each arm but the base, which has as many for each of them. */
size_t rp_plan_size(unsigned n_arm, unsigned n_block);
/* slot: (rp_plan_size). The same seed gives the same order, on every machine. */
void rp_plan_make(struct rp_plan_slot *slot, unsigned n_arm, unsigned n_block, uint64_t seed);

/* ---- blocks ------------------------------------------------------------------------------------- */

/* What a step did, the best unit that is known for all steps of a run. */
enum rp_work { RP_WORK_FLOP = 0, RP_WORK_USEFUL, RP_WORK_PROCESSED, RP_WORK_STEP, RP_WORK_COUNT };

/* "model FLOP", "useful token", "token", "step". */
const char *rp_work_name(enum rp_work work);

struct rp_ab_step {
    uint32_t step;
    bool counts;                /* whole and undisturbed */
    double seconds;             /* > 0 where it counts */
    double work[RP_WORK_COUNT]; /* NaN: unknown */
    uint64_t begin_ns, end_ns;  /* CLOCK_REALTIME; 0 unknown */
    double segments, longest;   /* sequences; tokens of the longest one; NaN unknown */
    bool is_traced;             /* the GPU was watched */
};

/* The first unit that every step knows that counts; RP_WORK_STEP always is. */
enum rp_work rp_work_choose(const struct rp_ab_step *step, size_t n);

enum rp_ab_memory {
    RP_ALLOCATED = 0,
    RP_ALLOCATED_PEAK,
    RP_RESERVED,
    RP_RESERVED_PEAK,
    RP_SAVED, /* what forward of its first micro-batch left for backward */
    RP_AB_MEMORY
};

struct rp_ab_block {
    uint32_t arm, pair;
    uint32_t from_step;              /* the first step under the arm */
    uint32_t first_step, last_step;  /* those that count */
    uint32_t traced_from, traced_to; /* steps for attribution; from > to: none */
    bool is_cut;                 /* the job or the arm ended inside it, or its steps are missing */
    double memory[RP_AB_MEMORY]; /* bytes by torch's allocator, peaks of this block; NaN unknown */
    double loss;                 /* mean since its first counted step; NaN unknown */
    /* found by rp_block_sum: */
    uint32_t n_step;      /* used of them */
    double seconds, work; /* their sums */
};

/* Sums the steps of the block; step is sorted by number. Less than half of them usable: is_cut. */
void rp_block_sum(struct rp_ab_block *b, const struct rp_ab_step *step, size_t n,
                  enum rp_work work);

/* ---- what it is worth --------------------------------------------------------------------------- */

enum rp_verdict { RP_INCONCLUSIVE = 0, RP_FASTER, RP_SLOWER, RP_SAME, RP_VERDICT_COUNT };

/* "inconclusive", "faster", "slower", "no difference". */
const char *rp_verdict_name(enum rp_verdict v);

/* Ratios are of rates, arm over base: 1.2 is 20 % more work a second. Fractions are of 1. */
struct rp_contrast {
    unsigned arm;
    unsigned n_pair, n_cut;       /* pairs compared; pairs with a block that was cut */
    bool is_known;                /* the ratios below: n_pair >= 2 */
    struct rp_interval speedup;   /* exp of the mean log-ratio */
    double hodges_lehmann;        /* the same, robust */
    double ratio_of_sums;         /* all work over all time */
    struct rp_rank_test wilcoxon; /* of the log-ratios */
    struct mp_val floor;          /* how far equal arms stray: neighbours of the same arm, 95 % */
    unsigned n_floor;
    struct mp_val detectable; /* the smallest difference that this run could have seen */
    double margin;            /* max(RP_MARGIN, floor) */
    enum rp_verdict verdict;
    char why[160]; /* of the verdict, a sentence */
};

/* Blocks in the order of time. Errors: MP_ENOMEM, MP_EINVAL (a sum that is no number). */
int rp_contrast(struct rp_contrast *out, const struct rp_ab_block *block, size_t n, unsigned arm,
                uint64_t seed);

/* ---- steady or not ------------------------------------------------------------------------------ */

struct rp_steady {
    bool is_known;      /* enough values to tell */
    bool is_steady;     /* no change of level and no trend beyond RP_MARGIN */
    size_t change_at;   /* index of the last change of level; 0 none */
    double change;      /* level after it over the level before, minus 1 */
    struct mp_val lag1; /* autocorrelation */
    double drift;       /* trend over the whole series, fraction of its median */
    double drift_p;
};

/* x > 0: step times, clocks, bytes. Of more than 1024 values the last 1024 are looked at. */
int rp_steady_check(struct rp_steady *out, const double *x, size_t n);

#endif
