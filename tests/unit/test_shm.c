/* Shared memory: one process plays guest and reader; hostile bytes are written into the file. */
#include "profiler/core/shm.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static struct mp_shm *shm;

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/mp_shm_test_XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    return mp_shm_create(&shm, dir, NULL);
}

static int remove_one(void *arg, int pid)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%d.shm", (const char *)arg, pid);
    unlink(path);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mp_shm_close(shm, dir, true);
    mp_shm_each(dir, remove_one, dir, NULL);
    return rmdir(dir);
}

static union mp_record numbered(uint64_t i)
{
    union mp_record r = {
        .event = {.start_ns = i, .kind = MP_KERNEL, .dur_ns = (uint32_t)i, .step = (uint32_t)i}};

    return r;
}

static void put_range(uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        union mp_record r = numbered(i);

        mp_shm_put(shm, &r);
    }
}

static struct mp_reader reader(bool from_oldest)
{
    struct mp_reader r;
    struct mp_err err = {0};

    if (mp_reader_open(&r, dir, getpid(), from_oldest, &err))
        fail_msg("%s", err.msg);
    return r;
}

static void test_dir_is_private(void **state)
{
    char out[128], open_dir[96];
    struct mp_err err;
    struct stat st;

    (void)state;
    snprintf(open_dir, sizeof open_dir, "%s/job", dir);
    assert_int_equal(mp_shm_dir(out, sizeof out, open_dir, &err), 0);
    assert_string_equal(out, open_dir);
    assert_int_equal(stat(open_dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    chmod(open_dir, 0750);
    assert_int_equal(mp_shm_dir(out, sizeof out, open_dir, &err), MP_EPERM);
    rmdir(open_dir);
    assert_int_equal(symlink("/tmp", open_dir), 0);
    assert_int_not_equal(mp_shm_dir(out, sizeof out, open_dir, &err), 0);
    unlink(open_dir);
    assert_int_equal(mp_shm_dir(out, 4, open_dir, &err), MP_EINVAL);
}

static void test_file_is_private_and_described(void **state)
{
    struct mp_reader r = reader(true);
    char path[128], text[64];
    struct stat st;

    (void)state;
    snprintf(path, sizeof path, "%s/%d.shm", dir, getpid());
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true((uint64_t)st.st_blocks * 512 >= sizeof(struct mp_shm)); /* allocated, not sparse */
    assert_int_equal(r.shm->pid, getpid());
    mp_shm_text(text, sizeof text, r.shm->comm, sizeof r.shm->comm);
    assert_non_null(strstr(text, "test_shm"));
    assert_true(mp_reader_alive(&r));
    mp_reader_close(&r);
}

static void test_second_create_replaces(void **state)
{
    struct mp_reader old = reader(true), new;
    struct mp_shm *again;

    (void)state;
    put_range(0, 5);
    mp_shm_flush(shm);
    assert_int_equal(mp_shm_create(&again, dir, NULL), 0);
    new = reader(true);
    union mp_record out[8];
    assert_int_equal(mp_reader_read(&old, out, 8), 5); /* an old mapping outlives its name */
    assert_int_equal(mp_reader_read(&new, out, 8), 0);
    mp_reader_close(&old);
    mp_reader_close(&new);
    mp_shm_close(shm, dir, false);
    shm = again;
}

static void test_ring_in_order(void **state)
{
    struct mp_reader r = reader(true);
    union mp_record out[100];
    uint64_t next = 0;
    size_t got;

    (void)state;
    put_range(0, MP_RING_BATCH - 1);
    assert_int_equal(mp_reader_read(&r, out, 100), 0); /* nothing published yet */
    put_range(MP_RING_BATCH - 1, 3 * MP_RING_BATCH + 7);
    mp_shm_flush(shm);
    while ((got = mp_reader_read(&r, out, 100)))
        for (size_t i = 0; i < got; i++)
            assert_int_equal(out[i].event.start_ns, next++);
    assert_int_equal(next, 3 * MP_RING_BATCH + 7);
    assert_int_equal(r.n_lost, 0);
    mp_reader_close(&r);
}

static void test_ring_lapped(void **state)
{
    struct mp_reader r = reader(true), late;
    union mp_record out[64];
    uint64_t n = MP_RING_CAP + 10 * MP_RING_BATCH, seen = 0;
    size_t got;

    (void)state;
    put_range(0, n);
    mp_shm_flush(shm);
    late = reader(true);
    while ((got = mp_reader_read(&r, out, 64)))
        for (size_t i = 0; i < got; i++, seen++)
            assert_int_equal(out[i].event.start_ns, r.n_lost + seen);
    assert_int_equal(seen + r.n_lost, n);
    assert_int_equal(seen, MP_RING_CAP - MP_RING_BATCH);
    assert_int_equal(mp_reader_read(&late, out, 64), 64);
    assert_int_equal(late.n_lost, 0); /* opened from the oldest: nothing that it could have had */
    mp_reader_close(&r);
    mp_reader_close(&late);
}

static _Atomic bool stop;

static void *produce(void *arg)
{
    uint64_t *n = arg;

    while (!atomic_load(&stop)) {
        put_range(*n, *n + 1000);
        *n += 1000;
    }
    mp_shm_flush(shm);
    return NULL;
}

/* Every record that comes through is whole, in order, and read + lost = written. */
static void test_ring_concurrent(void **state)
{
    struct mp_reader r = reader(true);
    static union mp_record out[4096];
    uint64_t written = 0, seen = 0, last = 0;
    pthread_t thread;
    size_t got;

    (void)state;
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&thread, NULL, produce, &written), 0);
    for (int round = 0; round < 2000 || !atomic_load(&stop); round++) {
        got = mp_reader_read(&r, out, countof(out));
        for (size_t i = 0; i < got; i++) {
            uint64_t v = out[i].event.start_ns;

            assert_true(v == 0 || v > last);
            assert_int_equal(out[i].event.step, (uint32_t)v);
            last = v;
        }
        seen += got;
        if (round % 500 == 499)
            usleep(3000); /* be lapped now and then */
        if (round == 1999) {
            atomic_store(&stop, true);
            pthread_join(thread, NULL);
        }
    }
    while ((got = mp_reader_read(&r, out, countof(out))))
        seen += got;
    assert_int_equal(seen + r.n_lost, written);
    mp_reader_close(&r);
}

