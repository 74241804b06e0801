/* Steps: the fast sweep against an obvious one on random streams, then the odd cases one by one.
 * `test_step --bench` times the ingest. */
#include "profiler/core/cellmap.h"
#include "profiler/core/step.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define T0 1000000000000u /* stands for the clock */

static uint64_t seed;

static uint32_t random_below(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 33) % n;
}

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

static void keep(void *arg, const struct mp_step *step)
{
    struct got *got = arg;
    struct kept *k = &got->at[got->n++];
    struct mp_err err = {0};

    assert_true(got->n <= 32 && step->n_cell <= KEPT_CELLS && step->n_route <= 8);
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

static uint64_t booked(const struct kept *k, int layer, int expert)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < k->step.n_cell; i++)
        if (k->cell[i].layer == layer && k->cell[i].expert == expert)
            sum += k->cell[i].booked_ns;
    return sum;
}

static uint64_t booked_all(const struct kept *k)
{
    return k->step.window_ns - k->step.idle_ns;
}

/* ---- records ------------------------------------------------------------------------------ */

static union mp_record op(uint32_t step, uint64_t start, uint32_t dur, int layer, int expert)
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

static union mp_record mark(uint32_t step, uint16_t n_micro, uint16_t flags)
{
    union mp_record r = {
        .mark = {.end_ns = T0, .step = step, .n_micro = n_micro, .kind = MP_STEP, .flags = flags}};

    return r;
}

static union mp_record micro(uint32_t step, uint32_t processed, uint32_t useful)
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

static union mp_record routing(uint32_t step, int layer, int expert0, uint32_t a, uint32_t b)
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

static void feed(struct mp_steps *s, union mp_record r)
{
    assert_int_equal(mp_steps_feed(s, &r, 1), 0);
}

/* ---- the obvious sweep -------------------------------------------------------------------- */

#define STREAM_MAX 600

struct stream {
    union mp_record r[STREAM_MAX];
    uint32_t n, n_step;
};

static int class_of(const struct mp_event *e)
{
    if (e->kind == MP_MEMCPY || e->kind == MP_MEMSET)
        return 2;
    return e->phase == MP_PHASE_COMM;
}

static uint64_t key_of(const struct mp_event *e)
{
    return mp_cell_key(e->layer, e->phase, e->pass, e->expert, e->basis);
}

static uint64_t end_of(const struct mp_event *e)
{
    return e->start_ns + e->dur_ns;
}

static int earlier(const void *a, const void *b)
{
    const struct mp_event *x = a, *y = b;

    if (x->start_ns != y->start_ns)
        return x->start_ns < y->start_ns ? -1 : 1;
    if (x->dur_ns != y->dur_ns)
        return x->dur_ns < y->dur_ns ? -1 : 1;
    if (class_of(x) != class_of(y))
        return class_of(x) - class_of(y);
    return key_of(x) < key_of(y) ? -1 : key_of(x) > key_of(y);
}

/* Books [from, to) of sorted events for `key`, by looking at every stretch between any two ends. */
static uint64_t plain_booked(const struct mp_event *e, uint32_t n, uint64_t from, uint64_t to,
                             uint64_t key)
{
    uint64_t sum = 0, t = from;

    while (t < to) {
        uint64_t next = to, part;
        int best = 3, k = 0, place = 0;

        for (uint32_t i = 0; i < n; i++) {
            if (e[i].dur_ns && e[i].start_ns > t && e[i].start_ns < next)
                next = e[i].start_ns;
            if (e[i].dur_ns && end_of(&e[i]) > t && end_of(&e[i]) < next)
                next = end_of(&e[i]);
        }
        for (uint32_t i = 0; i < n; i++)
            if (e[i].start_ns <= t && end_of(&e[i]) > t && class_of(&e[i]) <= best) {
                k = class_of(&e[i]) < best ? 1 : k + 1;
                best = class_of(&e[i]);
            }
        part = k ? (next - t) / (uint64_t)k : 0;
        for (uint32_t i = 0; i < n; i++)
            if (e[i].start_ns <= t && end_of(&e[i]) > t && class_of(&e[i]) == best) {
                if (key_of(&e[i]) == key)
                    sum += part + (place == 0 ? (next - t) % (uint64_t)k : 0);
                place++;
            }
        t = next;
    }
    return sum;
}

static uint64_t first_start(const struct stream *s, uint32_t step)
{
    uint64_t first = UINT64_MAX;

    for (uint32_t i = 0; i < s->n; i++)
        if (s->r[i].head.kind <= MP_GRAPH && s->r[i].head.step == step &&
            s->r[i].event.start_ns < first)
            first = s->r[i].event.start_ns;
    return first;
}

static uint32_t only_events(const struct stream *s, struct mp_event *e)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->n; i++)
        if (s->r[i].head.kind <= MP_GRAPH)
            e[n++] = s->r[i].event;
    qsort(e, n, sizeof *e, earlier);
    return n;
}

