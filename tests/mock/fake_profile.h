/* A profile of a fake job (fake_job.h), through the real steps, sums and writer. For tests: cmocka. */
#ifndef FAKE_PROFILE_H
#define FAKE_PROFILE_H

#include <unistd.h>

#include "report/profile_file.h"
#include "report/sums.h"
#include "tests/mock/fake_job.h"

struct fake_profile {
    int steps, layers, experts;
    bool grouped, checkpoint, no_spec;
    bool bare;         /* neither gauges nor raw records */
    uint8_t drop_kind; /* records of this kind are left out; 0: none */
    const char *gpu;   /* NULL: an H100 */
    int tokens;        /* 0: 4096 */
    /* Called after the facts are written, to add to them, and before each step, to change the job; may
     * be NULL. */
    void (*facts)(void *arg, struct rp_profile *p);
    void (*before_step)(void *arg, struct fake_job *j);
    void *arg;
};

struct fake_feed {
    struct rp_profile *p;
    struct mp_steps *steps;
    struct rp_sums *sums;
    union mp_record *record; /* (cap), for the chunk */
    size_t n, cap;
    uint8_t drop_kind;
};

static void fake_feed_step(void *arg, const struct mp_step *step)
{
    struct fake_feed *f = arg;

    assert_int_equal(rp_put_step(f->p, step, NULL), MP_OK);
    assert_int_equal(rp_sums_step(f->sums, step), MP_OK);
}

static void fake_feed_put(void *arg, const union mp_record *record)
{
    struct fake_feed *f = arg;

    if (f->drop_kind && record->head.kind == f->drop_kind)
        return;
    if (f->n == f->cap) {
        f->cap = f->cap ? 2 * f->cap : 4096;
        f->record = realloc(f->record, f->cap * sizeof *f->record);
        assert_non_null(f->record);
    }
    f->record[f->n++] = *record;
    assert_int_equal(rp_sums_record(f->sums, record), MP_OK);
    assert_int_equal(mp_steps_feed(f->steps, record, 1), MP_OK);
}

static void fake_facts_put(struct rp_profile *p, const struct fake_profile *job)
{
    const struct {
        const char *key, *value;
    } text[] = {{"gpu_name", job->gpu ? job->gpu : "NVIDIA H100 80GB HBM3"},
                {"comm", "python train.py"},
                {"hostname", "node"},
                {"moeprof_version", "0"}, /* not of the version that tests it */
                {"end", "exit"}};
    const struct {
        const char *key;
        int64_t value;
    } number[] = {{"gpu_cc", 90}, {"gpu_sm_count", 132}, {"rank", -1},
                  {"world", 1},   {"created_ns", 1000},  {"ended_ns", 3000}};

    for (size_t i = 0; i < countof(text); i++)
        assert_int_equal(rp_put_meta(p, text[i].key, text[i].value, NULL), MP_OK);
    for (size_t i = 0; i < countof(number); i++)
        assert_int_equal(rp_put_meta_int(p, number[i].key, number[i].value, NULL), MP_OK);
}

/* A second of the GPU for each step: what a throttled, hotter GPU would show with time. */
static void fake_gauge_put(struct rp_profile *p, const struct fake_job *j)
{
    struct rp_gauge g = {.time_ns = j->now_ns + 1000,
                         .value = {1755, 2619, 512000, 61, 0, (40ull + j->grouped) << 30},
                         .valid = 0x3f};

    assert_int_equal(rp_put_gauge(p, &g, NULL), MP_OK);
}

static inline void fake_profile_make(const char *path, const struct fake_profile *job)
{
    struct fake_feed f = {.drop_kind = job->drop_kind};
    struct fake_job j;
    char *spec;

    assert_int_equal(rp_profile_create(&f.p, path, NULL), MP_OK);
    f.steps = mp_steps_new(fake_feed_step, &f);
    f.sums = rp_sums_new();
    fake_init(&j, fake_feed_put, &f);
    j.n_layer = job->layers;
    j.n_expert = job->experts;
    j.grouped = job->grouped;
    j.checkpoint = job->checkpoint;
    j.tokens = job->tokens ? job->tokens : 4096;
    spec = fake_spec(&j);
    assert_int_equal(rp_profile_begin(f.p, NULL), MP_OK);
    fake_facts_put(f.p, job);
    if (job->facts)
        job->facts(job->arg, f.p);
    if (!job->no_spec)
        assert_int_equal(rp_put_spec(f.p, spec, strlen(spec), NULL), MP_OK);
    for (int i = 0; i < job->steps; i++) {
        if (job->before_step)
            job->before_step(job->arg, &j);
        if (!job->bare)
            fake_gauge_put(f.p, &j);
        fake_step(&j);
    }
    mp_steps_finish(f.steps);
    assert_int_equal(rp_sums_write(f.sums, f.p, NULL), MP_OK);
    for (size_t i = 0; i < f.n && !job->bare; i += 65536)
        assert_int_equal(
            rp_put_chunk(f.p, f.record + i, f.n - i < 65536 ? f.n - i : 65536, 0, NULL), MP_OK);
    assert_int_equal(rp_profile_commit(f.p, NULL), MP_OK);
    assert_int_equal(rp_profile_close(f.p, NULL), MP_OK);
    mp_steps_free(f.steps);
    rp_sums_free(f.sums);
    free(f.record);
    free(spec);
}

/* A file for one test, made and removed around it. */
static char fake_path[64];

static inline int fake_path_make(void **state)
{
    int fd;

    (void)state;
    strcpy(fake_path, "/tmp/moeprof-test-XXXXXX");
    fd = mkstemp(fake_path);
    return fd < 0 ? -1 : close(fd);
}

static inline int fake_path_remove(void **state)
{
    (void)state;
    return unlink(fake_path);
}

#endif
