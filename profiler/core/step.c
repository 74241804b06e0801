/* Stage 5: gathers the records of a few open steps and closes them in order.
 *
 * Nothing is decided while a step is open: its slices of GPU time are kept in 16 bytes each, and the
 * sweep line runs when all are there, so the order of arrival cannot show in a result. Memory is
 * bounded: past SLICE_CAP slices the older part of the step is swept early.
 */
#include "profiler/core/cellmap.h"
#include "profiler/core/sweep.h"

#include <stdlib.h>
#include <string.h>

#define OPEN_MAX_STEPS   64 /* CUPTI runs a few steps behind at most, however short they are */
#define SLICE_CAP        (1u << 20) /* 18 s of eager launches at 57 k/s; 16 MiB */
#define ROUTE_LAYER_MAX  1024       /* known models: 94 layers, 512 experts */
#define ROUTE_EXPERT_MAX 4096

struct open_step {
    struct mp_step out; /* figures so far; cell is filled at the end */
    struct mp_slice *slice;
    struct mp_cell_sum *sum; /* (n_sum) by cell id */
    size_t n_slice, cap_slice;
    uint32_t n_sum, cap_route;
    uint64_t first_ns, last_ns; /* earliest start, latest end; UINT64_MAX and 0: no operation */
    uint64_t swept_ns;          /* booked up to here; 0 not begun */
    uint32_t micro_seen, micro_marked;
    uint32_t pairs_seen[MP_WINDOW_MAX];
    bool marked;
};

struct mp_steps {
    mp_step_fn fn;
    void *arg;
    struct mp_cellmap cells;
    struct open_step *open[OPEN_MAX_STEPS]; /* (n_open) by step */
    struct open_step *spare;                /* keeps its buffers for the next step */
    uint32_t n_open;
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

static void open_step_reset(struct open_step *p)
{
    struct open_step keep = *p;

    for (uint32_t i = 0; i < p->out.n_route; i++)
        free(p->out.route[i].count);
    memset(p, 0, sizeof *p);
    p->slice = keep.slice;
    p->cap_slice = keep.cap_slice;
    p->sum = keep.sum;
    p->n_sum = keep.n_sum;
    p->out.route = keep.out.route;
    p->cap_route = keep.cap_route;
    if (p->n_sum)
        memset(p->sum, 0, p->n_sum * sizeof *p->sum);
    p->first_ns = UINT64_MAX;
    p->out.processed = p->out.useful = p->out.trainable = p->out.head_rows = UINT64_MAX;
}

static void open_step_free(struct open_step *p)
{
    if (!p)
        return;
    for (uint32_t i = 0; i < p->out.n_route; i++)
        free(p->out.route[i].count);
    free(p->out.route);
    free(p->slice);
    free(p->sum);
    free(p);
}

static struct open_step *open_step_new(struct mp_steps *s)
{
    struct open_step *p = s->spare;

    s->spare = NULL;
    if (!p)
        p = calloc(1, sizeof *p);
    if (p)
        open_step_reset(p);
    return p;
}

static struct open_step *insert(struct mp_steps *s, uint32_t at, uint32_t step)
{
    struct open_step *p = open_step_new(s);

    if (!p)
        return NULL;
    p->out.step = step;
    memmove(s->open + at + 1, s->open + at, (s->n_open - at) * sizeof *s->open);
    s->open[at] = p;
    s->n_open++;
    return p;
}

/* The open step of that number, made if need be; NULL when it is closed already or out of memory. */
static struct open_step *find(struct mp_steps *s, uint32_t step)
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

static int reserve(void **at, size_t *cap, size_t need, size_t item)
{
    size_t n = *cap ? *cap : 256;
    void *more;

    if (need <= *cap)
        return 0;
    while (n < need)
        n *= 2;
    more = realloc(*at, n * item);
    if (!more)
        return MP_ENOMEM;
    *at = more;
    *cap = n;
    return 0;
}

static int sum_reserve(struct open_step *p, uint32_t n)
{
    struct mp_cell_sum *sum;
    uint32_t cap = p->n_sum ? p->n_sum : 256;

    if (n <= p->n_sum)
        return 0;
    while (cap < n)
        cap *= 2;
    sum = realloc(p->sum, cap * sizeof *sum);
    if (!sum)
        return MP_ENOMEM;
    memset(sum + p->n_sum, 0, (cap - p->n_sum) * sizeof *sum);
    p->sum = sum;
    p->n_sum = cap;
    return 0;
}

static int slice_push(struct open_step *p, struct mp_slice slice)
{
    uint64_t end = slice.start_ns + slice.dur_ns;

    if (p->n_slice == p->cap_slice &&
        reserve((void **)&p->slice, &p->cap_slice, p->n_slice + 1, sizeof slice) != 0) {
        p->out.flags |= MP_STEP_INCOMPLETE;
        return MP_ENOMEM;
    }
    p->slice[p->n_slice++] = slice;
    p->last_ns = end > p->last_ns ? end : p->last_ns;
    return 0;
}

static int slices_order(struct mp_steps *s, struct open_step *p)
{
    if (reserve((void **)&s->scratch, &s->cap_scratch, p->n_slice, sizeof *s->scratch) != 0)
        return MP_ENOMEM;
    mp_slices_sort(p->slice, p->n_slice, s->scratch, s->cells.key);
    return 0;
}

/* Books p's slices up to end_ns; what reaches beyond stays, or goes to `next` when there is one. */
static int book_until(struct mp_steps *s, struct open_step *p, uint64_t end_ns,
                      struct open_step *next)
{
    size_t kept = 0, n = p->n_slice;
    int rc = slices_order(s, p);

