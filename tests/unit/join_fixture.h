/* What the tests of the join share: notes and marks as the application posts them, records as CUPTI gives
 * them, and what was published of both. */
#ifndef TESTS_JOIN_FIXTURE_H
#define TESTS_JOIN_FIXTURE_H

#include "injector/join.h"

#include "injector/activity.h"
#include "injector/count.h"
#include "injector/decode.h"
#include "profiler/core/kname.h"
#include "profiler/core/phase.h"
#include "tests/unit/guest_fixture.h"

#define MS 1000000ull

static struct mp_reader reader;
static uint64_t now = 1000 * MS;
static uint32_t next_corr = 1, step;

static inline struct mp_shm *shm(void)
{
    return atomic_load(&inj.shm);
}

static inline uint32_t launch_in(uint32_t in_step, enum mp_phase phase, int layer, int expert)
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

static inline void mark_of(uint32_t of_step)
{
    struct mp_step_mark m = {.kind = MP_STEP, .step = of_step, .end_ns = now, .n_micro = 1};

    assert_true(inj_thread_post(inj_thread_self(), &m));
}

static inline void put32(uint8_t *r, size_t at, uint32_t v)
{
    memcpy(r + at, &v, sizeof v);
}

static inline void put64(uint8_t *r, size_t at, uint64_t v)
{
    memcpy(r + at, &v, sizeof v);
}

static inline void kernel(uint32_t corr, const char *name, uint64_t node)
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

static inline void round_of_agent(bool all)
{
    inj_join_launches(shm());
    inj_join_steps(shm(), now, all);
}

/* What was published since the last call; marks apart. */
static union mp_record event[4096];
static struct mp_step_mark mark[4096];
static size_t n_event, n_mark;

static inline void published(void)
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
static inline void whole_step(void)
{
    uint32_t corr = launch_in(step, MP_PHASE_NORM, 0, -1);

    mark_of(step++);
    inj_join_launches(shm());
    kernel(corr, "k", 0);
    round_of_agent(false);
}

static inline int up(void **state)
{
    step = 40; /* attached late */
    return guest_up(state) || inj_join_init() ||
           mp_reader_open(&reader, guest_dir, getpid(), true, NULL);
}

static inline int down(void **state)
{
    mp_reader_close(&reader);
    return guest_down(state);
}

#endif
