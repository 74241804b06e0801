/* Three thread-local facts of libtorch that a launch needs, read without Python:
 * which autograd node runs, whether gradients are recorded, the next node's sequence number.
 *
 * They are C++ functions found by their mangled names, and two fields of torch::autograd::Node whose
 * offsets have not moved from torch 1.13 to 2.11; a node's class is read from its C++ type information
 * (Itanium ABI). Nothing is believed before hook.py has run a tiny
 * backward and compared with Python's own answers (inj_torch_check).
 */
#ifndef INJ_TORCH_ABI_H
#define INJ_TORCH_ABI_H

#include "profiler/core/base.h"

#define INJ_SEQ_ACCUMULATE UINT64_MAX /* sequence number of every AccumulateGrad node */

struct inj_node {
    uint64_t seq;
    uint64_t tid;     /* torch's id of the thread that made it */
    const void *type; /* identity of its C++ class */
};

/* Agent or Python thread: looks the symbols up. MP_ENOTSUP when one is missing. */
int inj_torch_init(void);

/* Compares with what Python says of the node now running on this thread; remembers the verdict. */
bool inj_torch_check(uint64_t seq, bool made_here);

/* True after a check that agreed. */
bool inj_torch_trusted(void);

/* The rest only when trusted. Launch path: no allocation, no lock. */
bool inj_torch_node(struct inj_node *node); /* false: no node runs on this thread */
/* Gradient of tensor[i]: fills and adds whole tensors. */
bool inj_torch_is_select(const struct inj_node *node);
bool inj_torch_grad_enabled(void);
uint64_t inj_torch_next_seq(void);
uint64_t inj_torch_thread_id(void);

#endif
