/* Counting on the GPU without waiting for it: routed tokens per expert, useful tokens, pairs.
 *
 * Small kernels of our own (count_kernel.ptx) run on the job's stream right after the data is there and add
 * into a device buffer. At the step's end the buffer is copied to pinned memory and cleared, both
 * asynchronously; the agent picks it up when an event says that it has arrived. No host sync, ever.
 * Training thread: init, route, mask, step. Agent: collect.
 */
#ifndef INJ_COUNT_H
#define INJ_COUNT_H

#include "profiler/core/event.h"

typedef void (*inj_put_fn)(void *arg, const union mp_record *record);

struct inj_mask { /* one micro-batch's tensors, device or host pointers, rows x cols, contiguous */
    const void *mask, *labels, *position_ids; /* NULL: not given */
    int mask_bytes;                           /* 1 (bool), 4, 8: width of an element */
    bool mask_float;                          /* element is fp32 */
    uint32_t rows, cols;
    uint32_t window[4]; /* 0: full causal */
    int n_window;
};

/* Declares a layer whose routing will be counted; all before the first count. */
void inj_count_layer(int layer, int n_experts);

/* Adds the histogram of n expert indices (int64, or int32 with index_bytes 4) to layer's counts.
 * Indices outside [0, n_experts) are dropped: expert-parallel sentinels.
 * on_gpu: stream is the CUstream the indices were made on. MP_ENOTSUP during graph capture;
 * MP_EBUSY while another profiler records, which must not see kernels of ours. */
int inj_count_route(int layer, const void *index, int index_bytes, size_t n, bool on_gpu,
                    void *stream);

/* Adds n tokens to one expert's count: known on the host already. */
void inj_count_expert(int layer, int expert, uint32_t n);

/* Tokens and attended pairs of one micro-batch. */
int inj_count_mask(const struct inj_mask *m, bool on_gpu, void *stream);

/* What the host knows of the running micro-batch; UINT32_MAX (n_segment: UINT16_MAX) is unknown.
 * inj_count_mask completes it; else inj_count_flush, when the model returns, publishes it as it is. */
void inj_count_micro(const struct mp_micro *micro);
void inj_count_flush(void);
void inj_count_pairs(const struct mp_pairs *pairs);

/* Step `step` is over: starts the copy to the host. stream: NULL when nothing ran on the GPU. */
void inj_count_step(uint32_t step, void *stream);

/* Agent: emits the records of every step whose counts have arrived, in order, through put. Returns
 * the number of steps whose counts are still under way; *oldest is the oldest of them. */
int inj_count_collect(inj_put_fn put, void *arg, uint32_t *oldest);

#endif
