/* Weight ranges: a pointer counts at the base of a weight or of an expert's slice, nowhere else. */
#include "profiler/core/ranges.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const struct mp_range model[] = {
    {.base = 0x900000, .bytes = 0x1000, .layer = 1, .expert = 5, .phase = 6},
    {.base = 0x100000, .bytes = 0x8000, .n_slice = 8, .layer = 0, .expert = -1, .phase = 6},
    {.base = 0x108000,
     .bytes = 0x400,
     .layer = 0,
     .expert = -1,
     .phase = 4}, /* begins where that ends */
};

static struct mp_ranges *r;

static int up(void **state)
{
    (void)state;
    r = mp_ranges_new(model, countof(model));
    return !r;
}

static int down(void **state)
{
    (void)state;
    mp_ranges_free(r);
    return 0;
}

static void test_bases(void **state)
{
    struct mp_hit hit;

    (void)state;
    assert_int_equal(r->n, 3);
    assert_true(mp_ranges_find(r, 0x900000, &hit));
    assert_int_equal(hit.layer, 1);
    assert_int_equal(hit.expert, 5);
    assert_false(hit.stacked);
    assert_true(mp_ranges_find(r, 0x108000, &hit));
    assert_int_equal(hit.phase, 4);
    assert_int_equal(hit.expert, -1);
}

static void test_slices(void **state)
{
    struct mp_hit hit;

    (void)state;
    for (int e = 0; e < 8; e++) {
        assert_true(mp_ranges_find(r, 0x100000 + (uint64_t)e * 0x1000, &hit));
        assert_int_equal(hit.expert, e);
        assert_true(hit.stacked);
    }
}

/* As seen on an H100: uninitialised bytes that look like a pointer into the middle of a weight. */
static void test_inside_is_stale(void **state)
{
    struct mp_hit hit;

    (void)state;
    for (uint64_t off = 8; off < 0x1000; off += 8) {
        assert_false(mp_ranges_find(r, 0x100000 + off, &hit));
        assert_false(mp_ranges_find(r, 0x103000 + off, &hit));
        assert_false(mp_ranges_find(r, 0x900000 + off, &hit));
    }
}

static void test_outside(void **state)
{
    static const uint64_t ptr[] = {0,        8,        0xfffff,  0x108400,
                                   0x500000, 0x8fffff, 0x901000, UINT64_MAX};
    struct mp_hit hit;

    (void)state;
    for (size_t i = 0; i < countof(ptr); i++)
        assert_false(mp_ranges_find(r, ptr[i], &hit));
    assert_false(mp_ranges_find(NULL, 0x100000, &hit));
}

/* Tied weights and views: the first by address holds, of equal addresses one; never two answers. */
static void test_overlaps(void **state)
{
    const struct mp_range over[] = {
        {.base = 0x2000, .bytes = 0x1000, .layer = 7, .expert = -1},
        {.base = 0x2800, .bytes = 0x1000, .layer = 8, .expert = -1},
        {.base = 0x4000, .bytes = 0, .layer = 9, .expert = -1},
        {.base = 0x3000, .bytes = 0x100, .layer = 10, .expert = -1},
    };
    struct mp_ranges *o = mp_ranges_new(over, countof(over));
    struct mp_hit hit;

    (void)state;
    assert_int_equal(o->n, 2);
    assert_true(mp_ranges_find(o, 0x2000, &hit));
    assert_int_equal(hit.layer, 7);
    assert_false(mp_ranges_find(o, 0x2800, &hit));
    assert_false(mp_ranges_find(o, 0x4000, &hit));
    assert_true(mp_ranges_find(o, 0x3000, &hit));
    assert_int_equal(hit.layer, 10);
    mp_ranges_free(o);
}

/* Two names of one tensor (tied embedding and head): the first given is kept, as the header says. */
static void test_tied_keeps_the_first_given(void **state)
{
    struct mp_range tied[40];
    struct mp_ranges *o;
    struct mp_hit hit;

    (void)state;
    memset(tied, 0, sizeof tied);
    for (int i = 0; i < 40; i++) {
        tied[i].base = 0x10000 + (uint64_t)(i / 4) * 0x1000;
        tied[i].bytes = 0x1000;
        tied[i].layer = (int16_t)i;
    }
    o = mp_ranges_new(tied, 40);
    assert_int_equal(o->n, 10);
    for (int i = 0; i < 10; i++) {
        assert_true(mp_ranges_find(o, 0x10000 + (uint64_t)i * 0x1000, &hit));
        assert_int_equal(hit.layer, i * 4);
    }
    mp_ranges_free(o);
}

/* A stack whose bytes are not a multiple of its experts, or with more experts than bytes: no trap. */
static void test_odd_slices(void **state)
{
    const struct mp_range odd[] = {
        {.base = 0x1000, .bytes = 10, .n_slice = 3, .layer = 0, .expert = -1},
        {.base = 0x2000, .bytes = 2, .n_slice = 4, .layer = 1, .expert = -1},
    };
    struct mp_ranges *o = mp_ranges_new(odd, countof(odd));
    struct mp_hit hit;

    (void)state;
    for (uint64_t p = 0x1000; p < 0x2010; p++)
        assert_int_equal(mp_ranges_find(o, p, &hit), p == 0x1000 || p == 0x2000);
    assert_int_equal(hit.layer, 1);
    assert_int_equal(hit.expert, -1);
    mp_ranges_free(o);
}

static void test_none(void **state)
{
    struct mp_ranges *o = mp_ranges_new(NULL, 0);
    struct mp_hit hit;

    (void)state;
    assert_non_null(o);
    assert_false(mp_ranges_find(o, 0, &hit));
    assert_false(mp_ranges_find(o, 0x1000, &hit));
    mp_ranges_free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bases),           cmocka_unit_test(test_slices),
        cmocka_unit_test(test_inside_is_stale), cmocka_unit_test(test_outside),
        cmocka_unit_test(test_overlaps),        cmocka_unit_test(test_tied_keeps_the_first_given),
        cmocka_unit_test(test_odd_slices),      cmocka_unit_test(test_none),
    };

    return cmocka_run_group_tests(tests, up, down);
}
