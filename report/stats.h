/* Statistics of small samples: what a before/after needs and nothing more. Pure; any thread.
 *
 * Every function refuses NaN and infinities with MP_EINVAL, and says MP_ENOTSUP when the sample is too
 * small for the figure: a figure that cannot be known is not 0. Inputs are never reordered.
 * Random numbers are PCG-XSH-RR 64/32 from a seed that the caller records, so every figure can be had
 * again from the same series.
 */
#ifndef RP_STATS_H
#define RP_STATS_H

#include "profiler/core/base.h"

/* ---- random numbers ----------------------------------------------------------------------------- */

struct rp_pcg {
    uint64_t state, inc;
};

void rp_pcg_seed(struct rp_pcg *g, uint64_t seed, uint64_t stream);
uint32_t rp_pcg_next(struct rp_pcg *g);
/* Uniform in 0 .. bound-1, without modulo bias; bound > 0. */
uint32_t rp_pcg_below(struct rp_pcg *g, uint32_t bound);

/* ---- distributions ------------------------------------------------------------------------------ */

double rp_norm_cdf(double z);
/* p in (0, 1). */
double rp_norm_quantile(double p);
/* Student's t, df >= 1. */
double rp_t_cdf(double t, unsigned df);
double rp_t_quantile(double p, unsigned df);

/* ---- one sample --------------------------------------------------------------------------------- */

struct rp_spread {
    size_t n;
    double min, q1, median, q3,
        max;         /* quartiles interpolate between order statistics, R's type 7 */
    double mean, sd; /* sd 0 when n is 1 */
    double mad;      /* median of |x - median|, not scaled */
};

/* n >= 1. Also MP_ENOMEM. */
int rp_spread(struct rp_spread *out, const double *x, size_t n);

/* sum(num) / sum(den); num NULL stands for ones. Refuses a sum of den that is not above 0. */
int rp_ratio_of_sums(double *out, const double *num, const double *den, size_t n);

/* Lag-1 autocorrelation, n >= 3; MP_ENOTSUP when all are equal. */
int rp_lag1(double *out, const double *x, size_t n);

struct rp_drift {
    double slope; /* Theil-Sen: median slope per sample, in the unit of x */
    double p;     /* two-sided Mann-Kendall, normal with ties and continuity corrected */
};

/* n >= 4. Does the series go up or down with time? */
int rp_drift(struct rp_drift *out, const double *x, size_t n);

/* Where the mean of x changes for the last time: PELT's criterion (sum of squares within segments plus
 * a penalty for each, 3 log n noise variances, noise from the first differences), solved exactly.
 * *out is the index at which the last segment begins, 0 when there is only one. n <= RP_CHANGE_MAX. */
#define RP_CHANGE_MAX 4096
int rp_last_change(size_t *out, const double *x, size_t n);

/* ---- rank tests --------------------------------------------------------------------------------- */

struct rp_rank_test {
    double statistic; /* W+ of Wilcoxon, U of the first sample of Mann-Whitney */
    double p;         /* two-sided */
    bool is_exact;    /* from the full distribution, ties included; else normal, corrected */
    size_t n;         /* differences that are not 0; values of both samples */
};

/* Signed ranks of paired differences; zeros leave. n >= 1 after that, or p is 1. */
int rp_wilcoxon(struct rp_rank_test *out, const double *d, size_t n);
int rp_mann_whitney(struct rp_rank_test *out, const double *x, size_t n, const double *y, size_t m);

/* Median of the means of all pairs (i <= j). */
int rp_hodges_lehmann(double *out, const double *d, size_t n);
/* Median of all differences y - x. */
int rp_hodges_lehmann_shift(double *out, const double *x, size_t n, const double *y, size_t m);

/* ---- intervals ---------------------------------------------------------------------------------- */

#define RP_RESAMPLES 10000

struct rp_interval { /* 95 % */
    double value, low, high;
};

/* BCa bootstrap of the mean, n >= 2. The levels are widened as Student's t widens the normal one: a
 * plain percentile interval of 10 values falls well short of 95 % (test_stats.c counts what this covers). */
int rp_boot_mean(struct rp_interval *out, const double *x, size_t n, uint64_t seed);

/* The same of sum(num) / sum(den), pairs drawn together; num NULL: ones. */
int rp_boot_ratio(struct rp_interval *out, const double *num, const double *den, size_t n,
                  uint64_t seed);

struct rp_series { /* a run of steps in order; num NULL: ones */
    const double *num, *den;
    size_t n;
};

/* log of (y's ratio of sums / x's), two independent runs, each resampled in circular stretches of
 * n^(1/3) neighbours so that slow wandering widens the interval. */
int rp_boot_unpaired(struct rp_interval *out, const struct rp_series *x, const struct rp_series *y,
                     uint64_t seed);

/* The difference of means that n pairs with this standard deviation show in 4 of 5 experiments at the
 * two-sided 5 % level. n >= 2. */
int rp_detectable(double *out, double sd, size_t n);

#endif
