/* What the GPU did during the last step, in coarse bins.
 *
 * Operations of the steps under way are kept until their step closes and its window is known; then
 * they are laid on DASH_BINS bins. Each nanosecond is booked once, on the operation that came first,
 * so that a bin's phases and its idle time sum to the bin. (core/step ranks classes instead: the two
 * can differ where streams overlap.)
 */
#ifndef DASH_TIMELINE_H
#define DASH_TIMELINE_H

#include "profiler/core/step.h"

#define DASH_BINS    512u
#define DASH_PENDING 4u         /* steps whose records can be in flight at once */
#define DASH_OP_MAX  (1u << 19) /* operations kept a step: 12 MiB; the rest is counted in n_cut */

struct dash_op {
    uint64_t start_ns;
    uint32_t dur_ns;
    uint32_t name; /* DASH_NO_NAME for copies */
    int16_t layer;
    uint8_t phase, pass;
};

#define DASH_NO_NAME UINT32_MAX

struct dash_bin {
    uint32_t phase_ns[MP_PHASE_COUNT];
    uint32_t pass_ns[MP_PASS_COUNT];
    uint32_t idle_ns;
    uint32_t n;       /* operations that start in it */
    uint32_t name;    /* of the longest operation in it */
    uint32_t name_ns; /* its time in the bin */
    int16_t layer;    /* of that operation */
};

struct dash_timeline {
    bool valid;
    uint32_t step;
    uint64_t begin_ns, window_ns;
    uint64_t n_op, n_cut;
    struct dash_bin bin[DASH_BINS];
    struct {
        uint32_t step;
        uint32_t n, cap;
        uint64_t n_cut;
        struct dash_op *op;
    } pending[DASH_PENDING];
};

void dash_timeline_release(struct dash_timeline *t);

/* Copies what is shown; operations under way stay behind. */
void dash_timeline_copy(struct dash_timeline *out, const struct dash_timeline *t);

/* Keeps an operation of the job until its step closes; false when there was no room for it. */
bool dash_timeline_add(struct dash_timeline *t, const struct mp_event *e);

/* Operations kept of a step under way, borrowed until the next add or close; *n how many. */
const struct dash_op *dash_timeline_ops(const struct dash_timeline *t, uint32_t step, uint32_t *n);

/* The step closed: its operations become the bins shown. */
void dash_timeline_close(struct dash_timeline *t, const struct mp_step *step);

/* First nanosecond of bin i, relative to the step's begin. */
uint64_t dash_timeline_bin_ns(const struct dash_timeline *t, uint32_t i);

#endif
