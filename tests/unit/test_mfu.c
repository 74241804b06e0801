/* MFU over steps: ratios of sums, the warm-up rule, what never counts, unknown peaks. */
#include "profiler/core/mfu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define assert_near(a, b) assert_true((a) > (b)-1e-9 && (a) < (b) + 1e-9)

static struct mp_mfu *mfu;
static uint32_t next_step;

static int setup(void **state)
{
    (void)state;
    next_step = 0;
    mfu = mp_mfu_new();
    return mfu ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    mp_mfu_free(mfu);
    return 0;
}

static struct mp_step step_of(uint64_t window_ns, uint32_t flags)
{
    return (struct mp_step){.step = next_step++,
                            .window_ns = window_ns,
                            .flags = flags,
                            .useful = 100,
                            .processed = 200,
                            .trainable = UINT64_MAX,
                            .useful_basis = MP_MEASURED};
}

static void add(uint64_t window_ns, uint64_t flop, uint32_t flags)
{
    struct mp_step s = step_of(window_ns, flags);
    struct mp_flops f = {.model = {flop, MP_MEASURED}, .executed = {2 * flop, MP_MODELLED}};

    assert_int_equal(mp_mfu_add(mfu, &s, &f), 0);
}

static struct mp_mfu_sum get(uint32_t n_last)
{
    struct mp_peak peak;
    struct mp_mfu_sum sum;

    mp_peak_given(&peak, 1e12);
    mp_mfu_get(mfu, n_last, &peak, &sum);
    return sum;
}

static void test_ratio_of_sums(void **state)
{
    struct mp_mfu_sum s;

    (void)state;
    add(1000000000, 500000000000, 0); /* 0.5 of 1 TFLOP/s */
    add(3000000000, 300000000000, 0); /* 0.1 */
    s = get(0);
    assert_int_equal(s.n_step, 2);
    assert_near(s.mfu.v, 0.2); /* not the mean, 0.3 */
    assert_int_equal(s.mfu.basis, MP_MEASURED);
    assert_near(s.hfu.v, 0.4);
    assert_int_equal(s.hfu.basis, MP_MODELLED);
    assert_near(s.model_flops.v / 1e12, 0.2);
    assert_near(s.useful_per_s.v, 50);
    assert_near(s.processed_per_s.v, 100);
    assert_int_equal(s.trainable_per_s.basis, MP_UNKNOWN);
    assert_int_equal(s.palm_mfu.basis, MP_UNKNOWN);
    assert_near(s.median_s.v, 2);
    assert_near(s.min_s.v, 1);
    assert_near(s.max_s.v, 3);
}

static void test_warmup(void **state)
{
    (void)state;
    add(900, 1, 0);
    add(800, 1, 0);
    add(10, 1, 0);
    assert_int_equal(get(0).n_step, 3); /* three are too few to drop any */
    assert_int_equal(get(0).n_warmup, 0);
    add(30, 1, 0);
    assert_int_equal(get(0).n_step, 2);
    assert_int_equal(get(0).n_warmup, 2);
    assert_int_equal(get(0).time_ns, 40);
    add(20, 1, 0);
    assert_near(get(0).median_s.v * 1e9, 20);
    assert_int_equal(get(2).time_ns, 50);
    assert_int_equal(get(100).time_ns, 60);
}

static void test_never_count(void **state)
{
    (void)state;
    add(10, 1, MP_STEP_PARTIAL);
    add(10, 1, MP_STEP_INCOMPLETE);
    add(10, 1, MP_STEP_ASIDE);
    add(0, 1, 0);
    assert_int_equal(get(0).n_step, 0);
    assert_int_equal(get(0).n_excluded, 4);
    assert_int_equal(get(0).mfu.basis, MP_UNKNOWN);
    assert_int_equal(get(0).median_s.basis, MP_UNKNOWN);
    add(7, 1, 0);
    assert_int_equal(get(0).n_step, 1);
    assert_int_equal(get(0).time_ns, 7);
}

static void test_unknown_flops(void **state)
{
    struct mp_step s;
    struct mp_mfu_sum sum;

    (void)state;
    add(1000000000, 500000000000, 0);
    s = step_of(9000000000, 0);
    assert_int_equal(mp_mfu_add(mfu, &s, NULL), 0);
    sum = get(0);
    assert_int_equal(sum.n_step, 2);
    assert_int_equal(sum.n_unknown, 1);
    assert_near(sum.mfu.v, 0.5); /* over the time of the step that is known */
    assert_near(sum.useful_per_s.v, 20);
}

