/* The kernels' library as the guest sees it: loaded at first need, beside libmoeprof.so, and plans that hold
 * all of a call that does not change from one call to the next. On the training thread. */
#ifndef INJ_SWAP_H
#define INJ_SWAP_H

#include "kernels/moe_kernels.h"
#include "profiler/core/base.h"

/* NULL, with a sentence in err, when the library is not there, is of another version, or cannot be loaded. */
const struct mk_api *inj_kernels(struct mp_err *err);

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
};

/* The pointers of a call. 0 where there is none. */
struct inj_weights {
    void *gate, *up, *down, *gate_bias, *up_bias, *down_bias;
};

struct inj_lora {
    void *gate_a, *up_a, *gate_b, *up_b, *down_a, *down_b;
};

struct inj_call {
    const void *x, *index, *score;
    struct inj_weights w;
    struct inj_lora lora;
    void *saved, *workspace;
    size_t saved_bytes, workspace_bytes; /* from 256-byte aligned addresses on */
    uint32_t flags;
    void *stream;
};

struct inj_gradients {
    void *dx, *dscore;
    void *dx_row; /* scratch for dx, or NULL: in the workspace */
    struct inj_weights w;
    struct inj_lora lora;
};

/* An enum mk_error. Nothing is allocated, nothing waits. */
int inj_plan_sizes(const struct inj_plan *plan, struct mk_sizes *out);
int inj_plan_forward(const struct inj_plan *plan, const struct inj_call *call, void *out);
int inj_plan_backward(const struct inj_plan *plan, const struct inj_call *call,
                      const struct inj_gradients *out, const void *dout);

#endif
