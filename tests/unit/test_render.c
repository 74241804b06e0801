/* Reports of made-up jobs against tests/golden/report_*: text and JSON, from the record stream through
 * steps, sums, profile, analysis and renderer. UPDATE_GOLDEN=1 writes the goldens anew; the diff is the
 * review. The figures mean nothing. */
#include "report/render.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "report/format.h"
#include "report/sums.h"
#include "tests/mock/fake_job.h"

#define GOLDEN "tests/golden/report_"

struct feed {
    struct rp_profile *p;
    struct mp_steps *steps;
    struct rp_sums *sums;
    uint8_t drop_kind; /* records of this kind are left out */
};

struct job {
    const char *name;
    int steps, layers, experts;
    bool grouped, checkpoint, no_spec, unknown_gpu, killed, bursts, no_gpu;
    uint8_t drop_kind;
    const char *feature_failed;
};

static char path[64];

static void on_step(void *arg, const struct mp_step *step)
{
    struct feed *f = arg;

    assert_int_equal(rp_put_step(f->p, step, NULL), MP_OK);
    assert_int_equal(rp_sums_step(f->sums, step), MP_OK);
}

static void put(void *arg, const union mp_record *record)
{
    struct feed *f = arg;

    if (f->drop_kind && record->head.kind == f->drop_kind)
        return;
    assert_int_equal(rp_sums_record(f->sums, record), MP_OK);
    assert_int_equal(mp_steps_feed(f->steps, record, 1), MP_OK);
}

static void facts_put(struct rp_profile *p, const struct job *job, const char *spec)
{
    const struct {
        const char *key, *value;
    } text[] = {{"gpu_name", job->unknown_gpu ? "NVIDIA X1 Prototype" : "NVIDIA H100 80GB HBM3"},
                {"comm", "python train.py --model x"},
                {"hostname", "node"},
                {"feature.routing", job->feature_failed ? job->feature_failed : "on"},
                {"end", job->killed ? "killed" : "exit"}};
    const struct {
        const char *key;
        int64_t value;
    } number[] = {{"gpu_cc", 90},     {"gpu_sm_count", 132},    {"rank", -1},
                  {"world", 1},       {"created_ns", 1000},     {"updated_ns", 2000001000},
                  {"ended_ns", 3000}, {"agent_cpu_ns", 9000000}};

    for (size_t i = 0; i < countof(text); i++)
        assert_int_equal(rp_put_meta(p, text[i].key, text[i].value, NULL), MP_OK);
    for (size_t i = 0; i < countof(number); i++)
        assert_int_equal(rp_put_meta_int(p, number[i].key, number[i].value, NULL), MP_OK);
    for (uint32_t i = 0; i < FAKE_NAME_COUNT; i++)
        assert_int_equal(rp_put_name(p, i, fake_name[i], NULL), MP_OK);
    if (!job->no_spec)
        assert_int_equal(rp_put_spec(p, spec, strlen(spec), NULL), MP_OK);
}

static void profile_make(const struct job *job)
{
    struct feed f = {.drop_kind = job->drop_kind};
    struct fake_job j;
    char *spec;

    assert_int_equal(rp_profile_create(&f.p, path, NULL), MP_OK);
    f.steps = mp_steps_new(on_step, &f);
    f.sums = rp_sums_new();
    fake_init(&j, put, &f);
    j.n_layer = job->layers;
    j.n_expert = job->experts;
    j.grouped = job->grouped;
    j.checkpoint = job->checkpoint;
    spec = fake_spec(&j);
    assert_int_equal(rp_profile_begin(f.p, NULL), MP_OK);
    facts_put(f.p, job, spec);
    for (int i = 0; i < job->steps; i++) {
        j.untraced =
            job->no_gpu || (job->bursts && i >= 6 && i % 4 > 1); /* six, then two of four */
        fake_step(&j);
    }
    mp_steps_finish(f.steps);
    assert_int_equal(rp_sums_write(f.sums, f.p, NULL), MP_OK);
    assert_int_equal(rp_profile_commit(f.p, NULL), MP_OK);
    assert_int_equal(rp_profile_close(f.p, NULL), MP_OK);
    mp_steps_free(f.steps);
    rp_sums_free(f.sums);
    free(spec);
}

static struct rp_report *report_make(const struct job *job)
{
    struct rp_profile *p;
    struct rp_report *r;
    struct mp_err err = {0};

    profile_make(job);
    assert_int_equal(rp_profile_open(&p, path, &err), MP_OK);
    if (rp_analyze(&r, p, "job.moeprof", &(struct rp_options){0}, &err))
        fail_msg("%s", err.msg);
    rp_profile_close(p, NULL);
    strcpy(r->run.moeprof, "0"); /* not of the version that tests it */
    return r;
}

