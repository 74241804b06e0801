/* Stage 5: gathers the records of a few open steps and closes them in order.
 *
 * Nothing is decided while a step is open: its slices of GPU time are kept in 16 bytes each, and the
 * sweep line runs when all are there, so the order of arrival cannot show in a result. Memory is
 * bounded: past SLICE_CAP slices the older part of the step is swept early.
 */
#include "profiler/core/cellmap.h"
#include "profiler/core/step_open.h"

#include <stdlib.h>
#include <string.h>

#define OPEN_MAX_STEPS 64 /* CUPTI runs a few steps behind at most, however short they are */
#define SLICE_CAP      (1u << 20) /* 18 s of eager launches at 57 k/s; 16 MiB */

struct mp_steps {
    mp_step_fn fn;
    void *arg;
    struct mp_cellmap cells;
    struct mp_open *open[OPEN_MAX_STEPS]; /* (n_open) by step */
    struct mp_open *spare;                /* keeps its buffers for the next step */
    uint32_t n_open;
    uint32_t eager; /* operations of the next step that make its begin certain enough; 0 off */
    bool any_closed, gap;
    uint32_t last_closed;
    uint64_t closed_ns; /* windows up to here are given out */
    uint64_t last_key;  /* the cell met last, and its id */
    uint32_t last_id;
    struct mp_slice *scratch;
    size_t cap_scratch;
    struct mp_cell *cell_out;
    size_t cap_cell;
    struct mp_steps_stat stat;
};

static int close_first(struct mp_steps *s);

/* ---- open steps --------------------------------------------------------------------------- */

static struct mp_open *open_step_new(struct mp_steps *s)
{
    struct mp_open *p = s->spare;

    s->spare = NULL;
    if (!p)
        p = calloc(1, sizeof *p);
    if (p)
        mp_open_reset(p);
    return p;
}

static struct mp_open *insert(struct mp_steps *s, uint32_t at, uint32_t step)
{
    struct mp_open *p = open_step_new(s);

    if (!p)
        return NULL;
    p->out.step = step;
    memmove(s->open + at + 1, s->open + at, (s->n_open - at) * sizeof *s->open);
    s->open[at] = p;
    s->n_open++;
    return p;
}

/* The open step of that number, made if need be; NULL when it is closed already or out of memory. */
static struct mp_open *find(struct mp_steps *s, uint32_t step)
{
    uint32_t at = s->n_open;

    while (at > 0 && s->open[at - 1]->out.step > step)
        at--;
    if (at > 0 && s->open[at - 1]->out.step == step)
        return s->open[at - 1];
    if (s->any_closed && step <= s->last_closed)
        return NULL;
    if (s->n_open == OPEN_MAX_STEPS) {
        close_first(s);
        return find(s, step);
    }
    return insert(s, at, step);
}

/* ---- slices ------------------------------------------------------------------------------- */

static int slices_order(struct mp_steps *s, struct mp_open *p)
{
    if (mp_reserve((void **)&s->scratch, &s->cap_scratch, p->n_slice, sizeof *s->scratch) != 0)
        return MP_ENOMEM;
    mp_slices_sort(p->slice, p->n_slice, s->scratch, s->cells.key);
    return 0;
}

/* Books p's slices up to end_ns; what reaches beyond stays, or goes to `next` when there is one. */
static int book_until(struct mp_steps *s, struct mp_open *p, uint64_t end_ns, struct mp_open *next)
{
    size_t kept = 0, n = p->n_slice;
    int rc = slices_order(s, p);

    if (!rc)
        rc = mp_open_sums(p, s->cells.n);
    if (rc) { /* the window stays, as idle, and says that it is not whole */
        p->out.flags |= MP_STEP_INCOMPLETE;
        p->out.idle_ns += end_ns - p->swept_ns;
        p->n_slice = 0;
    } else {
        p->out.idle_ns += mp_sweep(p->slice, n, p->swept_ns, end_ns, p->sum, &s->stat.n_crowded);
    }
    p->swept_ns = end_ns;
    for (size_t i = 0; i < p->n_slice; i++)
        if (p->slice[i].start_ns + p->slice[i].dur_ns > end_ns) {
            if (!next)
                p->slice[kept++] = p->slice[i];
            else if (mp_open_slice(next, p->slice[i]) != 0)
                rc = MP_ENOMEM;
        }
    p->n_slice = kept;
    return rc;
}

static void window_begin(const struct mp_steps *s, struct mp_open *p)
{
    if (p->swept_ns)
        return;
    p->out.begin_ns = p->first_ns > s->closed_ns ? p->first_ns : s->closed_ns;
    p->swept_ns = p->out.begin_ns;
}

/* Too many slices: books the older seven eighths now. Later records under that are clipped to it. */
static int relieve(struct mp_steps *s, struct mp_open *p)
{
    uint64_t until;
    int rc;

    while (s->open[0] != p)
        close_first(s);
    rc = slices_order(s, p);
    if (rc)
        return rc;
    window_begin(s, p);
    until = p->slice[p->n_slice / 8 * 7].start_ns;
    if (until > p->swept_ns)
        rc = book_until(s, p, until, NULL);
    if (p->n_slice >= SLICE_CAP) { /* all of them run at once: no GPU does that */
        p->n_slice = 0;
        p->out.flags |= MP_STEP_INCOMPLETE;
    }
    return rc;
}