/* Figures of one step that do not depend on windows. */
static void check_raw(const struct kept *k, const struct mp_event *e, uint32_t n)
{
    uint64_t kernel = 0, own = 0, cell_raw = 0, raw = 0;
    uint32_t n_kernel = 0, n_copy = 0, n_own = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (e[i].step != k->step.step)
            continue;
        raw += e[i].dur_ns;
        if (e[i].flags & MP_FLAG_OWN) {
            own += e[i].dur_ns;
            n_own++;
        } else if (e[i].kind == MP_KERNEL) {
            kernel += e[i].dur_ns;
            n_kernel++;
        } else {
            n_copy += e[i].kind == MP_MEMCPY;
        }
    }
    for (uint32_t i = 0; i < k->step.n_cell; i++)
        cell_raw += k->cell[i].raw_ns;
    assert_int_equal(raw, cell_raw);
    assert_int_equal(kernel, k->step.kernel_ns);
    assert_int_equal(own, k->step.own_ns);
    assert_int_equal(n_kernel, k->step.n_kernel);
    assert_int_equal(n_copy, k->step.n_copy);
    assert_int_equal(n_own, k->step.n_own);
}

static void check_against_plain(const struct stream *s, const struct got *got)
{
    static struct mp_event e[STREAM_MAX];
    uint32_t n = only_events(s, e);

    assert_int_equal(got->n, s->n_step);
    for (uint32_t i = 0; i < got->n; i++) {
        const struct kept *k = &got->at[i];
        uint64_t from = first_start(s, i), to = from + k->step.window_ns;
        static struct mp_event until[STREAM_MAX];
        uint32_t m = 0;

        check_raw(k, e, n);
        assert_int_equal(k->step.begin_ns, from);
        if (i + 1 < got->n)
            assert_int_equal(to, first_start(s, i + 1));
        for (uint32_t j = 0; j < n; j++) /* what is launched later cannot reach back */
            if (e[j].step <= i)
                until[m++] = e[j];
        for (uint32_t c = 0; c < k->step.n_cell; c++) {
            const struct mp_cell *x = &k->cell[c];

            assert_int_equal(x->booked_ns, plain_booked(until, m, from, to,
                                                        mp_cell_key(x->layer, x->phase, x->pass,
                                                                    x->expert, x->basis)));
        }
    }
}

/* ---- random streams ----------------------------------------------------------------------- */

static struct mp_event random_event(uint32_t step, uint64_t from, uint32_t span)
{
    static const uint8_t kind[] = {MP_KERNEL, MP_KERNEL, MP_KERNEL, MP_MEMCPY, MP_MEMSET, MP_GRAPH};
    struct mp_event e = op(step, from + random_below(span), random_below(4) ? random_below(60) : 0,
                           (int)random_below(3) - 1, (int)random_below(3) - 1)
                            .event;

    e.kind = kind[random_below(countof(kind))];
    e.phase = random_below(5) == 0 ? MP_PHASE_COMM : (uint8_t)random_below(MP_PHASE_COUNT);
    e.pass = (uint8_t)random_below(MP_PASS_COUNT);
    e.flags = random_below(10) == 0 ? MP_FLAG_OWN : 0;
    if (random_below(30) == 0)
        e.dur_ns = 400; /* reaches over a step or two */
    return e;
}

/* Steps of dense, overlapping work on a small clock; every step has an operation. */
static void random_stream(struct stream *s)
{
    uint64_t from = 0;

    s->n = 0;
    s->n_step = 1 + random_below(5);
    for (uint32_t step = 0; step < s->n_step; step++) {
        uint32_t n = 1 + random_below(40), span = 1 + random_below(300);

        for (uint32_t i = 0; i < n; i++)
            s->r[s->n++].event = random_event(step, from, span);
        s->r[s->n - 1].event.start_ns = T0 + from;
        from += span + random_below(40);
        s->r[s->n++] = mark(step, 0, 0);
    }
}

/* Shuffles inside each step, and lets some records of the next one overtake the mark. */
static void shuffle(struct stream *s)
{
    for (uint32_t i = s->n - 1; i > 0; i--) {
        uint32_t j = i - random_below(i < 30 ? i + 1 : 30);
        union mp_record swap = s->r[i];
        bool moves_mark = false;

        for (uint32_t k = j; k <= i; k++)
            moves_mark |= s->r[k].head.kind == MP_STEP;
        /* a mark may move back over later steps' records only: leave marks, move events before them */
        if (moves_mark && !(s->r[i].head.kind != MP_STEP && s->r[j].head.kind == MP_STEP &&
                            s->r[i].head.step > s->r[j].head.step && i == j + 1))
            continue;
        s->r[i] = s->r[j];
        s->r[j] = swap;
    }
}

static void run(const struct stream *s, struct got *got)
{
    struct mp_steps *steps = mp_steps_new(keep, got);
    uint32_t at = 0;

    got->n = 0;
    while (at < s->n) {
        uint32_t n = 1 + random_below(s->n - at);

        assert_int_equal(mp_steps_feed(steps, s->r + at, n), 0);
        at += n;
    }
    mp_steps_finish(steps);
    mp_steps_free(steps);
}

