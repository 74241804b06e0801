/* A before/after inside one job: what was done (the record, kept in the profile), and what came of it.
 *
 * The record is facts only; every figure is computed from the steps of the profile, so that a report of
 * an old profile gains from a better analysis. Owner: one thread.
 */
#ifndef RP_AB_H
#define RP_AB_H

#include <math.h>

#include "report/analyze.h"
#include "report/blocks_read.h"
#include "report/figure.h"
#include "report/gpu_facts.h"
#include "report/loss.h"

#define RP_AB_SCHEMA  1 /* report/schema/ab.schema.json */
#define RP_AB_FIGURES 32
#define RP_AB_NOTES   24
#define RP_AB_LAYERS  256

/* ---- the record --------------------------------------------------------------------------------- */

enum rp_arm_status {
    RP_ARM_MEASURED = 0,
    RP_ARM_REFUSED,       /* not there, or a layer that it cannot run */
    RP_ARM_PARITY_FAILED, /* its numbers disagree: never swapped in */
    RP_ARM_REVERTED,      /* the guest went back by itself */
    RP_ARM_STATUS_COUNT
};

const char *rp_arm_status_name(enum rp_arm_status s);

struct rp_arm {
    char name[RP_AB_NAME];
    enum rp_arm_status status;
    char why[240]; /* why it was not measured, or what to know of one that was; "" nothing */
};

/* One layer of one arm, on the job's own activations and incoming gradients; errors are relative to the
 * norm of an fp64 reference. */
struct rp_parity {
    uint32_t arm;
    int layer;
    char quantity[24];                      /* the worst: "out", "dx", .. */
    double error, own_error, ratio, tokens; /* ratio: of error to that of the job's own arm */
    double out_cosine
        [2]; /* of the output with the reference: this arm's, the job's own; NAN unknown */
    char gradient[24]; /* the one with the least cosine; "" none */
    double cosine[2];  /* its */
    int repeats[2];    /* 1, run twice it gave the same bits; 0 it did not; -1 nobody looked */
    bool passed;
    char why[160];
};

struct rp_ab_record {
    uint64_t seed;
    uint32_t n_step, n_drop, n_traced; /* of a block: counted, dropped before, traced behind */
    uint32_t n_planned;                /* blocks an arm */
    bool is_untraced;                  /* the counted steps ran without tracing */
    struct rp_gpu_facts gpu;           /* when the blocks began */
    char known[400];                   /* arms that the job has, measured or not: "eager, .." */
    char own[RP_AB_NAME];              /* what the job itself runs: what `original` stands for */
    char end[160];                     /* why it ended early; "" when it did not */
    struct rp_arm arm[RP_AB_ARMS];
    unsigned n_arm;
    struct rp_ab_block *block; /* (n_block), in time */
    size_t n_block, cap_block;
    struct rp_parity *parity; /* (n_parity) */
    size_t n_parity, cap_parity;
};

void rp_ab_record_release(struct rp_ab_record *r);
/* Append a copy. Errors: MP_ENOMEM. */
int rp_ab_add_block(struct rp_ab_record *r, const struct rp_ab_block *b);
int rp_ab_add_parity(struct rp_ab_record *r, const struct rp_parity *p);

#define RP_PARITY_NONE                                                                             \
    ((struct rp_parity){.out_cosine = {NAN, NAN}, .cosine = {NAN, NAN}, .repeats = {-1, -1}})

/* Tables arm, block_ab and parity (SCHEMA.md). Written in one transaction, in place of what was there. */
int rp_ab_put(struct rp_profile *p, const struct rp_ab_record *r, struct mp_err *err);
/* *out is empty (n_arm 0) when the profile holds no before/after. */
int rp_ab_get(struct rp_ab_record *out, struct rp_profile *p, struct mp_err *err);

/* ---- what came of it ------------------------------------------------------------------------------ */

