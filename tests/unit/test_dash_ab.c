/* A before/after as the dashboard sees it: the same figures as the report's, progress at each look, figures
 * within their budget, and what is cut off or goes on told apart. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "profiler/dash/ab.h"
#include "profiler/dash/eval.h"
#include "tests/html/make_profile.h"

#define BLOCKS 6
#define LATER  1000000000000000ull /* ns: any budget is over */

static struct made made = {.layers = 2, .experts = 8, .ab_blocks = BLOCKS};
static char path[64];
static struct dash_ab ab;
static struct dash_eval eval;

static int set_up(void **state)
{
    (void)state;
    strcpy(path, "/tmp/dash-ab-XXXXXX");
    close(mkstemp(path));
    made_profile(path, &made);
    memset(&ab, 0, sizeof ab);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    dash_eval_release(&eval);
    return unlink(path);
}

static bool read_at(uint64_t now_ns)
{
    struct rp_profile *p;
    bool known;

    assert_int_equal(rp_profile_open(&p, path, NULL), MP_OK);
    known = dash_ab_read(&ab, p, &eval, now_ns);
    rp_profile_close(p, NULL);
    return known;
}

/* The first n blocks; the last of them still runs when `cut`. */
static void record_cut(size_t n, bool cut)
{
    struct rp_ab_record r;

    made_ab_record(&r, &made);
    r.n_block = n;
    if (n)
        r.block[n - 1].is_cut = cut;
    made_ab_put(path, &r);
    rp_ab_record_release(&r);
}

/* The model, as a job describes it. */
static void describe(void)
{
    static struct dash_job job;
    struct rp_profile *p;
    char *spec;

    assert_int_equal(rp_profile_open(&p, path, NULL), MP_OK);
    assert_int_equal(rp_get_spec(p, &spec, NULL), MP_OK);
    dash_eval_describe(&eval, &job, spec, strlen(spec));
    free(spec);
    rp_profile_close(p, NULL);
}

static void says_what_the_report_says(void **state)
{
    struct rp_profile *p;
    struct rp_report *report;
    struct rp_ab *want;
    char state_text[240];

    (void)state;
    describe();
    assert_true(read_at(LATER));
    assert_int_equal(rp_profile_open(&p, path, NULL), MP_OK);
    assert_int_equal(rp_analyze(&report, p, path, &(struct rp_options){0}, NULL), MP_OK);
    assert_int_equal(rp_ab_analyze(&want, report, p, NULL), MP_OK);
    assert_int_equal(ab.n_arm, 2);
    assert_int_equal(ab.n_planned, 2 * BLOCKS);
    assert_int_equal(ab.n_begun, 2 * BLOCKS);
    assert_int_equal(ab.arm[0].n_block, BLOCKS);
    assert_true(fabs(ab.arm[1].ratio.v - want->contrast[1].speedup.value) < 1e-9);
    assert_true(fabs(ab.arm[1].low - want->contrast[1].speedup.low) < 1e-9);
    assert_true(fabs(ab.arm[1].high - want->contrast[1].speedup.high) < 1e-9);
    assert_int_equal(ab.arm[1].verdict, want->contrast[1].verdict);
    assert_int_equal(ab.arm[1].n_pair, want->contrast[1].n_pair);
    assert_int_equal(ab.arm[0].ratio.basis, MP_UNKNOWN); /* the base is no ratio */
    for (size_t i = 0; i < ab.n_block; i++)
        assert_true(ab.block[i].rate > 0.2 && ab.block[i].rate < 5);
    assert_false(ab.is_running);
    assert_true(ab.is_settled);
    dash_ab_state(state_text, sizeof state_text, &ab);
    assert_string_equal(state_text, "done");
    rp_ab_free(want);
    rp_report_free(report);
    rp_profile_close(p, NULL);
}

static void progress_is_told_before_figures(void **state)
{
    (void)state;
    record_cut(5, true);
    assert_true(read_at(1));
    assert_int_equal(ab.n_begun, 5);
    assert_int_equal(ab.arm[0].n_block + ab.arm[1].n_block, 4);
    assert_true(isnan(ab.block[4].rate) && ab.block[4].is_cut);
    record_cut(8, true);
    assert_true(read_at(2)); /* within the budget's rest */
    assert_int_equal(ab.n_begun, 8);
    assert_int_equal(ab.n_block, 8);
    assert_int_equal(ab.arm[0].n_block + ab.arm[1].n_block, 4);
    assert_true(isfinite(ab.block[3].rate));
    assert_true(isnan(ab.block[5].rate) && !ab.block[5].is_cut && ab.block[7].is_cut);
    assert_true(read_at(LATER));
    assert_int_equal(ab.arm[0].n_block + ab.arm[1].n_block, 7);
    assert_true(isfinite(ab.block[5].rate));
}

static void nothing_is_nothing(void **state)
{
    struct made plain = made;
    char text[240];

    (void)state;
    record_cut(3, true);
    assert_true(read_at(LATER));
    dash_ab_state(text, sizeof text, &ab);
    assert_string_equal(text, "cut off"); /* its recorder ended */
    plain.ab_blocks = 0;
    plain.steps = 4;
    made_profile(path, &plain);
    assert_false(read_at(LATER));
    assert_false(ab.is_known);
}

int main(void)
{
    const struct CMUnitTest test[] = {
        cmocka_unit_test_setup_teardown(says_what_the_report_says, set_up, tear_down),
        cmocka_unit_test_setup_teardown(progress_is_told_before_figures, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_is_nothing, set_up, tear_down),
    };

    return cmocka_run_group_tests(test, NULL, NULL);
}