static void test_names(void **state)
{
    struct mp_reader r = reader(true);
    char name[64], *big = malloc(MP_NAME_HEAP);

    (void)state;
    for (uint32_t i = 0; i < MP_NAME_CAP - 1; i++) {
        snprintf(name, sizeof name, "kernel_%u", i);
        assert_int_equal(mp_shm_name_add(shm, name), i);
    }
    assert_int_equal(mp_shm_name_add(shm, "one too many"), MP_NAME_CAP - 1);
    assert_string_equal(mp_reader_name(&r, 17), "kernel_17");
    assert_string_equal(mp_reader_name(&r, MP_NAME_CAP - 1), "(name table full)");
    assert_string_equal(mp_reader_name(&r, MP_NAME_CAP), "?");
    assert_string_equal(mp_reader_name(&r, UINT32_MAX), "?");
    memset(big, 'x', MP_NAME_HEAP);
    big[MP_NAME_HEAP - 1] = 0;
    atomic_store(&shm->n_name, 3);
    assert_int_equal(mp_shm_name_add(shm, big), MP_NAME_CAP - 1);
    assert_string_equal(mp_reader_name(&r, 3), "?");
    free(big);
    mp_reader_close(&r);
}

static void test_spec(void **state)
{
    struct mp_reader r = reader(true);
    char *json = malloc(MP_SPEC_CAP + 1), *out = malloc(MP_SPEC_CAP + 1);

    (void)state;
    assert_int_equal(mp_reader_spec(&r, out, MP_SPEC_CAP + 1), 0);
    assert_int_equal(mp_shm_spec_set(shm, "{\"schema\": 1}", 13), 0);
    assert_int_equal(mp_reader_spec(&r, out, 13), MP_EFULL);
    assert_int_equal(mp_reader_spec(&r, out, 14), 13);
    assert_string_equal(out, "{\"schema\": 1}");
    assert_int_equal(mp_reader_spec(&r, out, 14), 0); /* seen */
    memset(json, 'a', MP_SPEC_CAP + 1);
    assert_int_equal(mp_shm_spec_set(shm, json, MP_SPEC_CAP + 1), MP_EFULL);
    assert_int_equal(mp_shm_spec_set(shm, json, MP_SPEC_CAP), 0);
    assert_int_equal(mp_reader_spec(&r, out, MP_SPEC_CAP + 1), MP_SPEC_CAP);
    atomic_fetch_add(&shm->spec_gen, 1); /* being written for ever: the guest died in it */
    assert_int_equal(mp_reader_spec(&r, out, MP_SPEC_CAP + 1), 0);
    atomic_fetch_add(&shm->spec_gen, 1);
    shm->spec_bytes = UINT32_MAX;
    assert_int_equal(mp_reader_spec(&r, out, MP_SPEC_CAP + 1), 0);
    free(json);
    free(out);
    mp_reader_close(&r);
}

