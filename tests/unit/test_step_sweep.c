/* Steps: the fast sweep against an obvious one on random streams. `test_step_sweep --bench` times the ingest. */
#include "tests/unit/step_fixture.h"

#include "profiler/core/cellmap.h"

#include <stdio.h>
#include <time.h>

static uint64_t seed;

static uint32_t random_below(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 33) % n;
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

static void check_against_plain(const struct stream *s, const struct got *out)
{
    static struct mp_event e[STREAM_MAX];
    uint32_t n = only_events(s, e);

    assert_int_equal(out->n, s->n_step);
    for (uint32_t i = 0; i < out->n; i++) {
        const struct kept *k = &out->at[i];
        uint64_t from = first_start(s, i), to = from + k->step.window_ns;
        static struct mp_event until[STREAM_MAX];
        uint32_t m = 0;

        check_raw(k, e, n);
        assert_int_equal(k->step.begin_ns, from);
        if (i + 1 < out->n)
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

static void run(const struct stream *s, struct got *out)
{
    struct mp_steps *steps = mp_steps_new(keep, out);
    uint32_t at = 0;

    out->n = 0;
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

static void run_eagerly(const struct stream *s, struct got *out)
{
    struct mp_steps *steps = mp_steps_new(keep, out);

    out->n = 0;
    mp_steps_eager(steps, 1 + random_below(8));
    for (uint32_t i = 0; i < s->n; i++)
        feed(steps, s->r[i]);
    end(steps);
}

/* Eager closing on such streams: the raw sums hold, windows stay disjoint. */
static void test_eager_streams(void **state)
{
    static struct stream s;
    static struct got exact, early;

    (void)state;
    seed = 77;
    for (int round = 0; round < 200; round++) {
        random_stream(&s);
        run(&s, &exact);
        shuffle(&s);
        run_eagerly(&s, &early);
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
        cmocka_unit_test(test_eager_streams),
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
