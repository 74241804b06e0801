/* From notes and activity records to events and closed steps; what is late, missing, lost or odd is
 * counted and said, and no step keeps others from being closed. Also the decoder's fields. */
#include "injector/join.h"

#include "injector/activity.h"
#include "injector/count.h"
#include "injector/decode.h"
#include "profiler/core/kname.h"
#include "profiler/core/phase.h"
#include "tests/unit/guest_fixture.h"

#include <pthread.h>

#define MS 1000000ull

static struct mp_reader reader;
static uint64_t now = 1000 * MS;
static uint32_t next_corr = 1, step;

static struct mp_shm *shm(void)
{
    return atomic_load(&inj.shm);
}

static uint32_t launch_in(uint32_t in_step, enum mp_phase phase, int layer, int expert)
{
    struct inj_note n = {.time_ns = now,
                         .corr = next_corr++,
                         .step = in_step,
                         .layer = (int16_t)layer,
                         .expert = (int16_t)expert,
                         .phase = (uint8_t)phase,
                         .kind = INJ_NOTE_LAUNCH,
                         .counts = 1};

    assert_true(inj_thread_post(inj_thread_self(), &n));
    return n.corr;
}

static void mark_of(uint32_t of_step)
{
    struct mp_step_mark m = {.kind = MP_STEP, .step = of_step, .end_ns = now, .n_micro = 1};

    assert_true(inj_thread_post(inj_thread_self(), &m));
}

static void put32(uint8_t *r, size_t at, uint32_t v)
{
    memcpy(r + at, &v, sizeof v);
}

static void put64(uint8_t *r, size_t at, uint64_t v)
{
    memcpy(r + at, &v, sizeof v);
}

static void kernel(uint32_t corr, const char *name, uint64_t node)
{
    uint8_t r[216] = {ACT_CONCURRENT_KERNEL};

    put64(r, KERNEL_START, now + 5000);
    put64(r, KERNEL_END, now + 5700);
    put32(r, KERNEL_STREAM, 7);
    put32(r, KERNEL_CORR, corr);
    put64(r, KERNEL_NAME, (uint64_t)(uintptr_t)name);
    put64(r, KERNEL_GRAPH_NODE, node);
    inj_join_activity(shm(), r);
}

static void round_of_agent(bool all)
{
    inj_join_launches(shm());
    inj_join_steps(shm(), now, all);
}

/* What was published since the last call; marks apart. */
static union mp_record event[4096];
static struct mp_step_mark mark[4096];
static size_t n_event, n_mark;

static void published(void)
{
    static union mp_record batch[4096];
    size_t n;

    n_event = n_mark = 0;
    mp_shm_flush(shm());
    while ((n = mp_reader_read(&reader, batch, countof(batch))))
        for (size_t i = 0; i < n; i++) {
            if (batch[i].head.kind == MP_STEP)
                mark[n_mark++] = batch[i].mark;
            else
                event[n_event++] = batch[i];
        }
}

/* A step of one kernel, closed; leaves `step` at the next one. */
static void whole_step(void)
{
    uint32_t corr = launch_in(step, MP_PHASE_NORM, 0, -1);

    mark_of(step++);
    inj_join_launches(shm());
    kernel(corr, "k", 0);
    round_of_agent(false);
}

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

/* ---- steps ------------------------------------------------------------------------------------------------ */

static void test_step_waits_for_its_records(void **state)
{
    uint32_t a = launch_in(step, MP_PHASE_NORM, 0, -1), b = launch_in(step, MP_PHASE_NORM, 0, -1);

    (void)state;
    mark_of(step);
    round_of_agent(false);
    kernel(a, "k", 0);
    round_of_agent(false);
    published();
    assert_int_equal(n_mark, 0);
    kernel(b, "k", 0);
    round_of_agent(false);
    published();
    assert_int_equal(n_mark, 1);
    assert_int_equal(mark[0].step, step);
    assert_int_equal(mark[0].launches, 2);
    assert_int_equal(mark[0].records, 2);
    assert_int_equal(mark[0].n_micro, 1);
    assert_int_equal(mark[0].flags, 0);
    step++;
}

static void test_missing_and_late(void **state)
{
    uint32_t corr = launch_in(step, MP_PHASE_NORM, 0, -1);

    (void)state;
    mark_of(step++);
    round_of_agent(false);
    whole_step(); /* complete, but waits for the one before it */
    now += 1900 * MS;
    round_of_agent(false);
    published();
    assert_int_equal(n_mark, 0);
    now += 200 * MS;
    round_of_agent(false);
    published();
    assert_int_equal(n_mark, 2);
    assert_int_equal(mark[0].flags, MP_STEP_INCOMPLETE);
    assert_int_equal(mark[0].records, 0);
    assert_int_equal(mark[1].flags, 0);
    kernel(corr, "k", 0); /* comes at last: published, and opens nothing again */
    round_of_agent(false);
    whole_step();
    published();
    assert_int_equal(event[0].event.step, step - 3);
    assert_int_equal(n_mark, 1);
    assert_int_equal(mark[0].step, step - 1);
}

/* Steps of milliseconds: more than 64 are over before the record that one of them lacks is given up. */
static void test_more_steps_than_slots(void **state)
{
    uint32_t first = step;

    (void)state;
    launch_in(step, MP_PHASE_NORM, 0, -1); /* never gets a record */
    mark_of(step++);
    for (int i = 0; i < 200; i++) {
        now += 5 * MS;
        whole_step();
    }
    now += 3000 * MS;
    round_of_agent(false);
    published();
    assert_int_equal(n_mark, 201);
    for (size_t i = 0; i < n_mark; i++) {
        assert_int_equal(mark[i].step, first + i);
        assert_int_equal(mark[i].flags, i ? 0 : MP_STEP_INCOMPLETE);
    }
}

