/* The recorder over real shared memory, guest and recorder in one process: nothing lost, gaps counted,
 * a guest that publishes rubbish, a place that cannot be written. */
#include "report/recorder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "report/analyze.h"
#include "tests/mock/fake_job.h"

static char dir[64], path[96];
static struct mp_shm *shm;

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/moeprof-rec-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/p.moeprof", dir);
    return mp_shm_create(&shm, dir, NULL);
}

static int teardown(void **state)
{
    (void)state;
    mp_shm_close(shm, dir, true);
    unlink(path);
    return rmdir(dir);
}

static struct rp_recorder *recorder_open(void)
{
    struct rp_recorder *r;
    struct mp_reader reader;
    struct mp_err err = {0};

    assert_int_equal(mp_reader_open(&reader, dir, getpid(), true, &err), MP_OK);
    if (rp_recorder_new(&r, &reader, path, &err))
        fail_msg("%s", err.msg);
    return r;
}

static struct rp_report *recorder_close(struct rp_recorder *r)
{
    struct rp_profile *p;
    struct rp_report *report;
    struct mp_err err = {0};

    rp_recorder_end(r, "exit");
    assert_null(rp_recorder_failure(r));
    rp_recorder_free(r);
    if (rp_profile_open(&p, path, &err) ||
        rp_analyze(&report, p, path, &(struct rp_options){0}, &err))
        fail_msg("%s", err.msg);
    rp_profile_close(p, NULL);
    return report;
}

static void put(void *arg, const union mp_record *record)
{
    (*(uint64_t *)arg)++;
    mp_shm_put(shm, record);
}

static void publish_facts(const struct fake_job *j)
{
    char *spec = fake_spec(j);

    snprintf(shm->gpu_name, sizeof shm->gpu_name, "NVIDIA H100 80GB HBM3");
    shm->gpu_cc = 90;
    shm->gpu_sm_count = 132;
    for (int i = 0; i < FAKE_NAME_COUNT; i++)
        mp_shm_name_add(shm, fake_name[i]);
    assert_int_equal(mp_shm_spec_set(shm, spec, strlen(spec)), MP_OK);
    mp_shm_log(shm, 1, "once");
    mp_shm_log(shm, 1, "once");
    atomic_store(&shm->state, MP_GUEST_RECORDING);
    free(spec);
}

struct sum {
    uint64_t n, lost;
};

static int on_chunk(void *arg, const union mp_record *record, size_t n, uint64_t lost)
{
    struct sum *s = arg;

    (void)record;
    s->n += n;
    s->lost += lost;
    return 0;
}

static int on_log(void *arg, const struct rp_log *log)
{
    assert_string_equal(log->text, "once");
    assert_int_equal(log->count, 2);
    (*(int *)arg)++;
    return 0;
}

static struct sum chunks(void)
{
    struct rp_profile *p;
    struct sum s = {0};
    int logs = 0;

    assert_int_equal(rp_profile_open(&p, path, NULL), MP_OK);
    assert_int_equal(rp_each_chunk(p, on_chunk, &s, NULL), MP_OK);
    assert_int_equal(rp_each_log(p, on_log, &logs, NULL), MP_OK);
    assert_int_equal(logs, 1);
    rp_profile_close(p, NULL);
    return s;
}

static void nothing_lost(void **state)
{
    struct rp_recorder *r;
    struct rp_report *report;
    struct rp_status st;
    struct fake_job j;
    uint64_t n = 0;

    (void)state;
    fake_init(&j, put, &n);
    publish_facts(&j);
    fake_step(&j); /* before the recorder comes: still in the ring */
    mp_shm_flush(shm);
    r = recorder_open();
    for (int i = 0; i < 7; i++) {
        fake_step(&j);
        mp_shm_flush(shm);
        assert_true(rp_recorder_poll(r) > 0);
    }
    rp_recorder_status(r, &st);
    assert_int_equal(st.n_record, n);
    assert_int_equal(st.n_dropped, 0);
    assert_true(st.mfu.basis != MP_UNKNOWN && st.step_s.basis == MP_MEASURED);
    report = recorder_close(r);
    assert_int_equal(report->step.recorded, 8);
    assert_int_equal(report->step.count, 5);
    assert_true(report->mfu.mfu.basis != MP_UNKNOWN);
    rp_report_free(report);
    assert_int_equal(chunks().n, n);
}

