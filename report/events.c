/* A window of two chunks, sorted; its older half is handed out when a new chunk comes. */
#include "report/events.h"

#include <stdlib.h>
#include <string.h>

#include "report/chunk.h"

struct window {
    const struct rp_events_fn *fn;
    struct rp_events_stat stat;
    struct rp_timed *item, *room; /* (2 * RP_CHUNK_MAX) each */
    size_t n;
    uint64_t seen_ns; /* latest start that came in */
    uint64_t now_ns;  /* latest start handed out */
};

static bool is_operation(const union mp_record *r)
{
    return r->head.kind >= MP_KERNEL && r->head.kind <= MP_GRAPH;
}

/* ---- sorting: merges the runs that are there, so that what is sorted costs one look ------------- */

static size_t run_end(const struct rp_timed *item, size_t from, size_t n)
{
    size_t i = from + 1;

    while (i < n && item[i - 1].at_ns <= item[i].at_ns)
        i++;
    return i < n ? i : n;
}

static void merge(struct rp_timed *out, const struct rp_timed *in, size_t a, size_t mid, size_t end)
{
    size_t b = mid;

    while (a < mid && b < end)
        *out++ = in[b].at_ns < in[a].at_ns ? in[b++] : in[a++];
    memcpy(out, in + a, (mid - a) * sizeof *in);
    memcpy(out + (mid - a), in + b, (end - b) * sizeof *in);
}

/* Merges pairs of runs from `in` to `out`; true when one run is left. */
static bool sweep(struct rp_timed *out, const struct rp_timed *in, size_t n)
{
    size_t at = 0, runs = 0;

    while (at < n) {
        size_t mid = run_end(in, at, n), end = mid < n ? run_end(in, mid, n) : n;

        merge(out + at, in, at, mid, end);
        at = end;
        runs++;
    }
    return runs <= 1;
}

void rp_events_sort(struct rp_timed *item, struct rp_timed *room, size_t n)
{
    struct rp_timed *in = item, *out = room;
    bool done = n == 0 || run_end(item, 0, n) == n;

    while (!done) {
        struct rp_timed *was = in;

        done = sweep(out, in, n);
        in = out;
        out = was;
    }
    if (in != item)
        memcpy(item, in, n * sizeof *item);
}

/* ---- the window ---------------------------------------------------------------------------------- */

static int operation(struct window *w, const struct mp_event *e)
{
    w->stat.n_operation++;
    w->stat.n_late += e->start_ns < w->now_ns;
    w->now_ns = e->start_ns > w->now_ns ? e->start_ns : w->now_ns;
    return w->fn->operation ? w->fn->operation(w->fn->arg, e) : 0;
}

static int hand_out(struct window *w, const union mp_record *r)
{
    if (is_operation(r))
        return operation(w, &r->event);
    if (r->head.kind == MP_ROUTING)
        return w->fn->routing ? w->fn->routing(w->fn->arg, &r->routing) : 0;
    return w->fn->mark ? w->fn->mark(w->fn->arg, &r->mark) : 0;
}

/* Hands out the first n, and keeps the others. */
static int drain(struct window *w, size_t n)
{
    int rc = 0;

    rp_events_sort(w->item, w->room, w->n);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = hand_out(w, &w->item[i].record);
    w->n -= n;
    if (w->n)
        memmove(w->item, w->item + n, w->n * sizeof *w->item);
    return rc;
}

static int on_chunk(void *arg, const union mp_record *record, size_t n, uint64_t lost)
{
    struct window *w = arg;
    int rc = w->n + n > 2 * RP_CHUNK_MAX ? drain(w, w->n - RP_CHUNK_MAX) : 0;

    w->stat.n_lost += lost;
    for (size_t i = 0; i < n; i++) {
        const union mp_record *r = &record[i];

        if (is_operation(r))
            w->seen_ns = r->event.start_ns > w->seen_ns ? r->event.start_ns : w->seen_ns;
        else if (r->head.kind != MP_ROUTING && r->head.kind != MP_STEP)
            continue;
        w->item[w->n++] = (struct rp_timed){is_operation(r) ? r->event.start_ns : w->seen_ns, *r};
    }
    return rc;
}

int rp_events_walk(struct rp_profile *p, const struct rp_events_fn *fn, struct rp_events_stat *stat,
                   struct mp_err *err)
{
    struct window w = {.fn = fn};
    int rc;

    w.item = malloc(2 * RP_CHUNK_MAX * sizeof *w.item);
    w.room = malloc(2 * RP_CHUNK_MAX * sizeof *w.room);
    rc = w.item && w.room ? rp_each_chunk(p, on_chunk, &w, err)
                          : mp_fail(err, MP_ENOMEM, "no memory to sort records");
    if (rc == 0)
        rc = drain(&w, w.n);
    if (stat)
        *stat = w.stat;
    free(w.item);
    free(w.room);
    return rc;
}