static void test_log_counts_causes(void **state)
{
    struct mp_reader r = reader(true);
    struct mp_log_row row;
    char text[300];

    (void)state;
    for (int i = 0; i < 5; i++)
        mp_shm_log(shm, 1, "cupti dropped records");
    assert_int_equal(atomic_load(&shm->n_log), 1);
    assert_true(mp_reader_log(&r, 0, &row));
    assert_int_equal(row.count, 5);
    assert_string_equal(row.text, "cupti dropped records");
    memset(text, 'y', sizeof text);
    text[sizeof text - 1] = 0;
    mp_shm_log(shm, 1, text); /* cut, and still one cause */
    mp_shm_log(shm, 1, text);
    assert_int_equal(atomic_load(&shm->n_log), 2);
    for (unsigned i = 0; i < MP_LOG_CAP; i++) {
        snprintf(text, sizeof text, "cause %u\033[2J", i);
        mp_shm_log(shm, 0, text);
    }
    assert_false(mp_reader_log(&r, 2, &row)); /* the next sentence may be on its way over it */
    assert_true(mp_reader_log(&r, 3, &row));
    assert_string_equal(row.text, "cause 1?[2J");
    assert_false(mp_reader_log(&r, 2 + MP_LOG_CAP, &row));
    mp_reader_close(&r);
}

