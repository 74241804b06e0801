/* lora.h: what adapters need beside the products, for every CUDA path. Each is one launch, two at most. Plain C. */
#ifndef KERNELS_LORA_H
#define KERNELS_LORA_H

#include "kernels/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* lora_pack.cu: the adapters to work + at. turned: B with the rank first, as backward reads it. */
int mk_lora_pack_v1(const struct mk_problem *p, const struct mk_plan *plan, const struct mk_lora_layout *at, void *work,
                    bool turned, mk_stream stream);

/* lora.cu, forward: A x before up, A act before down; both to the saved buffer. */
int mk_lora_low_up(const struct mk_forward *f, const struct mk_plan *plan, const struct mk_saved_layout *at,
                   mk_stream stream);
int mk_lora_low_down(const struct mk_forward *f, const struct mk_plan *plan, const struct mk_saved_layout *at,
                     mk_stream stream);

/* Backward: B^T dout before dact, B^T dpre after it, both scaled; the adapters' gradients after both. */
int mk_lora_dlow_down(const struct mk_backward *b, const struct mk_plan *plan, mk_stream stream);
int mk_lora_dlow_up(const struct mk_backward *b, const struct mk_plan *plan, mk_stream stream);
int mk_lora_gradients(const struct mk_backward *b, const struct mk_plan *plan, mk_stream stream);

#ifdef __cplusplus
}
#endif
#endif
