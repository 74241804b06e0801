/* Address ranges of weights: which layer, phase and expert a device pointer belongs to.
 *
 * Built off the hot path (mp_ranges_new), then immutable and read by launch callbacks of any thread.
 * A hit counts only at the base of a range or of an expert's slice: parameter buffers hold stale
 * words that look like pointers into the middle of a weight (seen on an H100).
 */
#ifndef MP_RANGES_H
#define MP_RANGES_H

#include "profiler/core/base.h"

struct mp_range {
    uint64_t base;
    uint64_t bytes;
    uint32_t n_slice; /* > 1: stacked experts, slice = bytes / n_slice */
    int16_t layer;
    int16_t expert; /* of a weight that belongs to one expert; -1 else */
    uint8_t phase;  /* enum mp_phase */
    uint8_t pad[7];
};

struct mp_ranges {
    uint64_t lo, hi; /* all ranges lie in [lo, hi) */
    size_t n;
    size_t mapped_bytes;
    struct mp_range range[]; /* sorted by base, disjoint */
};

struct mp_hit {
    int16_t layer;
    int16_t expert; /* slice index or the range's expert; -1 none */
    uint8_t phase;
    bool stacked; /* expert came from a slice: its base may also mean "the whole stack" if 0 */
};

/* Sorts a copy; overlapping ranges (tied weights, views) keep the first given. mmap'd, so that it can
 * be made and dropped without the process's allocator; NULL when out of memory. n may be 0. */
struct mp_ranges *mp_ranges_new(const struct mp_range *range, size_t n);
void mp_ranges_free(struct mp_ranges *r);

/* True when ptr is the base of a range or slice. */
bool mp_ranges_find(const struct mp_ranges *r, uint64_t ptr, struct mp_hit *hit);

#endif
