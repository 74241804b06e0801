/* moe_kernels.h: the expert half of a Mixture-of-Experts layer, forward and backward, as a plain C ABI.
 *
 * The library computes, for tokens t, choices k, and expert e = index[t][k],
 *     out[t] = sum over k of score[t][k] * (act(gate_e x[t] + bg_e, up_e x[t] + bu_e) down_e^T + bd_e)
 * and its gradients. Routing is given; it is never recomputed. Nothing here knows PyTorch.
 * With adapters (LoRA) beside the weights, each of the three products W v becomes W v + scale * B (A v).
 *
 * Argument order: outputs, in/outs, inputs; a length follows its array; the stream comes last.
 *
 * Ownership: the caller owns every buffer, workspace and saved state included, and tells sizes from mk_api.sizes.
 * Nothing is allocated, no call waits for the device, and no state outlives a call (but the address of a driver function),
 * so calls may be captured into a CUDA graph, and different threads may call at once with different buffers.
 *
 * Structs grow at their end only. A caller built against an older header passes the older, smaller size, and what came
 * later counts as zero; a size larger than this library knows is refused.
 *
 * Determinism: the same inputs give the same bits, run after run and stream after stream (no floating-point atomics).
 *
 * Errors come in two kinds. What this library cannot do is refused with a code before anything is launched: it never
 * computes something else instead. A failed launch gives MK_ECUDA. mk_api.strerror has one sentence for each code.
 *
 * Pointers are device pointers for MK_TARGET_CUDA and host pointers for MK_TARGET_CPU.
 */
#ifndef MOE_KERNELS_H
#define MOE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MK_API_VERSION 1

enum mk_error {
    MK_OK = 0,
    MK_EVERSION = -1, /* an argument struct's size, or the asked version, is unknown */
    MK_ESHAPE = -2,   /* a dimension is out of range */
    MK_EALIGN = -3,   /* a pointer or stride breaks the alignment that the path needs */
    MK_EDTYPE = -4,   /* a combination of data types without a path */
    MK_ELAYOUT = -5,  /* a weight layout without a path */
    MK_EACT = -6,     /* an activation without a path */
    MK_EBUFFER = -7,  /* a needed pointer is null, or a buffer is too small */
    MK_EDEVICE = -8,  /* no path for this device, or no device */
    MK_ECUDA = -9,    /* the CUDA runtime or driver reported an error */
    MK_ENOTSUP = -10, /* a documented feature that this build does not have yet */
};

enum mk_target { MK_TARGET_CUDA, MK_TARGET_CPU };

/* Element types. MK_FP32 and MK_FP64 as `dtype` have a CPU path only: Hopper's tf32 would lose what fp32 users expect. */
enum mk_dtype { MK_BF16, MK_FP16, MK_FP32, MK_FP64, MK_INT32, MK_INT64 };

enum mk_act {
    MK_ACT_SWIGLU,      /* silu(g) * u */
    MK_ACT_GEGLU_TANH,  /* gelu(g) * u, tanh form */
    MK_ACT_GEGLU_ERF,   /* gelu(g) * u, exact */
    MK_ACT_CLAMPED_GLU, /* gpt-oss: g' = min(g, limit), u' = clamp(u, +-limit); g' * sigmoid(alpha g') * (u' + 1) */
    MK_ACT_RELU2,       /* max(u, 0)^2, no gate: `gate` and its bias are ignored */
    MK_ACT_COUNT
};

/* One matrix for each expert, anywhere in memory. Element (row, col) of expert e lies at
 *     base + offset(e) + row * stride_row + col * stride_col      (all in elements)
 * with offset(e) = expert_offset[e] where expert_offset is set, else e * stride_expert.
 * This one form covers what models have:
 *     stacked [E,2I,H], gate rows first      gate.base = w, up.base = w + I*H, both stride_row H, stride_col 1
 *     stacked [E,2I,H], rows interleaved     gate.base = w, up.base = w + H, both stride_row 2H
 *     transposed [E,H,2I]                    stride_row 1 (2 where interleaved), stride_col 2I
 *     one tensor an expert                   base = the lowest address, expert_offset = distances from it, span set
 * One of the two strides within a matrix must be 1, the other a multiple of 8, for the fast paths. */
struct mk_matrix {
    void *base;
    const int64_t *expert_offset; /* (E) elements from base, >= 0, in the target's memory; or NULL */
    int64_t span;                 /* with expert_offset: its largest value, so that the host can judge reach */
    int64_t stride_expert, stride_row, stride_col;
};

