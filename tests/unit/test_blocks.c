/* Order, sums, verdicts. The properties that matter: equal arms are told apart in at most 1 of 20
 * experiments, whatever the noise looks like; a real difference is seen; drift favours nobody. */
#include "report/loss.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BLOCKS 10

/* ---- the order ---------------------------------------------------------------------------------- */

static void plan_laws(void **state)
{
    struct rp_plan_slot slot[2 * 11 * 3], again[2 * 11 * 3];
    int base_first = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++)
        for (unsigned n_arm = 2; n_arm <= 4; n_arm++)
            for (unsigned n_block = 1; n_block <= 11; n_block++) {
                size_t n = rp_plan_size(n_arm, n_block);
                unsigned count[4] = {0};

                assert_int_equal(n, 2 * n_block * (n_arm - 1));
                rp_plan_make(slot, n_arm, n_block, seed);
                rp_plan_make(again, n_arm, n_block, seed);
                assert_memory_equal(slot, again, n * sizeof *slot);
                for (size_t i = 0; i < n; i += 2) { /* a pair is the base and one other */
                    assert_int_equal(slot[i].pair, i / 2);
                    assert_int_equal(slot[i + 1].pair, i / 2);
                    assert_true((slot[i].arm == 0) != (slot[i + 1].arm == 0));
                    count[slot[i].arm]++;
                    count[slot[i + 1].arm]++;
                }
                for (unsigned a = 1; a < n_arm; a++)
                    assert_int_equal(count[a], n_block);
                base_first += n_arm == 2 && n_block == 2 && slot[0].arm == 0;
                for (size_t i = 0; n_arm == 2 && i + 3 < n; i += 4) /* ABBA or BAAB */
                    assert_true(slot[i].arm == slot[i + 3].arm &&
                                slot[i + 1].arm == slot[i + 2].arm);
            }
    assert_true(base_first > 30 && base_first < 70);
    assert_int_equal(rp_plan_size(1, 10), 0);
}

/* ---- sums --------------------------------------------------------------------------------------- */

static void block_sums(void **state)
{
    struct rp_ab_step step[20];
    struct rp_ab_block b = {.first_step = 12, .last_step = 15};

    (void)state;
    for (uint32_t i = 0; i < 20; i++)
        step[i] = (struct rp_ab_step){
            .step = 5 + i, .counts = true, .seconds = 0.5, .work = {NAN, 10, 12}};
    assert_int_equal(rp_work_choose(step, 20), RP_WORK_USEFUL);
    step[3].work[RP_WORK_USEFUL] = NAN;
    assert_int_equal(rp_work_choose(step, 20), RP_WORK_PROCESSED);
    step[3].counts = false; /* what does not count need not be known */
    assert_int_equal(rp_work_choose(step, 20), RP_WORK_USEFUL);
    rp_block_sum(&b, step, 20, RP_WORK_USEFUL);
    assert_true(b.n_step == 4 && b.seconds == 2 && b.work == 40 && !b.is_cut);
    step[8].counts = false; /* step 13 */
    rp_block_sum(&b, step, 20, RP_WORK_STEP);
    assert_true(b.n_step == 3 && b.work == 3 && !b.is_cut);
    step[9].counts = step[10].counts = false;
    rp_block_sum(&b, step, 20, RP_WORK_STEP);
    assert_true(b.n_step == 1 && b.is_cut);
    b = (struct rp_ab_block){.first_step = 100, .last_step = 107};
    rp_block_sum(&b, step, 20, RP_WORK_STEP);
    assert_true(b.n_step == 0 && b.is_cut);
    b = (struct rp_ab_block){.first_step = 7, .last_step = 6};
    rp_block_sum(&b, step, 20, RP_WORK_STEP);
    assert_true(b.is_cut);
    assert_int_equal(rp_work_choose(NULL, 0), RP_WORK_STEP);
}

/* ---- experiments -------------------------------------------------------------------------------- */

