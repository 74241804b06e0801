/* Steps, the odd cases one by one; test_step_sweep.c puts random streams through. */
#include "tests/unit/step_fixture.h"

static void test_window_and_idle(void **state)
{
    struct mp_steps *s = begin();

    (void)state;
    feed(s, op(0, 0, 30, 0, 1));
    feed(s, op(0, 50, 10, 1, -1));
    feed(s, mark(0, 0, 0));
    assert_int_equal(got.n, 0); /* where it ends is not known yet */
    feed(s, op(1, 100, 5, 0, -1));
    feed(s, mark(1, 0, 0));
    assert_int_equal(got.n, 1);
    assert_int_equal(got.at[0].step.window_ns, 100);
    assert_int_equal(got.at[0].step.idle_ns, 60);
    assert_int_equal(got.at[0].step.flags, 0);
    end(s);
    assert_int_equal(got.at[1].step.window_ns, 5);
    assert_int_equal(got.at[1].step.flags, MP_STEP_PARTIAL);
}

static void test_class_priority(void **state)
{
    struct mp_steps *s = begin();
    union mp_record comm = op(0, 0, 100, 1, -1), copy = op(0, 0, 100, 2, -1);

    (void)state;
    comm.event.phase = MP_PHASE_COMM;
    copy.event.kind = MP_MEMCPY;
    feed(s, copy);
    feed(s, comm);
    feed(s, op(0, 20, 30, 0, -1));
    feed(s, op(0, 60, 1, 0, 5)); /* three share what is left of 11 ns: 1 goes to the earliest */
    feed(s, op(0, 60, 11, 0, 6));
    feed(s, mark(0, 0, 0));
    end(s);
    assert_int_equal(booked(&got.at[0], 0, -1), 30);
    assert_int_equal(booked(&got.at[0], 1, -1), 100 - 30 - 11);
    assert_int_equal(booked(&got.at[0], 2, -1), 0);
    assert_int_equal(booked(&got.at[0], 0, 5), 1);
    assert_int_equal(booked(&got.at[0], 0, 6), 10);
}

static void test_equals_share(void **state)
{
    struct mp_steps *s = begin();

    (void)state;
    feed(s, op(0, 1, 10, 0, 2));
    feed(s, op(0, 0, 11, 0, 1));
    feed(s, op(0, 1, 10, 0, 3));
    end(s);
    assert_int_equal(booked(&got.at[0], 0, 1), 1 + 4);
    assert_int_equal(booked(&got.at[0], 0, 2), 3);
    assert_int_equal(booked(&got.at[0], 0, 3), 3);
    assert_int_equal(got.at[0].step.idle_ns, 0);
}

static void test_crossing_is_clipped(void **state)
{
    struct mp_steps *s = begin();

    (void)state;
    feed(s, op(0, 0, 10, 0, -1));
    feed(s, op(0, 90, 50, 7, -1));  /* 10 in step 0, 40 in step 1 */
    feed(s, op(0, 130, 20, 8, -1)); /* wholly in step 1's window */
    feed(s, mark(0, 0, 0));
    feed(s, op(1, 100, 5, 1, -1));
    feed(s, op(1, 200, 5, 1, -1));
    feed(s, mark(1, 0, 0));
    end(s);
    assert_int_equal(booked(&got.at[0], 7, -1), 10);
    assert_int_equal(got.at[0].step.window_ns, 100);
    assert_int_equal(got.at[0].step.kernel_ns, 80);
    assert_int_equal(booked(&got.at[1], 1, -1), 2 + 5);
    assert_int_equal(booked(&got.at[1], 7, -1), 40 - 2 - 5);
    assert_int_equal(booked(&got.at[1], 8, -1), 15);
    assert_int_equal(got.at[1].step.kernel_ns, 10);
}

