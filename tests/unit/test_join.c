/* From notes and activity records to events: the decoder's fields, records without a launch, and tables
 * that fill up. Steps are in test_join_steps.c. */
#include "tests/unit/join_fixture.h"

/* ---- events ----------------------------------------------------------------------------------------- */

static void test_event(void **state)
{
    uint32_t corr = launch_in(step, MP_PHASE_EXPERT, 3, 5);
    const struct mp_event *e = &event[0].event;

    (void)state;
    inj_join_launches(shm());
    kernel(corr, "nvjet_gemm", 0);
    published();
    assert_int_equal(n_event, 1);
    assert_int_equal(e->kind, MP_KERNEL);
    assert_int_equal(e->start_ns, now + 5000);
    assert_int_equal(e->dur_ns, 700);
    assert_int_equal(e->layer, 3);
    assert_int_equal(e->expert, 5);
    assert_int_equal(e->phase, MP_PHASE_EXPERT);
    assert_int_equal(e->basis, MP_MEASURED);
    assert_int_equal(e->lag_us, 6);
    assert_int_equal(e->stream, 0);
    assert_string_equal(mp_reader_name(&reader, e->name), "nvjet_gemm");
    kernel(corr, "vectorized_gather_kernel", 0); /* the class decides inside the experts */
    published();
    assert_int_equal(event[0].event.phase, MP_PHASE_DISPATCH);
    mark_of(step++);
    round_of_agent(true);
    published();
}

static void test_unmatched(void **state)
{
    uint64_t before = atomic_load(&shm()->n_unmatched);

    (void)state;
    kernel(999999, "some_kernel", 0);
    kernel(0, "flash_fwd", 0);
    published();
    assert_int_equal(n_event, 2);
    assert_int_equal(atomic_load(&shm()->n_unmatched) - before, 2);
    assert_true(event[0].event.flags & MP_FLAG_NO_LAUNCH);
    assert_int_equal(event[0].event.basis, MP_UNKNOWN);
    assert_int_equal(event[0].event.layer, -1);
    assert_int_equal(event[1].event.phase, MP_PHASE_ATTENTION);
}

/* A slot that a later launch has taken answers for that one only. */
static void test_correlation_wraps(void **state)
{
    uint32_t old = next_corr;

    (void)state;
    next_corr = old + MP_CORR_CAP;
    launch_in(step, MP_PHASE_NORM, 1, -1);
    inj_join_launches(shm());
    kernel(old, "k", 0);
    kernel(old + MP_CORR_CAP, "k", 0);
    published();
    assert_true(event[0].event.flags & MP_FLAG_NO_LAUNCH);
    assert_int_equal(event[1].event.layer, 1);
    mark_of(step++);
    round_of_agent(false);
    published();
    assert_int_equal(n_mark, 1);
}

/* One graph launch answers for all its nodes, which are not counted against launches. */
static void test_graph_nodes(void **state)
{
    struct inj_note n = {.time_ns = now,
                         .corr = next_corr++,
                         .step = step,
                         .layer = 2,
                         .expert = -1,
                         .phase = MP_PHASE_NORM,
                         .kind = INJ_NOTE_LAUNCH};

    (void)state;
    inj_thread_post(inj_thread_self(), &n);
    mark_of(step);
    inj_join_launches(shm());
    for (int i = 1; i <= 3; i++)
        kernel(n.corr, "k", (uint64_t)i << 32 | 7);
    inj_join_steps(shm(), now, false);
    published();
    assert_int_equal(n_event, 3);
    assert_true(event[2].event.flags & MP_FLAG_GRAPH);
    assert_int_equal(event[2].event.layer, 2);
    assert_int_equal(n_mark, 1);
    assert_int_equal(mark[0].launches, 0);
    assert_int_equal(mark[0].records, 0);
    assert_int_equal(mark[0].flags, 0);
    step++;
}

static void copy_record(uint8_t kind, uint8_t direction, uint32_t corr)
{
    uint8_t r[96] = {kind};

    r[COPY_KIND] = direction;
    put64(r, COPY_BYTES, 4097);
    put64(r, COPY_START, now);
    put64(r, COPY_END, now + 100);
    put32(r, kind == ACT_MEMCPY_P2P ? P2P_CORR : COPY_CORR, corr);
    inj_join_activity(shm(), r);
}