struct noise {
    double sd;     /* of a step, fraction */
    double wander; /* of an AR(1) with coefficient 0.95, a step */
    double drift;  /* over the whole run */
    double spike;  /* probability of a step that takes three times as long */
    double shift;  /* a clock that falls by that after the first third, fraction */
    int every; /* so many steps apart one takes half as long again: logging, a data loader that refills */
};

static double normal(struct rp_pcg *g)
{
    return rp_norm_quantile(((double)rp_pcg_next(g) + 0.5) / 4294967296.0);
}

/* A run in which the other arm takes `ratio` times less time. */
static struct rp_contrast experiment(const struct noise *noise, double ratio, unsigned n_block,
                                     uint64_t seed)
{
    struct rp_plan_slot slot[256];
    struct rp_ab_block block[256];
    size_t n = rp_plan_size(2, n_block);
    struct rp_contrast c;
    struct rp_pcg g;
    double ar = 0;

    rp_plan_make(slot, 2, n_block, seed);
    rp_pcg_seed(&g, seed, 99);
    for (size_t i = 0; i < n; i++) {
        block[i] = (struct rp_ab_block){.arm = slot[i].arm, .pair = slot[i].pair, .n_step = 8};
        for (int k = 0; k < RP_AB_STEPS; k++) {
            double at = (double)(i * 8 + (size_t)k) / (double)(n * 8);
            double t = 0.1 * (1 + noise->sd * normal(&g) + ar + noise->drift * at);

            ar = 0.95 * ar + noise->wander * normal(&g);
            t *= rp_pcg_next(&g) < noise->spike * 4294967296.0 ? 3 : 1;
            t *= at > 1.0 / 3 ? 1 + noise->shift : 1;
            t *= noise->every && (i * 8 + (size_t)k) % (size_t)noise->every == 0 ? 1.5 : 1;
            block[i].seconds += slot[i].arm ? t / ratio : t;
            block[i].work += 4096;
        }
    }
    assert_int_equal(rp_contrast(&c, block, n, 1, seed), MP_OK);
    assert_true(c.is_known && c.n_pair == n_block && c.n_cut == 0);
    assert_true(c.speedup.low <= c.speedup.value && c.speedup.value <= c.speedup.high);
    return c;
}

static const struct noise quiet = {.sd = 0.002}, rough = {.sd = 0.03},
                          wandering = {.sd = 0.005, .wander = 0.01},
                          drifting = {.sd = 0.005, .drift = 0.2},
                          spiky = {.sd = 0.01, .spike = 0.03},
                          throttling = {.sd = 0.004, .wander = 0.002, .shift = 0.06},
                          logging = {.sd = 0.004, .wander = 0.002, .every = 25};

static bool is_told_apart(const struct noise *noise, unsigned n_block, uint64_t seed)
{
    enum rp_verdict v = experiment(noise, 1, n_block, seed).verdict;

    return v == RP_FASTER || v == RP_SLOWER;
}

/* 1400 A/A runs over what disturbs a training: of no kind more than 5 % may tell equal arms apart. */
static void equal_arms(void **state)
{
    static const struct noise *const kind[] = {&quiet, &rough,      &wandering, &drifting,
                                               &spiky, &throttling, &logging};
    enum { RUNS = 200 };
    int all = 0;

    (void)state;
    for (size_t k = 0; k < countof(kind); k++) {
        int wrong = 0;

        for (uint64_t seed = 0; seed < RUNS; seed++)
            wrong += is_told_apart(kind[k], BLOCKS, RUNS * k + seed);
        if (wrong > RUNS / 20)
            fail_msg("noise %zu: %d of %d A/A runs tell equal arms apart", k, wrong, RUNS);
        all += wrong;
    }
    print_message("%d of %d A/A runs tell equal arms apart\n", all, (int)countof(kind) * RUNS);
}