struct rp_ab_arm {
    unsigned n_block;        /* whole ones */
    size_t n_step, n_traced; /* counted; used for attribution */
    double *seconds;         /* (n_step) of the counted steps, in time; owned */
    struct mp_val loss;      /* mean of its blocks */
    struct rp_spread step;   /* seconds of the counted steps; n 0: none */
    struct rp_steady steady; /* of the same, in time */
    bool has_rate;
    struct rp_interval rate; /* work a second over the blocks, 95 % */
    struct mp_val mfu, mfu_low, mfu_high;
    struct mp_val memory[RP_AB_MEMORY];      /* largest of the blocks */
    struct mp_val useful, segments, longest; /* of a counted step: means; tokens of the longest */
    struct mp_val tracing;     /* what it adds to a step: median of traced over counted ones, - 1 */
    struct rp_gauge_sum gauge; /* while its blocks ran */
    double phase_s[MP_PHASE_COUNT]; /* summed over n_traced steps */
    double idle_s, window_s;
    double layer_s[RP_AB_LAYERS]; /* router to combine, the layer's experts: same */
    size_t n_layer_traced;        /* steps behind layer_s */
    double vio_sum;
    size_t n_vio;
};

struct rp_ab {
    struct rp_ab_record record;
    const struct rp_report *report; /* borrowed: of the whole run */
    enum rp_work unit;
    struct rp_ab_arm arm[RP_AB_ARMS];
    struct rp_contrast contrast[RP_AB_ARMS]; /* by arm; of arm 0: empty */
    struct rp_loss loss[RP_AB_ARMS];         /* the same of losses */
    unsigned main_arm;             /* the one that the headline speaks of; 0: none was measured */
    const struct rp_parity *worst; /* of the main arm, or of one that failed; NULL: unchecked */
    struct rp_figure figure[RP_AB_FIGURES], phase[MP_PHASE_COUNT + 1], layer[RP_AB_LAYERS];
    size_t n_figure, n_phase, n_layer;
    struct rp_figure got_worse[RP_AB_FIGURES + MP_PHASE_COUNT];
    size_t n_worse;
    char layer_name[RP_AB_LAYERS][24];
    char note[RP_AB_NOTES][240];
    size_t n_note;
};

/* *out is NULL with MP_OK when the profile holds no before/after. Caller's until rp_ab_free. */
int rp_ab_analyze(struct rp_ab **out, const struct rp_report *r, struct rp_profile *p,
                  struct mp_err *err);
/* The record, the arms' steps and rates, and what they are worth: no phases, layers and rows. Cheap enough
 * to be asked again while a before/after runs. Of r only spec and peak are used. */
int rp_ab_glance(struct rp_ab **out, const struct rp_report *r, struct rp_profile *p,
                 struct mp_err *err);
void rp_ab_free(struct rp_ab *ab);

/* What people call an arm: "original (grouped_mm)"; a second run of the same arm is told apart. */
void rp_ab_arm_name(char out[96], const struct rp_ab_record *r, unsigned arm);
/* Sentences. */
void rp_ab_verdict_text(char *out, size_t n, const struct rp_ab *ab, unsigned arm);
void rp_ab_parity_text(char *out, size_t n, const struct rp_ab *ab);

/* The least one of all layers, of the arm that ab->worst is of; layer -1: nobody told. */
struct rp_cosine {
    int layer;
    const char *quantity; /* borrowed from the record */
    double value, own;    /* of the arm, of the job's own one; NAN unknown */
};

void rp_ab_cosines(struct rp_cosine *out, struct rp_cosine *gradient, const struct rp_ab *ab);
/* "" when the model returns no loss. */
void rp_ab_loss_text(char *out, size_t n, const struct rp_ab *ab, unsigned arm);

/* "passed", "failed", "reverted", "not checked". */
const char *rp_ab_parity_status(const struct rp_ab *ab);
/* Whether an arm failed parity or was reverted: exit code 4. */
bool rp_ab_is_parity_failure(const struct rp_ab_record *r);

int rp_render_ab_text(FILE *f, const struct rp_ab *ab, struct mp_err *err);
/* At most 60 lines, for a comment on a pull request. */
int rp_render_ab_md(FILE *f, const struct rp_ab *ab, struct mp_err *err);
int rp_render_ab_json(FILE *f, const struct rp_ab *ab, struct mp_err *err);

#endif
