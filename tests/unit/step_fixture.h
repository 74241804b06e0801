/* What the tests of the steps share: records, and the steps that they became, each checked by the law. */
#ifndef TESTS_STEP_FIXTURE_H
#define TESTS_STEP_FIXTURE_H

#include "profiler/core/step.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define T0 1000000000000u /* stands for the clock */

/* ---- what came out ------------------------------------------------------------------------ */

#define KEPT_CELLS 400

struct kept {
    struct mp_step step;
    struct mp_cell cell[KEPT_CELLS];
    struct mp_route route[8];
    uint32_t count[8][16];
};

struct got {
    struct kept at[32];
    uint32_t n;
};

static struct got got; /* what begin()'s steps became */

static inline void keep(void *arg, const struct mp_step *step)
{
    struct got *to = arg;
    struct kept *k = &to->at[to->n++];
    struct mp_err err = {0};

    assert_true(to->n <= 32 && step->n_cell <= KEPT_CELLS && step->n_route <= 8);
    if (mp_step_check(step, &err) != 0)
        fail_msg("%s", err.msg);
    memset(k, 0, sizeof *k);
    k->step = *step;
    for (uint32_t i = 0; i < step->n_cell; i++) {
        const struct mp_cell *c = &step->cell[i];

        k->cell[i].layer = c->layer;
        k->cell[i].expert = c->expert;
        k->cell[i].phase = c->phase;
        k->cell[i].pass = c->pass;
        k->cell[i].basis = c->basis;
        k->cell[i].n = c->n;
        k->cell[i].booked_ns = c->booked_ns;
        k->cell[i].raw_ns = c->raw_ns;
    }
    k->step.cell = NULL;
    for (uint32_t i = 0; i < step->n_route; i++) {
        k->route[i] = step->route[i];
        memcpy(k->count[i], step->route[i].count, sizeof(uint32_t) * step->route[i].n_expert);
        k->route[i].count = NULL;
    }
    k->step.route = NULL;
}

static inline uint64_t booked(const struct kept *k, int layer, int expert)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < k->step.n_cell; i++)
        if (k->cell[i].layer == layer && k->cell[i].expert == expert)
            sum += k->cell[i].booked_ns;
    return sum;
}

static inline uint64_t booked_all(const struct kept *k)
{
    return k->step.window_ns - k->step.idle_ns;
}

/* ---- records ------------------------------------------------------------------------------ */

static inline union mp_record op(uint32_t step, uint64_t start, uint32_t dur, int layer, int expert)
{
    union mp_record r = {.event = {.start_ns = T0 + start,
                                   .dur_ns = dur,
                                   .step = step,
                                   .layer = (int16_t)layer,
                                   .expert = (int16_t)expert,
                                   .kind = MP_KERNEL,
                                   .phase = MP_PHASE_EXPERT,
                                   .basis = MP_MEASURED}};

    return r;
}

static inline union mp_record mark(uint32_t step, uint16_t n_micro, uint16_t flags)
{
    union mp_record r = {
        .mark = {.end_ns = T0, .step = step, .n_micro = n_micro, .kind = MP_STEP, .flags = flags}};

    return r;
}

static inline union mp_record micro(uint32_t step, uint32_t processed, uint32_t useful)
{
    union mp_record r = {.micro = {.processed = processed,
                                   .useful = useful,
                                   .trainable = UINT32_MAX,
                                   .head_rows = UINT32_MAX,
                                   .step = step,
                                   .n_segment = 2,
                                   .kind = MP_MICRO,
                                   .basis = MP_MEASURED}};

    return r;
}

static inline union mp_record routing(uint32_t step, int layer, int expert0, uint32_t a, uint32_t b)
{
    union mp_record r = {.routing = {.count = {a, b, 0, 0},
                                     .step = step,
                                     .layer = (int16_t)layer,
                                     .expert0 = (int16_t)expert0,
                                     .kind = MP_ROUTING,
                                     .n = 2,
                                     .basis = MP_MEASURED}};

    return r;
}

static inline void feed(struct mp_steps *s, union mp_record r)
{
    assert_int_equal(mp_steps_feed(s, &r, 1), 0);
}

static inline struct mp_steps *begin(void)
{
    got.n = 0;
    return mp_steps_new(keep, &got);
}

static inline void end(struct mp_steps *s)
{
    mp_steps_finish(s);
    mp_steps_free(s);
}

#endif
