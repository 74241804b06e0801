/* Forward log: the context of a node is that of the last note at or below its number; never a wrong one. */
#include "profiler/core/seqlog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct mp_seqlog *fresh(void)
{
    struct mp_seqlog *log = calloc(1, sizeof *log);

    assert_non_null(log);
    return log;
}

static struct mp_ctx layer(int n)
{
    return (struct mp_ctx){.layer = (int16_t)n, .expert = -1, .phase = 2};
}

static int find(const struct mp_seqlog *log, uint64_t seq, uint64_t hint)
{
    struct mp_ctx out;

    return mp_seqlog_find(log, seq, &hint, &out) ? out.layer : -9;
}

static void test_empty_and_below(void **state)
{
    struct mp_seqlog *log = fresh();

    (void)state;
    assert_int_equal(find(log, 5, 0), -9);
    mp_seqlog_put(log, 10, layer(1));
    assert_int_equal(find(log, 9, 0), -9);
    assert_int_equal(find(log, 10, 0), 1);
    assert_int_equal(find(log, UINT64_MAX - 1, 0), 1);
    free(log);
}

static void test_equal_seq_later_holds(void **state)
{
    struct mp_seqlog *log = fresh();

    (void)state;
    mp_seqlog_put(log, 10, layer(1));
    mp_seqlog_put(log, 10, layer(2));
    mp_seqlog_put(log, 20, layer(3));
    assert_int_equal(atomic_load(&log->n), 2);
    assert_int_equal(find(log, 15, 0), 2);
    assert_int_equal(find(log, 20, 0), 3);
    free(log);
}

/* A product with a frozen weight makes no node, and its note would fall on a node of the scope before. */
static void test_never_back(void **state)
{
    struct mp_seqlog *log = fresh();

    (void)state;
    for (int i = 0; i < 64; i++) {
        mp_seqlog_put(log, (uint64_t)i * 10, layer(i));
        mp_seqlog_put(log, i ? (uint64_t)i * 10 - 1 : 0, layer(100 + i));
        for (int k = 0; k <= i; k++) {
            assert_int_equal(find(log, (uint64_t)k * 10, 0), 100 + k);
            assert_int_equal(find(log, (uint64_t)k * 10 + 9, 0), 100 + k);
        }
    }
    free(log);
}

/* Notes at 0, 3, 6, ...: whatever the hint, the answer is the same. */
static void test_any_hint(void **state)
{
    struct mp_seqlog *log = fresh();
    static const uint64_t hint[] = {0, 1, 17, 498, 499, 500, 1u << 20, UINT64_MAX};

    (void)state;
    for (int i = 0; i < 500; i++)
        mp_seqlog_put(log, (uint64_t)i * 3, layer(i));
    for (uint64_t seq = 0; seq < 1500; seq++)
        for (size_t h = 0; h < sizeof hint / sizeof hint[0]; h++)
            assert_int_equal(find(log, seq, hint[h]), (int)(seq / 3));
    free(log);
}

/* The backward walks down: the hint it leaves is the index that it found. */
static void test_hint_moves_down(void **state)
{
    struct mp_seqlog *log = fresh();
    uint64_t hint = 0;
    struct mp_ctx out;

    (void)state;
    for (int i = 0; i < 1000; i++)
        mp_seqlog_put(log, (uint64_t)i * 2, layer(i));
    for (uint64_t seq = 1999; seq > 0; seq--) {
        assert_true(mp_seqlog_find(log, seq, &hint, &out));
        assert_int_equal(out.layer, (int)(seq / 2));
        assert_int_equal(hint, seq / 2);
    }
    free(log);
}

static void test_amend(void **state)
{
    struct mp_seqlog *log = fresh();

    (void)state;
    mp_seqlog_amend(log, 4, layer(9)); /* empty */
    for (int i = 1; i < 5; i++)
        mp_seqlog_put(log, (uint64_t)i * 4, layer(i));
    mp_seqlog_amend(log, 8, layer(7));
    mp_seqlog_amend(log, 13, layer(9)); /* no note begins there */
    mp_seqlog_amend(log, 2, layer(9));
    assert_int_equal(find(log, 7, 0), 1);
    assert_int_equal(find(log, 8, 0), 7);
    assert_int_equal(find(log, 11, 0), 7);
    assert_int_equal(find(log, 13, 0), 3);
    assert_int_equal(find(log, 16, 0), 4);
    free(log);
}

static void test_wrap_forgets_and_says_so(void **state)
{
    struct mp_seqlog *log = fresh();
    uint64_t n = MP_SEQLOG_CAP * 2 + 77, oldest = n - (MP_SEQLOG_CAP - 1);

    (void)state;
    for (uint64_t i = 0; i < n; i++)
        mp_seqlog_put(log, i, layer((int)(i % 1000)));
    assert_int_equal(find(log, oldest - 1, 0), -9);
    assert_int_equal(find(log, 0, 3), -9); /* a hint from before the wrap */
    for (uint64_t seq = oldest; seq < n; seq += 997)
        assert_int_equal(find(log, seq, seq - 1), (int)(seq % 1000));
    assert_int_equal(find(log, n - 1, 5), (int)((n - 1) % 1000));
    free(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_and_below), cmocka_unit_test(test_equal_seq_later_holds),
        cmocka_unit_test(test_never_back),      cmocka_unit_test(test_any_hint),
        cmocka_unit_test(test_hint_moves_down), cmocka_unit_test(test_wrap_forgets_and_says_so),
        cmocka_unit_test(test_amend),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
