/* The neutral records that leave the guest: 32 bytes each, one ordered stream.
 *
 * The stream is the only truth: everything that top, the recorder and the report show is computed
 * from it by core/step. The guest itself keeps no totals, so a reader that dies costs it nothing.
 *
 * All records have `step` at offset 16 and `kind` at offset 24. Times are nanoseconds of the GPU
 * timeline as CUPTI normalises it (CLOCK_REALTIME on Linux).
 * Little-endian, no padding; the same bytes go through shared memory and into the profile file.
 */
#ifndef MP_EVENT_H
#define MP_EVENT_H

#include "profiler/core/base.h"

enum mp_kind {
    MP_KERNEL = 1, /* struct mp_event */
    MP_MEMCPY,     /* struct mp_event; `name` holds KiB copied, rounded up; `flags` the direction */
    MP_MEMSET,     /* struct mp_event; `name` holds KiB */
    MP_GRAPH,      /* struct mp_event; a CUDA graph launch recorded as one */
    MP_OVERHEAD,   /* struct mp_event; CUPTI's own overhead on the host; never booked as GPU time */
    MP_STEP,       /* struct mp_step_mark: all records of `step` have been published before it */
    MP_MICRO,      /* struct mp_micro: tokens of one micro-batch, or of several together */
    MP_PAIRS,      /* struct mp_pairs: attended pairs of the same */
    MP_ROUTING,    /* struct mp_routing: tokens per expert, summed over the step */
    MP_KIND_COUNT
};

enum mp_event_flag {
    MP_FLAG_OWN = 1,       /* launched by the guest itself (routing counts): not the job's */
    MP_FLAG_GRAPH = 2,     /* a node of a CUDA graph */
    MP_FLAG_NO_LAUNCH = 4, /* no launch context was found: scope is unknown */
    MP_FLAG_POINTER = 8,   /* layer (and expert, if >= 0) proven by a weight pointer */
    MP_FLAG_HTOD = 16,
    MP_FLAG_DTOH = 32,
    MP_FLAG_DTOD = 64,
    MP_FLAG_SATURATED = 128, /* dur_ns did not fit: it is a lower bound */
};

struct mp_event {
    uint64_t start_ns;
    uint32_t dur_ns;
    uint32_t name;   /* kernel: index into the name table; copies: KiB */
    uint32_t step;   /* optimizer step in which it was launched, from 0 */
    int16_t layer;   /* decoder layer, -1 none */
    int16_t expert;  /* -1: none, or all experts of the layer together */
    uint8_t kind;    /* enum mp_kind */
    uint8_t phase;   /* enum mp_phase */
    uint8_t pass;    /* enum mp_pass */
    uint8_t basis;   /* enum mp_basis of (layer, expert) */
    uint16_t lag_us; /* launch call to start on the GPU; saturates at 65535, 0 unknown */
    uint8_t stream;  /* small per-process index of the CUDA stream */
    uint8_t flags;   /* enum mp_event_flag */
};

enum mp_step_flag {
    MP_STEP_PARTIAL = 1,    /* recording began or paused inside it: not for statistics */
    MP_STEP_ASIDE = 2,      /* the guest had stepped aside for another profiler */
    MP_STEP_INCOMPLETE = 4, /* some launches never got a record */
    MP_STEP_UNTRACED = 8    /* the GPU was not watched, on request: marks, tokens and pairs only */
};

struct mp_step_mark {
    uint64_t end_ns;   /* host CLOCK_REALTIME at which the optimizer step returned */
    uint32_t launches; /* launches counted in the step */
    uint32_t records;  /* records received for them */
    uint32_t step;
    uint16_t n_micro;
    uint16_t flags; /* enum mp_step_flag */
    uint8_t kind;   /* MP_STEP */
    uint8_t pad[3];
    uint32_t dropped; /* records that CUPTI says it dropped, in this step */
};

struct mp_micro {
    uint32_t processed; /* tokens, padding included */
    uint32_t useful;    /* tokens with attention_mask = 1 */
    uint32_t trainable; /* tokens with label != -100; UINT32_MAX unknown */
    uint32_t head_rows; /* rows that the lm_head multiplies; UINT32_MAX: as processed */
    uint32_t step;
    uint16_t n_micro;   /* micro-batches that the record sums; 0 means 1 */
    uint16_t n_segment; /* sequences, or packed segments; saturates */
    uint8_t kind;       /* MP_MICRO */
    uint8_t basis;      /* of useful: MEASURED from the mask, MODELLED when no mask was given */
    uint8_t pad[2];
    uint32_t batch; /* rows of the batch */
};

/* Attended (query, key) pairs of one micro-batch for one window width; mfu.md 1.3. */
struct mp_pairs {
    uint64_t useful;    /* causal: sum over segments of L(L+1)/2; window w: wL - w(w-1)/2 */
    uint64_t processed; /* the same with padded lengths and no packing: what a padded kernel runs */
    uint32_t step;
    uint32_t window; /* 0: full causal; else sliding window width in tokens */
    uint8_t kind;    /* MP_PAIRS */
    uint8_t basis;
    uint16_t n_micro; /* micro-batches that the record sums; 0 means 1 */
    uint32_t max_len; /* longest segment */
};

struct mp_routing {
    uint32_t count[4]; /* tokens routed to expert0 .. expert0+n-1 in the forward, without replays */
    uint32_t step;
    int16_t layer;
    int16_t expert0;
    uint8_t kind; /* MP_ROUTING */
    uint8_t n;    /* 1..4 */
    uint8_t basis;
    uint8_t pad[5];
};

MP_STATIC_ASSERT(sizeof(struct mp_event) == 32, "ring record is 32 bytes");
MP_STATIC_ASSERT(sizeof(struct mp_step_mark) == 32, "ring record is 32 bytes");
MP_STATIC_ASSERT(sizeof(struct mp_micro) == 32, "ring record is 32 bytes");
MP_STATIC_ASSERT(sizeof(struct mp_pairs) == 32, "ring record is 32 bytes");
MP_STATIC_ASSERT(sizeof(struct mp_routing) == 32, "ring record is 32 bytes");
MP_STATIC_ASSERT(offsetof(struct mp_event, kind) == 24 &&
                     offsetof(struct mp_step_mark, kind) == 24 &&
                     offsetof(struct mp_micro, kind) == 24 &&
                     offsetof(struct mp_pairs, kind) == 24 &&
                     offsetof(struct mp_routing, kind) == 24,
                 "kind has one place");
MP_STATIC_ASSERT(offsetof(struct mp_event, step) == 16 &&
                     offsetof(struct mp_step_mark, step) == 16 &&
                     offsetof(struct mp_micro, step) == 16 &&
                     offsetof(struct mp_pairs, step) == 16 &&
                     offsetof(struct mp_routing, step) == 16,
                 "step has one place");

/* Any record; which member is valid says `head.kind`. */
union mp_record {
    struct mp_event event;
    struct mp_step_mark mark;
    struct mp_micro micro;
    struct mp_pairs pairs;
    struct mp_routing routing;
    struct {
        uint8_t payload[16];
        uint32_t step;
        uint32_t word;
        uint8_t kind;
        uint8_t rest[7];
    } head;
};

#endif
