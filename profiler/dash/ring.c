/* A plain circular array. */
#include "profiler/dash/ring.h"

#include <math.h>

void dash_ring_push(struct dash_ring *r, double v)
{
    r->v[r->n++ % DASH_RING_CAP] = v;
}

size_t dash_ring_copy(const struct dash_ring *r, double *out, size_t cap)
{
    size_t have = r->n < DASH_RING_CAP ? (size_t)r->n : DASH_RING_CAP;
    size_t n = have < cap ? have : cap;

    for (size_t i = 0; i < n; i++)
        out[i] = r->v[(r->n - n + i) % DASH_RING_CAP];
    return n;
}

double dash_ring_last(const struct dash_ring *r)
{
    return r->n ? r->v[(r->n - 1) % DASH_RING_CAP] : NAN;
}
