/* Statistics against known answers: hand-computed, from published tables, from textbook data; refused
 * input; and how often the intervals cover the truth. */
#include "report/stats.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%.9g is not %.9g within %g", got, want, tolerance);
}

/* ---- random numbers and distributions ----------------------------------------------------------- */

/* The first numbers of the reference implementation's demo (seed 42, stream 54). */
static void pcg_reference(void **state)
{
    static const uint32_t want[] = {0xa15c02b7, 0x7b47f409, 0xba1d3330,
                                    0x83d2f293, 0xbfa4784b, 0xcbed606e};
    struct rp_pcg g;
    unsigned seen[6] = {0};

    (void)state;
    rp_pcg_seed(&g, 42, 54);
    for (size_t i = 0; i < countof(want); i++)
        assert_int_equal(rp_pcg_next(&g), want[i]);
    for (int i = 0; i < 60000; i++) {
        uint32_t v = rp_pcg_below(&g, 6);

        assert_true(v < 6);
        seen[v]++;
    }
    for (int i = 0; i < 6; i++)
        near(seen[i], 10000, 400); /* 4 sigma are 365 */
    assert_int_equal(rp_pcg_below(&g, 1), 0);
}

static void distributions(void **state)
{
    static const struct {
        unsigned df;
        double p, t; /* any printed table of Student's t */
    } row[] = {{1, 0.975, 12.7062}, {2, 0.975, 4.30265},  {4, 0.975, 2.77645},  {9, 0.975, 2.26216},
               {10, 0.95, 1.81246}, {29, 0.975, 2.04523}, {120, 0.995, 2.61742}};

    (void)state;
    near(rp_norm_cdf(1.959964), 0.975, 1e-7);
    near(rp_norm_quantile(0.975), 1.959964, 1e-6);
    near(rp_norm_quantile(0.5), 0, 1e-12);
    near(rp_norm_quantile(1e-4), -3.719016, 1e-6);
    for (size_t i = 0; i < countof(row); i++) {
        near(rp_t_quantile(row[i].p, row[i].df), row[i].t, 6e-5);
        near(rp_t_cdf(-row[i].t, row[i].df), 1 - row[i].p, 1e-6);
    }
    near(rp_t_cdf(2, 1), 0.5 + atan(2) / M_PI, 1e-12); /* Cauchy */
}

/* ---- one sample --------------------------------------------------------------------------------- */

static void spread(void **state)
{
    static const double x[] = {7, 1, 3, 10, 4}, one[] = {5}, same[] = {2, 2, 2, 2};
    struct rp_spread s;
    double ratio;

    (void)state;
    assert_int_equal(rp_spread(&s, x, 5), MP_OK);
    near(s.min, 1, 0);
    near(s.q1, 3, 1e-12);
    near(s.median, 4, 1e-12);
    near(s.q3, 7, 1e-12);
    near(s.max, 10, 0);
    near(s.mean, 5, 1e-12);
    near(s.sd, sqrt(50.0 / 4), 1e-12);
    near(s.mad, 3, 1e-12); /* 3 3 1 6 0 */
    assert_true(x[0] == 7 && x[4] == 4);
    assert_int_equal(rp_spread(&s, one, 1), MP_OK);
    assert_true(s.median == 5 && s.sd == 0 && s.mad == 0 && s.q1 == 5);
    assert_int_equal(rp_spread(&s, same, 4), MP_OK);
    assert_true(s.mad == 0 && s.sd == 0 && s.q3 == 2);
    assert_int_equal(rp_spread(&s, NULL, 0), MP_ENOTSUP);
    assert_int_equal(rp_ratio_of_sums(&ratio, (const double[]){1, 9}, (const double[]){1, 3}, 2),
                     MP_OK);
    near(ratio, 2.5, 0); /* not 2, the mean of the ratios */
    assert_int_equal(rp_ratio_of_sums(&ratio, NULL, (const double[]){1, 3}, 2), MP_OK);
    near(ratio, 0.5, 0);
    assert_int_equal(rp_ratio_of_sums(&ratio, NULL, NULL, 0), MP_ENOTSUP);
}

/* ---- series ------------------------------------------------------------------------------------- */

