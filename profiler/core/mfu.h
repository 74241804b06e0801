/* MFU and its kin over a set of steps: ratios of sums, never means of ratios. MFU.md defines them.
 * Owner: one thread. Reader side only. */
#ifndef MP_MFU_H
#define MP_MFU_H

#include "profiler/core/flops.h"
#include "profiler/core/gpuspec.h"

/* Left out at the start, as soon as more than MP_MFU_KEEP complete steps exist: JIT, allocator, autotune. */
#define MP_MFU_WARMUP 2
#define MP_MFU_KEEP   3

struct mp_peak {
    double flops;      /* a second, dense, of one GPU; 0 unknown */
    char label[96];    /* "dense bf16 989.4 TF, H100 SXM", or "given 500.0 TF"; "" */
    char why_not[160]; /* a sentence when unknown */
};

/* Peak of the GPU for the matmul dtype ("bfloat16"; autocast's where it is on). */
void mp_peak_find(struct mp_peak *peak, const char *gpu_name, int cc, int sm_count,
                  const char *dtype);
/* What the user gave: FLOP/s. */
void mp_peak_given(struct mp_peak *peak, double flops);

struct mp_mfu_sum {
    uint32_t n_step;     /* steps that count */
    uint32_t n_warmup;   /* complete, but left out as warm-up */
    uint32_t n_excluded; /* partial, incomplete, aside, or without a known duration */
    uint32_t n_unknown;  /* of n_step: model FLOPs unknown, so not in MFU */
    uint64_t time_ns;    /* of n_step */
    /* fractions of the peak */
    struct mp_val mfu, hfu, palm_mfu, trl_mfu, adjusted_mfu, hf_mfu;
    struct mp_val model_flop, executed_flop;   /* summed */
    struct mp_val model_flops, executed_flops; /* a second */
    struct mp_val useful_per_s, processed_per_s, trainable_per_s;
    struct mp_val median_s, min_s, max_s; /* of a step */
};

struct mp_mfu; /* opaque: one small point a step */
struct mp_mfu *mp_mfu_new(void);
void mp_mfu_free(struct mp_mfu *m);

/* Adds a closed step, in order; flops may be NULL: unknown. Errors: MP_ENOMEM. */
int mp_mfu_add(struct mp_mfu *m, const struct mp_step *step, const struct mp_flops *flops);

/* Over all steps that count, or with n_last > 0 over the last of them only. peak may be NULL. */
void mp_mfu_get(const struct mp_mfu *m, uint32_t n_last, const struct mp_peak *peak,
                struct mp_mfu_sum *out);

/* One step by itself, whatever its place; false when it may not stand for the run (partial, incomplete). */
bool mp_mfu_of_step(const struct mp_step *step, const struct mp_flops *flops,
                    const struct mp_peak *peak, struct mp_mfu_sum *out);

/* True when the step may enter statistics. */
bool mp_mfu_counts(const struct mp_step *step);

/* What this MFU means: "causal, useful tokens, frozen-aware, dense bf16 989.4 TF, H100 SXM". */
void mp_mfu_convention(char *out, size_t bytes, const struct mp_model *model,
                       const struct mp_peak *peak);
/* The same run in other conventions: "HFU 24.1 % | PaLM 29.4 % | TRL 31.4 % | HF total_flos 191.0 %". */
void mp_mfu_converted(char *out, size_t bytes, const struct mp_mfu_sum *sum);

#endif