/* ---- goldens ------------------------------------------------------------------------------------ */

static char *file_text(const char *name)
{
    FILE *f = fopen(name, "r");
    char *text = calloc(1, 1 << 20);

    assert_non_null(text);
    if (f) {
        text[fread(text, 1, (1 << 20) - 1, f)] = 0;
        fclose(f);
    }
    return text;
}

static void golden_check(const char *name, const char *suffix, const char *text)
{
    char file[128], *want;

    snprintf(file, sizeof file, GOLDEN "%s.%s", name, suffix);
    if (getenv("UPDATE_GOLDEN")) {
        FILE *f = fopen(file, "w");

        assert_non_null(f);
        fputs(text, f);
        fclose(f);
    }
    want = file_text(file);
    if (strcmp(want, text) != 0)
        fail_msg("'%s' differs; UPDATE_GOLDEN=1 and git diff show how:\n%s", file, text);
    free(want);
}

static void widths_check(const char *text)
{
    while (*text) {
        char one[600];
        size_t n = strcspn(text, "\n");

        snprintf(one, sizeof one, "%.*s", (int)n, text);
        if (rp_columns(one) > 100)
            fail_msg("wider than 100 columns: %s", one);
        text += n + (text[n] == '\n');
    }
}

static void job_check(const struct job *job)
{
    struct rp_report *r = report_make(job);
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    assert_int_equal(rp_render_text(f, r, NULL), MP_OK);
    fclose(f);
    widths_check(text);
    golden_check(job->name, "txt", text);
    free(text);
#if HAVE_JANSSON
    f = open_memstream(&text, &size);
    assert_int_equal(rp_render_json(f, &r, NULL, 1, NULL), MP_OK);
    fclose(f);
    golden_check(job->name, "json", text);
    free(text);
#endif
    rp_report_free(r);
}

static const struct job job_table[] = {
    {.name = "eager", .steps = 8, .layers = 2, .experts = 16},
    {.name = "grouped",
     .steps = 8,
     .layers = 2,
     .experts = 16,
     .grouped = true,
     .checkpoint = true},
    {.name = "no_routing",
     .steps = 6,
     .layers = 2,
     .experts = 4,
     .grouped = true,
     .drop_kind = MP_ROUTING,
     .feature_failed = "failed: the router of 'Foo' hands out no indices"},
    {.name = "no_tokens",
     .steps = 6,
     .layers = 1,
     .experts = 4,
     .drop_kind = MP_MICRO,
     .unknown_gpu = true},
    {.name = "no_model", .steps = 6, .layers = 1, .experts = 4, .no_spec = true},
    {.name = "one_step", .steps = 1, .layers = 1, .experts = 4, .killed = true},
    {.name = "three_steps", .steps = 4, .layers = 1, .experts = 4},
    {.name = "bursts", .steps = 20, .layers = 2, .experts = 8, .bursts = true},
    {.name = "no_gpu", .steps = 8, .layers = 1, .experts = 4, .no_gpu = true},
    {.name = "empty", .steps = 0, .layers = 1, .experts = 4},
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
    struct rp_report *r = report_make(&(struct job){.steps = 9, .layers = 3, .experts = 24});
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
    struct rp_report *r =
        report_make(&(struct job){.steps = 40, .layers = 2, .experts = 8, .bursts = true});
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
    struct rp_report *r =
        report_make(&(struct job){.steps = 4, .layers = 94, .experts = 1024, .grouped = true});
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    (void)state;
    assert_int_equal(r->n_expert, 94 * 1024);
    assert_int_equal(rp_render_text(f, r, NULL), MP_OK);
    fclose(f);
    widths_check(text);
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
        {0.0629, MP_APPORTIONED, "~62.9 ms", "~6.3 %", "0", "~0"},
        {0.0000412, MP_MEASURED, "41.2 µs", "0.00 %", "0", "0"},
        {0.00000000051, MP_MEASURED, "0.51 ns", "0.00 %", "0", "0"},
        {1234567, MP_MODELLED, "~1234567.000 s", "~123456700.0 %", "1 234 567", "~1.23 M"},
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

static int setup(void **state)
{
    int fd;

    (void)state;
    strcpy(path, "/tmp/moeprof-render-XXXXXX");
    fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(goldens, setup, teardown),
        cmocka_unit_test_setup_teardown(sums_hold, setup, teardown),
        cmocka_unit_test_setup_teardown(bursts, setup, teardown),
        cmocka_unit_test_setup_teardown(wide, setup, teardown),
        cmocka_unit_test(formats),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
