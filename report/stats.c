/* Random numbers, distributions, and what describes one sample. Ranks are in stats_rank.c, series in
 * time in stats_series.c, resampling in stats_boot.c. */
#include "report/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report/stats_part.h"

/* ---- random numbers ----------------------------------------------------------------------------- */

void rp_pcg_seed(struct rp_pcg *g, uint64_t seed, uint64_t stream)
{
    *g = (struct rp_pcg){0, stream << 1 | 1};
    rp_pcg_next(g);
    g->state += seed;
    rp_pcg_next(g);
}

uint32_t rp_pcg_next(struct rp_pcg *g)
{
    uint64_t old = g->state;
    uint32_t mixed = (uint32_t)((old >> 18 ^ old) >> 27), turn = (uint32_t)(old >> 59);

    g->state = old * 6364136223846793005ull + g->inc; /* the multiplier of the PCG paper */
    return mixed >> turn | mixed << (-turn & 31);
}

uint32_t rp_pcg_below(struct rp_pcg *g, uint32_t bound)
{
    uint64_t wide = (uint64_t)rp_pcg_next(g) * bound;
    uint32_t floor_of_bias = -bound % bound;

    while ((uint32_t)wide < floor_of_bias)
        wide = (uint64_t)rp_pcg_next(g) * bound;
    return (uint32_t)(wide >> 32);
}

/* ---- distributions ------------------------------------------------------------------------------ */

double rp_norm_cdf(double z)
{
    return 0.5 * erfc(-z / sqrt(2));
}

/* Bisection: exact to the last bits, and fast enough for the few that are asked for. */
static double invert(double (*cdf)(double, unsigned), unsigned df, double p)
{
    double low = -1, high = 1;

    while (cdf(low, df) > p)
        low *= 2;
    while (cdf(high, df) < p)
        high *= 2;
    for (int i = 0; i < 200 && low < high; i++) {
        double mid = low + (high - low) / 2;

        if (mid <= low || mid >= high)
            break;
        if (cdf(mid, df) < p)
            low = mid;
        else
            high = mid;
    }
    return low + (high - low) / 2;
}

static double norm_cdf_of(double z, unsigned unused)
{
    (void)unused;
    return rp_norm_cdf(z);
}

double rp_norm_quantile(double p)
{
    return invert(norm_cdf_of, 0, p);
}

/* The finite series in the angle (Abramowitz and Stegun 26.7.3 and 26.7.4). */
double rp_t_cdf(double t, unsigned df)
{
    double angle = atan2(t, sqrt(df)), c = cos(angle), term = 1, sum = 0, inside;

    if (df > 10000)
        return rp_norm_cdf(t);
    if (df % 2) {
        term = c;
        for (unsigned k = 3; k <= df; k += 2) {
            sum += term;
            term *= c * c * (k - 1) / k;
        }
        inside = 2 / M_PI * (angle + sin(angle) * sum);
    } else {
        for (unsigned k = 2; k <= df; k += 2) {
            sum += term;
            term *= c * c * (k - 1) / k;
        }
        inside = sin(angle) * sum;
    }
    return 0.5 + inside / 2;
}

double rp_t_quantile(double p, unsigned df)
{
    return invert(rp_t_cdf, df, p);
}

/* ---- samples ------------------------------------------------------------------------------------ */

int rp_sample_check(const double *x, size_t n, size_t n_min)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return MP_EINVAL;
    return n < n_min ? MP_ENOTSUP : MP_OK;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double *rp_sorted(const double *x, size_t n)
{
    double *copy = malloc((n ? n : 1) * sizeof *copy);

    if (!copy)
        return NULL;
    if (n)
        memcpy(copy, x, n * sizeof *copy);
    qsort(copy, n, sizeof *copy, by_value);
    return copy;
}

double rp_sorted_quantile(const double *x, size_t n, double p)
{
    double at = p * (double)(n - 1);
    size_t i = (size_t)at;

    return i + 1 < n ? x[i] + (at - (double)i) * (x[i + 1] - x[i]) : x[n - 1];
}

double rp_median_in_place(double *x, size_t n)
{
    qsort(x, n, sizeof *x, by_value);
    return rp_sorted_quantile(x, n, 0.5);
}

static void moments(struct rp_spread *out, const double *x, size_t n)
{
    double sum = 0, square = 0;

    for (size_t i = 0; i < n; i++)
        sum += x[i];
    out->mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        square += (x[i] - out->mean) * (x[i] - out->mean);
    out->sd = n > 1 ? sqrt(square / (double)(n - 1)) : 0;
}

int rp_spread(struct rp_spread *out, const double *x, size_t n)
{
    int rc = rp_sample_check(x, n, 1);
    double *s;

    *out = (struct rp_spread){.n = n};
    if (rc)
        return rc;
    s = rp_sorted(x, n);
    if (!s)
        return MP_ENOMEM;
    out->min = s[0];
    out->q1 = rp_sorted_quantile(s, n, 0.25);
    out->median = rp_sorted_quantile(s, n, 0.5);
    out->q3 = rp_sorted_quantile(s, n, 0.75);
    out->max = s[n - 1];
    moments(out, x, n);
    for (size_t i = 0; i < n; i++)
        s[i] = fabs(x[i] - out->median);
    out->mad = rp_median_in_place(s, n);
    free(s);
    return MP_OK;
}

int rp_ratio_of_sums(double *out, const double *num, const double *den, size_t n)
{
    double above = 0, below = 0;

    if ((num && rp_sample_check(num, n, 0)) || rp_sample_check(den, n, 0))
        return MP_EINVAL;
    for (size_t i = 0; i < n; i++) {
        above += num ? num[i] : 1;
        below += den[i];
    }
    *out = 0;
    if (!(below > 0))
        return MP_ENOTSUP;
    *out = above / below;
    return MP_OK;
}
