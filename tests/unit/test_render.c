/* Reports of made-up jobs against tests/golden/report_*: text and JSON, from the record stream through
 * steps, sums, profile, analysis and renderer. UPDATE_GOLDEN=1 writes the goldens anew; the diff is the
 * review. The figures mean nothing. */
#include "report/render.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "report/format.h"
#include "report/layout.h"
#include "tests/mock/fake_profile.h"
#include "tests/mock/golden.h"

struct job {
    const char *name;
    struct fake_profile profile;
    bool killed, bursts, no_gpu;
    const char *feature_failed;
};

static void facts(void *arg, struct rp_profile *p)
{
    const struct job *job = arg;

    assert_int_equal(rp_put_meta(p, "comm", "python train.py --model x", NULL), MP_OK);
    assert_int_equal(
        rp_put_meta(p, "feature.routing", job->feature_failed ? job->feature_failed : "on", NULL),
        MP_OK);
    if (job->killed)
        assert_int_equal(rp_put_meta(p, "end", "killed", NULL), MP_OK);
    assert_int_equal(rp_put_meta_int(p, "updated_ns", 2000001000, NULL), MP_OK);
    assert_int_equal(rp_put_meta_int(p, "agent_cpu_ns", 9000000, NULL), MP_OK);
    for (uint32_t i = 0; i < FAKE_NAME_COUNT; i++)
        assert_int_equal(rp_put_name(p, i, fake_name[i], NULL), MP_OK);
}

static void before_step(void *arg, struct fake_job *j)
{
    const struct job *job = arg;
    bool between = j->step >= 6 && j->step % 4 > 1; /* six, then two of four */

    j->untraced = job->no_gpu || (job->bursts && between);
}

static struct rp_report *report_make(struct job job)
{
    struct rp_profile *p;
    struct rp_report *r;
    struct mp_err err = {0};

    job.profile.bare = true;
    job.profile.facts = facts;
    job.profile.before_step = before_step;
    job.profile.arg = &job;
    fake_profile_make(fake_path, &job.profile);
    assert_int_equal(rp_profile_open(&p, fake_path, &err), MP_OK);
    if (rp_analyze(&r, p, "job.moeprof", &(struct rp_options){0}, &err))
        fail_msg("%s", err.msg);
    rp_profile_close(p, NULL);
    return r;
}

/* ---- goldens ------------------------------------------------------------------------------------ */

static void job_check(const struct job *job)
{
    struct rp_report *r = report_make(*job);
    char *text = NULL, file[64];
    size_t size;
    FILE *f = open_memstream(&text, &size);

    assert_int_equal(rp_render_text(f, r, NULL), MP_OK);
    fclose(f);
    golden_lines(text, RP_WIDTH);
    snprintf(file, sizeof file, "report_%s.txt", job->name);
    golden_check(file, text);
    free(text);
#if HAVE_JANSSON
    f = open_memstream(&text, &size);
    assert_int_equal(rp_render_json(f, &r, NULL, 1, false, NULL), MP_OK);
    fclose(f);
    snprintf(file, sizeof file, "report_%s.json", job->name);
    golden_check(file, text);
    free(text);
#endif
    rp_report_free(r);
}

static const struct job job_table[] = {
    {.name = "eager", .profile = {.steps = 8, .layers = 2, .experts = 16}},
    {.name = "grouped",
     .profile = {.steps = 8, .layers = 2, .experts = 16, .grouped = true, .checkpoint = true}},
    {.name = "no_routing",
     .profile = {.steps = 6, .layers = 2, .experts = 4, .grouped = true, .drop_kind = MP_ROUTING},
     .feature_failed = "failed: the router of 'Foo' hands out no indices"},
    {.name = "no_tokens",
     .profile = {.steps = 6,
                 .layers = 1,
                 .experts = 4,
                 .drop_kind = MP_MICRO,
                 .gpu = "NVIDIA X1 Prototype"}},
    {.name = "no_model", .profile = {.steps = 6, .layers = 1, .experts = 4, .no_spec = true}},
    {.name = "one_step", .profile = {.steps = 1, .layers = 1, .experts = 4}, .killed = true},
    {.name = "three_steps", .profile = {.steps = 4, .layers = 1, .experts = 4}},
    {.name = "bursts", .profile = {.steps = 20, .layers = 2, .experts = 8}, .bursts = true},
    {.name = "no_gpu", .profile = {.steps = 8, .layers = 1, .experts = 4}, .no_gpu = true},
    {.name = "empty", .profile = {.steps = 0, .layers = 1, .experts = 4}},
};

static void goldens(void **state)
{
    (void)state;
    for (size_t i = 0; i < countof(job_table); i++)
        job_check(&job_table[i]);
}

/* ---- properties --------------------------------------------------------------------------------- */