/* The shortest runs that may be conclusive, many of them. */
static void equal_arms_few_blocks(void **state)
{
    static const struct noise *const kind[] = {&quiet, &rough, &wandering, &drifting, &spiky};
    int wrong = 0;

    (void)state;
    for (size_t k = 0; k < countof(kind); k++)
        for (uint64_t seed = 0; seed < 80; seed++)
            wrong += is_told_apart(kind[k], RP_MIN_PAIRS, 7000 * (k + 1) + seed);
    if (wrong > 20)
        fail_msg("%d of 400 A/A runs tell equal arms apart: more than 5 %%", wrong);
}

static void real_differences(void **state)
{
    int faster = 0, slower = 0, same = 0, drift = 0;
    double sum = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct rp_contrast c = experiment(&quiet, 1.05, BLOCKS, seed);

        faster += c.verdict == RP_FASTER;
        sum += c.speedup.value / 20;
        assert_true(fabs(c.hodges_lehmann - c.speedup.value) < 0.01);
        assert_true(fabs(c.ratio_of_sums - c.speedup.value) < 0.01);
        assert_true(c.wilcoxon.p < 0.01);
        slower += experiment(&quiet, 0.9, BLOCKS, seed).verdict == RP_SLOWER;
        same += experiment(&quiet, 1.001, BLOCKS, seed).verdict == RP_SAME;
        drift += experiment(&drifting, 1.1, BLOCKS, seed).verdict == RP_FASTER;
    }
    assert_true(faster == 20 && slower == 20);
    assert_true(same >= 18);
    assert_true(drift >= 19);
    assert_true(fabs(sum - 1.05) < 0.002);
}

/* What a run says it could have seen, another one sees beyond the same margin in about 4 of 5 cases. */
static void detectable_is_detected(void **state)
{
    int seen = 0, n = 60;

    (void)state;
    for (int seed = 0; seed < n; seed++) {
        struct rp_contrast said = experiment(&rough, 1, BLOCKS, 500 + (uint64_t)seed);
        double d = said.detectable.v;

        assert_true(d > said.margin && d < 0.2);
        seen +=
            experiment(&rough, 1 + d, BLOCKS, 700 + (uint64_t)seed).speedup.low > 1 + said.margin;
    }
    assert_true(seen >= n * 65 / 100 && seen <= n * 95 / 100);
}

/* Equal arms in noise that hides a tenth are not called equal. */
static void no_difference_means_something(void **state)
{
    static const struct noise wild = {.sd = 0.5};

    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct rp_contrast c = experiment(&wild, 1, BLOCKS, 900 + seed);

        if (c.verdict == RP_SAME)
            assert_true(c.speedup.low > 1 / (1 + RP_SAME_MAX) && c.speedup.high < 1 + RP_SAME_MAX);
        if (c.speedup.low > 1 / (1 + c.margin) && c.speedup.high < 1 + c.margin &&
            c.verdict == RP_INCONCLUSIVE)
            assert_non_null(strstr(c.why, "too wide to say"));
    }
}

/* A loss under the other arm that is the same, or off, while the training goes on and batches differ. */
static struct rp_loss losses(double shift, uint64_t seed)
{
    struct rp_plan_slot slot[2 * 2 * BLOCKS];
    struct rp_ab_block block[2 * BLOCKS];
    struct rp_loss l;
    struct rp_pcg g;

    rp_plan_make(slot, 2, BLOCKS, seed);
    rp_pcg_seed(&g, seed, 98);
    for (size_t i = 0; i < 2 * BLOCKS; i++) {
        block[i] = (struct rp_ab_block){.arm = slot[i].arm, .pair = slot[i].pair};
        block[i].loss = 3 - 0.01 * (double)i + 0.004 * normal(&g) + (slot[i].arm ? shift : 0);
    }
    assert_int_equal(rp_loss_compare(&l, block, 2 * BLOCKS, 1, seed), MP_OK);
    assert_true(l.is_known && l.n_pair == BLOCKS && l.floor.basis == MP_MEASURED);
    return l;
}

