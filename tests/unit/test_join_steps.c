/* Steps closed from marks and records: what is late, missing, lost or odd is counted and said, and no step
 * keeps others from being closed. */
#include "tests/unit/join_fixture.h"

#include <pthread.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_thread_is_ahead),
        cmocka_unit_test(test_step_waits_for_its_records),
        cmocka_unit_test(test_missing_and_late),
        cmocka_unit_test(test_more_steps_than_slots),
        cmocka_unit_test(test_lost_mark),
        cmocka_unit_test(test_lost_notes),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_exit_closes_what_is_over),
        cmocka_unit_test(test_counts_before_mark),
    };

    return cmocka_run_group_tests(tests, up, down);
}