/* A mark that found a full outbox: the next one ends that step too. */
static void test_lost_mark(void **state)
{
    uint32_t corr = launch_in(step++, MP_PHASE_NORM, 0, -1);

    (void)state;
    inj_join_launches(shm());
    kernel(corr, "k", 0);
    step++; /* one of which nothing was heard at all */
    whole_step();
    now += 3000 * MS;
    round_of_agent(false);
    published();
    assert_int_equal(n_mark, 2);
    assert_int_equal(mark[0].step, step - 3);
    assert_int_equal(mark[0].flags, MP_STEP_INCOMPLETE);
    assert_int_equal(mark[0].records, 1);
    assert_int_equal(mark[1].step, step - 1);
    assert_int_equal(mark[1].flags, 0);
}

/* Notes that found no room: the step that they were of is not whole, whatever its figures say. */
static void test_lost_notes(void **state)
{
    struct inj_note n = {.time_ns = now, .corr = 0, .step = step, .kind = INJ_NOTE_LAUNCH};

    (void)state;
    while (inj_thread_post(inj_thread_self(), &n))
        continue;
    inj_join_launches(shm());
    whole_step();
    whole_step();
    published();
    assert_int_equal(n_mark, 2);
    assert_int_equal(mark[0].flags, MP_STEP_INCOMPLETE);
    assert_int_equal(mark[1].flags, 0);
}

static void test_flags(void **state)
{
    (void)state;
    inj_join_mark_steps(shm(), step, step + 1, MP_STEP_PARTIAL);
    inj_join_mark_steps(shm(), step + 1, step + 1, MP_STEP_ASIDE);
    inj_join_mark_steps(shm(), 0, step - 1, MP_STEP_ASIDE); /* closed long ago */
    whole_step();
    whole_step();
    whole_step();
    published();
    assert_int_equal(n_mark, 3);
    assert_int_equal(mark[0].flags, MP_STEP_PARTIAL);
    assert_int_equal(mark[1].flags, MP_STEP_PARTIAL | MP_STEP_ASIDE);
    assert_int_equal(mark[2].flags, 0);
}

static void test_exit_closes_what_is_over(void **state)
{
    (void)state;
    launch_in(step, MP_PHASE_NORM, 0, -1);
    mark_of(step++);
    launch_in(step, MP_PHASE_NORM, 0, -1); /* still runs */
    round_of_agent(true);
    published();
    assert_int_equal(n_mark, 1);
    assert_int_equal(mark[0].flags, MP_STEP_INCOMPLETE);
    mark_of(step++);
    round_of_agent(true);
    published();
    assert_int_equal(n_mark, 1);
}

/* Counts of a step are published before its mark. */
static void test_counts_before_mark(void **state)
{
    (void)state;
    inj_count_layer(0, 4);
    inj_count_expert(0, 2, 9);
    inj_count_step(step, NULL);
    whole_step();
    mp_shm_flush(shm());
    {
        union mp_record r[8];
        size_t n = mp_reader_read(&reader, r, countof(r));

        assert_int_equal(n, 3);
        assert_int_equal(r[0].head.kind, MP_KERNEL);
        assert_int_equal(r[1].head.kind, MP_ROUTING);
        assert_int_equal(r[1].routing.count[2], 9);
        assert_int_equal(r[2].head.kind, MP_STEP);
    }
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

/* ---- threads ------------------------------------------------------------------------------------------------------ */

static uint32_t from_thread;

static void *other_thread(void *arg)
{
    from_thread = launch_in(*(uint32_t *)arg, MP_PHASE_NORM, 0, -1);
    return NULL;
}

static void run_thread(uint32_t in_step)
{
    pthread_t t;

    assert_int_equal(pthread_create(&t, NULL, other_thread, &in_step), 0);
    pthread_join(t, NULL);
}

/* The first outbox read may be a step ahead of the second: the earlier step is still closed first. */
static void test_first_thread_is_ahead(void **state)
{
    uint32_t corr = launch_in(step + 1, MP_PHASE_NORM, 0, -1);

    (void)state;
    run_thread(step);
    inj_join_launches(shm());
    kernel(corr, "k", 0);
    kernel(from_thread, "k", 0);
    mark_of(step++);
    mark_of(step++);
    round_of_agent(false);
    published();
    assert_int_equal(n_mark, 2);
    assert_int_equal(mark[0].step, step - 2);
    assert_int_equal(mark[0].records, 1);
    assert_int_equal(mark[1].step, step - 1);
}

static int up(void **state)
{
    step = 40; /* attached late */
    return guest_up(state) || inj_join_init() ||
           mp_reader_open(&reader, guest_dir, getpid(), true, NULL);
}

static int down(void **state)
{
    mp_reader_close(&reader);
    return guest_down(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_thread_is_ahead),
        cmocka_unit_test(test_event),
        cmocka_unit_test(test_unmatched),
        cmocka_unit_test(test_correlation_wraps),
        cmocka_unit_test(test_graph_nodes),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_odd_records),
        cmocka_unit_test(test_step_waits_for_its_records),
        cmocka_unit_test(test_missing_and_late),
        cmocka_unit_test(test_more_steps_than_slots),
        cmocka_unit_test(test_lost_mark),
        cmocka_unit_test(test_lost_notes),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_exit_closes_what_is_over),
        cmocka_unit_test(test_counts_before_mark),
        cmocka_unit_test(test_nameless_kernels_share_one_row),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_names_too_many),
    };

    return cmocka_run_group_tests(tests, up, down);
}