static void series(void **state)
{
    static const double up[] = {1, 2, 3, 4, 5}, zigzag[] = {1, -1, 1, -1, 1, -1},
                        same[] = {0.1, 0.1, 0.1, 0.1}, shuffled[] = {3, 1, 4, 2, 5, 2, 4, 1, 3};
    struct rp_drift d;
    double r;

    (void)state;
    assert_int_equal(rp_lag1(&r, up, 5), MP_OK);
    near(r, 0.4, 1e-12); /* (2 + 0 + 0 + 2) / 10 */
    assert_int_equal(rp_lag1(&r, zigzag, 6), MP_OK);
    near(r, -5.0 / 6, 1e-12);
    assert_int_equal(rp_lag1(&r, same, 4), MP_ENOTSUP);
    assert_int_equal(rp_lag1(&r, up, 2), MP_ENOTSUP);

    assert_int_equal(rp_drift(&d, up, 5), MP_OK);
    near(d.slope, 1, 1e-12);
    near(d.p, 2 * rp_norm_cdf(-9 / sqrt(50.0 / 3)), 1e-12); /* S = 10, variance 5 4 15 / 18 */
    assert_int_equal(rp_drift(&d, shuffled, 9), MP_OK);
    assert_true(d.p > 0.9 && fabs(d.slope) < 0.2);
    assert_int_equal(rp_drift(&d, same, 4), MP_OK);
    assert_true(d.p == 1 && d.slope == 0);
    assert_int_equal(rp_drift(&d, up, 3), MP_ENOTSUP);
}

/* Uniform noise of the width w around 0. */
static double noise(struct rp_pcg *g, double w)
{
    return w * ((double)rp_pcg_next(g) / 4294967296.0 - 0.5);
}

static void changes(void **state)
{
    struct rp_pcg g;
    double x[200];
    size_t at;
    int wrong = 0;

    (void)state;
    rp_pcg_seed(&g, 7, 7);
    for (int i = 0; i < 200; i++) /* warm-up until 23, a second level until 90 */
        x[i] = (i < 23 ? 1.5 : i < 90 ? 1.1 : 1.0) + noise(&g, 0.04);
    assert_int_equal(rp_last_change(&at, x, 200), MP_OK);
    assert_int_equal(at, 90);
    assert_int_equal(rp_last_change(&at, x, 90), MP_OK);
    assert_int_equal(at, 23);
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 60; i++)
            x[i] = 1 + noise(&g, 0.1) + noise(&g, 0.1);
        assert_int_equal(rp_last_change(&at, x, 60), MP_OK);
        wrong += at != 0;
    }
    assert_true(wrong <= 10); /* 5 % */
    for (int i = 0; i < 8; i++)
        x[i] = 3;
    assert_int_equal(rp_last_change(&at, x, 8), MP_OK);
    assert_int_equal(at, 0);
    assert_int_equal(rp_last_change(&at, x, 3), MP_ENOTSUP);
}

/* ---- ranks -------------------------------------------------------------------------------------- */

/* Hollander and Wolfe: depression scores of nine patients, before minus after. */
static const double depression[] = {0.952, -0.147, 1.022, 0.43, 0.62, 0.59, 0.49, -0.08, 0.01};

static void wilcoxon(void **state)
{
    static const double three[] = {1, 2, 3}, tied[] = {1, -1, 2, 0, 2}, zero[] = {0, 0};
    double many[60], hl;
    struct rp_rank_test t;

    (void)state;
    assert_int_equal(rp_wilcoxon(&t, depression, 9), MP_OK);
    assert_true(t.is_exact && t.n == 9);
    near(t.statistic, 40, 0);
    near(t.p, 2 * 10.0 / 512, 1e-12); /* published: 0.0195 one-sided */
    assert_int_equal(rp_hodges_lehmann(&hl, depression, 9), MP_OK);
    near(hl, 0.46, 1e-9); /* published */
    assert_int_equal(rp_wilcoxon(&t, three, 3), MP_OK);
    near(t.p, 0.25, 1e-12);
    /* ranks 1.5 1.5 3.5 3.5, W+ = 8.5: of 16 sign patterns 8.5 or more comes up 3 times */
    assert_int_equal(rp_wilcoxon(&t, tied, 5), MP_OK);
    assert_true(t.n == 4);
    near(t.statistic, 8.5, 0);
    near(t.p, 6.0 / 16, 1e-12);
    assert_int_equal(rp_wilcoxon(&t, zero, 2), MP_OK);
    assert_true(t.n == 0 && t.p == 1);
    assert_int_equal(rp_wilcoxon(&t, NULL, 0), MP_OK);
    assert_true(t.p == 1);
    for (int i = 0; i < 60; i++) /* beyond the exact range: W+ = 1830 - 465 */
        many[i] = (i < 30 ? -1 : 1) * (i + 1.0);
    assert_int_equal(rp_wilcoxon(&t, many, 60), MP_OK);
    assert_false(t.is_exact);
    near(t.statistic, 1365, 0);
    near(t.p, 2 * rp_norm_cdf(-(1365 - 915 - 0.5) / sqrt(60.0 * 61 * 121 / 24)), 1e-12);
}

