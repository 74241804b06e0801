/* The profile: what is put comes back; other versions, damage and cuts are refused with a sentence and
 * never a fault. Built with asan and ubsan this is the fuzz test of the reader. */
#include "report/profile_file.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "report/analyze.h"
#include "report/sums.h"
#include "tests/mock/fake_job.h"

static char dir[64], path[128];

/* ---- a profile of a fake job, through the real steps and sums -------------------------------------- */

struct writer {
    struct rp_profile *p;
    struct mp_steps *steps;
    struct rp_sums *sums;
    union mp_record *chunk;
    size_t n;
    uint32_t n_step;
    uint64_t window_ns;
};

static void on_step(void *arg, const struct mp_step *step)
{
    struct writer *w = arg;
    struct mp_err err;

    assert_int_equal(mp_step_check(step, &err), MP_OK);
    assert_int_equal(rp_put_step(w->p, step, &err), MP_OK);
    assert_int_equal(rp_sums_step(w->sums, step), MP_OK);
    w->n_step++;
    w->window_ns += step->window_ns;
}

static void put(void *arg, const union mp_record *record)
{
    struct writer *w = arg;

    w->chunk[w->n++] = *record;
    assert_int_equal(rp_sums_record(w->sums, record), MP_OK);
    assert_int_equal(mp_steps_feed(w->steps, record, 1), MP_OK);
}

