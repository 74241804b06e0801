/* See ranges.h. mp_ranges_find runs in launch callbacks: no allocation, no lock, no call. */
#include "profiler/core/ranges.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static size_t bytes_for(size_t n)
{
    return sizeof(struct mp_ranges) + (n ? n : 1) * sizeof(struct mp_range);
}

static uint32_t order_of(const struct mp_range *r)
{
    uint32_t order;

    memcpy(&order, r->pad, sizeof order);
    return order;
}

/* Equal addresses in the order given: not every libc's qsort is stable. */
static int by_base(const void *a, const void *b)
{
    const struct mp_range *x = a, *y = b;

    if (x->base != y->base)
        return x->base < y->base ? -1 : 1;
    return order_of(x) < order_of(y) ? -1 : order_of(x) > order_of(y);
}

/* A stack that its experts do not divide (a shard, a stub) has no slices that an address could tell. */
static void prepare(struct mp_range *r, uint32_t order)
{
    memcpy(r->pad, &order, sizeof order);
    if (r->n_slice > 1 && r->bytes % r->n_slice)
        r->n_slice = 0;
}

struct mp_ranges *mp_ranges_new(const struct mp_range *range, size_t n)
{
    struct mp_ranges *r =
        mmap(NULL, bytes_for(n), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    size_t kept = 0;

    if (r == MAP_FAILED)
        return NULL;
    if (n)
        memcpy(r->range, range, n * sizeof *range);
    for (size_t i = 0; i < n; i++)
        prepare(&r->range[i], (uint32_t)i);
    qsort(r->range, n, sizeof *range, by_base);
    for (size_t i = 0; i < n; i++) {
        const struct mp_range *last = kept ? &r->range[kept - 1] : NULL;

        if (!r->range[i].bytes || (last && r->range[i].base < last->base + last->bytes))
            continue;
        r->range[kept++] = r->range[i];
    }
    r->mapped_bytes = bytes_for(n);
    r->n = kept;
    r->lo = kept ? r->range[0].base : 0;
    r->hi = kept ? r->range[kept - 1].base + r->range[kept - 1].bytes : 0;
    return r;
}

void mp_ranges_free(struct mp_ranges *r)
{
    if (r)
        munmap(r, r->mapped_bytes);
}

bool mp_ranges_find(const struct mp_ranges *r, uint64_t ptr, struct mp_hit *hit)
{
    size_t lo = 0, hi;
    const struct mp_range *g;
    uint64_t slice, off;

    if (!r || ptr - r->lo >= r->hi - r->lo)
        return false;
    for (hi = r->n; hi - lo > 1;) {
        size_t mid = lo + (hi - lo) / 2;

        if (r->range[mid].base <= ptr)
            lo = mid;
        else
            hi = mid;
    }
    g = &r->range[lo];
    off = ptr - g->base;
    if (off >= g->bytes)
        return false;
    slice = g->n_slice > 1 ? g->bytes / g->n_slice : g->bytes;
    if (off % slice)
        return false;
    hit->layer = g->layer;
    hit->phase = g->phase;
    hit->stacked = g->n_slice > 1;
    hit->expert = hit->stacked ? (int16_t)(off / slice) : g->expert;
    return true;
}