/* One vector for each expert, element i at base + e * stride_expert + i * stride. base NULL: absent (zero). */
struct mk_vector {
    void *base;
    int64_t stride_expert, stride;
};

/* Low-rank adapters (LoRA) beside the weights. Their matrices have any strides and alignment: they are read once a call,
 * into a packed copy in the workspace, in the problem's dtype and with the scale in B. So the form that PEFT stores for
 * stacked experts (lora_A.weight (E*R, in), lora_B.weight (out, R*E) with the expert fastest) is used where it lies:
 *     A   stride_expert R*in, stride_row in, stride_col 1
 *     B   stride_expert 1, stride_row R*E, stride_col E; interleaved gate and up: stride_row 2*R*E, up one row later
 * One tensor an expert: expert_offset, as for weights. An absent B adds nothing. The struct and what it points to on the
 * host need not outlive the call. */
struct mk_lora {
    uint32_t size;              /* sizeof(struct mk_lora) */
    uint32_t dtype;             /* of A and B: the problem's dtype or MK_FP32 */
    int32_t up_rank, down_rank; /* 1 .. 128; 0: no adapter on gate and up, on down */
    uint32_t apart;             /* 1: gate has an A of its own, gate_a; 0: up_a serves gate and up, gate_a is ignored */
    float up_scale, down_scale;
    struct mk_matrix gate_a, up_a; /* (up_rank, H) an expert */
    struct mk_matrix gate_b, up_b; /* (I, up_rank) */
    struct mk_matrix down_a;       /* (down_rank, I) */
    struct mk_matrix down_b;       /* (H, down_rank) */
};

/* Gradients of the adapters, shaped and laid out as the caller likes. base NULL: not computed. With one A for gate and up
 * its gradient is up_a's. Where the backward accumulates, these are added to as well. */
struct mk_lora_grad {
    uint32_t size;  /* sizeof(struct mk_lora_grad) */
    uint32_t dtype; /* the problem's dtype or MK_FP32 */
    struct mk_matrix gate_a, up_a, gate_b, up_b, down_a, down_b;
};

/* What forward and backward both need. Rows of x, index and score may be strided; their elements are dense. */
struct mk_problem {
    uint32_t size;              /* sizeof(struct mk_problem) */
    uint32_t target;            /* enum mk_target */
    int32_t n_token;            /* T, 0 .. 2^31 / K - 1 */
    int32_t hidden;             /* H, a multiple of 8 */
    int32_t inter;              /* I, a multiple of 8 */
    int32_t n_expert;           /* E, 1 .. 1024 */
    int32_t top_k;              /* K, 1 .. E */
    uint32_t dtype;             /* of x, weights, biases, out, dout, dx */
    uint32_t index_dtype;       /* MK_INT32 or MK_INT64 */
    uint32_t score_dtype;       /* MK_BF16, MK_FP16, MK_FP32 or MK_FP64 (the last on the CPU); dscore has it too */
    uint32_t act;               /* enum mk_act */
    float act_alpha, act_limit; /* MK_ACT_CLAMPED_GLU only */
    const void *x;              /* (T, H) */
    const void *index;          /* (T, K); an id < 0 or >= E drops the choice, as expert parallelism needs it */
    const void *score;          /* (T, K) */
    int64_t x_stride, index_stride, score_stride;   /* elements from one token to the next */
    struct mk_matrix gate, up;                      /* (I, H) an expert */
    struct mk_matrix down;                          /* (H, I) an expert */
    struct mk_vector gate_bias, up_bias, down_bias; /* (I), (I), (H) an expert */
    const struct mk_lora *lora;                     /* on the host; NULL: none */
};

/* Sizes of the caller's buffers, in bytes. A pure function of shape, types, ranks and target; of pointers only `lora` is
 * followed. */
struct mk_sizes {
    size_t saved_bytes;           /* pre-activations (T*K, 2I), O(T*K + E) of routing, A v of adapters (T*K, rank);
                                        forward writes, backward reads */
    size_t saved_inference_bytes; /* without the pre-activations, for a forward with MK_FLAG_INFERENCE */
    size_t forward_workspace_bytes;
    size_t backward_workspace_bytes;
};

