/* A made-up job that changes arms: record and profile, figures of each arm, goldens ab_*. Times of the
 * counted steps come from marks alone, as a guest that does not trace publishes them. */
#include "report/ab.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "report/layout.h"
#include "tests/mock/fake_profile.h"
#include "tests/mock/golden.h"

#define STEPS  8
#define DROP   2
#define TRACED 3

/* Blocks one after the other from step 5 on; the job below follows them. */
static void record_make(struct rp_ab_record *r, unsigned n_block, bool same)
{
    struct rp_plan_slot slot[64];
    size_t n = rp_plan_size(2, n_block);
    uint32_t at = 5;

    *r = (struct rp_ab_record){.seed = 7,
                               .n_step = STEPS,
                               .n_drop = DROP,
                               .n_traced = TRACED,
                               .n_planned = n_block,
                               .is_untraced = true,
                               .gpu = {.driver = "580.65.06",
                                       .power_limit_mw = 650000,
                                       .default_limit_mw = 700000,
                                       .max_sm_clock_mhz = 1980,
                                       .ecc = 1,
                                       .mig = 0,
                                       .processes = -1},
                               .known = "original, moeprof, eager, grouped_mm",
                               .own = "eager",
                               .arm = {{.name = "original"}, {.name = "moeprof"}},
                               .n_arm = 2};
    if (same)
        strcpy(r->arm[1].name, "original");
    rp_plan_make(slot, 2, n_block, r->seed);
    for (size_t i = 0; i < n; i++) {
        struct rp_ab_block b = {.arm = slot[i].arm, .pair = slot[i].pair, .from_step = at};

        b.first_step = at + DROP;
        b.last_step = b.first_step + STEPS - 1;
        b.traced_from = b.last_step + 1;
        b.traced_to = b.last_step + TRACED;
        for (int k = 0; k < RP_AB_MEMORY; k++)
            b.memory[k] = (30.0 + b.arm + k) * (1 << 30);
        b.loss = 2.5 - 0.001 * (double)i;
        assert_int_equal(rp_ab_add_block(r, &b), MP_OK);
        at = b.traced_to + 1;
    }
}

static void parity_add(struct rp_ab_record *r, int layer, double ratio, bool passed)
{
    struct rp_parity p = {.arm = 1,
                          .layer = layer,
                          .quantity = "dgate_up",
                          .error = 0.002 * ratio,
                          .own_error = 0.002,
                          .ratio = ratio,
                          .tokens = 4096,
                          .out_cosine = {1 - 2e-6 * ratio, 1 - 2e-6},
                          .gradient = "ddown",
                          .cosine = {1 - 3e-6 * ratio, 1 - 3e-6},
                          .repeats = {layer ? -1 : 1, layer ? -1 : 0},
                          .passed = passed};

    if (!passed)
        snprintf(p.why, sizeof p.why, "error of dgate_up is beyond twice the job's own");
    assert_int_equal(rp_ab_add_parity(r, &p), MP_OK);
}

/* Arm 1 runs grouped kernels; counted steps are not traced. */
static void before_step(void *arg, struct fake_job *j)
{
    const struct rp_ab_record *r = arg;

    j->grouped = j->untraced = false;
    for (size_t i = 0; i < r->n_block; i++) {
        const struct rp_ab_block *b = &r->block[i];

        if (j->step < b->from_step || j->step > b->traced_to)
            continue;
        j->grouped = b->arm == 1 && strcmp(r->arm[1].name, "original") != 0;
        j->untraced = j->step < b->traced_from;
    }
}

static struct rp_report *profile_make(struct rp_ab_record *r, struct rp_profile **p, int steps)
{
    struct fake_profile job = {
        .steps = steps, .layers = 2, .experts = 64, .before_step = before_step, .arg = r};
    struct rp_report *report;
    struct mp_err err = {0};