static void test_copies(void **state)
{
    uint32_t corr = launch_in(step, MP_PHASE_EXPERT, 3, 5);
    uint8_t set[88] = {ACT_MEMSET};

    (void)state;
    mark_of(step++);
    inj_join_launches(shm());
    copy_record(ACT_MEMCPY, COPY_HTOD, corr);
    copy_record(ACT_MEMCPY, COPY_DTOH, corr);
    copy_record(ACT_MEMCPY, COPY_DTOD, corr);
    copy_record(ACT_MEMCPY_P2P, COPY_DTOD, corr);
    put32(set, SET_CORR, corr);
    inj_join_activity(shm(), set);
    copy_record(ACT_MEMCPY, COPY_DTOD, 0);
    kernel(corr, "k", 0);
    round_of_agent(false);
    published();
    assert_int_equal(n_event, 7);
    assert_int_equal(event[0].event.phase, MP_PHASE_COPY);
    assert_int_equal(event[0].event.flags, MP_FLAG_HTOD);
    assert_int_equal(event[0].event.name, 5); /* KiB, rounded up */
    assert_int_equal(event[1].event.phase, MP_PHASE_COPY);
    assert_int_equal(event[2].event.phase, MP_PHASE_EXPERT);
    assert_int_equal(event[2].event.layer, 3);
    assert_int_equal(event[3].event.layer, 3);
    assert_int_equal(event[4].event.kind, MP_MEMSET);
    assert_int_equal(event[5].event.phase, MP_PHASE_COPY);
    assert_int_equal(mark[0].records, 1);
    assert_int_equal(mark[0].flags, 0);
}

static void test_odd_records(void **state)
{
    uint8_t overhead[56] = {ACT_OVERHEAD}, unknown[64] = {49}, negative[216] = {ACT_KERNEL};
    uint64_t records = atomic_load(&shm()->n_record);

    (void)state;
    put64(overhead, OVERHEAD_START, 10);
    put64(overhead, OVERHEAD_END, 30);
    inj_join_activity(shm(), overhead);
    inj_join_activity(shm(), unknown);
    put64(negative, KERNEL_START, 100); /* ends before it starts: no time, not 584 years */
    put64(negative, KERNEL_END, 50);
    inj_join_activity(shm(), negative);
    put64(negative, KERNEL_END, 100 + 5000 * MS); /* longer than the field */
    inj_join_activity(shm(), negative);
    published();
    assert_int_equal(n_event, 3);
    assert_int_equal(event[0].event.kind, MP_OVERHEAD);
    assert_int_equal(event[0].event.dur_ns, 20);
    assert_int_equal(event[1].event.dur_ns, 0);
    assert_int_equal(event[2].event.dur_ns, UINT32_MAX);
    assert_true(event[2].event.flags & MP_FLAG_SATURATED);
    assert_int_equal(atomic_load(&shm()->n_record) - records, 2);
}

/* ---- tables ---------------------------------------------------------------------------------------------------- */

static void test_nameless_kernels_share_one_row(void **state)
{
    uint32_t before = atomic_load(&shm()->n_name);

    (void)state;
    for (int i = 0; i < 100; i++)
        kernel(0, NULL, 0);
    published();
    assert_in_range(atomic_load(&shm()->n_name) - before, 0, 1);
    assert_string_equal(mp_reader_name(&reader, event[99].event.name), "?");
}

static void test_streams(void **state)
{
    uint8_t r[216] = {ACT_CONCURRENT_KERNEL};

    (void)state;
    for (uint32_t i = 0; i < 300; i++) {
        put32(r, KERNEL_STREAM, 1000 + i);
        inj_join_activity(shm(), r);
    }
    published();
    for (size_t i = 0; i < 250; i++)
        assert_int_equal(event[i].event.stream, event[0].event.stream + i);
    assert_int_equal(event[299].event.stream, 255);
}

/* More kernels than any table holds: each record still gets out, under the name for too many. */
static void test_names_too_many(void **state)
{
    static char text[40000][8];

    (void)state;
    for (int i = 0; i < 40000; i++) {
        snprintf(text[i], sizeof text[i], "%d", i);
        kernel(0, text[i], 0);
        if (i % 4000 == 0)
            published();
    }
    published();
    assert_string_equal(mp_reader_name(&reader, event[n_event - 1].event.name),
                        "(name table full)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_event),
        cmocka_unit_test(test_unmatched),
        cmocka_unit_test(test_correlation_wraps),
        cmocka_unit_test(test_graph_nodes),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_odd_records),
        cmocka_unit_test(test_nameless_kernels_share_one_row),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_names_too_many),
    };

    return cmocka_run_group_tests(tests, up, down);
}