static void loss_parity(void **state)
{
    struct rp_ab_block none[2] = {{.arm = 0, .loss = NAN}, {.arm = 1, .loss = 2}};
    struct rp_loss l;
    int wrong = 0, seen = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        wrong += losses(0, seed).status == RP_LOSS_DIFFERS;
        l = losses(0.03, 1000 + seed);
        seen += l.status == RP_LOSS_DIFFERS && fabs(l.difference.value - 0.03) < 0.01;
    }
    assert_true(wrong <= 10);
    assert_true(seen >= 190);
    assert_int_equal(rp_loss_compare(&l, none, 2, 1, 0), MP_OK);
    assert_true(l.status == RP_LOSS_UNKNOWN && !l.is_known && l.n_pair == 0);
}

static void few_pairs(void **state)
{
    struct rp_contrast c = experiment(&quiet, 2, 5, 1);
    struct rp_ab_block block[4] = {{.arm = 0, .pair = 0, .work = 1, .seconds = 1},
                                   {.arm = 1, .pair = 0, .work = 1, .seconds = 1, .is_cut = true}};

    (void)state;
    assert_int_equal(c.verdict, RP_INCONCLUSIVE); /* however large the difference */
    assert_string_equal(c.why, "only 5 pairs of blocks, 6 are needed");
    assert_int_equal(rp_contrast(&c, block, 2, 1, 0), MP_OK);
    assert_true(!c.is_known && c.n_pair == 0 && c.n_cut == 1 && c.floor.basis == MP_UNKNOWN);
    assert_int_equal(c.verdict, RP_INCONCLUSIVE);
    assert_int_equal(rp_contrast(&c, NULL, 0, 1, 0), MP_OK);
    assert_false(c.is_known);
    block[1] = (struct rp_ab_block){.arm = 1, .pair = 0, .work = NAN, .seconds = 1};
    block[2] = (struct rp_ab_block){.arm = 1, .pair = 1, .work = 1, .seconds = 1};
    block[3] = (struct rp_ab_block){.arm = 0, .pair = 1, .work = 1, .seconds = 1};
    assert_int_equal(rp_contrast(&c, block, 4, 1, 0), MP_EINVAL);
}

static void steadiness(void **state)
{
    struct rp_steady s;
    struct rp_pcg g;
    double x[120];

    (void)state;
    rp_pcg_seed(&g, 3, 3);
    for (int i = 0; i < 120; i++)
        x[i] = 0.1 * (1 + 0.01 * normal(&g));
    assert_int_equal(rp_steady_check(&s, x, 120), MP_OK);
    assert_true(s.is_known && s.is_steady && s.change_at == 0);
    assert_true(fabs(s.lag1.v) < 0.3);
    for (int i = 0; i < 40; i++)
        x[i] *= 1.2;
    assert_int_equal(rp_steady_check(&s, x, 120), MP_OK);
    assert_true(!s.is_steady && s.change_at == 40);
    assert_true(fabs(s.change - (1 / 1.2 - 1)) < 0.02);
    for (int i = 0; i < 120; i++)
        x[i] = 1755 - i; /* a clock that sinks by 7 % */
    assert_int_equal(rp_steady_check(&s, x, 120), MP_OK);
    assert_true(!s.is_steady && fabs(s.drift + 0.068) < 0.005 && s.drift_p < 1e-6);
    for (int i = 0; i < 120; i++)
        x[i] = 5;
    assert_int_equal(rp_steady_check(&s, x, 120), MP_OK);
    assert_true(s.is_steady && s.lag1.basis == MP_UNKNOWN);
    assert_int_equal(rp_steady_check(&s, x, 7), MP_OK);
    assert_false(s.is_known);
    x[5] = 0;
    assert_int_equal(rp_steady_check(&s, x, 20), MP_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_laws),        cmocka_unit_test(block_sums),
        cmocka_unit_test(equal_arms),       cmocka_unit_test(equal_arms_few_blocks),
        cmocka_unit_test(real_differences), cmocka_unit_test(detectable_is_detected),
        cmocka_unit_test(few_pairs),        cmocka_unit_test(steadiness),
        cmocka_unit_test(loss_parity),      cmocka_unit_test(no_difference_means_something),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
