/* Buffers of a step, and the records that are not GPU time: tokens, pairs, routing. */
#include "profiler/core/step_open.h"

#include <stdlib.h>
#include <string.h>

#define ROUTE_LAYER_MAX  1024 /* known models: 94 layers, 512 experts */
#define ROUTE_EXPERT_MAX 4096

int mp_reserve(void **at, size_t *cap, size_t need, size_t item)
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

void mp_open_reset(struct mp_open *p)
{
    struct mp_open keep = *p;

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

void mp_open_free(struct mp_open *p)
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

int mp_open_sums(struct mp_open *p, uint32_t n)
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

int mp_open_slice(struct mp_open *p, struct mp_slice slice)
{
    uint64_t end = slice.start_ns + slice.dur_ns;

    if (p->n_slice == p->cap_slice &&
        mp_reserve((void **)&p->slice, &p->cap_slice, p->n_slice + 1, sizeof slice) != 0) {
        p->out.flags |= MP_STEP_INCOMPLETE;
        return MP_ENOMEM;
    }
    p->slice[p->n_slice++] = slice;
    p->last_ns = end > p->last_ns ? end : p->last_ns;
    return 0;
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

void mp_open_micro(struct mp_open *p, const struct mp_micro *m)
{
    bool first = p->micro_seen == 0;

    p->micro_seen += m->n_micro ? m->n_micro : 1;
    add_tokens(&p->out.processed, m->processed, first);
    add_tokens(&p->out.useful, m->basis == MP_UNKNOWN ? UINT32_MAX : m->useful, first);
    add_tokens(&p->out.trainable, m->trainable, first);
    add_tokens(&p->out.head_rows, m->head_rows == UINT32_MAX ? m->processed : m->head_rows, first);
    p->out.useful_basis = weaker(first ? MP_MEASURED : p->out.useful_basis, m->basis);
    p->out.n_segment += m->n_segment;
}

int mp_open_pairs(struct mp_open *p, const struct mp_pairs *pairs)
{
    struct mp_pairs_sum *sum;
    uint32_t i = 0;

    while (i < p->out.n_pairs && p->out.pairs[i].window != pairs->window)
        i++;
    if (i == MP_WINDOW_MAX)
        return MP_EFULL;
    sum = &p->out.pairs[i];
    if (i == p->out.n_pairs) {
        p->out.n_pairs++;
        *sum = (struct mp_pairs_sum){.window = pairs->window, .basis = MP_MEASURED};
    }
    p->pairs_seen[i] += pairs->n_micro ? pairs->n_micro : 1;
    sum->useful += pairs->useful;
    sum->processed += pairs->processed;
    sum->max_len = pairs->max_len > sum->max_len ? pairs->max_len : sum->max_len;
    sum->basis = weaker(sum->basis, pairs->basis);
    return 0;
}

/* The layer's row, made if need be; kept sorted. */
static struct mp_route *route_of(struct mp_open *p, int16_t layer)
{
    uint32_t at = p->out.n_route;
    size_t cap = p->cap_route;

    while (at > 0 && p->out.route[at - 1].layer > layer)
        at--;
    if (at > 0 && p->out.route[at - 1].layer == layer)
        return &p->out.route[at - 1];
    if (mp_reserve((void **)&p->out.route, &cap, p->out.n_route + 1, sizeof *p->out.route) != 0)
        return NULL;
    p->cap_route = (uint32_t)cap;
    memmove(p->out.route + at + 1, p->out.route + at, (p->out.n_route - at) * sizeof *p->out.route);
    p->out.n_route++;
    p->out.route[at] = (struct mp_route){.layer = layer, .basis = MP_MEASURED};
    return &p->out.route[at];
}

/* Room for the counts of n experts, at least one. */
static int route_grow(struct mp_route *route, int n)
{
    uint32_t *count;

    if (route->count && n <= route->n_expert)
        return 0;
    count = realloc(route->count, (size_t)n * sizeof *count);
    if (!count)
        return MP_ENOMEM;
    memset(count + route->n_expert, 0, (size_t)(n - route->n_expert) * sizeof *count);
    route->count = count;
    route->n_expert = (uint16_t)n;
    return 0;
}

int mp_open_routing(struct mp_open *p, const struct mp_routing *r)
{
    struct mp_route *route;
    int end = r->expert0 + r->n;

    if (r->n == 0 || r->n > countof(r->count) || r->expert0 < 0 || r->layer < 0 ||
        end > ROUTE_EXPERT_MAX || r->layer >= ROUTE_LAYER_MAX)
        return MP_EINVAL;
    route = route_of(p, r->layer);
    if (!route || route_grow(route, end) != 0) {
        p->out.flags |= MP_STEP_INCOMPLETE;
        return MP_ENOMEM;
    }
    route->basis = weaker(route->basis, r->basis);
    for (int i = 0; i < r->n; i++)
        route->count[r->expert0 + i] += r->count[i];
    return 0;
}

void mp_open_settle(struct mp_open *p)
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