/* Three rings' worth without a poll: what is gone is counted, what follows is whole again. */
static void lapped(void **state)
{
    struct rp_recorder *r;
    struct rp_report *report;
    struct fake_job j;
    struct sum s;
    uint64_t n = 0;

    (void)state;
    fake_init(&j, put, &n);
    publish_facts(&j);
    r = recorder_open();
    fake_step(&j);
    mp_shm_flush(shm);
    rp_recorder_poll(r);
    while (n < 3 * MP_RING_CAP)
        fake_step(&j);
    mp_shm_flush(shm);
    rp_recorder_poll(r);
    for (int i = 0; i < 5; i++)
        fake_step(&j);
    mp_shm_flush(shm);
    report = recorder_close(r);
    s = chunks();
    assert_true(s.lost > 2 * (MP_RING_CAP - 2 * MP_RING_BATCH) && s.n + s.lost == n);
    assert_int_equal(report->coverage.dropped, s.lost);
    assert_true(report->step.count > 4);
    rp_report_free(report);
}

static void rubbish(void **state)
{
    struct rp_recorder *r;
    struct rp_report *report;
    union mp_record record;
    uint64_t rng = 3;

    (void)state;
    r = recorder_open();
    memset(shm->gpu_name, 0xff, sizeof shm->gpu_name);
    shm->rank = INT32_MIN;
    shm->world = INT32_MAX;
    mp_shm_spec_set(shm, "{\"ops\": [1, {}, null], \"layers\": 7", 30);
    for (int i = 0; i < 40000; i++) {
        for (size_t b = 0; b < sizeof record; b++) {
            rng = rng * 6364136223846793005ull + 1442695040888963407ull;
            ((uint8_t *)&record)[b] = (uint8_t)(rng >> 40);
        }
        record.head.kind %= MP_KIND_COUNT + 1;
        if (i % 4)
            record.head.step %= 64;
        mp_shm_put(shm, &record);
    }
    mp_shm_flush(shm);
    rp_recorder_poll(r);
    report = recorder_close(r);
    assert_int_equal(report->mfu.mfu.basis, MP_UNKNOWN);
    rp_report_free(report);
}

static void unwritable(void **state)
{
    struct rp_recorder *r;
    struct mp_reader reader;
    struct mp_err err;

    (void)state;
    assert_int_equal(mp_reader_open(&reader, dir, getpid(), true, NULL), MP_OK);
    assert_int_equal(rp_recorder_new(&r, &reader, "/nowhere/a.moeprof", &err), MP_EPERM);
    assert_null(r);
    assert_non_null(strstr(err.msg, "'/nowhere/a.moeprof'"));
}

/* The reader is still there for another name. */
static void name_taken(void **state)
{
    struct rp_recorder *r = recorder_open(), *other;
    struct mp_reader reader;
    struct mp_err err;
    char name[128];

    (void)state;
    assert_int_equal(mp_reader_open(&reader, dir, getpid(), true, NULL), MP_OK);
    assert_int_equal(rp_recorder_new(&other, &reader, path, &err), MP_EBUSY);
    assert_null(other);
    snprintf(name, sizeof name, "%s.2", path);
    assert_int_equal(rp_recorder_new(&other, &reader, name, &err), MP_OK);
    rp_recorder_poll(other);
    rp_recorder_end(other, "exit");
    rp_recorder_free(other);
    unlink(name);
    rp_report_free(recorder_close(r));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(lapped, setup, teardown),
        cmocka_unit_test_setup_teardown(rubbish, setup, teardown),
        cmocka_unit_test_setup_teardown(unwritable, setup, teardown),
        cmocka_unit_test_setup_teardown(name_taken, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
