/* Shared memory that is not as it should be: hostile bytes in the file, other files, guests that died or forked. */
#include "tests/unit/shm_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

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
    const struct CMUnitTest tests[] = {
        CASE(test_hostile_bytes),
        CASE(test_refuses_other_files),
        CASE(test_dead_guest),
        CASE(test_fork_child_leaves_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