enum mk_flag {
    MK_FLAG_INFERENCE = 1, /* forward: save no pre-activations; no backward may follow */
    MK_FLAG_PORTABLE = 2,  /* take the portable path even where a faster one fits: for tests and comparison */
    MK_FLAG_CPU_FP32 = 4,  /* CPU: compute in fp32 instead of fp64 */
    MK_FLAG_CHECKED = 8,   /* also wait where only a checker of races wants it: for tests, slower */
};

/* Steps of a call, to run some of them alone on the same buffers. 0 means all. */
enum mk_step {
    /* forward, in this order */
    MK_STEP_ROUTE = 1,
    MK_STEP_UP = 2,
    MK_STEP_DOWN = 4,
    MK_STEP_COMBINE = 8,
    /* backward, in this order */
    MK_STEP_DACT = 16,
    MK_STEP_DX = 32,
    MK_STEP_DW_DOWN = 64,
    MK_STEP_DW_UP = 128,
    MK_STEP_DBIAS = 256,
    MK_STEP_DSCORE = 512,
    MK_STEP_LORA = 1024, /* what adapters need beside the products: before up, down, dact and dx; their gradients last */
};

struct mk_forward {
    uint32_t size; /* sizeof(struct mk_forward) */
    uint32_t flags, steps;
    void *out; /* (T, H), every element is written */
    int64_t out_stride;
    void *saved; /* 256-byte aligned */
    size_t saved_bytes;
    void *workspace; /* 256-byte aligned; its content means nothing after the call */
    size_t workspace_bytes;
    const struct mk_problem *problem;
};

/* A null output is not computed: frozen experts leave dgate, dup and ddown null. Experts that no token chose get zeros
 * (or keep their content where accumulating). dscore of dropped choices is zero. */
struct mk_backward {
    uint32_t size; /* sizeof(struct mk_backward) */
    uint32_t flags, steps;
    void *dx; /* (T, H) or NULL */
    int64_t dx_stride;
    void *dscore; /* (T, K) or NULL */
    int64_t dscore_stride;
    struct mk_matrix dgate, dup, ddown; /* shaped like gate, up, down; base NULL: frozen */
    struct mk_vector dgate_bias, dup_bias, ddown_bias;
    uint32_t dweight_dtype; /* of the weight and bias gradients: the problem's dtype or MK_FP32 */
    uint32_t accumulate;    /* 1: weight and bias gradients are added to what is there */
    void *workspace;        /* 256-byte aligned */
    size_t workspace_bytes;
    const void *dout; /* (T, H) */
    int64_t dout_stride;
    const void *saved; /* what forward wrote for the same problem */
    const struct mk_problem *problem;
    const struct mk_lora_grad *dlora; /* on the host; NULL: none wanted */
    /* CUDA: (T*K, H) of dtype, 256-byte aligned, or NULL: in the workspace, which may otherwise be smaller by these bytes,
     * rounded up to 256. Only MK_STEP_DX writes it, and it is read before a weight gradient that lies there is written, so that
     * it may be the memory of one that is not accumulated. This is what sets a training's peak when gradients are nearly all there. */
    void *dx_row;
};

typedef struct CUstream_st *mk_stream; /* a cudaStream_t; ignored on the CPU */

/* One row of the registry: which implementation serves which operation. */
struct mk_row {
    const char *op, *name; /* "forward" or "backward", and for instance "hopper" */
    int32_t version, sm_min, sm_max;
};

struct mk_api {
    uint32_t size, version;
    /* One sentence for a code, borrowed, never NULL. */
    const char *(*strerror)(int code);
    /* Sizes for a problem. Returns MK_OK or why the problem is malformed. */
    int (*sizes)(struct mk_sizes *out, const struct mk_problem *problem);
    /* Runs on the stream and returns at once. Returns MK_OK, or the reason of the refusal. */
    int (*forward)(const struct mk_forward *args, mk_stream stream);
    int (*backward)(const struct mk_backward *args, mk_stream stream);
    /* Which registry row would serve this problem on the current device; NULL where none would. Borrowed. */
    const struct mk_row *(*choose)(const char *op, uint32_t flags, const struct mk_problem *problem);
    /* Row i of the registry, for listing; NULL past the last. */
    const struct mk_row *(*row)(size_t i);
};

/* The only exported symbol. Returns NULL where the version is unknown. The table is constant and lives as long as the
 * library is loaded. Works on a machine without a GPU or driver: MK_TARGET_CPU then serves, CUDA calls give MK_EDEVICE. */
const struct mk_api *mk_get_api(uint32_t version);

#ifdef __cplusplus
}
#endif
#endif
