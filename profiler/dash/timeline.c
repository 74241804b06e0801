/* Sort by start, then one pass with a cursor: what lies before the cursor is booked already. */
#include "profiler/dash/timeline.h"

#include <stdlib.h>
#include <string.h>

void dash_timeline_release(struct dash_timeline *t)
{
    for (size_t i = 0; i < DASH_PENDING; i++)
        free(t->pending[i].op);
    memset(t, 0, sizeof *t);
}

void dash_timeline_copy(struct dash_timeline *out, const struct dash_timeline *t)
{
    *out = *t;
    memset(out->pending, 0, sizeof out->pending);
}

bool dash_timeline_add(struct dash_timeline *t, const struct mp_event *e)
{
    uint32_t slot = e->step % DASH_PENDING;

    if (t->pending[slot].step != e->step) {
        t->pending[slot].step = e->step;
        t->pending[slot].n = 0;
        t->pending[slot].n_cut = 0;
    }
    if (t->pending[slot].n == t->pending[slot].cap) {
        uint32_t cap = t->pending[slot].cap ? t->pending[slot].cap * 2 : 4096;
        struct dash_op *op =
            cap <= DASH_OP_MAX ? realloc(t->pending[slot].op, cap * sizeof *op) : NULL;

        if (!op) {
            t->pending[slot].n_cut++;
            return false;
        }
        t->pending[slot].op = op;
        t->pending[slot].cap = cap;
    }
    t->pending[slot].op[t->pending[slot].n++] = (struct dash_op){
        .start_ns = e->start_ns,
        .dur_ns = e->dur_ns,
        .name = e->kind == MP_KERNEL ? e->name : DASH_NO_NAME,
        .layer = e->layer,
        .phase = e->phase < MP_PHASE_COUNT ? e->phase : MP_PHASE_OTHER,
        .pass = e->pass < MP_PASS_COUNT ? e->pass : MP_PASS_FORWARD,
    };
    return true;
}

const struct dash_op *dash_timeline_ops(const struct dash_timeline *t, uint32_t step, uint32_t *n)
{
    uint32_t slot = step % DASH_PENDING;

    *n = t->pending[slot].step == step ? t->pending[slot].n : 0;
    return t->pending[slot].op;
}

uint64_t dash_timeline_bin_ns(const struct dash_timeline *t, uint32_t i)
{
    return t->window_ns / DASH_BINS * i + t->window_ns % DASH_BINS * i / DASH_BINS;
}

/* The bin that holds nanosecond `at` of the step. */
static uint32_t bin_of(const struct dash_timeline *t, uint64_t at)
{
    uint32_t i = (uint32_t)((double)at / (double)t->window_ns * DASH_BINS);

    i = i < DASH_BINS ? i : DASH_BINS - 1;
    while (i > 0 && dash_timeline_bin_ns(t, i) > at)
        i--;
    while (i + 1 < DASH_BINS && dash_timeline_bin_ns(t, i + 1) <= at)
        i++;
    return i;
}

/* Books [from, to) of the step on op. */
static void book(struct dash_timeline *t, const struct dash_op *op, uint64_t from, uint64_t to)
{
    for (uint32_t i = bin_of(t, from); i < DASH_BINS && from < to; i++) {
        uint64_t end = dash_timeline_bin_ns(t, i + 1);
        uint32_t ns = (uint32_t)((to < end ? to : end) - from);
        struct dash_bin *bin = &t->bin[i];

        bin->phase_ns[op->phase] += ns;
        bin->pass_ns[op->pass] += ns;
        bin->idle_ns -= ns;
        if (ns > bin->name_ns) {
            bin->name_ns = ns;
            bin->name = op->name;
            bin->layer = op->layer;
        }
        from += ns;
    }
}

static int by_start(const void *pa, const void *pb)
{
    const struct dash_op *a = pa, *b = pb;

    return a->start_ns < b->start_ns ? -1 : a->start_ns > b->start_ns;
}

/* One stream's records come in order: sorting them again would be most of the work. */
static bool is_sorted(const struct dash_op *op, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++)
        if (op[i].start_ns < op[i - 1].start_ns)
            return false;
    return true;
}

static void clear_bins(struct dash_timeline *t)
{
    memset(t->bin, 0, sizeof t->bin);
    for (uint32_t i = 0; i < DASH_BINS; i++) {
        t->bin[i].idle_ns = (uint32_t)(dash_timeline_bin_ns(t, i + 1) - dash_timeline_bin_ns(t, i));
        t->bin[i].name = DASH_NO_NAME;
        t->bin[i].layer = -1;
    }
}

static void lay_out(struct dash_timeline *t, struct dash_op *op, uint32_t n)
{
    uint64_t cursor = 0;
    if (!is_sorted(op, n))
        qsort(op, n, sizeof *op, by_start);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t from = op[i].start_ns > t->begin_ns ? op[i].start_ns - t->begin_ns : 0;
        uint64_t to = from + op[i].dur_ns;

        if (op[i].start_ns < t->begin_ns || from >= t->window_ns)
            continue;
        t->bin[bin_of(t, from)].n++;
        to = to < t->window_ns ? to : t->window_ns;
        if (to > cursor)
            book(t, &op[i], from > cursor ? from : cursor, to);
        cursor = to > cursor ? to : cursor;
    }
}

void dash_timeline_close(struct dash_timeline *t, const struct mp_step *step)
{
    uint32_t slot = step->step % DASH_PENDING;

    if (t->pending[slot].step != step->step || t->pending[slot].n == 0)
        return;
    /* A bin counts in 32 bits: 512 of them hold 36 minutes. */
    if (step->window_ns == 0 || step->window_ns / DASH_BINS >= UINT32_MAX)
        return;
    t->valid = true;
    t->step = step->step;
    t->begin_ns = step->begin_ns;
    t->window_ns = step->window_ns;
    t->n_op = t->pending[slot].n;
    t->n_cut = t->pending[slot].n_cut;
    clear_bins(t);
    lay_out(t, t->pending[slot].op, t->pending[slot].n);
    t->pending[slot].n = 0;
}