/* Critical values of the printed tables: the largest W with two-sided p <= 0.05. */
static void wilcoxon_table(void **state)
{
    static const struct {
        int n, w;
    } row[] = {{6, 0}, {7, 2}, {8, 3}, {9, 5}, {10, 8}, {12, 13}, {15, 25}, {20, 52}, {25, 89}};

    (void)state;
    for (size_t i = 0; i < countof(row); i++) {
        for (int past = 0; past < 2; past++) {
            double d[25];
            int left = row[i].w + past;
            struct rp_rank_test t;

            for (int k = row[i].n; k >= 1; k--) { /* positive ranks that sum to w */
                d[k - 1] = k <= left ? k : -k;
                left -= k <= left ? k : 0;
            }
            assert_int_equal(rp_wilcoxon(&t, d, (size_t)row[i].n), MP_OK);
            near(t.statistic, row[i].w + past, 0);
            assert_true(past ? t.p > 0.05 : t.p <= 0.05);
        }
    }
}

static void mann_whitney(void **state)
{
    /* Hollander and Wolfe: permeability of membranes at two ages. */
    static const double x[] = {0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46},
                        y[] = {1.15, 0.88, 0.90, 0.74, 1.21}, low[] = {1, 2, 3}, high[] = {4, 5, 6},
                        tie_a[] = {1, 2}, tie_b[] = {2, 3};
    double a[40], b[40], shift;
    struct rp_rank_test t;

    (void)state;
    assert_int_equal(rp_mann_whitney(&t, x, 10, y, 5), MP_OK);
    near(t.statistic, 35, 0);
    near(t.p, 0.2544, 5e-5); /* published: 0.1272 one-sided */
    assert_int_equal(rp_hodges_lehmann_shift(&shift, y, 5, x, 10), MP_OK);
    near(shift, 0.305, 1e-9); /* published */
    assert_int_equal(rp_mann_whitney(&t, low, 3, high, 3), MP_OK);
    assert_true(t.statistic == 0);
    near(t.p, 0.1, 1e-12); /* 2 of 20 */
    /* ranks 1 2.5 2.5 4: rank sums of two are 3.5 3.5 5 5 6.5 6.5, seen 3.5 */
    assert_int_equal(rp_mann_whitney(&t, tie_a, 2, tie_b, 2), MP_OK);
    near(t.p, 4.0 / 6, 1e-12);
    for (int i = 0; i < 40; i++) {
        a[i] = i;
        b[i] = i + 0.5;
    }
    assert_int_equal(rp_mann_whitney(&t, a, 40, b, 40), MP_OK);
    assert_false(t.is_exact);
    near(t.p, 2 * rp_norm_cdf(-(800 - 780 - 0.5) / sqrt(1600.0 * 81 / 12)), 1e-12);
    assert_int_equal(rp_mann_whitney(&t, a, 40, NULL, 0), MP_ENOTSUP);
    for (int i = 0; i < 40; i++)
        a[i] = b[i] = 3;
    assert_int_equal(rp_mann_whitney(&t, a, 40, b, 40), MP_OK);
    assert_true(t.p == 1);
}

/* ---- intervals ---------------------------------------------------------------------------------- */

static double normal(struct rp_pcg *g)
{
    return rp_norm_quantile(((double)rp_pcg_next(g) + 0.5) / 4294967296.0);
}

/* Few heavy values among many small ones, as steps with a pause are. */
static double skewed(struct rp_pcg *g)
{
    return -log(((double)rp_pcg_next(g) + 0.5) / 4294967296.0);
}

static double coverage(double (*draw)(struct rp_pcg *), double truth, size_t n, int rounds)
{
    struct rp_pcg g;
    int hit = 0;

    rp_pcg_seed(&g, n, 11);
    for (int round = 0; round < rounds; round++) {
        struct rp_interval in;
        double x[64];

        for (size_t i = 0; i < n; i++)
            x[i] = draw(&g);
        assert_int_equal(rp_boot_mean(&in, x, n, (uint64_t)round), MP_OK);
        assert_true(in.low <= in.value && in.value <= in.high);
        hit += in.low <= truth && truth <= in.high;
    }
    return (double)hit / rounds;
}

static void intervals_cover(void **state)
{
    (void)state;
    near(coverage(normal, 0, 10, 500), 0.95, 0.03); /* 3 sigma of 500 are 0.029 */
    near(coverage(normal, 0, 20, 300), 0.95, 0.04);
    near(coverage(skewed, 1, 20, 300), 0.95, 0.05);
}

static void unpaired_covers(void **state)
{
    const double truth = log(1.1);
    struct rp_pcg g;
    int hit = 0, rounds = 200;

    (void)state;
    rp_pcg_seed(&g, 5, 12);
    for (int round = 0; round < rounds; round++) {
        struct rp_interval in;
        double a[40], b[30];

        for (int i = 0; i < 40; i++)
            a[i] = 1.1 * (1 + 0.05 * normal(&g));
        for (int i = 0; i < 30; i++)
            b[i] = 1 + 0.05 * normal(&g);
        assert_int_equal(rp_boot_unpaired(&in, &(struct rp_series){NULL, a, 40},
                                          &(struct rp_series){NULL, b, 30}, (uint64_t)round),
                         MP_OK);
        hit += in.low <= truth && truth <= in.high;
    }
    near((double)hit / rounds, 0.95, 0.05);
}

