/* Two profiles, one after the other: what differs, what got better and what got worse. Pure but for
 * reading the profiles.
 *
 * Such runs are unpaired: another time, another clock, often other data. The interval says how certain
 * the difference of these two runs is, not what caused it. `moeprof ab` measures both inside one job.
 */
#ifndef RP_COMPARE_H
#define RP_COMPARE_H

#include "report/analyze.h"
#include "report/blocks_read.h"
#include "report/figure.h"

#define RP_COMPARE_SCHEMA  1 /* report/schema/compare.schema.json */
#define RP_DIFFERENCES_MAX 48
#define RP_FIGURES_MAX     32
#define RP_UNPAIRED        "unpaired: confounded by time, clock and data"

/* A fact that is not the same on both sides. */
struct rp_difference {
    const char *name; /* "GPU" */
    bool is_grave;    /* the figures do not speak of the same work or machine */
    char side[2][128];
};

struct rp_side {
    const struct rp_report *report; /* borrowed */
    struct rp_gauge_sum gauge;      /* over the counted steps */
    size_t n;                       /* steps that count, warm-up left out */
    double *seconds, *work;         /* (n) */
    struct rp_spread step;          /* of seconds; n 0: none */
    struct rp_steady steady;
};

/* Whether both runs were given the same data, as far as two profiles show it. */
struct rp_same_data {
    size_t n_common; /* steps of the same number whose tokens are known on both sides */
    size_t n_same;   /* .. with as many of them, useful and in all, and as many sequences */
    bool varies;     /* tokens change from step to step: then equal ones say something */
    struct mp_val
        moved; /* of one step's and layer's assignments, those that went to other experts */
    uint32_t moved_step;
    int moved_layer;
};

struct rp_compare {
    struct rp_side side[2];
    enum rp_work unit;          /* what the rates count; known on both sides */
    bool is_known;              /* both sides have steps enough for the figures below */
    struct rp_interval speedup; /* rate after over rate before, 95 % */
    struct rp_rank_test test;   /* Mann-Whitney of seconds per unit of work */
    double shift_s;             /* Hodges-Lehmann shift of the step time, after minus before */
    enum rp_verdict verdict;
    char why[160];
    struct rp_difference difference[RP_DIFFERENCES_MAX];
    size_t n_difference, n_grave;
    struct rp_same_data data;
    struct rp_figure figure[RP_FIGURES_MAX], phase[MP_PHASE_COUNT + 1]; /* phases: seconds a step */
    size_t n_figure, n_phase;
    struct rp_figure worse[RP_FIGURES_MAX + MP_PHASE_COUNT]; /* of both, what got worse */
    size_t n_worse;
    char note[RP_NOTES][200];
    size_t n_note;
};

/* r: the reports of before and after, p: their profiles. *out is the caller's until rp_compare_free. */
int rp_compare(struct rp_compare **out, struct rp_report *const r[2], struct rp_profile *const p[2],
               struct mp_err *err);
void rp_compare_free(struct rp_compare *c);

/* Facts that differ; used for one pair of reports. Returns how many were written. */
size_t rp_differences(struct rp_difference *out, size_t max, const struct rp_report *before,
                      const struct rp_report *after);

/* Sentences: was it the same data, and what did moeprof itself cost both runs. */
void rp_compare_data_text(char *out, size_t n, const struct rp_same_data *d);
void rp_compare_cost_text(char *out, size_t n, const struct rp_compare *c);

int rp_render_compare_text(FILE *f, const struct rp_compare *c, struct mp_err *err);
/* At most 60 lines, for a comment on a pull request. */
int rp_render_compare_md(FILE *f, const struct rp_compare *c, struct mp_err *err);
int rp_render_compare_json(FILE *f, const struct rp_compare *c, struct mp_err *err);

#endif