static void test_own_and_overhead(void **state)
{
    struct mp_steps *s = begin();
    union mp_record own = op(0, 10, 7, 3, -1), overhead = op(0, 20, 1000, -1, -1),
                    strange = op(0, 0, 1, 0, 0);

    (void)state;
    own.event.flags = MP_FLAG_OWN;
    overhead.event.kind = MP_OVERHEAD;
    strange.event.kind = 99;
    feed(s, op(0, 0, 5, 0, -1));
    feed(s, own);
    feed(s, overhead);
    feed(s, strange);
    feed(s, mark(0, 0, 0));
    mp_steps_finish(s);
    assert_int_equal(mp_steps_stat(s)->n_overhead, 1);
    assert_int_equal(mp_steps_stat(s)->n_unknown, 1);
    mp_steps_free(s);
    assert_int_equal(got.at[0].step.n_kernel, 1);
    assert_int_equal(got.at[0].step.kernel_ns, 5);
    assert_int_equal(got.at[0].step.n_own, 1);
    assert_int_equal(got.at[0].step.own_ns, 7);
    assert_int_equal(booked(&got.at[0], 3, -1), 7);
    assert_int_equal(got.at[0].step.window_ns, 17);
}

static void test_tokens(void **state)
{
    struct mp_steps *s = begin();
    union mp_record pairs = {.pairs = {.useful = 50,
                                       .processed = 60,
                                       .step = 0,
                                       .kind = MP_PAIRS,
                                       .basis = MP_MEASURED,
                                       .max_len = 9}};
    union mp_record guess = micro(0, 100, 100);

    (void)state;
    feed(s, micro(0, 128, 100));
    feed(s, pairs);
    guess.micro.basis = MP_MODELLED;
    guess.micro.head_rows = 1;
    feed(s, guess);
    pairs.pairs.max_len = 4;
    feed(s, pairs);
    pairs.pairs.window = 8;
    feed(s, pairs);
    feed(s, op(0, 0, 1, 0, 0));
    feed(s, mark(0, 2, 0));
    feed(s, micro(1, 128, 100));
    feed(s, op(1, 10, 1, 0, 0));
    feed(s, mark(1, 2, 0)); /* one micro-batch is missing */
    feed(s, op(2, 20, 1, 0, 0));
    feed(s, mark(2, 2, 0)); /* none was seen */
    end(s);
    const struct mp_step *x = &got.at[0].step;
    assert_int_equal(x->n_micro, 2);
    assert_int_equal(x->processed, 228);
    assert_int_equal(x->useful, 200);
    assert_true(x->trainable == UINT64_MAX);
    assert_int_equal(x->head_rows, 129);
    assert_int_equal(x->useful_basis, MP_MODELLED);
    assert_int_equal(x->n_segment, 4);
    assert_int_equal(x->n_pairs, 2);
    assert_int_equal(x->pairs[0].useful, 100);
    assert_int_equal(x->pairs[0].processed, 120);
    assert_int_equal(x->pairs[0].max_len, 9);
    assert_int_equal(x->pairs[0].basis, MP_MEASURED);
    assert_int_equal(x->pairs[1].basis, MP_UNKNOWN); /* of one micro-batch only */
    for (int i = 1; i < 3; i++) {
        assert_true(got.at[i].step.useful == UINT64_MAX);
        assert_true(got.at[i].step.processed == UINT64_MAX);
        assert_int_equal(got.at[i].step.useful_basis, MP_UNKNOWN);
    }
}

static void test_routing(void **state)
{
    struct mp_steps *s = begin();

    (void)state;
    feed(s, routing(0, 5, 2, 30, 40));
    feed(s, routing(0, 1, 0, 10, 20));
    feed(s, routing(0, 5, 0, 3, 4));
    feed(s, routing(0, 5, 2, 1, 1));
    feed(s, routing(0, -1, 0, 1, 1));
    feed(s, routing(0, 1, 32000, 1, 1));
    feed(s, mark(0, 0, 0));
    mp_steps_finish(s);
    assert_int_equal(mp_steps_stat(s)->n_invalid, 2);
    mp_steps_free(s);
    assert_int_equal(got.at[0].step.n_route, 2);
    assert_int_equal(got.at[0].route[0].layer, 1);
    assert_int_equal(got.at[0].route[1].layer, 5);
    assert_int_equal(got.at[0].route[1].n_expert, 4);
    assert_int_equal(got.at[0].count[1][0], 3);
    assert_int_equal(got.at[0].count[1][2], 31);
    assert_int_equal(got.at[0].count[1][3], 41);
}