static void test_random_streams(void **state)
{
    static struct stream s;
    static struct got first, again;

    (void)state;
    seed = 88172645463325252u;
    for (int round = 0; round < 300; round++) {
        random_stream(&s);
        run(&s, &first);
        check_against_plain(&s, &first);
        shuffle(&s);
        run(&s, &again);
        assert_int_equal(first.n, again.n);
        for (uint32_t i = 0; i < first.n; i++)
            assert_memory_equal(&first.at[i], &again.at[i], sizeof first.at[i]);
    }
}

/* Any bytes at all: no crash, and the law holds for whatever steps come out. */
static void check_only(void *arg, const struct mp_step *step)
{
    struct mp_err err = {0};

    (void)arg;
    if (mp_step_check(step, &err) != 0)
        fail_msg("%s", err.msg);
}

static void test_random_bytes(void **state)
{
    (void)state;
    seed = 424242;
    for (int round = 0; round < 40; round++) {
        struct mp_steps *steps = mp_steps_new(check_only, NULL);

        for (int i = 0; i < 2000; i++) {
            union mp_record r;

            for (size_t b = 0; b < sizeof r; b++)
                ((unsigned char *)&r)[b] = (unsigned char)random_below(256);
            r.head.kind = (uint8_t)random_below(MP_KIND_COUNT + 2);
            if (random_below(8))
                r.head.step = random_below(200);
            mp_steps_feed(steps, &r, 1);
            if (random_below(300) == 0)
                mp_steps_gap(steps, 1);
        }
        mp_steps_finish(steps);
        mp_steps_free(steps);
    }
}

/* ---- one case each ------------------------------------------------------------------------ */

static struct got got;

static struct mp_steps *begin(void)
{
    got.n = 0;
    return mp_steps_new(keep, &got);
}

static void end(struct mp_steps *s)
{
    mp_steps_finish(s);
    mp_steps_free(s);
}

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

/* Eager closing: a step earlier, the law and the raw sums hold, windows stay disjoint. */
static void test_eager(void **state)
{
    static struct stream s;
    static struct got exact, early;
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
    seed = 77;
    for (int round = 0; round < 200; round++) {
        random_stream(&s);
        run(&s, &exact);
        shuffle(&s);
        early.n = 0;
        steps = mp_steps_new(keep, &early);
        mp_steps_eager(steps, 1 + random_below(8));
        for (uint32_t i = 0; i < s.n; i++)
            feed(steps, s.r[i]);
        end(steps);
        assert_int_equal(early.n, exact.n);
        for (uint32_t i = 0; i < exact.n; i++) {
            const struct mp_step *a = &exact.at[i].step, *b = &early.at[i].step;

            assert_int_equal(a->kernel_ns, b->kernel_ns);
            assert_int_equal(a->n_kernel, b->n_kernel);
            assert_true(i == 0 || b->begin_ns == early.at[i - 1].step.begin_ns +
                                                     early.at[i - 1].step.window_ns);
        }
    }
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

/* ---- bench -------------------------------------------------------------------------------- */

static uint64_t bench_law;

static void bench_step(void *arg, const struct mp_step *step)
{
    (void)arg;
    bench_law += mp_step_check(step, NULL) != 0;
}

static void bench(const char *what, uint32_t n_stream, uint32_t n_cell)
{
    enum { STEPS = 20, PER_STEP = 500000 };
    union mp_record *r = malloc(sizeof *r * (PER_STEP + 1));
    struct mp_steps *s = mp_steps_new(bench_step, NULL);
    struct timespec a, b;
    double sum = 0;

    seed = 1;
    for (uint32_t step = 0; step < STEPS; step++) {
        uint64_t base = (uint64_t)step * PER_STEP * 12;

        for (uint32_t i = 0; i < PER_STEP; i++) {
            /* each stream in order; buffers of 1000 records of one stream at a time */
            uint32_t stream = i / 1000 % n_stream, nth = i / 1000 / n_stream * 1000 + i % 1000;
            uint32_t c = random_below(n_cell);

            r[i] = op(step, base + nth * 12ull * n_stream + stream, 9 * n_stream, (int)(c / 256),
                      (int)(c % 256));
        }
        r[PER_STEP] = mark(step, 0, 0);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
        mp_steps_feed(s, r, PER_STEP + 1);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
        sum += (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
    }
    mp_steps_finish(s);
    mp_steps_free(s);
    free(r);
    printf("%-34s %6.1f M events/s%s\n", what, STEPS * PER_STEP / sum / 1e6,
           bench_law ? "  LAW BROKEN" : "");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_streams),
        cmocka_unit_test(test_random_bytes),
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

    if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
        bench("1 stream, 1000 cells", 1, 1000);
        bench("4 streams, 1000 cells", 4, 1000);
        bench("1 stream, 47000 cells", 1, 47000);
        bench("4 streams, 47000 cells", 4, 47000);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