static void test_feature(void **state)
{
    struct mp_reader r = reader(true);
    char why[200];

    (void)state;
    mp_shm_feature(shm, MP_FEATURE_CUPTI, MP_FEATURE_ON, NULL);
    assert_int_equal(mp_reader_feature(&r, MP_FEATURE_CUPTI, why, sizeof why), MP_FEATURE_ON);
    assert_string_equal(why, "");
    mp_shm_feature(shm, MP_FEATURE_CUPTI, MP_FEATURE_FAILED, "held by nsys");
    mp_shm_feature(shm, MP_FEATURE_CUPTI, MP_FEATURE_FAILED, "what came of it");
    assert_int_equal(mp_reader_feature(&r, MP_FEATURE_CUPTI, why, sizeof why), MP_FEATURE_FAILED);
    assert_string_equal(why, "held by nsys");
    mp_shm_feature(shm, 99, MP_FEATURE_ON, NULL);
    assert_int_equal(mp_reader_feature(&r, 99, why, sizeof why), MP_FEATURE_WAITING);
    mp_reader_close(&r);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void read_everything(struct mp_reader *r)
{
    static char spec[MP_SPEC_CAP + 1];
    static union mp_record out[MP_RING_BATCH];
    struct mp_log_row row;
    char why[64];

    for (int i = 0; i < 20; i++)
        assert_true(mp_reader_read(r, out, countof(out)) <= countof(out));
    for (uint32_t i = 0; i < MP_NAME_CAP + 2; i += 97)
        assert_true(strlen(mp_reader_name(r, i)) < MP_NAME_HEAP);
    assert_true(mp_reader_spec(r, spec, sizeof spec) <= (int)MP_SPEC_CAP);
    for (uint64_t i = 0; i < MP_LOG_CAP; i++)
        if (mp_reader_log(r, i, &row))
            assert_true(strlen(row.text) < sizeof row.text);
    for (int i = 0; i < MP_FEATURE_COUNT; i++)
        mp_reader_feature(r, i, why, sizeof why);
    mp_reader_alive(r);
}

/* Whatever the guest's file holds, a reader stays inside it (run under ASan and UBSan too). */
static void test_hostile_bytes(void **state)
{
    uint64_t random = 88172645463325252u;

    (void)state;
    for (int round = 0; round < 60; round++) {
        struct mp_reader r = reader(true);
        unsigned char *bytes = (unsigned char *)shm + offsetof(struct mp_shm, start_time);
        size_t n = sizeof *shm - offsetof(struct mp_shm, start_time);

        for (int i = 0; i < 4000; i++)
            bytes[next_random(&random) % n] = (unsigned char)next_random(&random);
        atomic_store(&shm->head, next_random(&random) >> next_random(&random) % 64);
        atomic_store(&shm->n_name, (uint32_t)next_random(&random));
        atomic_store(&shm->n_log, next_random(&random) >> next_random(&random) % 64);
        shm->spec_bytes = (uint32_t)next_random(&random) >> next_random(&random) % 32;
        for (int i = 0; i < 2000; i++)
            shm->name_offset[i] = (uint32_t)next_random(&random) >> next_random(&random) % 32;
        if (round % 2)
            memset(shm->name_heap, 'x', sizeof shm->name_heap);
        read_everything(&r);
        mp_reader_close(&r);
    }
    atomic_store(&shm->head, 0);
    shm->n_written = 0;
}

static void expect_refused(const char *path, const void *bytes, size_t n, int pid, int code)
{
    struct mp_reader r;
    struct mp_err err = {0};
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
    close(fd);
    assert_int_equal(mp_reader_open(&r, dir, pid, true, &err), code);
    assert_true(strlen(err.msg) > 10);
    mp_reader_close(&r);
}

static void test_refuses_other_files(void **state)
{
    struct mp_reader r;
    struct mp_err err;
    struct mp_shm *copy = aligned_alloc(_Alignof(struct mp_shm), sizeof *copy);
    char path[128];

    (void)state;
    memcpy(copy, shm, sizeof *copy);
    snprintf(path, sizeof path, "%s/1.shm", dir);
    assert_int_equal(mp_reader_open(&r, dir, 1, true, &err), MP_EGONE);
    expect_refused(path, "", 0, 1, MP_EFORMAT);
    expect_refused(path, copy, 4096, 1, MP_EFORMAT);
    expect_refused(path, copy, sizeof *copy, 1, MP_EFORMAT); /* another pid's */
    copy->pid = 1;
    copy->version++;
    expect_refused(path, copy, sizeof *copy, 1, MP_EVERSION);
    copy->version--;
    copy->magic = 0;
    expect_refused(path, copy, sizeof *copy, 1, MP_EFORMAT);
    unlink(path);
    mkfifo(path, 0600);
    assert_int_equal(mp_reader_open(&r, dir, 1, true, &err), MP_EFORMAT); /* and does not hang */
    unlink(path);
    free(copy);
}

static int count_pid(void *arg, int pid)
{
    (void)pid;
    ++*(int *)arg;
    return 0;
}

static int stop_at(void *arg, int pid)
{
    (void)arg;
    return pid;
}

/* A killed guest leaves its file; a reader keeps what was published; sweep removes it. */
static void test_dead_guest(void **state)
{
    struct mp_reader r;
    union mp_record out[4];
    int n = 0, ready[2];
    char byte;

    (void)state;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct mp_shm *own;
        union mp_record one = numbered(1);

        if (mp_shm_create(&own, dir, NULL) == 0) {
            mp_shm_put(own, &one);
            mp_shm_flush(own);
        }
        if (write(ready[1], "x", 1) == 1)
            pause();
        _exit(0);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(mp_reader_open(&r, dir, child, true, NULL), 0);
    assert_true(mp_reader_alive(&r));
    kill(child, SIGKILL);
    usleep(50000);
    assert_false(mp_reader_alive(&r)); /* not even as a zombie */
    waitpid(child, NULL, 0);
    assert_false(mp_reader_alive(&r));
    assert_int_equal(mp_reader_read(&r, out, 4), 1);
    mp_reader_close(&r);

    assert_int_equal(mp_shm_each(dir, count_pid, &n, NULL), 0);
    assert_int_equal(n, 2);
    assert_true(mp_shm_each(dir, stop_at, NULL, NULL) > 0);
    mp_shm_sweep(dir, 3600);
    n = 0;
    mp_shm_each(dir, count_pid, &n, NULL);
    assert_int_equal(n, 2);
    mp_shm_sweep(dir, 0);
    n = 0;
    mp_shm_each(dir, count_pid, &n, NULL);
    assert_int_equal(n, 1); /* ours lives */
    close(ready[0]);
    close(ready[1]);
}

/* A fork's child closes its copy of the mapping: the parent's file stays. */
static void test_fork_child_leaves_file(void **state)
{
    struct mp_reader r;
    pid_t child = fork();

    (void)state;
    if (child == 0) {
        mp_shm_close(shm, dir, true);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    r = reader(true);
    mp_reader_close(&r);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_dir_is_private),
        CASE(test_file_is_private_and_described),
        CASE(test_second_create_replaces),
        CASE(test_ring_in_order),
        CASE(test_ring_lapped),
        CASE(test_ring_concurrent),
        CASE(test_names),
        CASE(test_spec),
        CASE(test_log_counts_causes),
        CASE(test_feature),
        CASE(test_hostile_bytes),
        CASE(test_refuses_other_files),
        CASE(test_dead_guest),
        CASE(test_fork_child_leaves_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