/* ---- records ------------------------------------------------------------------------------ */

static uint32_t class_of(const struct mp_event *e)
{
    if (e->kind == MP_MEMCPY || e->kind == MP_MEMSET)
        return MP_CLASS_COPY;
    return e->phase == MP_PHASE_COMM ? MP_CLASS_COMM : MP_CLASS_KERNEL;
}

static void count_event(struct mp_step *out, const struct mp_event *e)
{
    if (e->flags & MP_FLAG_OWN) {
        out->n_own++;
        out->own_ns += e->dur_ns;
    } else if (e->kind == MP_KERNEL) {
        out->n_kernel++;
        out->kernel_ns += e->dur_ns;
    } else {
        out->n_copy += e->kind == MP_MEMCPY;
        out->n_memset += e->kind == MP_MEMSET;
        out->n_graph += e->kind == MP_GRAPH;
    }
}

static uint32_t cell_of(struct mp_steps *s, const struct mp_event *e)
{
    uint64_t key = mp_cell_key(e->layer, e->phase, e->pass, e->expert, e->basis);

    s->stat.n_invalid += e->layer < -1 || e->expert < -1 || e->phase >= MP_PHASE_COUNT ||
                         e->pass >= MP_PASS_COUNT || e->basis >= MP_BASIS_COUNT;
    if (key != s->last_key || s->cells.n == 0) {
        s->last_id = mp_cellmap_id(&s->cells, key);
        s->last_key = s->last_id < MP_CELL_CAP ? key : UINT64_MAX;
    }
    return s->last_id;
}

static int feed_event(struct mp_steps *s, struct mp_open *p, const struct mp_event *e)
{
    uint32_t id = cell_of(s, e);

    if (id >= MP_CELL_CAP || (id >= p->n_sum && mp_open_sums(p, id + 1) != 0)) {
        p->out.flags |= MP_STEP_INCOMPLETE;
        return MP_ENOMEM;
    }
    count_event(&p->out, e);
    p->sum[id].n++;
    p->sum[id].raw_ns += e->dur_ns;
    if (e->start_ns == 0 || e->start_ns > INT64_MAX) { /* CUPTI gives 0 when it has no time stamp */
        s->stat.n_invalid++;
        return 0;
    }
    p->first_ns = e->start_ns < p->first_ns ? e->start_ns : p->first_ns;
    if (p->n_slice >= SLICE_CAP && relieve(s, p) != 0)
        return MP_ENOMEM;
    return mp_open_slice(p, (struct mp_slice){.start_ns = e->start_ns,
                                              .dur_ns = e->dur_ns,
                                              .tag = class_of(e) << MP_SLICE_CLASS_SHIFT | id});
}

static int feed_mark(struct mp_steps *s, struct mp_open *p, const struct mp_step_mark *m)
{
    int rc = 0;

    p->marked = true;
    p->out.flags |= m->flags | (m->dropped ? MP_STEP_INCOMPLETE : 0);
    p->out.host_end_ns = m->end_ns;
    p->out.launches = m->launches;
    p->out.records = m->records;
    p->out.dropped = m->dropped;
    p->micro_marked = m->n_micro;
    while (s->open[0] != p)
        if (close_first(s) != 0)
            rc = MP_ENOMEM;
    return rc;
}

/* Records beyond what any model has are counted and left out. */
static int skip_invalid(struct mp_steps *s, int rc)
{
    if (rc != MP_EINVAL && rc != MP_EFULL)
        return rc;
    s->stat.n_invalid++;
    return 0;
}

static bool is_event(uint8_t kind)
{
    return kind >= MP_KERNEL && kind <= MP_GRAPH;
}

static int feed_one(struct mp_steps *s, const union mp_record *r)
{
    struct mp_open *p;

    if (r->head.kind == MP_OVERHEAD) {
        s->stat.n_overhead++;
        return 0;
    }
    if (r->head.kind == 0 || r->head.kind >= MP_KIND_COUNT) {
        s->stat.n_unknown++;
        return 0;
    }
    p = s->n_open && s->open[s->n_open - 1]->out.step == r->head.step ? s->open[s->n_open - 1]
                                                                      : find(s, r->head.step);
    if (!p) {
        if (!s->any_closed || r->head.step > s->last_closed)
            return MP_ENOMEM;
        s->stat.n_late++;
        if (s->n_open == 0 || !is_event(r->head.kind))
            return 0;
        p = s->open[0];
    }
    if (s->gap) { /* what was lost may have been this step's */
        p->out.flags |= MP_STEP_INCOMPLETE;
        s->gap = false;
    }
    switch (r->head.kind) {
    case MP_STEP:
        return feed_mark(s, p, &r->mark);
    case MP_MICRO:
        mp_open_micro(p, &r->micro);
        return 0;
    case MP_PAIRS:
        return skip_invalid(s, mp_open_pairs(p, &r->pairs));
    case MP_ROUTING:
        return skip_invalid(s, mp_open_routing(p, &r->routing));
    default:
        return feed_event(s, p, &r->event);
    }
}