    fake_profile_make(fake_path, &job);
    if (rp_profile_append(p, fake_path, &err) || rp_ab_put(*p, r, &err) ||
        rp_profile_close(*p, &err) || rp_profile_open(p, fake_path, &err) ||
        rp_analyze(&report, *p, "ab.moeprof", &(struct rp_options){0}, &err))
        fail_msg("%s", err.msg);
    return report;
}

static char *rendered(int (*render)(FILE *, const struct rp_ab *, struct mp_err *),
                      const struct rp_ab *ab)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    assert_int_equal(render(f, ab, NULL), MP_OK);
    fclose(f);
    return text;
}

static void golden_ab(const char *name, struct rp_ab_record *r, int steps)
{
    struct rp_profile *p;
    struct rp_report *report = profile_make(r, &p, steps);
    struct rp_ab *ab;
    char file[64], *text;

    assert_int_equal(rp_ab_analyze(&ab, report, p, NULL), MP_OK);
    assert_non_null(ab);
    text = rendered(rp_render_ab_text, ab);
    golden_lines(text, RP_WIDTH);
    snprintf(file, sizeof file, "ab_%s.txt", name);
    golden_check(file, text);
    free(text);
    text = rendered(rp_render_ab_md, ab);
    assert_true(golden_lines(text, 1500) <= 60);
    snprintf(file, sizeof file, "ab_%s.md", name);
    golden_check(file, text);
    free(text);
#if HAVE_JANSSON
    text = rendered(rp_render_ab_json, ab);
    snprintf(file, sizeof file, "ab_%s.json", name);
    golden_check(file, text);
    free(text);
#endif
    rp_ab_free(ab);
    rp_report_free(report);
    rp_profile_close(p, NULL);
    rp_ab_record_release(r);
}

static void goldens(void **state)
{
    struct rp_ab_record r;

    (void)state;
    record_make(&r, 6, false);
    parity_add(&r, 0, 0.9, true);
    parity_add(&r, 1, 1.1, true);
    golden_ab("faster", &r, 5 + 12 * 13 + 2);

    record_make(&r, 6, true);
    golden_ab("same", &r, 5 + 12 * 13 + 2);

    record_make(&r, 0, false);
    parity_add(&r, 0, 1.0, true);
    parity_add(&r, 1, 7.5, false);
    r.arm[1].status = RP_ARM_PARITY_FAILED;
    strcpy(r.arm[1].why, "layer 1: error of dgate_up is beyond twice the job's own");
    golden_ab("parity", &r, 8);

    record_make(&r, 2, false);
    r.n_arm = 3;
    strcpy(r.arm[2].name, "scattermoe");
    r.arm[2].status = RP_ARM_REFUSED;
    strcpy(r.arm[2].why, "no arm of that name in this job");
    strcpy(r.end, "the job ended after 4 of 40 blocks");
    golden_ab("cut", &r, 5 + 3 * 13 + 4);
}

/* What is put comes back, to the bit. */
static void record_round_trip(void **state)
{
    struct rp_ab_record r, back;
    struct rp_profile *p;
    struct rp_report *report;

    (void)state;
    record_make(&r, 3, false);
    parity_add(&r, 1, NAN, false);
    r.block[2].is_cut = true;
    r.block[3].memory[RP_ALLOCATED] = r.block[3].loss = NAN;
    strcpy(r.end, "Ctrl-C");
    report = profile_make(&r, &p, 10);
    assert_int_equal(rp_ab_get(&back, p, NULL), MP_OK);
    assert_int_equal(back.n_arm, 2);
    assert_int_equal(back.n_block, r.n_block);
    assert_int_equal(back.n_parity, 1);
    assert_int_equal(back.seed, r.seed);
    assert_string_equal(back.end, "Ctrl-C");
    assert_string_equal(back.own, "eager");
    assert_string_equal(back.gpu.driver, "580.65.06");
    assert_true(back.gpu.power_limit_mw == 650000 && back.gpu.ecc == 1 && back.gpu.processes == -1);
    for (size_t i = 0; i < r.n_block; i++) {
        struct rp_ab_block *a = &r.block[i], *b = &back.block[i];

        assert_true(a->arm == b->arm && a->pair == b->pair && a->first_step == b->first_step &&
                    a->last_step == b->last_step && a->traced_from == b->traced_from &&
                    a->is_cut == b->is_cut);
        for (int k = 0; k < RP_AB_MEMORY; k++)
            assert_true(a->memory[k] == b->memory[k] ||
                        (isnan(a->memory[k]) && isnan(b->memory[k])));
        assert_true(a->loss == b->loss || (isnan(a->loss) && isnan(b->loss)));
    }
    assert_true(isnan(back.parity[0].ratio) && !back.parity[0].passed);
    assert_true(isnan(back.parity[0].cosine[0]) && back.parity[0].cosine[1] == 1 - 3e-6);
    assert_true(back.parity[0].out_cosine[1] == 1 - 2e-6);
    assert_string_equal(back.parity[0].gradient, "ddown");
    assert_int_equal(back.parity[0].repeats[0], -1);
    rp_ab_record_release(&back);
    rp_ab_record_release(&r);
    rp_report_free(report);
    rp_profile_close(p, NULL);
}