static void intervals_degenerate(void **state)
{
    static const double same[] = {3, 3, 3, 3}, two[] = {1, 2}, num[] = {1, 9}, den[] = {1, 3},
                        gone[] = {1, 0};
    struct rp_interval in, again;
    double d;

    (void)state;
    assert_int_equal(rp_boot_mean(&in, same, 4, 1), MP_OK);
    assert_true(in.value == 3 && in.low == 3 && in.high == 3);
    assert_int_equal(rp_boot_mean(&in, two, 2, 1), MP_OK);
    assert_true(in.value == 1.5 && in.low == 1 && in.high == 2);
    assert_int_equal(rp_boot_mean(&in, two, 1, 1), MP_ENOTSUP);
    assert_int_equal(rp_boot_mean(&in, NULL, 0, 1), MP_ENOTSUP);
    assert_int_equal(rp_boot_ratio(&in, num, den, 2, 1), MP_OK);
    near(in.value, 2.5, 0);
    assert_int_equal(rp_boot_ratio(&in, num, gone, 2, 1), MP_EINVAL);
    assert_int_equal(rp_boot_mean(&in, depression, 9, 77), MP_OK);
    assert_int_equal(rp_boot_mean(&again, depression, 9, 77), MP_OK);
    assert_memory_equal(&in, &again, sizeof in); /* the seed is all there is to chance */
    assert_int_equal(rp_boot_mean(&again, depression, 9, 78), MP_OK);
    assert_true(in.low != again.low || in.high != again.high);

    assert_int_equal(rp_detectable(&d, 0.02, 10), MP_OK);
    near(d, (2.26216 + 0.88340) * 0.02 / sqrt(10), 1e-6);
    assert_int_equal(rp_detectable(&d, 0, 10), MP_OK);
    assert_true(d == 0);
    assert_int_equal(rp_detectable(&d, 1, 1), MP_ENOTSUP);
    assert_int_equal(rp_detectable(&d, NAN, 10), MP_EINVAL);
}

/* NaN anywhere is refused, never averaged away. */
static void nan_refused(void **state)
{
    const double bad[] = {1, NAN, 2, 3, 4}, inf[] = {1, 2, INFINITY, 4, 5},
                 good[] = {1, 2, 3, 4, 5};
    struct rp_spread s;
    struct rp_interval in;
    struct rp_rank_test t;
    struct rp_drift d;
    size_t at;
    double v;

    (void)state;
    for (int i = 0; i < 2; i++) {
        const double *x = i ? inf : bad;

        assert_int_equal(rp_spread(&s, x, 5), MP_EINVAL);
        assert_int_equal(rp_ratio_of_sums(&v, x, good, 5), MP_EINVAL);
        assert_int_equal(rp_ratio_of_sums(&v, good, x, 5), MP_EINVAL);
        assert_int_equal(rp_lag1(&v, x, 5), MP_EINVAL);
        assert_int_equal(rp_drift(&d, x, 5), MP_EINVAL);
        assert_int_equal(rp_last_change(&at, x, 5), MP_EINVAL);
        assert_int_equal(rp_wilcoxon(&t, x, 5), MP_EINVAL);
        assert_int_equal(rp_mann_whitney(&t, x, 5, good, 5), MP_EINVAL);
        assert_int_equal(rp_mann_whitney(&t, good, 5, x, 5), MP_EINVAL);
        assert_int_equal(rp_hodges_lehmann(&v, x, 5), MP_EINVAL);
        assert_int_equal(rp_hodges_lehmann_shift(&v, good, 5, x, 5), MP_EINVAL);
        assert_int_equal(rp_boot_mean(&in, x, 5, 1), MP_EINVAL);
        assert_int_equal(rp_boot_ratio(&in, x, good, 5, 1), MP_EINVAL);
        assert_int_equal(rp_boot_unpaired(&in, &(struct rp_series){NULL, x, 5},
                                          &(struct rp_series){NULL, good, 5}, 1),
                         MP_EINVAL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pcg_reference),
        cmocka_unit_test(distributions),
        cmocka_unit_test(spread),
        cmocka_unit_test(series),
        cmocka_unit_test(changes),
        cmocka_unit_test(wilcoxon),
        cmocka_unit_test(wilcoxon_table),
        cmocka_unit_test(mann_whitney),
        cmocka_unit_test(intervals_cover),
        cmocka_unit_test(unpaired_covers),
        cmocka_unit_test(intervals_degenerate),
        cmocka_unit_test(nan_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
