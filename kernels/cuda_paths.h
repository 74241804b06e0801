/* cuda_paths.h: what the CUDA files offer each other and the registry. Plain C, so that the registry stays C. */
#ifndef KERNELS_CUDA_PATHS_H
#define KERNELS_CUDA_PATHS_H

#include "kernels/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* route.cu: sorts choices by expert into the saved buffer. One launch, two where its blocks cannot all run at once. */
int mk_route(const struct mk_problem *p, const struct mk_plan *plan, const struct mk_saved_layout *at, void *saved,
             void *workspace, mk_stream stream);

/* combine.cu: out[t] = sum over choices of (weight or 1) * row_value[row of choice]. */
struct mk_combine_args {
    void *out; /* (T, H) */
    int64_t out_stride;
    const void *row_value;     /* (R, H) dense */
    const int32_t *choice_row; /* (T*K) */
    const float *row_score;    /* (R), or NULL for a plain sum */
    uint32_t dtype;
    int32_t n_token, hidden, top_k;
};

/* Gradients of the scores: parts of a row's sum, and <dout, down bias> where there is a bias. */
struct mk_dscore_args {
    void *dscore; /* (T, K) */
    int64_t dscore_stride;
    const float *part;         /* (R, n_part) */
    const int32_t *choice_row; /* (T*K) */
    const int32_t *offset;     /* (E+1) */
    const void *dout;          /* (T, H) */
    int64_t dout_stride;
    struct mk_vector down_bias;
    uint32_t dtype, score_dtype;
    int32_t n_choice, top_k, n_part, hidden, n_expert;
};

/* One launch; either may be NULL. */
int mk_combine_v2(const struct mk_combine_args *rows, const struct mk_dscore_args *score, mk_stream stream);

/* reduce.cu: gradients of the biases, in one launch. alternates: dpre has gate and up by turns, not in halves. */
int mk_dbias_v2(const struct mk_backward *a, const struct mk_plan *plan, bool alternates, mk_stream stream);

/* hopper.cu, portable.cu: whole operations. */
int mk_hopper_fits_forward(const struct mk_forward *a);
int mk_hopper_forward(const struct mk_forward *a, const struct mk_plan *plan, mk_stream stream);
int mk_hopper_fits_backward(const struct mk_backward *a);
int mk_hopper_backward(const struct mk_backward *a, const struct mk_plan *plan, mk_stream stream);
int mk_portable_fits_forward(const struct mk_forward *a);
int mk_portable_forward(const struct mk_forward *a, const struct mk_plan *plan, mk_stream stream);
int mk_portable_fits_backward(const struct mk_backward *a);
int mk_portable_backward(const struct mk_backward *a, const struct mk_plan *plan, mk_stream stream);

#ifdef __cplusplus
}
#endif
#endif
