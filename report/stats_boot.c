/* Intervals by resampling. One loop for all: a statistic is a function of the indices drawn.
 *
 * One sample: BCa (bias-corrected and accelerated) with the widened levels that Hesterberg proposes for
 * small n: z becomes sqrt(n / (n - 1)) t, because the bootstrap divides by n where the variance asks for
 * n - 1, and knows the spread from n values only. */
#include "report/stats.h"

#include <math.h>
#include <stdlib.h>

#include "report/stats_part.h"

#define LEVEL 0.025 /* each side */

struct sample {
    const double *num, *den; /* den NULL: the mean of num; num NULL: ones */
};

static double statistic(const struct sample *s, const uint32_t *pick, size_t n)
{
    double above = 0, below = 0;

    for (size_t i = 0; i < n; i++) {
        above += s->num ? s->num[pick[i]] : 1;
        below += s->den ? s->den[pick[i]] : 1;
    }
    return above / below;
}

/* ---- BCa ---------------------------------------------------------------------------------------- */

/* Skewness of the influence of each value, from leaving it out. */
static double acceleration(const struct sample *s, uint32_t *pick, double *left, size_t n)
{
    double mean = 0, square = 0, cube = 0;

    for (size_t out = 0; out < n; out++) {
        size_t k = 0;

        for (size_t i = 0; i < n; i++)
            if (i != out)
                pick[k++] = (uint32_t)i;
        left[out] = statistic(s, pick, k);
        mean += left[out] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        double d = mean - left[i];

        square += d * d;
        cube += d * d * d;
    }
    return square > 0 ? cube / (6 * pow(square, 1.5)) : 0;
}

/* How far the middle of the resamples lies from the value itself, in z; ties count half. */
static double bias(const double *draw, size_t n, double value)
{
    double below = 0;

    for (size_t i = 0; i < n; i++)
        below += draw[i] < value ? 1 : draw[i] == value ? 0.5 : 0;
    below /= (double)n;
    return rp_norm_quantile(fmin(fmax(below, 1e-4), 1 - 1e-4));
}

static double widened(size_t n)
{
    return sqrt((double)n / (double)(n - 1)) * rp_t_quantile(1 - LEVEL, (unsigned)n - 1);
}

static double bca_level(double z, double z0, double a)
{
    double sum = z0 + z, scale = 1 - a * sum;

    return rp_norm_cdf(z0 + sum / fmax(scale, 0.1)); /* beyond that the correction runs away */
}

static int boot(struct rp_interval *out, const struct sample *s, size_t n, uint64_t seed)
{
    double *draw = malloc(RP_RESAMPLES * sizeof *draw), *left = malloc(n * sizeof *left);
    uint32_t *pick = malloc(n * sizeof *pick);
    int rc = draw && left && pick ? MP_OK : MP_ENOMEM;
    double a, z0, z = widened(n);
    struct rp_pcg g;

    rp_pcg_seed(&g, seed, 1);
    for (size_t i = 0; !rc && i < n; i++)
        pick[i] = (uint32_t)i;
    if (!rc) {
        out->value = statistic(s, pick, n);
        for (size_t k = 0; k < RP_RESAMPLES; k++) {
            for (size_t i = 0; i < n; i++)
                pick[i] = rp_pcg_below(&g, (uint32_t)n);
            draw[k] = statistic(s, pick, n);
        }
        a = acceleration(s, pick, left, n);
        z0 = bias(draw, RP_RESAMPLES, out->value);
        rp_median_in_place(draw, RP_RESAMPLES); /* sorts */
        out->low = rp_sorted_quantile(draw, RP_RESAMPLES, bca_level(-z, z0, a));
        out->high = rp_sorted_quantile(draw, RP_RESAMPLES, bca_level(z, z0, a));
    }
    free(draw);
    free(left);
    free(pick);
    return rc;
}