static void test_late_record(void **state)
{
    struct mp_steps *s = begin();

    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        feed(s, op(i, 100 * i, 10, 0, -1));
        feed(s, mark(i, 0, 0));
    }
    assert_int_equal(got.n, 2);
    feed(s, op(0, 195, 20, 9, -1)); /* 5 ns of it lie before the window that is still open */
    feed(s, micro(0, 1, 1));
    mp_steps_finish(s);
    assert_int_equal(mp_steps_stat(s)->n_late, 2);
    mp_steps_free(s);
    assert_int_equal(got.n, 3);
    assert_int_equal(got.at[2].step.begin_ns, T0 + 200);
    assert_int_equal(got.at[2].step.kernel_ns, 30);
    assert_int_equal(booked_all(&got.at[2]), 15);
}

static void test_gap(void **state)
{
    struct mp_steps *s = begin();

    (void)state;
    feed(s, op(0, 0, 10, 0, -1));
    feed(s, mark(0, 0, 0));
    feed(s, op(1, 100, 10, 0, -1));
    mp_steps_gap(s, 7); /* step 0 is whole and its end is known; 1 and what comes next are not */
    feed(s, op(2, 200, 10, 0, -1));
    feed(s, mark(2, 0, 0));
    feed(s, op(3, 300, 10, 0, -1));
    feed(s, mark(3, 0, 0));
    mp_steps_finish(s);
    assert_int_equal(mp_steps_stat(s)->n_lost, 7);
    mp_steps_free(s);
    assert_int_equal(got.n, 4);
    assert_int_equal(got.at[0].step.flags, 0);
    assert_int_equal(got.at[1].step.flags, MP_STEP_INCOMPLETE);
    assert_int_equal(got.at[2].step.flags, MP_STEP_INCOMPLETE);
    assert_int_equal(got.at[3].step.flags, MP_STEP_PARTIAL);
}

/* A step that is missing, or did nothing on the GPU, must not make the one before it look long. */
static void test_unknown_end(void **state)
{
    struct mp_steps *s = begin();

    (void)state;
    feed(s, op(0, 0, 10, 0, -1));
    feed(s, mark(0, 0, 0));
    feed(s, mark(1, 0, MP_STEP_ASIDE));
    feed(s, op(2, 1000, 10, 0, -1));
    feed(s, mark(2, 0, 0));
    feed(s, op(5, 2000, 10, 0, -1));
    feed(s, mark(5, 0, 0));
    end(s);
    assert_int_equal(got.n, 4);
    assert_int_equal(got.at[0].step.window_ns, 10);
    assert_int_equal(got.at[0].step.flags, MP_STEP_PARTIAL);
    assert_int_equal(got.at[1].step.window_ns, 0);
    assert_int_equal(got.at[1].step.flags, MP_STEP_ASIDE);
    assert_int_equal(got.at[2].step.begin_ns, T0 + 1000);
    assert_int_equal(got.at[2].step.window_ns, 10);
    assert_int_equal(got.at[2].step.flags, MP_STEP_PARTIAL);
}

static void test_marks_missing(void **state)
{
    struct mp_steps *s = begin();

    (void)state;
    for (uint32_t i = 0; i < 200; i++) /* never a mark: bounded all the same */
        feed(s, op(i, 100 * i, 10, 0, -1)), got.n = got.n > 20 ? 0 : got.n;
    assert_true(got.n > 0);
    assert_int_equal(got.at[0].step.flags, MP_STEP_INCOMPLETE);
    assert_int_equal(got.at[0].step.window_ns, 100);
    got.n = 0;
    mp_steps_free(s);
}

/* More operations in a step than are kept: swept early, in two streams, nothing lost. */
static void test_huge_step(void **state)
{
    struct mp_steps *s = begin();
    uint32_t n = 3u << 20;

    (void)state;
    for (uint32_t i = 0; i < n; i++)
        feed(s, op(0, 10u * (i & ~1u) + (i & 1), i & 1 ? 5 : 8, 0, (int)(i & 1)));
    feed(s, mark(0, 0, 0));
    feed(s, op(1, 10ull * n, 1, 0, -1));
    feed(s, mark(1, 0, 0));
    end(s);
    assert_int_equal(got.at[0].step.n_kernel, n);
    assert_int_equal(got.at[0].step.window_ns, 10ull * n);
    /* 1 alone, then 5 shared as 3 and 2, then 2 alone */
    assert_int_equal(booked(&got.at[0], 0, 0), 6ull * n / 2);
    assert_int_equal(booked(&got.at[0], 0, 1), 2ull * n / 2);
}

