/* Sort by start (least-significant-digit radix, only when needed), then one pass with the few slices
 * that run at once. */
#include "profiler/core/sweep.h"

#include <stdlib.h>
#include <string.h>

#define DIGIT_BITS  11
#define DIGIT_COUNT (1u << DIGIT_BITS)
#define SMALL_RUN   16 /* below this, insertion beats anything */

static uint64_t slice_end(const struct mp_slice *s)
{
    return s->start_ns + s->dur_ns;
}

/* ---- order -------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b, void *arg)
{
    const struct mp_slice *x = a, *y = b;
    const uint64_t *key = arg;
    uint64_t kx, ky;

    if (x->start_ns != y->start_ns)
        return x->start_ns < y->start_ns ? -1 : 1;
    if (x->dur_ns != y->dur_ns)
        return x->dur_ns < y->dur_ns ? -1 : 1;
    if (x->tag == y->tag)
        return 0;
    if (x->tag >> MP_SLICE_CLASS_SHIFT != y->tag >> MP_SLICE_CLASS_SHIFT)
        return x->tag < y->tag ? -1 : 1;
    kx = key[x->tag & MP_SLICE_CELL_MASK];
    ky = key[y->tag & MP_SLICE_CELL_MASK];
    return (kx > ky) - (kx < ky);
}

static void insertion_sort(struct mp_slice *slice, size_t n, const uint64_t *key)
{
    for (size_t i = 1; i < n; i++) {
        struct mp_slice s = slice[i];
        size_t j = i;

        for (; j > 0 && compare(&s, &slice[j - 1], (void *)(uintptr_t)key) < 0; j--)
            slice[j] = slice[j - 1];
        slice[j] = s;
    }
}

/* One stable pass over the digit at shift. */
static void radix_pass(const struct mp_slice *in, struct mp_slice *out, size_t n, uint64_t base,
                       unsigned shift)
{
    static _Thread_local uint32_t at[DIGIT_COUNT];
    uint32_t sum = 0;

    memset(at, 0, sizeof at);
    for (size_t i = 0; i < n; i++)
        at[(in[i].start_ns - base) >> shift & (DIGIT_COUNT - 1)]++;
    for (unsigned d = 0; d < DIGIT_COUNT; d++) {
        uint32_t count = at[d];

        at[d] = sum;
        sum += count;
    }
    for (size_t i = 0; i < n; i++)
        out[at[(in[i].start_ns - base) >> shift & (DIGIT_COUNT - 1)]++] = in[i];
}

static void radix_sort(struct mp_slice *slice, size_t n, struct mp_slice *scratch)
{
    struct mp_slice *in = slice, *out = scratch;
    uint64_t low = UINT64_MAX, high = 0;

    for (size_t i = 0; i < n; i++) {
        low = slice[i].start_ns < low ? slice[i].start_ns : low;
        high = slice[i].start_ns > high ? slice[i].start_ns : high;
    }
    for (unsigned shift = 0; shift < 64 && (high - low) >> shift; shift += DIGIT_BITS) {
        struct mp_slice *swap = in;

        radix_pass(in, out, n, low, shift);
        in = out;
        out = swap;
    }
    if (in != slice)
        memcpy(slice, in, n * sizeof *slice);
}

/* Slices of equal start, into one order whatever order they arrived in. */
static void order_ties(struct mp_slice *slice, size_t n, const uint64_t *key)
{
    for (size_t i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && slice[j].start_ns == slice[i].start_ns; j++)
            ;
        if (j - i > SMALL_RUN)
            qsort_r(slice + i, j - i, sizeof *slice, compare, (void *)(uintptr_t)key);
        else if (j - i > 1)
            insertion_sort(slice + i, j - i, key);
    }
}

void mp_slices_sort(struct mp_slice *slice, size_t n, struct mp_slice *scratch, const uint64_t *key)
{
    size_t i = 1;

    while (i < n && slice[i - 1].start_ns < slice[i].start_ns)
        i++;
    if (i >= n) /* one stream: already in order */
        return;
    if (n <= SMALL_RUN) {
        insertion_sort(slice, n, key);
        return;
    }
    while (i < n && slice[i - 1].start_ns <= slice[i].start_ns)
        i++;
    if (i < n)
        radix_sort(slice, n, scratch);
    order_ties(slice, n, key);
}

/* ---- sweep -------------------------------------------------------------------------------- */

struct running {
    uint64_t end_ns;
    uint32_t tag;
};

struct sweep {
    struct mp_cell_sum *sum;
    uint64_t now_ns, idle_ns;
    uint32_t n;
    struct running run[MP_RUNNING_MAX]; /* (n) earliest first */
};

/* Gives span_ns to the best class among the running. */
static void share(struct sweep *s, uint64_t span_ns)
{
    uint32_t best = s->run[0].tag >> MP_SLICE_CLASS_SHIFT, k = 0;
    uint64_t part, rest;

    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t class = s->run[i].tag >> MP_SLICE_CLASS_SHIFT;

        k = class < best ? 1 : k + (class == best);
        best = class < best ? class : best;
    }
    part = span_ns / k;
    rest = span_ns % k;
    for (uint32_t i = 0; i < s->n; i++)
        if (s->run[i].tag >> MP_SLICE_CLASS_SHIFT == best) {
            s->sum[s->run[i].tag & MP_SLICE_CELL_MASK].booked_ns += part + rest;
            rest = 0;
        }
}

static void drop_ended(struct sweep *s)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < s->n; i++)
        if (s->run[i].end_ns > s->now_ns)
            s->run[kept++] = s->run[i];
    s->n = kept;
}

static void advance(struct sweep *s, uint64_t to_ns)
{
    while (s->n && s->now_ns < to_ns) {
        uint64_t next = to_ns;

        for (uint32_t i = 0; i < s->n; i++)
            next = s->run[i].end_ns < next ? s->run[i].end_ns : next;
        if (s->n == 1)
            s->sum[s->run[0].tag & MP_SLICE_CELL_MASK].booked_ns += next - s->now_ns;
        else
            share(s, next - s->now_ns);
        s->now_ns = next;
        drop_ended(s);
    }
    if (s->now_ns < to_ns) {
        s->idle_ns += to_ns - s->now_ns;
        s->now_ns = to_ns;
    }
}

uint64_t mp_sweep(const struct mp_slice *slice, size_t n, uint64_t begin_ns, uint64_t end_ns,
                  struct mp_cell_sum *sum, uint64_t *n_crowded)
{
    struct sweep s;

    s.sum = sum;
    s.now_ns = begin_ns;
    s.idle_ns = 0;
    s.n = 0;
    for (size_t i = 0; i < n && slice[i].start_ns < end_ns; i++) {
        uint64_t end = slice_end(&slice[i]);

        if (end <= s.now_ns || slice[i].dur_ns == 0) /* changes nothing in what runs */
            continue;
        if (slice[i].start_ns > s.now_ns)
            advance(&s, slice[i].start_ns);
        if (s.n == MP_RUNNING_MAX) {
            ++*n_crowded;
            continue;
        }
        s.run[s.n++] = (struct running){.end_ns = end, .tag = slice[i].tag};
    }
    advance(&s, end_ns);
    return s.idle_ns;
}