static void test_host_time_without_gpu(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct mp_step s = step_of(0, 0);

        s.host_end_ns = 1000 + 50 * (uint64_t)i;
        assert_int_equal(mp_mfu_add(mfu, &s, NULL), 0);
    }
    assert_int_equal(get(0).n_step, 2);
    assert_int_equal(get(0).time_ns, 100);
}

static void test_one_step(void **state)
{
    struct mp_step s = step_of(1000000000, MP_STEP_PARTIAL);
    struct mp_flops f = {.model = {250000000000, MP_APPORTIONED}};
    struct mp_peak peak;
    struct mp_mfu_sum sum;

    (void)state;
    mp_peak_given(&peak, 1e12);
    assert_false(mp_mfu_of_step(&s, &f, &peak, &sum));
    assert_near(sum.mfu.v, 0.25);
    assert_int_equal(sum.mfu.basis, MP_APPORTIONED);
    s.flags = 0;
    assert_true(mp_mfu_of_step(&s, &f, NULL, &sum));
    assert_int_equal(sum.mfu.basis, MP_UNKNOWN);
    assert_near(sum.model_flops.v / 1e12, 0.25);
    s.window_ns = 0;
    assert_false(mp_mfu_of_step(&s, &f, &peak, &sum));
}

static void test_peaks(void **state)
{
    struct mp_peak p;

    (void)state;
    mp_peak_find(&p, "NVIDIA H100 80GB HBM3", 90, 132, "bfloat16");
    assert_true(p.flops == 989.4e12);
    assert_string_equal(p.label, "dense bf16 989.4 TF, H100 SXM");
    mp_peak_find(&p, "NVIDIA Unheard 1", 90, 132, "bfloat16");
    assert_true(p.flops == 0);
    assert_string_equal(
        p.why_not, "no published peak known for 'NVIDIA Unheard 1'; give one with --peak TFLOPS");
    mp_peak_find(&p, "NVIDIA H200", 90, 132, "float32");
    assert_true(p.flops == 0 && strstr(p.why_not, "float32"));
    mp_peak_find(&p, "NVIDIA A10", 0, 0, "float8_e5m2");
    assert_true(p.flops == 0 && *p.why_not);
    mp_peak_find(&p, "", 0, 0, "");
    assert_true(p.flops == 0 && *p.why_not);
    mp_peak_given(&p, -1);
    assert_true(p.flops == 0 && *p.why_not);
}

static void test_words(void **state)
{
    struct mp_op op[2] = {{.wgrad = true, .dgrad = true},
                          {.wgrad = true, .dgrad = true, .per = MP_PER_ASSIGNMENT}};
    struct mp_attn attn = {.causal = true};
    struct mp_model m = {.op = op, .attn = &attn, .n_op = 2, .n_attn = 1};
    struct mp_mfu_sum sum = {.hfu = {.v = 0.241, .basis = MP_MODELLED},
                             .trl_mfu = {.v = 0.314, .basis = MP_MODELLED}};
    struct mp_peak p;
    char text[240], tiny[8];

    (void)state;
    mp_peak_find(&p, "NVIDIA H100 80GB HBM3", 0, 0, "bfloat16");
    mp_mfu_convention(text, sizeof text, &m, &p);
    assert_string_equal(text, "causal, useful tokens, routed assignments, all weights trained, "
                              "dense bf16 989.4 TF, H100 SXM");
    op[0].wgrad = false;
    mp_mfu_convention(text, sizeof text, &m, NULL);
    assert_string_equal(text, "causal, useful tokens, routed assignments, frozen-aware, no peak");
    mp_mfu_converted(text, sizeof text, &sum);
    assert_string_equal(text, "HFU ~24.1 % | TRL compute_mfu ~31.4 %");
    mp_mfu_converted(tiny, sizeof tiny, &sum);
    assert_string_equal(tiny, "HFU ~24");
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_ratio_of_sums),
        CASE(test_warmup),
        CASE(test_never_count),
        CASE(test_unknown_flops),
        CASE(test_host_time_without_gpu),
        CASE(test_one_step),
        CASE(test_peaks),
        CASE(test_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
