/* Is a series in time steady? Autocorrelation, trend, changes of level. */
#include "report/stats.h"

#include <math.h>
#include <stdlib.h>

#include "report/stats_part.h"

int rp_lag1(double *out, const double *x, size_t n)
{
    int rc = rp_sample_check(x, n, 3);
    double mean = 0, around = 0, beside = 0;

    *out = 0;
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++)
        mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++) {
        around += (x[i] - mean) * (x[i] - mean);
        beside += i ? (x[i] - mean) * (x[i - 1] - mean) : 0;
    }
    if (!(around > 1e-24 * mean * mean * (double)n)) /* equal but for rounding */
        return MP_ENOTSUP;
    *out = beside / around;
    return MP_OK;
}

/* ---- trend -------------------------------------------------------------------------------------- */

/* Variance of Kendall's S: each group of t equal values takes t(t-1)(2t+5) away. */
static double kendall_variance(const double *sorted, size_t n)
{
    double v = (double)n * (double)(n - 1) * (double)(2 * n + 5);

    for (size_t i = 0; i < n;) {
        size_t t = 1;

        while (i + t < n && sorted[i + t] == sorted[i])
            t++;
        v -= (double)t * (double)(t - 1) * (double)(2 * t + 5);
        i += t;
    }
    return v / 18;
}

static double kendall_p(double s, double variance)
{
    double z;

    if (variance <= 0 || s == 0)
        return 1;
    z = (fabs(s) - 1) / sqrt(variance);
    return fmin(1, 2 * rp_norm_cdf(-z));
}

int rp_drift(struct rp_drift *out, const double *x, size_t n)
{
    int rc = rp_sample_check(x, n, 4);
    double *slope, *sorted, s = 0;
    size_t k = 0;

    *out = (struct rp_drift){.p = 1};
    if (rc)
        return rc;
    slope = malloc(n * (n - 1) / 2 * sizeof *slope);
    sorted = rp_sorted(x, n);
    if (slope && sorted) {
        for (size_t i = 0; i < n; i++)
            for (size_t j = i + 1; j < n; j++) {
                slope[k++] = (x[j] - x[i]) / (double)(j - i);
                s += (x[j] > x[i]) - (x[j] < x[i]);
            }
        out->slope = rp_median_in_place(slope, k);
        out->p = kendall_p(s, kendall_variance(sorted, n));
    }
    rc = slope && sorted ? MP_OK : MP_ENOMEM;
    free(slope);
    free(sorted);
    return rc;
}

/* ---- changes of level --------------------------------------------------------------------------- */

/* Noise variance from the first differences: a change of level spoils one of them, not the median. */
static int noise_variance(double *out, const double *x, size_t n)
{
    double *d = malloc(n * sizeof *d), sigma;

    if (!d)
        return MP_ENOMEM;
    for (size_t i = 1; i < n; i++)
        d[i - 1] = fabs(x[i] - x[i - 1]);
    sigma =
        rp_median_in_place(d, n - 1) / (0.6745 * sqrt(2)); /* MAD to sigma; a difference has 2 */
    free(d);
    *out = sigma * sigma;
    return MP_OK;
}

struct change {
    double *sum, *square; /* (n + 1), of the first i values */
    double *cost;         /* (n + 1), best of the first i values */
    size_t *from;         /* (n + 1), where the last segment of that begins */
};

static double segment_cost(const struct change *c, size_t from, size_t to)
{
    double sum = c->sum[to] - c->sum[from];

    return fmax(0, c->square[to] - c->square[from] - sum * sum / (double)(to - from));
}

/* All segmentations of the first i values end in a last segment: the best one is kept. */
static void change_solve(struct change *c, size_t n, double penalty)
{
    c->cost[0] = -penalty;
    for (size_t to = 1; to <= n; to++) {
        c->cost[to] = INFINITY;
        for (size_t from = 0; from < to; from++) {
            double cost = c->cost[from] + segment_cost(c, from, to) + penalty;

            if (cost < c->cost[to]) {
                c->cost[to] = cost;
                c->from[to] = from;
            }
        }
    }
}

static void change_sums(struct change *c, const double *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double v = x[i] - x[0]; /* small numbers: squares of large ones cancel badly */

        c->sum[i + 1] = c->sum[i] + v;
        c->square[i + 1] = c->square[i] + v * v;
    }
}

int rp_last_change(size_t *out, const double *x, size_t n)
{
    int rc = rp_sample_check(x, n, 4);
    struct change c;
    double variance = 0;

    *out = 0;
    if (rc)
        return rc;
    if (n > RP_CHANGE_MAX)
        return MP_ENOTSUP;
    if ((rc = noise_variance(&variance, x, n)))
        return rc;
    c.sum = calloc(3 * (n + 1), sizeof *c.sum);
    c.from = calloc(n + 1, sizeof *c.from);
    if (c.sum && c.from) {
        c.square = c.sum + n + 1;
        c.cost = c.square + n + 1;
        change_sums(&c, x, n);
        change_solve(&c, n, 3 * log((double)n) * variance + 1e-12);
        *out = c.from[n];
    }
    rc = c.sum && c.from ? MP_OK : MP_ENOMEM;
    free(c.sum);
    free(c.from);
    return rc;
}