    if (!rc)
        rc = sum_reserve(p, s->cells.n);
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
            else if (slice_push(next, p->slice[i]) != 0)
                rc = MP_ENOMEM;
        }
    p->n_slice = kept;
    return rc;
}

static void window_begin(const struct mp_steps *s, struct open_step *p)
{
    if (p->swept_ns)
        return;
    p->out.begin_ns = p->first_ns > s->closed_ns ? p->first_ns : s->closed_ns;
    p->swept_ns = p->out.begin_ns;
}

/* Too many slices: books the older seven eighths now. Later records under that are clipped to it. */
static int relieve(struct mp_steps *s, struct open_step *p)
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

static int feed_event(struct mp_steps *s, struct open_step *p, const struct mp_event *e)
{
    uint32_t id = cell_of(s, e);

    if (id >= MP_CELL_CAP || (id >= p->n_sum && sum_reserve(p, id + 1) != 0)) {
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
    return slice_push(p, (struct mp_slice){.start_ns = e->start_ns,
                                           .dur_ns = e->dur_ns,
                                           .tag = class_of(e) << MP_SLICE_CLASS_SHIFT | id});
}

/* Adds a 32-bit token count in which UINT32_MAX is unknown; unknown sticks. */
static void add_tokens(uint64_t *sum, uint32_t v, bool first)
{
    if (v == UINT32_MAX || (!first && *sum == UINT64_MAX))
        *sum = UINT64_MAX;
    else
        *sum = (first ? 0 : *sum) + v;
}

/* Measured is the strongest, unknown the weakest. */
static enum mp_basis weaker(enum mp_basis a, enum mp_basis b)
{
    if (a >= MP_BASIS_COUNT || b >= MP_BASIS_COUNT || a == MP_UNKNOWN || b == MP_UNKNOWN)
        return MP_UNKNOWN;
    return a > b ? a : b;
}

static void feed_micro(struct open_step *p, const struct mp_micro *m)
{
    bool first = p->micro_seen++ == 0;

    add_tokens(&p->out.processed, m->processed, first);
    add_tokens(&p->out.useful, m->basis == MP_UNKNOWN ? UINT32_MAX : m->useful, first);
    add_tokens(&p->out.trainable, m->trainable, first);
    add_tokens(&p->out.head_rows, m->head_rows == UINT32_MAX ? m->processed : m->head_rows, first);
    p->out.useful_basis = weaker(first ? MP_MEASURED : p->out.useful_basis, m->basis);
    p->out.n_segment += m->n_segment;
}

static void feed_pairs(struct mp_steps *s, struct open_step *p, const struct mp_pairs *pairs)
{
    struct mp_pairs_sum *sum;
    uint32_t i = 0;

    while (i < p->out.n_pairs && p->out.pairs[i].window != pairs->window)
        i++;
    if (i == MP_WINDOW_MAX) {
        s->stat.n_invalid++;
        return;
    }
    sum = &p->out.pairs[i];
    if (i == p->out.n_pairs) {
        p->out.n_pairs++;
        *sum = (struct mp_pairs_sum){.window = pairs->window, .basis = MP_MEASURED};
    }
    p->pairs_seen[i]++;
    sum->useful += pairs->useful;
    sum->processed += pairs->processed;
    sum->max_len = pairs->max_len > sum->max_len ? pairs->max_len : sum->max_len;
    sum->basis = weaker(sum->basis, pairs->basis);
}

/* The layer's row, made if need be; kept sorted. */
static struct mp_route *route_of(struct open_step *p, int16_t layer)
{
    uint32_t at = p->out.n_route;
    size_t cap = p->cap_route;

    while (at > 0 && p->out.route[at - 1].layer > layer)
        at--;
    if (at > 0 && p->out.route[at - 1].layer == layer)
        return &p->out.route[at - 1];
    if (reserve((void **)&p->out.route, &cap, p->out.n_route + 1, sizeof *p->out.route) != 0)
        return NULL;
    p->cap_route = (uint32_t)cap;
    memmove(p->out.route + at + 1, p->out.route + at, (p->out.n_route - at) * sizeof *p->out.route);
    p->out.n_route++;
    p->out.route[at] = (struct mp_route){.layer = layer, .basis = MP_MEASURED};
    return &p->out.route[at];
}

static int feed_routing(struct mp_steps *s, struct open_step *p, const struct mp_routing *r)
{
    struct mp_route *route;
    int end = r->expert0 + r->n;

    if (r->n == 0 || r->n > countof(r->count) || r->expert0 < 0 || r->layer < 0 ||
        end > ROUTE_EXPERT_MAX || r->layer >= ROUTE_LAYER_MAX) {
        s->stat.n_invalid++;
        return 0;
    }
    route = route_of(p, r->layer);
    if (route && end > route->n_expert) {
        uint32_t *count = realloc(route->count, (size_t)end * sizeof *count);

        if (count) {
            memset(count + route->n_expert, 0, (size_t)(end - route->n_expert) * sizeof *count);
            route->count = count;
            route->n_expert = (uint16_t)end;
        }
    }
    if (!route || route->n_expert < end) {
        p->out.flags |= MP_STEP_INCOMPLETE;
        return MP_ENOMEM;
    }
    route->basis = weaker(route->basis, r->basis);
    for (int i = 0; i < r->n; i++)
        route->count[r->expert0 + i] += r->count[i];
    return 0;
}

static int feed_mark(struct mp_steps *s, struct open_step *p, const struct mp_step_mark *m)
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

static bool is_event(uint8_t kind)
{
    return kind >= MP_KERNEL && kind <= MP_GRAPH;
}

static int feed_one(struct mp_steps *s, const union mp_record *r)
{
    struct open_step *p;

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
        feed_micro(p, &r->micro);
        return 0;
    case MP_PAIRS:
        feed_pairs(s, p, &r->pairs);
        return 0;
    case MP_ROUTING:
        return feed_routing(s, p, &r->routing);
    default:
        return feed_event(s, p, &r->event);
    }
}

