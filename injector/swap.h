/* The kernels' library as the guest sees it: loaded at first need, beside libmoeprof.so, and plans that hold
 * all of a call that does not change from one call to the next. On the training thread. */
#ifndef INJ_SWAP_H
#define INJ_SWAP_H

#include "kernels/moe_kernels.h"
#include "profiler/core/base.h"

/* NULL, with a sentence in err, when the library is not there, is of another version, or cannot be loaded. */
const struct mk_api *inj_kernels(struct mp_err *err);

/* What a matrix or a vector of a layer is called: the order of a plan's places. */
enum inj_operand {
    INJ_GATE,
    INJ_UP,
    INJ_DOWN,
    INJ_GATE_BIAS,
    INJ_UP_BIAS,
    INJ_DOWN_BIAS,
    INJ_GATE_A,
    INJ_UP_A,
    INJ_GATE_B,
    INJ_UP_B,
    INJ_DOWN_A,
    INJ_DOWN_B,
    INJ_N_OPERAND
};

/* Where an operand lies: so many bytes into one of a call's tensors, or at an address that is the plan's own. */
struct inj_place {
    int32_t tensor; /* -1: at is the address, 0 where there is none */
    uint64_t at;
};

/* What of a call follows from shapes, types and strides; pointers come with each call. */
struct inj_plan {
    struct mk_problem problem;
    struct mk_matrix dgate, dup, ddown; /* strides of the weight gradients */
    struct mk_vector dgate_bias, dup_bias, ddown_bias;
    uint32_t dweight_dtype; /* of the adapters' gradients too */
    uint32_t flags;         /* enum mk_flag, of every call */
    bool has_lora;
    struct mk_lora lora; /* strides, ranks, scales */
    struct mk_lora_grad dlora;
    struct mk_sizes sizes;
    size_t row_bytes; /* of dx before it is summed up */
    struct inj_place weight[INJ_N_OPERAND], gradient[INJ_N_OPERAND];
};

/* The pointers of a call. 0 where there is none. */
struct inj_call {
    const void *x, *index, *score;
    void *operand[INJ_N_OPERAND];
    void *saved, *workspace; /* of the plan's sizes from 256-byte aligned addresses on */
    uint32_t flags;
    void *stream;
};

struct inj_gradients {
    void *dx, *dscore;
    void *dx_row; /* scratch for dx of row_bytes, by which the workspace is smaller; or NULL */
    void *operand[INJ_N_OPERAND];
};

/* An enum mk_error. Nothing is allocated, nothing waits. */
int inj_plan_sizes(struct inj_plan *plan);
int inj_plan_forward(const struct inj_plan *plan, const struct inj_call *call, void *out);
int inj_plan_backward(const struct inj_plan *plan, const struct inj_call *call,
                      const struct inj_gradients *out, const void *dout);

#endif
