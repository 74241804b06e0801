/* The last values of one metric, newest last. NAN is "not known", and is kept as such. */
#ifndef DASH_RING_H
#define DASH_RING_H

#include <stddef.h>
#include <stdint.h>

#define DASH_RING_CAP 512u /* wider than any terminal that people use */

struct dash_ring {
    double v[DASH_RING_CAP];
    uint64_t n; /* values ever pushed */
};

void dash_ring_push(struct dash_ring *r, double v);

/* Copies the newest values, oldest first; returns how many, at most cap. */
size_t dash_ring_copy(const struct dash_ring *r, double *out, size_t cap);

/* The newest value; NAN when there is none. */
double dash_ring_last(const struct dash_ring *r);

#endif
