/* Shared memory as it should be: who may read it, the ring, names, the model description, log, features. */
#include "tests/unit/shm_fixture.h"

#include <pthread.h>
#include <sys/stat.h>

static void put_range(uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        union mp_record r = numbered(i);

        mp_shm_put(shm, &r);
    }
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

int main(void)
{
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
