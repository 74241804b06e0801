/* The sweep line: which nanosecond belongs to which cell. Pure arithmetic over slices of GPU time.
 *
 * At every moment the most productive class among the running slices gets the time; equals share it
 * per stretch between two changes of the running set, the remainder of the division to the earliest
 * (start, then duration, then class, then cell key). */
#ifndef MP_SWEEP_H
#define MP_SWEEP_H

#include "profiler/core/base.h"

enum mp_class {
    MP_CLASS_KERNEL = 0,
    MP_CLASS_COMM,
    MP_CLASS_COPY
}; /* the lower is the more productive */

#define MP_SLICE_CLASS_SHIFT 30
#define MP_SLICE_CELL_MASK   ((1u << MP_SLICE_CLASS_SHIFT) - 1)

/* Slices that run at once; hardware runs up to 128 kernels. What goes beyond is not booked. */
#define MP_RUNNING_MAX 256

struct mp_slice {
    uint64_t start_ns; /* below 2^63 */
    uint32_t dur_ns;
    uint32_t tag; /* enum mp_class << MP_SLICE_CLASS_SHIFT | cell id */
};

struct mp_cell_sum {
    uint64_t booked_ns, raw_ns;
    uint32_t n;
};

/* Brings slices into sweep order whatever order they came in. scratch: room for n; key: by cell id. */
void mp_slices_sort(struct mp_slice *slice, size_t n, struct mp_slice *scratch,
                    const uint64_t *key);

/* Books [begin_ns, end_ns) of sorted slices into sum[cell].booked_ns; returns the idle time in it.
 * Slices are clipped to the window. *n_crowded counts those beyond MP_RUNNING_MAX. */
uint64_t mp_sweep(const struct mp_slice *slice, size_t n, uint64_t begin_ns, uint64_t end_ns,
                  struct mp_cell_sum *sum, uint64_t *n_crowded);

#endif