/* ---- closing ------------------------------------------------------------------------------ */

/* Token figures of a step that lacks some micro-batches are not its figures. */
static void settle_tokens(struct open_step *p)
{
    struct mp_step *out = &p->out;

    out->n_micro = p->micro_seen > p->micro_marked ? p->micro_seen : p->micro_marked;
    if (p->micro_seen < p->micro_marked) {
        out->processed = out->useful = out->trainable = out->head_rows = UINT64_MAX;
        out->useful_basis = MP_UNKNOWN;
    }
    for (uint32_t i = 0; i < out->n_pairs; i++)
        if (p->pairs_seen[i] < out->n_micro)
            out->pairs[i].basis = MP_UNKNOWN;
}

static void settle_window(struct mp_steps *s, struct open_step *p)
{
    struct open_step *next = s->n_open > 1 ? s->open[1] : NULL;
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

static int emit_cells(struct mp_steps *s, struct open_step *p)
{
    const uint32_t *order = mp_cellmap_order(&s->cells);
    uint32_t n = 0;

    if (!order ||
        reserve((void **)&s->cell_out, &s->cap_cell, s->cells.n, sizeof *s->cell_out) != 0)
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
    struct open_step *p = s->open[0];
    int rc;

    if (!p->marked)
        p->out.flags |= MP_STEP_INCOMPLETE;
    settle_tokens(p);
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
    open_step_free(s->spare);
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
        open_step_free(s->open[i]);
    open_step_free(s->spare);
    mp_cellmap_release(&s->cells);
    free(s->scratch);
    free(s->cell_out);
    free(s);
}

int mp_steps_feed(struct mp_steps *s, const union mp_record *record, size_t n)
{
    int rc = 0;

    for (size_t i = 0; i < n; i++)
        if (feed_one(s, &record[i]) != 0)
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
        struct open_step *p = s->open[i];
        const struct open_step *next = i + 1 < s->n_open ? s->open[i + 1] : NULL;

        /* all of a marked step is here, but where it ends may be among what was lost */
        if (!p->marked || !next || next->first_ns == UINT64_MAX)
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

/* ---- the law ------------------------------------------------------------------------------ */

static bool cell_in_range(const struct mp_cell *c)
{
    return c->layer >= -1 && c->expert >= -1 && c->phase < MP_PHASE_COUNT &&
           c->pass < MP_PASS_COUNT && c->basis < MP_BASIS_COUNT;
}

static uint64_t cell_key(const struct mp_cell *c)
{
    return mp_cell_key(c->layer, c->phase, c->pass, c->expert, c->basis);
}

int mp_step_check(const struct mp_step *step, struct mp_err *err)
{
    uint64_t booked = 0, raw = 0;

    for (uint32_t i = 0; i < step->n_cell; i++) {
        if (!cell_in_range(&step->cell[i]))
            return mp_fail(err, MP_EFORMAT, "cell %u of step %u is out of range", i, step->step);
        if (i && cell_key(&step->cell[i - 1]) >= cell_key(&step->cell[i]))
            return mp_fail(err, MP_EFORMAT, "cell %u of step %u is out of order", i, step->step);
        booked += step->cell[i].booked_ns;
        raw += step->cell[i].raw_ns;
    }
    if (booked + step->idle_ns != step->window_ns)
        return mp_fail(err, MP_EFORMAT, "step %u books %llu ns and %llu idle in a window of %llu",
                       step->step, (unsigned long long)booked, (unsigned long long)step->idle_ns,
                       (unsigned long long)step->window_ns);
    if (step->kernel_ns + step->own_ns > raw)
        return mp_fail(err, MP_EFORMAT, "step %u has kernels outside its cells", step->step);
    return 0;
}