int rp_boot_mean(struct rp_interval *out, const double *x, size_t n, uint64_t seed)
{
    int rc = rp_sample_check(x, n, 2);

    *out = (struct rp_interval){0};
    return rc ? rc : boot(out, &(struct sample){x, NULL}, n, seed);
}

int rp_boot_ratio(struct rp_interval *out, const double *num, const double *den, size_t n,
                  uint64_t seed)
{
    *out = (struct rp_interval){0};
    if ((num && rp_sample_check(num, n, 0)) || rp_sample_check(den, n, 0))
        return MP_EINVAL;
    for (size_t i = 0; i < n; i++)
        if (!(den[i] > 0))
            return MP_EINVAL;
    return n < 2 ? MP_ENOTSUP : boot(out, &(struct sample){num, den}, n, seed);
}

/* ---- two runs ----------------------------------------------------------------------------------- */

/* Circular stretches, so that every step is drawn equally often. */
static void draw_stretches(uint32_t *pick, size_t n, struct rp_pcg *g)
{
    size_t length = (size_t)fmax(1, round(cbrt((double)n)));

    for (size_t i = 0; i < n; i += length) {
        uint32_t from = rp_pcg_below(g, (uint32_t)n);

        for (size_t k = i; k < i + length && k < n; k++) {
            pick[k] = from;
            from = from + 1 < n ? from + 1 : 0;
        }
    }
}

static int series_check(const struct rp_series *s)
{
    if ((s->num && rp_sample_check(s->num, s->n, 0)) || rp_sample_check(s->den, s->n, 0))
        return MP_EINVAL;
    for (size_t i = 0; i < s->n; i++)
        if (!(s->den[i] > 0) || (s->num && !(s->num[i] > 0)))
            return MP_EINVAL;
    return s->n < 2 ? MP_ENOTSUP : MP_OK;
}

static double log_ratio(const struct rp_series *x, const uint32_t *px, const struct rp_series *y,
                        const uint32_t *py)
{
    return log(statistic(&(struct sample){y->num, y->den}, py, y->n) /
               statistic(&(struct sample){x->num, x->den}, px, x->n));
}

int rp_boot_unpaired(struct rp_interval *out, const struct rp_series *x, const struct rp_series *y,
                     uint64_t seed)
{
    size_t fewer = x->n < y->n ? x->n : y->n;
    uint32_t *px, *py;
    double *draw, level;
    struct rp_pcg g;
    int rc;

    *out = (struct rp_interval){0};
    if ((rc = series_check(x)) || (rc = series_check(y)))
        return rc;
    px = calloc(x->n + y->n, sizeof *px);
    draw = malloc(RP_RESAMPLES * sizeof *draw);
    if (px && draw) {
        py = px + x->n;
        for (size_t i = 0; i < x->n + y->n; i++)
            px[i] = (uint32_t)(i < x->n ? i : i - x->n);
        out->value = log_ratio(x, px, y, py);
        rp_pcg_seed(&g, seed, 2);
        for (size_t k = 0; k < RP_RESAMPLES; k++) {
            draw_stretches(px, x->n, &g);
            draw_stretches(py, y->n, &g);
            draw[k] = log_ratio(x, px, y, py);
        }
        rp_median_in_place(draw, RP_RESAMPLES);
        level = rp_norm_cdf(-widened(fewer));
        out->low = rp_sorted_quantile(draw, RP_RESAMPLES, level);
        out->high = rp_sorted_quantile(draw, RP_RESAMPLES, 1 - level);
    }
    rc = px && draw ? MP_OK : MP_ENOMEM;
    free(px);
    free(draw);
    return rc;
}

int rp_detectable(double *out, double sd, size_t n)
{
    *out = 0;
    if (!isfinite(sd) || sd < 0)
        return MP_EINVAL;
    if (n < 2)
        return MP_ENOTSUP;
    *out = (rp_t_quantile(1 - LEVEL, (unsigned)n - 1) + rp_t_quantile(0.8, (unsigned)n - 1)) * sd /
           sqrt((double)n);
    return MP_OK;
}