static void profile_make(int steps, struct writer *w)
{
    struct fake_job j;
    struct mp_err err = {0};

    *w = (struct writer){.chunk = calloc(65536, sizeof(union mp_record))};
    w->steps = mp_steps_new(on_step, w);
    w->sums = rp_sums_new();
    if (rp_profile_create(&w->p, path, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(rp_profile_begin(w->p, &err), MP_OK);
    for (uint32_t i = 0; i < FAKE_NAME_COUNT; i++)
        assert_int_equal(rp_put_name(w->p, i, fake_name[i], &err), MP_OK);
    fake_init(&j, put, w);
    j.n_layer = 2;
    j.n_expert = 16;
    for (int i = 0; i < steps; i++)
        fake_step(&j);
    mp_steps_finish(w->steps);
    assert_int_equal(rp_sums_write(w->sums, w->p, &err), MP_OK);
    assert_int_equal(rp_put_chunk(w->p, w->chunk, w->n, 5, &err), MP_OK);
    assert_int_equal(rp_put_meta(w->p, "gpu_name", "NVIDIA H100", &err), MP_OK);
    assert_int_equal(rp_put_spec(w->p, "{}", 2, &err), MP_OK);
    assert_int_equal(rp_put_log(w->p, 0,
                                &(struct rp_log){.time_ns = 1, .level = 1, .count = 2, .text = "a"},
                                &err),
                     MP_OK);
    assert_int_equal(
        rp_put_gauge(w->p, &(struct rp_gauge){.time_ns = 9, .value = {7}, .valid = 1}, &err),
        MP_OK);
    assert_int_equal(rp_profile_commit(w->p, &err), MP_OK);
    assert_int_equal(rp_profile_close(w->p, &err), MP_OK);
    mp_steps_free(w->steps);
    rp_sums_free(w->sums);
}

/* ---- round trip --------------------------------------------------------------------------------- */

struct seen {
    const struct writer *w;
    uint32_t n_step, n_route;
    uint64_t window_ns, tokens, kernel_ns, records;
    struct mp_err *err;
};

static int see_step(void *arg, const struct mp_step *step)
{
    struct seen *s = arg;
    uint64_t booked = 0;

    for (uint32_t i = 0; i < step->n_cell; i++)
        booked += step->cell[i].booked_ns;
    assert_int_equal(booked + step->idle_ns, step->window_ns);
    for (uint32_t i = 0; i < step->n_route; i++)
        for (unsigned e = 0; e < step->route[i].n_expert; e++)
            s->tokens += step->route[i].count[e];
    assert_int_equal(step->step, s->n_step);
    assert_int_equal(step->n_pairs, 1);
    assert_int_equal(step->useful, 3896);
    assert_int_equal(step->useful_basis, MP_MEASURED);
    assert_int_equal(step->route[0].basis, MP_MEASURED);
    assert_true(step->host_end_ns > step->begin_ns);
    s->n_step++;
    s->n_route += step->n_route;
    s->window_ns += step->window_ns;
    return 0;
}

static int see_kernel(void *arg, const struct rp_kernel *k)
{
    ((struct seen *)arg)->kernel_ns += k->total_ns;
    assert_true(k->min_ns <= k->max_ns && k->total_ns >= k->max_ns);
    assert_int_not_equal(k->name, FAKE_COUNT); /* the guest's own */
    return 0;
}

static int see_chunk(void *arg, const union mp_record *record, size_t n, uint64_t lost)
{
    struct seen *s = arg;

    assert_int_equal(n, s->w->n);
    assert_int_equal(lost, 5);
    assert_memory_equal(record, s->w->chunk, n * sizeof *record);
    s->records += n;
    return 0;
}

static void round_trip(void **state)
{
    struct writer w;
    struct seen s = {.w = &w};
    struct rp_profile *p;
    struct rp_block b[RP_BLOCK_COUNT];
    struct mp_err err = {0};
    char text[32];
    struct stat st;

    (void)state;
    profile_make(6, &w);
    assert_int_not_equal(stat(strcat(strcpy(text, dir), "/p-wal"), &st), 0); /* one file is left */
    if (rp_profile_open(&p, path, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(rp_each_step(p, see_step, &s, &err), MP_OK);
    assert_int_equal(s.n_step, 6);
    assert_int_equal(s.n_step, w.n_step);
    assert_int_equal(s.window_ns, w.window_ns);
    assert_int_equal(s.n_route, 12);
    assert_int_equal(s.tokens, 6ull * 2 * 4096 * 8);
    for (int i = 0; i < RP_BLOCK_COUNT; i++)
        assert_int_equal(rp_get_block(p, i, &b[i], &err), MP_OK);
    assert_int_equal(b[0].n_step, 2);
    assert_int_equal(b[1].n_step, 3);
    assert_int_equal(b[2].n_step, 1);
    assert_int_equal(b[0].window_ns + b[1].window_ns + b[2].window_ns, w.window_ns);
    assert_int_equal(rp_each_kernel(p, 1, see_kernel, &s, &err), MP_OK);
    assert_true(s.kernel_ns > 0);
    assert_int_equal(rp_each_chunk(p, see_chunk, &s, &err), MP_OK);
    assert_int_equal(s.records, w.n);
    assert_true(rp_get_meta(p, "gpu_name", text, sizeof text));
    assert_string_equal(text, "NVIDIA H100");
    assert_false(rp_get_meta(p, "nothing", text, sizeof text));
    assert_string_equal(rp_get_name(p, FAKE_FLASH), fake_name[FAKE_FLASH]);
    assert_string_equal(rp_get_name(p, 4000), "?");
    rp_profile_close(p, NULL);
    free(w.chunk);
}

/* ---- what is refused ---------------------------------------------------------------------------- */

static size_t file_read(uint8_t **bytes)
{
    FILE *f = fopen(path, "rb");
    size_t n;

    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    n = (size_t)ftell(f);
    rewind(f);
    *bytes = malloc(n);
    assert_int_equal(fread(*bytes, 1, n, f), n);
    fclose(f);
    return n;
}

static void file_write(const uint8_t *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

/* The bytes of a profile that is all right. */
static size_t whole_profile(uint8_t **bytes)
{
    struct writer w;

    profile_make(3, &w);
    free(w.chunk);
    return file_read(bytes);
}

/* All that a report does with a file; the code it ends with. */
static int read_all(struct mp_err *err)
{
    struct rp_profile *p;
    struct rp_report *r;
    int rc = rp_profile_open(&p, path, err);

    if (rc)
        return rc;
    rc = rp_analyze(&r, p, path, &(struct rp_options){0}, err);
    rp_report_free(r);
    rp_profile_close(p, NULL);
    return rc;
}

static void refuses_other_files(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *part;
    } bad[] = {{"", 0, "is empty"},
               {"hello world", 11, "not a moeprof profile"},
               {"SQLite format 3", 16, "not a moeprof profile"}};
    struct mp_err err;

    (void)state;
    for (size_t i = 0; i < countof(bad); i++) {
        file_write((const uint8_t *)bad[i].bytes, bad[i].n);
        assert_int_equal(read_all(&err), MP_EFORMAT);
        assert_non_null(strstr(err.msg, bad[i].part));
    }
    unlink(path);
    assert_int_equal(read_all(&err), MP_EIO);
    strcpy(path, dir);
    assert_int_equal(read_all(&err), MP_EFORMAT);
    assert_non_null(strstr(err.msg, "not a file"));
    snprintf(path, sizeof path, "%s/p", dir);
}

static void refuses_versions(void **state)
{
    static const uint8_t version[] = {0, RP_SCHEMA_VERSION + 1, 200};
    struct mp_err err;
    uint8_t *bytes;
    size_t n;

    (void)state;
    n = whole_profile(&bytes);
    for (size_t i = 0; i < countof(version); i++) {
        char want[40];

        bytes[63] = version[i]; /* user_version, big-endian at 60 */
        file_write(bytes, n);
        assert_int_equal(read_all(&err), MP_EVERSION);
        snprintf(want, sizeof want, "has schema %d,", version[i]);
        assert_non_null(strstr(err.msg, want));
        assert_non_null(strstr(err.msg, "reads schema 1 to 4"));
    }
    bytes[63] = RP_SCHEMA_VERSION;
    bytes[68] = 'X'; /* application_id */
    file_write(bytes, n);
    assert_int_equal(read_all(&err), MP_EFORMAT);
    free(bytes);
}

static void refuses_cuts(void **state)
{
    struct mp_err err;
    uint8_t *bytes;
    size_t n;

    (void)state;
    n = whole_profile(&bytes);
    for (size_t cut = 0; cut < n; cut += cut < 200 ? 1 : 997) {
        file_write(bytes, cut);
        assert_int_equal(read_all(&err), MP_EFORMAT);
        assert_true(strlen(err.msg) > 20);
    }
    file_write(bytes, n);
    assert_int_equal(read_all(&err), MP_OK);
    free(bytes);
}

static void damage(void **state)
{
    struct mp_err err;
    uint8_t *bytes, *bad;
    uint64_t rng = 5;
    size_t n;

    (void)state;
    n = whole_profile(&bytes);
    bad = malloc(n);
    for (int round = 0; round < 300; round++) {
        memcpy(bad, bytes, n);
        for (int k = 0; k < 40; k++) {
            rng = rng * 6364136223846793005ull + 1442695040888963407ull;
            bad[100 + (rng >> 33) % (n - 100)] = (uint8_t)(rng >> 25);
        }
        file_write(bad, n);
        err.msg[0] = 0;
        if (read_all(&err) != MP_OK) /* a changed number is no error; anything else is said */
            assert_true(strlen(err.msg) > 20);
    }
    free(bad);
    free(bytes);
}

static void create_refuses(void **state)
{
    struct mp_err err;
    struct rp_profile *p;
    struct writer w;

    (void)state;
    file_write((const uint8_t *)"my notes", 8);
    assert_int_equal(rp_profile_create(&p, path, &err), MP_EINVAL);
    assert_non_null(strstr(err.msg, "exists and is not a profile"));
    unlink(path);
    assert_int_equal(rp_profile_create(&p, "/nowhere/at/all", &err), MP_EPERM);
    profile_make(1, &w); /* and replaces an older profile */
    free(w.chunk);
    profile_make(2, &w);
    free(w.chunk);
    assert_int_equal(read_all(&err), MP_OK);
}

static bool is_locked(void)
{
    char name[160];

    snprintf(name, sizeof name, "%s-lock", path);
    return access(name, F_OK) == 0;
}

/* Rows that were committed are there although the writer never closed: what a SIGKILL leaves. */
static void survives_kill(void **state)
{
    struct mp_err err = {0};
    struct rp_profile *p;
    char text[16];
    pid_t pid = fork();

    (void)state;
    if (pid == 0) {
        if (rp_profile_create(&p, path, NULL) || rp_profile_begin(p, NULL) ||
            rp_put_meta(p, "k", "kept", NULL) || rp_profile_commit(p, NULL) ||
            rp_profile_begin(p, NULL) || rp_put_meta(p, "k", "lost", NULL))
            _exit(1);
        raise(SIGKILL);
    }
    waitpid(pid, NULL, 0);
    if (rp_profile_open(&p, path, &err))
        fail_msg("%s", err.msg);
    assert_true(rp_get_meta(p, "k", text, sizeof text));
    assert_string_equal(text, "kept");
    rp_profile_close(p, NULL);
    assert_true(is_locked()); /* left behind, and in nobody's way */
    assert_int_equal(rp_profile_create(&p, path, &err), MP_OK);
    rp_profile_close(p, NULL);
    assert_false(is_locked());
}

/* Two writers of a name at a time: the second leaves the file of the first alone. */
static void one_writer(void **state)
{
    struct rp_profile *p, *other;
    struct mp_err err;
    char text[16];

    (void)state;
    assert_int_equal(rp_profile_create(&p, path, &err), MP_OK);
    assert_true(is_locked());
    assert_int_equal(rp_profile_create(&other, path, &err), MP_EBUSY);
    assert_null(other);
    assert_non_null(strstr(err.msg, path));
    assert_int_equal(rp_profile_append(&other, path, &err), MP_EBUSY);
    assert_int_equal(rp_profile_may_create(path, &err), MP_OK); /* under another name */
    assert_int_equal(rp_put_meta(p, "k", "kept", &err), MP_OK);
    assert_int_equal(rp_profile_close(p, &err), MP_OK);
    assert_false(is_locked());
    assert_int_equal(rp_profile_append(&p, path, &err), MP_OK);
    assert_true(rp_get_meta(p, "k", text, sizeof text));
    assert_int_equal(rp_profile_create(&other, path, &err), MP_EBUSY);
    assert_int_equal(rp_profile_close(p, &err), MP_OK);
    assert_int_equal(rp_profile_create(&p, path, &err), MP_OK);
    assert_int_equal(rp_profile_close(p, &err), MP_OK);
    assert_false(is_locked());
}

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/moeprof-test-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/p", dir);
    return 0;
}

static int teardown(void **state)
{
    static const char *const tail[] = {"", "-wal", "-shm", "-journal", "-lock"};
    char name[160];

    (void)state;
    for (size_t i = 0; i < countof(tail); i++) {
        snprintf(name, sizeof name, "%s%s", path, tail[i]);
        unlink(name);
    }
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_other_files, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_versions, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_cuts, setup, teardown),
        cmocka_unit_test_setup_teardown(damage, setup, teardown),
        cmocka_unit_test_setup_teardown(create_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(survives_kill, setup, teardown),
        cmocka_unit_test_setup_teardown(one_writer, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
