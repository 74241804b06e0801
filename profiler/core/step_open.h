/* One step while its records come in. Owner: the thread that feeds mp_steps. */
#ifndef MP_STEP_OPEN_H
#define MP_STEP_OPEN_H

#include "profiler/core/step.h"
#include "profiler/core/sweep.h"

struct mp_open {
    struct mp_step out; /* figures so far; cell is filled at the end */
    struct mp_slice *slice;
    struct mp_cell_sum *sum; /* (n_sum) by cell id */
    size_t n_slice, cap_slice;
    uint32_t n_sum, cap_route;
    uint64_t first_ns, last_ns; /* earliest start, latest end; UINT64_MAX and 0: no operation */
    uint64_t swept_ns;          /* booked up to here; 0 not begun */
    uint32_t micro_seen, micro_marked;
    uint32_t pairs_seen[MP_WINDOW_MAX];
    bool marked;
};

/* Empties p for another step; its buffers stay. */
void mp_open_reset(struct mp_open *p);
void mp_open_free(struct mp_open *p);

/* Room for n cell ids in sum. */
int mp_open_sums(struct mp_open *p, uint32_t n);
/* Keeps a slice for the sweep. */
int mp_open_slice(struct mp_open *p, struct mp_slice slice);

void mp_open_micro(struct mp_open *p, const struct mp_micro *m);
/* MP_EFULL: more windows than MP_WINDOW_MAX. */
int mp_open_pairs(struct mp_open *p, const struct mp_pairs *pairs);
/* MP_EINVAL: beyond any known model. MP_ENOMEM: the step is marked INCOMPLETE. */
int mp_open_routing(struct mp_open *p, const struct mp_routing *r);

/* Token figures of a step that lacks some micro-batches become unknown. */
void mp_open_settle(struct mp_open *p);

/* Grows *at to room for `need` items; *cap is kept. */
int mp_reserve(void **at, size_t *cap, size_t need, size_t item);

#endif
