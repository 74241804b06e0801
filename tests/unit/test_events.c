/* Operations by time: any order within two chunks comes out sorted, nothing lost, equals in their order. */
#include "tests/html/renders.h"

#include "report/events.h"

static uint64_t rng = 1;

static uint32_t rnd(uint32_t below)
{
    rng = rng * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(rng >> 33) % below;
}

static int by_time(const void *a, const void *b)
{
    const struct rp_timed *x = a, *y = b;

    if (x->at_ns != y->at_ns)
        return x->at_ns < y->at_ns ? -1 : 1;
    return (x->record.event.name > y->record.event.name) -
           (x->record.event.name < y->record.event.name);
}

static void sorts(void **state)
{
    struct rp_timed *item = calloc(3000, sizeof *item), *want = calloc(3000, sizeof *want),
                    *room = calloc(3000, sizeof *room);

    (void)state;
    for (int round = 0; round < 300; round++) {
        size_t n = rnd(3000);
        uint32_t spread = 1 + rnd(round % 3 ? 50 : 4000);

        memset(item, 0, 3000 * sizeof *item);
        for (size_t i = 0; i < n; i++) {
            item[i].at_ns = i + rnd(spread); /* nearly sorted, with equals */
            item[i].record.event.name = (uint32_t)i;
        }
        memcpy(want, item, n * sizeof *item);
        qsort(want, n, sizeof *want, by_time);
        rp_events_sort(item, room, n);
        assert_memory_equal(item, want, n * sizeof *item);
    }
    free(item);
    free(want);
    free(room);
}

struct seen {
    uint64_t last_ns, n, routed;
    uint32_t marks, step;
};

static int on_operation(void *arg, const struct mp_event *e)
{
    struct seen *s = arg;

    assert_true(e->start_ns >= s->last_ns);
    s->last_ns = e->start_ns;
    s->step = e->step;
    s->n++;
    return 0;
}

static int on_routing(void *arg, const struct mp_routing *r)
{
    struct seen *s = arg;

    for (int i = 0; i < r->n; i++)
        s->routed += r->count[i];
    return 0;
}

static int on_mark(void *arg, const struct mp_step_mark *m)
{
    struct seen *s = arg;

    assert_int_equal(m->step, s->marks++);
    assert_int_equal(m->step,
                     s->step); /* after the operations of its step, before the next one's */
    return 0;
}

static int enough(void *arg, const struct mp_event *e)
{
    (void)e;
    return ++*(int *)arg == 10 ? 77 : 0;
}

static void walks(void **state)
{
    struct shown s;
    struct seen seen = {0};
    struct rp_events_stat stat;
    const struct rp_events_fn fn = {on_operation, on_routing, on_mark, &seen};
    int n = 0;

    (void)state;
    shown_make(&s, (struct made){.steps = 40, .layers = 8, .experts = 128});
    assert_int_equal(rp_events_walk(s.p, &fn, &stat, NULL), MP_OK);
    assert_int_equal(seen.marks, 40);
    assert_int_equal(seen.routed, 40ull * 8 * 4096 * 8);
    assert_int_equal(seen.n, stat.n_operation);
    assert_true(seen.n > 3 * 65536); /* more than the window */
    assert_int_equal(stat.n_late, 0);
    assert_int_equal(
        rp_events_walk(s.p, &(struct rp_events_fn){.operation = enough, .arg = &n}, NULL, NULL),
        77);
    assert_int_equal(n, 10);
    shown_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sorts), cmocka_unit_test(walks)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