/* ---- closing ------------------------------------------------------------------------------ */

static void settle_window(struct mp_steps *s, struct mp_open *p)
{
    struct mp_open *next = s->n_open > 1 ? s->open[1] : NULL;
    uint64_t end;

    if (p->n_slice == 0 && p->swept_ns == 0) {
        p->out.begin_ns = s->closed_ns;
        return;
    }
    window_begin(s, p);
    if (next && (next->out.step != p->out.step + 1 || next->first_ns == UINT64_MAX))
        next = NULL;
    end = next ? next->first_ns : p->last_ns;
    if (!next)
        p->out.flags |= MP_STEP_PARTIAL;
    if (end < p->swept_ns)
        end = p->swept_ns;
    book_until(s, p, end, next);
    p->out.window_ns = end - p->out.begin_ns;
    s->closed_ns = end;
}

static int emit_cells(struct mp_steps *s, struct mp_open *p)
{
    const uint32_t *order = mp_cellmap_order(&s->cells);
    uint32_t n = 0;

    if (!order ||
        mp_reserve((void **)&s->cell_out, &s->cap_cell, s->cells.n, sizeof *s->cell_out) != 0)
        return MP_ENOMEM;
    for (uint32_t i = 0; i < s->cells.n; i++) {
        struct mp_cell *cell = &s->cell_out[n];
        const struct mp_cell_sum *sum;

        if (order[i] >= p->n_sum)
            continue;
        sum = &p->sum[order[i]];
        if (sum->n == 0 && sum->booked_ns == 0)
            continue;
        mp_cell_from_key(cell, s->cells.key[order[i]]);
        cell->n = sum->n;
        cell->booked_ns = sum->booked_ns;
        cell->raw_ns = sum->raw_ns;
        n++;
    }
    p->out.cell = s->cell_out;
    p->out.n_cell = n;
    return 0;
}

static int close_first(struct mp_steps *s)
{
    struct mp_open *p = s->open[0];
    int rc;

    if (!p->marked)
        p->out.flags |= MP_STEP_INCOMPLETE;
    mp_open_settle(p);
    settle_window(s, p);
    rc = emit_cells(s, p);
    if (rc) { /* without cells the law holds only for an empty window */
        p->out.flags |= MP_STEP_INCOMPLETE;
        p->out.window_ns = p->out.idle_ns = 0;
    }
    s->any_closed = true;
    s->last_closed = p->out.step;
    s->fn(s->arg, &p->out);
    memmove(s->open, s->open + 1, --s->n_open * sizeof *s->open);
    mp_open_free(s->spare);
    s->spare = p;
    return rc;
}

/* ---- public ------------------------------------------------------------------------------- */

struct mp_steps *mp_steps_new(mp_step_fn fn, void *arg)
{
    struct mp_steps *s = calloc(1, sizeof *s);

    if (!s)
        return NULL;
    s->fn = fn;
    s->arg = arg;
    s->last_key = UINT64_MAX;
    return s;
}

void mp_steps_free(struct mp_steps *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->n_open; i++)
        mp_open_free(s->open[i]);
    mp_open_free(s->spare);
    mp_cellmap_release(&s->cells);
    free(s->scratch);
    free(s->cell_out);
    free(s);
}

void mp_steps_eager(struct mp_steps *s, uint32_t n_op)
{
    s->eager = n_op;
}

static bool is_ripe(const struct mp_steps *s)
{
    return s->eager && s->n_open > 1 && s->open[0]->marked && s->open[1]->n_slice >= s->eager &&
           s->open[1]->out.step == s->open[0]->out.step + 1;
}

int mp_steps_feed(struct mp_steps *s, const union mp_record *record, size_t n)
{
    int rc = 0;

    for (size_t i = 0; i < n; i++)
        if (feed_one(s, &record[i]) != 0)
            rc = MP_ENOMEM;
    while (is_ripe(s))
        if (close_first(s) != 0)
            rc = MP_ENOMEM;
    s->stat.n_record += n;
    return rc;
}

void mp_steps_gap(struct mp_steps *s, uint64_t n_lost)
{
    if (n_lost == 0)
        return;
    s->stat.n_lost += n_lost;
    s->gap = true;
    for (uint32_t i = 0; i < s->n_open; i++) {
        struct mp_open *p = s->open[i];
        bool is_last = i + 1 == s->n_open;

        /* all of a marked step is here, but where it ends may be among what was lost */
        if (!p->marked || is_last || s->open[i + 1]->first_ns == UINT64_MAX)
            p->out.flags |= MP_STEP_INCOMPLETE;
    }
}

void mp_steps_finish(struct mp_steps *s)
{
    while (s->n_open)
        close_first(s);
}

const struct mp_steps_stat *mp_steps_stat(const struct mp_steps *s)
{
    return &s->stat;
}