/* Eager closing: a step earlier; what comes late is counted in the next, whose window stays where it was. */
static void test_eager(void **state)
{
    struct mp_steps *steps = begin();

    (void)state;
    mp_steps_eager(steps, 2);
    feed(steps, op(0, 0, 10, 0, -1));
    feed(steps, op(1, 100, 10, 0, -1));
    feed(steps, op(1, 120, 10, 0, -1));
    assert_int_equal(got.n, 0); /* not marked */
    feed(steps, mark(0, 0, 0));
    assert_int_equal(got.n, 1);
    assert_int_equal(got.at[0].step.window_ns, 100);
    feed(steps, op(1, 90, 20, 1, -1)); /* from another stream, and earlier */
    end(steps);
    assert_int_equal(got.at[1].step.begin_ns, T0 + 100);
    assert_int_equal(got.at[1].step.kernel_ns, 40);
}

static void test_crowd(void **state)
{
    struct mp_steps *s = begin();

    (void)state;
    for (int i = 0; i < 300; i++)
        feed(s, op(0, 0, 1000, 0, i));
    mp_steps_finish(s);
    assert_int_equal(mp_steps_stat(s)->n_crowded, 300 - 256);
    mp_steps_free(s);
    assert_int_equal(booked_all(&got.at[0]), 1000);
}

static void test_check_finds_faults(void **state)
{
    struct mp_cell cell[2] = {{.layer = 0, .expert = 0, .n = 1, .booked_ns = 5, .raw_ns = 5},
                              {.layer = 1, .expert = 0, .n = 1, .booked_ns = 5, .raw_ns = 5}};
    struct mp_step step = {.window_ns = 12, .idle_ns = 2, .cell = cell, .n_cell = 2};

    (void)state;
    assert_int_equal(mp_step_check(&step, NULL), 0);
    step.idle_ns = 3;
    assert_int_not_equal(mp_step_check(&step, NULL), 0);
    step.idle_ns = 2;
    cell[1].layer = 0;
    assert_int_not_equal(mp_step_check(&step, NULL), 0);
    cell[1].layer = 1;
    cell[1].phase = MP_PHASE_COUNT;
    assert_int_not_equal(mp_step_check(&step, NULL), 0);
}

static void test_total(void **state)
{
    struct mp_total *t = mp_total_new();
    struct mp_cell cell[2] = {{.layer = 0, .expert = -1, .n = 2, .booked_ns = 5, .raw_ns = 6},
                              {.layer = 3, .expert = 0, .n = 1, .booked_ns = 7, .raw_ns = 8}};
    struct mp_step step = {.cell = cell, .n_cell = 2};
    const struct mp_cell *sum;
    size_t n;

    (void)state;
    mp_total_cells(t, &n);
    assert_int_equal(n, 0);
    mp_total_add(t, &step);
    cell[0].layer = 2;
    mp_total_add(t, &step);
    sum = mp_total_cells(t, &n);
    assert_int_equal(n, 3);
    assert_int_equal(sum[0].layer, 0);
    assert_int_equal(sum[1].layer, 2);
    assert_int_equal(sum[2].layer, 3);
    assert_int_equal(sum[2].n, 2);
    assert_int_equal(sum[2].booked_ns, 14);
    assert_int_equal(sum[2].raw_ns, 16);
    mp_total_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_window_and_idle),
        cmocka_unit_test(test_class_priority),
        cmocka_unit_test(test_equals_share),
        cmocka_unit_test(test_crossing_is_clipped),
        cmocka_unit_test(test_own_and_overhead),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_routing),
        cmocka_unit_test(test_late_record),
        cmocka_unit_test(test_gap),
        cmocka_unit_test(test_unknown_end),
        cmocka_unit_test(test_marks_missing),
        cmocka_unit_test(test_huge_step),
        cmocka_unit_test(test_eager),
        cmocka_unit_test(test_crowd),
        cmocka_unit_test(test_check_finds_faults),
        cmocka_unit_test(test_total),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
