/* Whether two runs were given the same data. Nobody stores tokens, so the evidence is what their counts
 * leave: as many tokens and sequences in the same steps, and the same experts chosen in the first layer of
 * the first step, which follows from its tokens and the initial weights whatever computes the experts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/compare_part.h"

struct trace { /* of one step */
    uint32_t step, n_segment;
    uint64_t processed, useful;
};

struct traces {
    struct trace *one; /* (n), by step */
    size_t n, cap;
    struct mp_err *err;
    /* tokens per expert of the first layer in the first step that has them all */
    uint32_t *count; /* (n_count); owned */
    uint32_t n_count, step;
    int layer;
};

static bool is_usable(const struct mp_step *s)
{
    return !(s->flags & (MP_STEP_PARTIAL | MP_STEP_INCOMPLETE)) && s->processed != UINT64_MAX &&
           s->processed;
}

static int route_keep(struct traces *t, const struct mp_step *s)
{
    const struct mp_route *r = NULL;

    for (uint32_t i = 0; i < s->n_route; i++)
        if (!r || s->route[i].layer < r->layer)
            r = &s->route[i];
    if (t->count || !r || !r->n_expert || !(t->count = malloc(r->n_expert * sizeof *t->count)))
        return t->count || !r || !r->n_expert ? MP_OK : MP_ENOMEM;
    memcpy(t->count, r->count, r->n_expert * sizeof *t->count);
    t->n_count = r->n_expert;
    t->layer = r->layer;
    t->step = s->step;
    return MP_OK;
}

static int on_step(void *arg, const struct mp_step *s)
{
    struct traces *t = arg;

    if (!is_usable(s))
        return 0;
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 256;
        struct trace *grown = realloc(t->one, cap * sizeof *grown);

        if (!grown)
            return mp_fail(t->err, MP_ENOMEM, "no memory for %zu steps", t->n);
        t->one = grown;
        t->cap = cap;
    }
    t->one[t->n++] = (struct trace){s->step, s->n_segment, s->processed,
                                    s->useful_basis == MP_UNKNOWN ? 0 : s->useful};
    return route_keep(t, s) ? mp_fail(t->err, MP_ENOMEM, "no memory for a step's routing") : 0;
}

static bool is_same(const struct trace *a, const struct trace *b)
{
    return a->processed == b->processed && a->useful == b->useful && a->n_segment == b->n_segment;
}

static void counts_match(struct rp_same_data *out, const struct traces t[2])
{
    for (size_t i = 0, k = 0; i < t[0].n && k < t[1].n;) {
        const struct trace *a = &t[0].one[i], *b = &t[1].one[k];

        if (a->step == b->step) {
            out->n_common++;
            out->n_same += is_same(a, b);
            out->varies |= i > 0 && !is_same(a, a - 1);
        }
        i += a->step <= b->step;
        k += b->step <= a->step;
    }
}

/* Differences over the sum of both: an assignment that moved is one expert's less and another one's more. */
static void routes_match(struct rp_same_data *out, const struct traces t[2])
{
    uint64_t apart = 0, all = 0;

    if (!t[0].count || !t[1].count || t[0].step != t[1].step || t[0].layer != t[1].layer ||
        t[0].n_count != t[1].n_count)
        return;
    for (uint32_t e = 0; e < t[0].n_count; e++) {
        uint32_t a = t[0].count[e], b = t[1].count[e];

        apart += a > b ? a - b : b - a;
        all += (uint64_t)a + b;
    }
    if (!all)
        return;
    out->moved = (struct mp_val){(double)apart / (double)all, MP_MEASURED};
    out->moved_step = t[0].step;
    out->moved_layer = t[0].layer;
}

int rp_compare_data(struct rp_same_data *out, struct rp_profile *const p[2], struct mp_err *err)
{
    struct traces t[2] = {{.err = err}, {.err = err}};
    int rc = MP_OK;

    *out = (struct rp_same_data){0};
    for (int i = 0; !rc && i < 2; i++)
        rc = rp_each_step(p[i], on_step, &t[i], err);
    if (!rc) {
        counts_match(out, t);
        routes_match(out, t);
    }
    for (int i = 0; i < 2; i++) {
        free(t[i].one);
        free(t[i].count);
    }
    return rc;
}

static int counts_text(char *out, size_t n, const struct rp_same_data *d)
{
    if (d->n_common == 0)
        return snprintf(out, n, "unknown whether it was the same: no step is in both profiles");
    return snprintf(
        out, n, "as many tokens and sequences in %zu of %zu common steps%s", d->n_same, d->n_common,
        d->n_same == d->n_common && !d->varies ? ", which says little where every step has as many"
                                               : "");
}

void rp_compare_data_text(char *out, size_t n, const struct rp_same_data *d)
{
    char fig[RP_FIG];
    int at = counts_text(out, n, d);

    if (d->moved.basis == MP_UNKNOWN)
        snprintf(out + at, n - (size_t)at, "; tokens per expert of a first step are not in both");
    else if (d->moved.v == 0)
        snprintf(out + at, n - (size_t)at,
                 "; the same tokens per expert in step %u, layer %d: the same tokens, and the same "
                 "weights before it",
                 d->moved_step, d->moved_layer);
    else
        snprintf(out + at, n - (size_t)at,
                 "; in step %u, layer %d, %s of the assignments went to other experts: other "
                 "tokens, or other weights before it",
                 d->moved_step, d->moved_layer, rp_fmt_percent(fig, d->moved));
}

/* ---- what moeprof itself cost --------------------------------------------------------------------- */

struct mp_val rp_compare_tracing(const struct rp_report *r)
{
    struct mp_val traced = r->step.median_s, untraced = r->untraced_s;

    if (traced.basis == MP_UNKNOWN || untraced.basis == MP_UNKNOWN || !(untraced.v > 0))
        return (struct mp_val){0, MP_UNKNOWN};
    return (struct mp_val){traced.v / untraced.v - 1, MP_MEASURED};
}

void rp_compare_cost_text(char *out, size_t n, const struct rp_compare *c)
{
    const struct rp_report *a = c->side[0].report, *b = c->side[1].report;
    char fig[4][RP_FIG];

    snprintf(out, n,
             "tracing adds %s and %s to a traced step, moeprof's agent used %s and %s of a core "
             "(%s: unknown); what its hooks add to an untraced step is unknown",
             rp_change_text(fig[0], rp_compare_tracing(a)),
             rp_change_text(fig[1], rp_compare_tracing(b)),
             rp_fmt_percent(fig[2], a->coverage.agent_ratio),
             rp_fmt_percent(fig[3], b->coverage.agent_ratio), RP_DASH);
}
