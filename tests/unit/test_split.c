/* Largest-remainder split: exact sums, fair to one, no share for no tokens. */
#include "profiler/core/step.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_exact_and_fair(void **state)
{
    uint64_t seed = 99, out[300];
    uint32_t count[300];

    (void)state;
    for (int round = 0; round < 3000; round++) {
        uint64_t total, sum = 0, given = 0;
        size_t n = 1 + seed % 300;

        for (size_t i = 0; i < n; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            count[i] = seed >> 60 < 4 ? 0 : (uint32_t)(seed >> 32) >> (seed >> 27 & 31);
            sum += count[i];
        }
        total = seed >> (seed >> 20 & 63);
        assert_true(mp_split(total, count, n, out) == (sum > 0));
        for (size_t i = 0; i < n && sum; i++) {
            __extension__ unsigned __int128 exact = (unsigned __int128)total * count[i];

            given += out[i];
            assert_true(out[i] == (uint64_t)(exact / sum) || out[i] == (uint64_t)(exact / sum) + 1);
            assert_true(count[i] || out[i] == 0);
        }
        assert_true(given == (sum ? total : 0));
        seed++;
    }
}

static void test_ties_to_lower_index(void **state)
{
    const uint32_t count[] = {1, 1, 0, 1, 1}, one[] = {7}, none[] = {0, 0};
    uint64_t out[5] = {9, 9, 9, 9, 9};

    (void)state;
    assert_true(mp_split(6, count, 5, out));
    assert_int_equal(out[0], 2);
    assert_int_equal(out[1], 2);
    assert_int_equal(out[2], 0);
    assert_int_equal(out[3], 1);
    assert_int_equal(out[4], 1);
    assert_true(mp_split(UINT64_MAX, one, 1, out));
    assert_true(out[0] == UINT64_MAX);
    assert_false(mp_split(6, none, 2, out));
    assert_int_equal(out[0], 0);
    assert_false(mp_split(6, NULL, 0, NULL));
}

static void test_largest_remainder(void **state)
{
    const uint32_t count[] = {1, 5, 4}; /* of 7: 0.7, 3.5, 2.8 */
    uint64_t out[3];

    (void)state;
    assert_true(mp_split(7, count, 3, out));
    assert_int_equal(out[0], 1);
    assert_int_equal(out[1], 3);
    assert_int_equal(out[2], 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_and_fair),
        cmocka_unit_test(test_ties_to_lower_index),
        cmocka_unit_test(test_largest_remainder),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
