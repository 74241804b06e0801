/* Stage 5: from the record stream to steps. Runs in the reader (top, recorder, report), never in the
 * guest. Owner: whichever one thread feeds it.
 *
 * A step's window reaches from the start of its first GPU operation to the start of the next step's
 * first; when that is not known (the next step is missing, or did nothing on the GPU) to the end of
 * its own last one, flagged PARTIAL. Windows never overlap. An operation is counted (n, raw_ns) in the
 * step that launched it, and booked in the windows that it runs in, so a cell may have time without
 * operations. Inside a window every nanosecond is booked exactly once: on a cell, or idle. Where
 * operations overlap, the more productive class gets the time (kernels, then comm, then copies and memsets);
 * equals share it, the remainder of the division to the earliest. So
 *     sum(cell.booked_ns) + idle_ns == window_ns        (integers; mp_step_check)
 * while cell.raw_ns sums whole durations, as torch.profiler does.
 */
#ifndef MP_STEP_H
#define MP_STEP_H

#include "profiler/core/event.h"
#include "profiler/core/phase.h"

struct mp_cell {
    int16_t layer;  /* -1 none */
    int16_t expert; /* -1 none or shared by all */
    uint8_t phase, pass, basis;
    uint32_t n; /* operations */
    uint64_t booked_ns;
    uint64_t raw_ns;
};

struct mp_route { /* tokens per expert of one layer, summed over the step */
    int16_t layer;
    uint16_t n_expert;
    uint8_t basis;   /* enum mp_basis, the weakest of its records */
    uint32_t *count; /* (n_expert) */
};

struct mp_pairs_sum { /* attended pairs of the step, by window width */
    uint32_t window;
    uint32_t max_len;
    uint64_t useful, processed;
    enum mp_basis basis;
};

#define MP_WINDOW_MAX 8 /* distinct window widths in one model; models known have at most 2 */

struct mp_step {
    uint32_t step;
    uint32_t flags;     /* enum mp_step_flag */
    uint64_t begin_ns;  /* first GPU operation */
    uint64_t window_ns; /* to the next step's first GPU operation; 0: no GPU operation seen */
    uint64_t idle_ns;
    uint64_t host_end_ns; /* host CLOCK_REALTIME at which the optimizer step returned; 0 unknown */
    uint32_t n_kernel, n_copy, n_memset, n_graph, n_own; /* own: the guest's, not in the others */
    uint64_t kernel_ns;                                  /* raw sum over the job's kernels */
    uint64_t own_ns;                                     /* raw sum over the guest's kernels */
    uint32_t launches, records, dropped;
    uint32_t n_micro;
    uint64_t processed, useful, trainable, head_rows; /* tokens; UINT64_MAX unknown */
    enum mp_basis useful_basis;
    uint32_t n_segment;
    struct mp_pairs_sum pairs[MP_WINDOW_MAX];
    uint32_t n_pairs;
    struct mp_cell *cell; /* (n_cell), sorted by layer, phase, pass, expert */
    uint32_t n_cell;
    struct mp_route *route; /* (n_route), sorted by layer */
    uint32_t n_route;
};

struct mp_steps; /* opaque: pending records of the steps not yet closed */

/* What the stream held besides good records of open steps. */
struct mp_steps_stat {
    uint64_t n_record;   /* fed */
    uint64_t n_unknown;  /* of a kind that this version does not know */
    uint64_t n_invalid;  /* out of range: fields are taken as none or other, routing is skipped */
    uint64_t n_late;     /* of a step already closed: operations go to the oldest open step */
    uint64_t n_overhead; /* MP_OVERHEAD: on the host, never booked */
    uint64_t n_crowded;  /* more than 256 operations at once: counted, not booked */
    uint64_t n_lost;     /* told by mp_steps_gap */
};

/* fn gets each closed step, in order, once; the struct is borrowed for the call. A step is closed by
 * the mark of the next one: only then is the next one's first operation certain. */
typedef void (*mp_step_fn)(void *arg, const struct mp_step *step);

struct mp_steps *mp_steps_new(mp_step_fn fn, void *arg);
void mp_steps_free(struct mp_steps *s);

/* For a live view: closes a marked step as soon as n_op operations of the next one are known, a step
 * earlier. Its end may then be late by what another stream began before those; all laws hold. 0: off. */
void mp_steps_eager(struct mp_steps *s, uint32_t n_op);

/* Feeds records in stream order. Unknown kinds are skipped and counted.
 * Errors: MP_ENOMEM (the step concerned is closed as INCOMPLETE and the rest goes on). */
int mp_steps_feed(struct mp_steps *s, const union mp_record *record, size_t n);

/* Records were lost before the next one fed (ring lapped): the running step becomes INCOMPLETE. */
void mp_steps_gap(struct mp_steps *s, uint64_t n_lost);

/* Closes what is pending; the last step has window_ns from its first to its last GPU operation and
 * is flagged PARTIAL. */
void mp_steps_finish(struct mp_steps *s);

const struct mp_steps_stat *mp_steps_stat(const struct mp_steps *s);

/* 0 when the conservation law above holds to the nanosecond and every cell is in range. */
int mp_step_check(const struct mp_step *step, struct mp_err *err);

/* Shares total (ns) over n experts in proportion to count[]: out sums to total exactly
 * (largest remainder; ties to the lower index). All counts 0: all out 0 and false is returned. */
bool mp_split(uint64_t total, const uint32_t *count, size_t n, uint64_t *out);

/* ---- totals over steps, by (layer, phase, pass, expert, basis) ------------------------------ */

struct mp_total; /* opaque */
struct mp_total *mp_total_new(void);
void mp_total_free(struct mp_total *t);
int mp_total_add(struct mp_total *t, const struct mp_step *step);
/* Borrowed, sorted cells; *n how many. Valid until the next add. */
const struct mp_cell *mp_total_cells(struct mp_total *t, size_t *n);

#endif
