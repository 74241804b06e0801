/* Tests on ranks. Ties get the mean of their ranks; ranks are kept doubled, so that they are integers
 * and the exact distribution, given the ties, is a count of subsets by their sum. */
#include "report/stats.h"

#include <math.h>
#include <stdlib.h>

#include "report/stats_part.h"

#define EXACT_MAX 50 /* values; 2^50 subsets still count exactly in a double */

struct ranked {
    double value;
    unsigned rank2; /* twice the rank */
    bool mark;      /* positive, or of the first sample */
};

static int by_value(const void *a, const void *b)
{
    double x = ((const struct ranked *)a)->value, y = ((const struct ranked *)b)->value;

    return (x > y) - (x < y);
}

/* Sorts and ranks; returns the sum of t^3 - t over groups of ties. */
static double rank(struct ranked *r, size_t n)
{
    double ties = 0;

    qsort(r, n, sizeof *r, by_value);
    for (size_t i = 0; i < n;) {
        size_t t = 1;

        while (i + t < n && r[i + t].value == r[i].value)
            t++;
        for (size_t k = i; k < i + t; k++)
            r[k].rank2 = (unsigned)(2 * i + t + 1); /* ranks i+1 .. i+t */
        ties += (double)t * (double)t * (double)t - (double)t;
        i += t;
    }
    return ties;
}

static size_t marked_sum(const struct ranked *r, size_t n)
{
    size_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += r[i].mark ? r[i].rank2 : 0;
    return sum;
}

/* Twice the smaller tail, the observed value in it. count[s], s = 0 .. max. */
static double two_sided(const double *count, size_t max, size_t at)
{
    double low = 0, high = 0, all = 0;

    for (size_t s = 0; s <= max; s++) {
        all += count[s];
        low += s <= at ? count[s] : 0;
        high += s >= at ? count[s] : 0;
    }
    return fmin(1, 2 * fmin(low, high) / all);
}

/* Normal, with half a rank of continuity. */
static double normal_p(double statistic, double mean, double variance)
{
    double away = fabs(statistic - mean) - 0.5;

    if (variance <= 0 || away <= 0)
        return 1;
    return fmin(1, 2 * rp_norm_cdf(-away / sqrt(variance)));
}

/* ---- one sample --------------------------------------------------------------------------------- */

static int wilcoxon_exact(double *p, const struct ranked *r, size_t n)
{
    size_t max = n * (n + 1), top = 0;
    double *count = calloc(max + 1, sizeof *count);

    if (!count)
        return MP_ENOMEM;
    count[0] = 1;
    for (size_t i = 0; i < n; i++) { /* rank i positive or not */
        top += r[i].rank2;
        for (size_t s = top; s + 1 > r[i].rank2; s--)
            count[s] += count[s - r[i].rank2];
    }
    *p = two_sided(count, max, marked_sum(r, n));
    free(count);
    return MP_OK;
}

int rp_wilcoxon(struct rp_rank_test *out, const double *d, size_t n)
{
    int rc = rp_sample_check(d, n, 0);
    struct ranked *r = calloc(n + 1, sizeof *r);
    size_t k = 0;
    double ties, m;

    *out = (struct rp_rank_test){.p = 1, .is_exact = true};
    for (size_t i = 0; r && !rc && i < n; i++)
        if (d[i] != 0)
            r[k++] = (struct ranked){.value = fabs(d[i]), .mark = d[i] > 0};
    if (r && !rc && k) {
        ties = rank(r, k);
        m = (double)k;
        out->n = k;
        out->statistic = (double)marked_sum(r, k) / 2;
        out->is_exact = k <= EXACT_MAX;
        if (out->is_exact)
            rc = wilcoxon_exact(&out->p, r, k);
        else
            out->p = normal_p(out->statistic, m * (m + 1) / 4,
                              m * (m + 1) * (2 * m + 1) / 24 - ties / 48);
    }
    free(r);
    return r ? rc : MP_ENOMEM;
}