static void sums_hold(void **state)
{
    struct rp_report *r =
        report_make((struct job){.profile = {.steps = 9, .layers = 3, .experts = 24}});
    double sum = r->idle_s.v, shared = 0, around = 0, tokens = 0;

    (void)state;
    for (size_t i = 0; i < r->n_phase; i++) {
        sum += r->phase[i].seconds.v;
        if (r->phase[i].phase == MP_PHASE_DISPATCH || r->phase[i].phase == MP_PHASE_COMBINE)
            around += r->phase[i].seconds.v;
    }
    assert_true(fabs(sum - r->step.window_s) < 1e-9);
    assert_int_equal(r->n_expert, 3 * 24);
    for (size_t i = 0; i < r->n_expert; i++) {
        shared += r->expert[i].shared_seconds.v;
        tokens += r->expert[i].tokens.v;
    }
    assert_true(fabs(shared - around) < 1e-9);
    assert_int_equal(r->timed.count, r->step.count);
    assert_int_equal(r->timed.count, r->mfu.n_step);
    assert_int_equal(r->step.count, 9 - 1 - 2); /* without the last one and the warm-up */
    assert_true(tokens == 6.0 * 3 * 4096 * 8);
    assert_true(r->mfu.mfu.v > 0 && r->mfu.mfu.v <= r->mfu.hfu.v);
    for (size_t i = 0; i < r->n_layer; i++)
        assert_int_equal(r->layer[i].n_dead, 1);
    rp_report_free(r);
}

/* Steps that were not traced have a duration and tokens, and none of the times by phase. */
static void bursts(void **state)
{
    struct rp_report *r = report_make(
        (struct job){.profile = {.steps = 40, .layers = 2, .experts = 8}, .bursts = true});
    double sum = r->idle_s.v, tokens = 0;

    (void)state;
    assert_int_equal(r->step.recorded, 40);
    assert_true(r->n_untraced >= 16 && r->n_untraced + r->step.count <= r->timed.count + 1);
    assert_true(r->timed.count >= 25 && r->timed.count == r->mfu.n_step &&
                r->untraced_s.basis == MP_MEASURED);
    assert_true(fabs(r->untraced_s.v / r->step.median_s.v - 1) < 0.02);
    for (size_t i = 0; i < r->n_phase; i++)
        sum += r->phase[i].seconds.v;
    assert_true(fabs(sum - r->step.window_s) < 1e-9);
    for (size_t i = 0; i < r->n_expert; i++)
        tokens += r->expert[i].tokens.v;
    assert_true(tokens == (double)r->step.count * 2 * 4096 * 8);
    assert_true(fabs(r->tokens.useful_s.v * r->timed.window_s - r->timed.count * 3896.0) < 1e-3);
    rp_report_free(r);
}

/* 1024 experts in 94 layers, as the widest models have them, stay readable. */
static void wide(void **state)
{
    struct rp_report *r = report_make(
        (struct job){.profile = {.steps = 4, .layers = 94, .experts = 1024, .grouped = true}});
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    (void)state;
    assert_int_equal(r->n_expert, 94 * 1024);
    assert_int_equal(rp_render_text(f, r, NULL), MP_OK);
    fclose(f);
    golden_lines(text, RP_WIDTH);
    assert_true(size < 20000);
    free(text);
    rp_report_free(r);
}

static void formats(void **state)
{
    static const struct {
        double v;
        enum mp_basis basis;
        const char *seconds, *percent, *count, *si;
    } row[] = {
        {0, MP_MEASURED, "0 s", "0.0 %", "0", "0"},
        {1.5321, MP_MEASURED, "1.532 s", "153.2 %", "2", "2"},
        {0.0629, MP_APPORTIONED, "~62.9 ms", "~6.3 %", "~0", "~0"},
        {0.0000412, MP_MEASURED, "41.2 µs", "0.00 %", "0", "0"},
        {0.00000000051, MP_MEASURED, "0.51 ns", "0.00 %", "0", "0"},
        {1234567, MP_MODELLED, "~1234567.000 s", "~123456700.0 %", "~1 234 567", "~1.23 M"},
        {5, MP_UNKNOWN, "–", "–", "–", "–"},
        {NAN, MP_MEASURED, "–", "–", "–", "–"},
    };
    char out[RP_FIG], cut[16];

    (void)state;
    for (size_t i = 0; i < countof(row); i++) {
        struct mp_val v = {row[i].v, row[i].basis};

        assert_string_equal(rp_fmt_seconds(out, v), row[i].seconds);
        assert_string_equal(rp_fmt_percent(out, v), row[i].percent);
        assert_string_equal(rp_fmt_count(out, v), row[i].count);
        assert_string_equal(rp_fmt_si(out, v), row[i].si);
    }
    assert_string_equal(rp_cut(cut, sizeof cut, "µµµµ", 4), "µµµµ");
    assert_string_equal(rp_cut(cut, sizeof cut, "µµµµµ", 4), "µµµ…");
    assert_string_equal(rp_cut(cut, sizeof cut, "a long text that does not fit", 90),
                        "a long text …");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(goldens, fake_path_make, fake_path_remove),
        cmocka_unit_test_setup_teardown(sums_hold, fake_path_make, fake_path_remove),
        cmocka_unit_test_setup_teardown(bursts, fake_path_make, fake_path_remove),
        cmocka_unit_test_setup_teardown(wide, fake_path_make, fake_path_remove),
        cmocka_unit_test(formats),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