static void figures_hold(void **state)
{
    struct rp_ab_record r;
    struct rp_profile *p;
    struct rp_report *report;
    struct rp_ab *ab;

    (void)state;
    record_make(&r, 6, false);
    report = profile_make(&r, &p, 5 + 12 * 13 + 2);
    assert_int_equal(rp_ab_analyze(&ab, report, p, NULL), MP_OK);
    for (unsigned i = 0; i < 2; i++) {
        const struct rp_ab_arm *a = &ab->arm[i];
        double sum = a->idle_s;

        assert_int_equal(a->n_block, 6);
        assert_int_equal(a->n_step, 6 * STEPS);
        /* the last traced one has no next one to end at; behind the last block there is */
        assert_true(a->n_traced - 6 * (TRACED - 1) <= 1);
        assert_int_equal(a->n_layer_traced, a->n_traced);
        for (int k = 0; k < MP_PHASE_COUNT; k++)
            sum += a->phase_s[k];
        assert_true(fabs(sum - a->window_s) < 1e-9);
        assert_true(a->mfu_low.v <= a->mfu.v && a->mfu.v <= a->mfu_high.v);
        assert_true(a->useful.basis == MP_MEASURED && a->useful.v > 0);
        assert_true(a->tracing.basis == MP_MEASURED);
    }
    assert_int_equal(ab->contrast[1].verdict, RP_FASTER);
    assert_true(fabs(ab->contrast[1].speedup.value / (ab->arm[1].mfu.v / ab->arm[0].mfu.v) - 1) <
                0.01);
    assert_true(ab->layer[0].v[1].v < ab->layer[0].v[0].v); /* where the time went */
    assert_string_equal(rp_ab_parity_status(ab), "not checked");
    assert_false(rp_ab_is_parity_failure(&ab->record));
    rp_ab_free(ab);
    rp_report_free(report);
    rp_profile_close(p, NULL);
    rp_ab_record_release(&r);
}

/* A plain recording has none, and says so by NULL. */
static void none(void **state)
{
    struct fake_profile job = {.steps = 4, .layers = 1, .experts = 4};
    struct rp_profile *p;
    struct rp_report *report;
    struct rp_ab *ab;

    (void)state;
    fake_profile_make(fake_path, &job);
    assert_int_equal(rp_profile_open(&p, fake_path, NULL), MP_OK);
    assert_int_equal(rp_analyze(&report, p, "a", &(struct rp_options){0}, NULL), MP_OK);
    assert_int_equal(rp_ab_analyze(&ab, report, p, NULL), MP_OK);
    assert_null(ab);
    rp_report_free(report);
    rp_profile_close(p, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(record_round_trip, fake_path_make, fake_path_remove),
        cmocka_unit_test_setup_teardown(figures_hold, fake_path_make, fake_path_remove),
        cmocka_unit_test_setup_teardown(goldens, fake_path_make, fake_path_remove),
        cmocka_unit_test_setup_teardown(none, fake_path_make, fake_path_remove),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
