/* What a step's work weighs in floating-point operations. Pure integer arithmetic, no JSON, no clock.
 *
 * Model FLOPs: what the model's definition asks of the useful tokens. Executed FLOPs: what the GPU was
 * made to do for it: padding, replays under checkpointing, flash attention's second pass over the
 * scores. MFU.md derives both. Everything saturates at UINT64_MAX instead of wrapping, and a saturated
 * figure is UNKNOWN. */
#ifndef MP_FLOPS_H
#define MP_FLOPS_H

#include "profiler/core/phase.h"
#include "profiler/core/step.h"

enum mp_per { MP_PER_TOKEN = 0, MP_PER_ASSIGNMENT, MP_PER_HEAD_ROW, MP_PER_COUNT };

/* One matmul of the model's definition: rows x in x out. */
struct mp_op {
    uint64_t in, out;
    uint32_t count; /* how often per row */
    int16_t layer;  /* -1 outside of the layers */
    uint8_t phase;  /* enum mp_phase */
    uint8_t per;    /* enum mp_per: what a row is */
    bool dgrad;     /* the backward computes the gradient of its input */
    bool wgrad;     /* .. of its weight */
    bool lora;      /* an adapter's, not the base model's */
};

/* The attention core of one layer: scores and their product with the values. */
struct mp_attn {
    uint32_t heads, d_qk, d_v;
    uint32_t window; /* 0: all that came before */
    int16_t layer;
    bool causal;
    bool dgrad;
};

struct mp_layer {
    int16_t layer;
    uint32_t experts, top_k; /* 0: dense */
};

struct mp_model {
    struct mp_op *op;
    struct mp_attn *attn;
    struct mp_layer *layer;
    uint32_t n_op, n_attn, n_layer;
    uint64_t hidden, vocab; /* 0 unknown */
    uint64_t params_total;  /* 0 unknown */
    bool tied;              /* lm_head and input embedding are one matrix */
    bool checkpointing;     /* replays are to be expected where the GPU was not watched */
    bool full_scores;       /* eager attention: masked scores are computed too, and kept */
};

struct mp_flop {
    uint64_t flop;
    enum mp_basis basis; /* MP_UNKNOWN: flop is not to be used */
};

/* Layers that have a row of their own; the totals hold all. */
#define MP_FLOPS_LAYERS 256

struct mp_flops {
    struct mp_flop model, executed;
    struct {
        uint64_t model, executed;
    } phase[MP_PHASE_COUNT][MP_PASS_COUNT], layer[MP_FLOPS_LAYERS];
    /* What others would count as training FLOPs of the same step, for the convention line (MFU.md). */
    struct mp_flop palm; /* 6N + 12LHQT: all weights trained, every token, full square of scores */
    struct mp_flop
        trl; /* TRL's compute_mfu: palm, twice the embedding, no shared experts, no LoRA */
    struct mp_flop hf;       /* total_flos of transformers: 6 x all parameters but embeddings */
    struct mp_flop adjusted; /* TRL's adjusted_mfu: trl with half the scores */
};

/* Fills *out from the model and one step. Any member of either may be unknown. */
void mp_flops_step(struct mp_flops *out, const struct mp_model *model, const struct mp_step *step);

/* Assignments of one layer: tokens x experts that took them; measured, or top_k x processed modelled. */
struct mp_flop mp_flops_assignments(const struct mp_model *model, const struct mp_step *step,
                                    int layer);

/* Causal pairs of one segment of length L under a window (0: none). */
uint64_t mp_causal_pairs(uint64_t length, uint64_t window);

#endif