int rp_hodges_lehmann(double *out, const double *d, size_t n)
{
    int rc = rp_sample_check(d, n, 1);
    double *mean;
    size_t k = 0;

    *out = 0;
    if (rc)
        return rc;
    mean = malloc(n * (n + 1) / 2 * sizeof *mean);
    if (!mean)
        return MP_ENOMEM;
    for (size_t i = 0; i < n; i++)
        for (size_t j = i; j < n; j++)
            mean[k++] = (d[i] + d[j]) / 2;
    *out = rp_median_in_place(mean, k);
    free(mean);
    return MP_OK;
}

/* ---- two samples -------------------------------------------------------------------------------- */

/* count[k][s]: subsets of k values with doubled ranks that sum to s. */
static int mann_whitney_exact(double *p, const struct ranked *r, size_t all, size_t n)
{
    size_t max = all * (all + 1), width = max + 1;
    double *count = calloc((n + 1) * width, sizeof *count);

    if (!count)
        return MP_ENOMEM;
    count[0] = 1;
    for (size_t i = 0; i < all; i++)
        for (size_t k = i + 1 < n ? i + 1 : n; k > 0; k--)
            for (size_t s = max; s + 1 > r[i].rank2; s--)
                count[k * width + s] += count[(k - 1) * width + s - r[i].rank2];
    *p = two_sided(count + n * width, max, marked_sum(r, all));
    free(count);
    return MP_OK;
}

static double mann_whitney_normal(double u, double n, double m, double ties)
{
    double all = n + m;

    return normal_p(u, n * m / 2, n * m / 12 * (all + 1 - ties / (all * (all - 1))));
}

int rp_mann_whitney(struct rp_rank_test *out, const double *x, size_t n, const double *y, size_t m)
{
    struct ranked *r;
    double ties;
    int rc = MP_OK;

    *out = (struct rp_rank_test){.p = 1, .n = n + m};
    if (rp_sample_check(x, n, 0) || rp_sample_check(y, m, 0))
        return MP_EINVAL;
    if (n == 0 || m == 0)
        return MP_ENOTSUP;
    r = calloc(n + m, sizeof *r);
    if (!r)
        return MP_ENOMEM;
    for (size_t i = 0; i < n + m; i++)
        r[i] = (struct ranked){.value = i < n ? x[i] : y[i - n], .mark = i < n};
    ties = rank(r, n + m);
    out->statistic = (double)marked_sum(r, n + m) / 2 - (double)n * (double)(n + 1) / 2;
    out->is_exact = n + m <= EXACT_MAX;
    if (out->is_exact)
        rc = mann_whitney_exact(&out->p, r, n + m, n);
    else
        out->p = mann_whitney_normal(out->statistic, (double)n, (double)m, ties);
    free(r);
    return rc;
}

/* All n x m differences; runs of thousands of steps are thinned evenly to RP_SHIFT_MAX each. */
#define RP_SHIFT_MAX 1500

static double at(const double *x, size_t n, size_t used, size_t i)
{
    return x[i * n / used];
}

int rp_hodges_lehmann_shift(double *out, const double *x, size_t n, const double *y, size_t m)
{
    size_t nx = n < RP_SHIFT_MAX ? n : RP_SHIFT_MAX, ny = m < RP_SHIFT_MAX ? m : RP_SHIFT_MAX,
           k = 0;
    double *d;

    *out = 0;
    if (rp_sample_check(x, n, 0) || rp_sample_check(y, m, 0))
        return MP_EINVAL;
    if (n == 0 || m == 0)
        return MP_ENOTSUP;
    d = malloc(nx * ny * sizeof *d);
    if (!d)
        return MP_ENOMEM;
    for (size_t i = 0; i < nx; i++)
        for (size_t j = 0; j < ny; j++)
            d[k++] = at(y, m, ny, j) - at(x, n, nx, i);
    *out = rp_median_in_place(d, k);
    free(d);
    return MP_OK;
}
