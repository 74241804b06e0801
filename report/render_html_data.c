/* What the page needs of a profile beyond the report: the step nearest to the median, cut into columns,
 * and what the GPU's gauges said. Two walks over the steps' rows and one over the raw records. */
#include "report/render_html_part.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LAYER_MAX 512

struct pick {
    const struct rp_report *report;
    struct rp_timeline *best;
    double off; /* from the median, seconds */
};

static int pick_step(void *arg, const struct mp_step *s)
{
    struct pick *p = arg;
    const struct rp_step_stat *stat = &p->report->step;
    double off = fabs((double)s->window_ns * 1e-9 - stat->median_s.v);

    if (s->window_ns == 0 || s->n_kernel == 0 || s->step < stat->first || s->step > stat->last)
        return 0;
    if (p->best->window_ns && off >= p->off)
        return 0;
    p->best->step = s->step;
    p->best->begin_ns = s->begin_ns;
    p->best->window_ns = s->window_ns;
    p->off = off;
    return 0;
}

struct fill {
    struct rp_timeline *t;
    uint32_t (*layer_ns)[LAYER_MAX]; /* (HTML_BINS) */
};

static void fill_bin(struct fill *w, const struct mp_event *e, size_t bin, uint64_t ns)
{
    w->t->ns[e->pass][e->phase][bin] += (uint32_t)ns;
    if (e->layer >= 0 && e->layer < LAYER_MAX)
        w->layer_ns[bin][e->layer] += (uint32_t)ns;
}

/* Bin edges in ns from the beginning: exact, so that no time is lost between columns. */
static uint64_t edge(const struct rp_timeline *t, size_t bin)
{
    return (uint64_t)((double)t->window_ns * (double)bin / HTML_BINS);
}

static void fill_operation(struct fill *w, const struct mp_event *e)
{
    struct rp_timeline *t = w->t;
    uint64_t from, to;
    size_t bin;

    if (e->start_ns + e->dur_ns <= t->begin_ns || e->start_ns >= t->begin_ns + t->window_ns)
        return;
    if (e->phase >= MP_PHASE_COUNT || e->pass >= MP_PASS_COUNT || (e->flags & MP_FLAG_OWN))
        return;
    from = e->start_ns > t->begin_ns ? e->start_ns - t->begin_ns : 0;
    to = e->start_ns + e->dur_ns - t->begin_ns;
    to = to > t->window_ns ? t->window_ns : to;
    t->n_operation++;
    bin = (size_t)((double)from * HTML_BINS / (double)t->window_ns);
    for (; bin < HTML_BINS && from < to; bin++) {
        uint64_t end = edge(t, bin + 1) < to ? edge(t, bin + 1) : to;

        if (end > from)
            fill_bin(w, e, bin, end - from);
        from = end > from ? end : from;
    }
}

static int fill_chunk(void *arg, const union mp_record *record, size_t n, uint64_t lost)
{
    (void)lost;
    for (size_t i = 0; i < n; i++)
        if (record[i].head.kind >= MP_KERNEL && record[i].head.kind <= MP_GRAPH)
            fill_operation(arg, &record[i].event);
    return 0;
}

static void layers_fill(struct fill *w)
{
    for (size_t b = 0; b < HTML_BINS; b++) {
        uint32_t most = 0;

        w->t->layer[b] = -1;
        for (int l = 0; l < LAYER_MAX; l++)
            if (w->layer_ns[b][l] > most) {
                most = w->layer_ns[b][l];
                w->t->layer[b] = (int16_t)l;
            }
    }
}

static int timeline_fill(struct rp_timeline *t, struct rp_profile *p, const struct rp_report *r,
                         struct mp_err *err)
{
    struct fill w = {.t = t};
    int rc = rp_each_step(p, pick_step, &(struct pick){.report = r, .best = t}, err);

    if (rc || t->window_ns == 0)
        return rc;
    w.layer_ns = calloc(HTML_BINS, sizeof *w.layer_ns);
    if (!w.layer_ns)
        return mp_fail(err, MP_ENOMEM, "no memory for the timeline");
    rc = rp_each_chunk(p, fill_chunk, &w, err);
    layers_fill(&w);
    free(w.layer_ns);
    return rc;
}

static int on_gauge(void *arg, const struct rp_gauge *g)
{
    struct rp_html_data *d = arg;

    for (int i = 0; i < RP_GAUGE_COUNT; i++) {
        struct html_gauge *s = &d->gauge[i];
        uint64_t v = g->value[i];

        if (!(g->valid >> i & 1))
            continue;
        s->min = s->n == 0 || v < s->min ? v : s->min;
        s->max = v > s->max ? v : s->max;
        s->sum += v;
        s->n++;
    }
    d->throttled += (g->valid >> RP_THROTTLE_BITS & 1) && g->value[RP_THROTTLE_BITS] > 1;
    return 0;
}

int rp_html_data_new(struct rp_html_data **data, struct rp_profile *p, const struct rp_report *r,
                     struct mp_err *err)
{
    struct rp_html_data *d = calloc(1, sizeof *d);
    int rc;

    *data = NULL;
    if (!d)
        return mp_fail(err, MP_ENOMEM, "no memory for the page");
    rc = timeline_fill(&d->timeline, p, r, err);
    if (rc == 0)
        rc = rp_each_gauge(p, on_gauge, d, err);
    if (rc == 0)
        rc = rp_ab_analyze(&d->ab, r, p, err);
    if (rc)
        rp_html_data_free(d);
    else
        *data = d;
    return rc;
}

void rp_html_data_free(struct rp_html_data *data)
{
    if (data)
        rp_ab_free(data->ab);
    free(data);
}
