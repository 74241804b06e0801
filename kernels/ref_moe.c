/* ref_moe.c: the CPU reference behind the C ABI. See ref_moe.h. Allocates scratch, unlike the GPU paths: it is a test's
 * oracle, not a thing to run in a training. Steps cannot be run apart here, except routing. */
#include "kernels/ref_moe.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/plan.h"
#include "kernels/ref_route.h"

#define REAL    double
#define NAME(x) x##_fp64
#include "kernels/ref_moe_impl.h"
#undef REAL
#undef NAME
#define REAL    float
#define NAME(x) x##_fp32
#include "kernels/ref_moe_impl.h"

static size_t scratch_elements(const struct mk_problem *p)
{
    size_t t = (size_t)p->n_token, h = (size_t)p->hidden, i = (size_t)p->inter;

    size_t up = p->lora ? (size_t)p->lora->up_rank : 0, down = p->lora ? (size_t)p->lora->down_rank : 0;

    return t * h + 3 * h * i + 6 * i + h + 2 * up * (h + i) + down * (h + i);
}

static const struct mk_saved_layout *saved_layout(const struct mk_plan *plan, uint32_t flags)
{
    return flags & MK_FLAG_INFERENCE ? &plan->saved_inference : &plan->saved;
}

int mk_ref_forward(const struct mk_forward *a)
{
    const struct mk_problem *p = a->problem;
    struct mk_plan plan;
    int rc = mk_plan(&plan, p);

    if (rc || (rc = mk_check_pointers(p)))
        return rc;
    const struct mk_saved_layout *at = saved_layout(&plan, a->flags);
    if (!a->saved || a->saved_bytes < at->bytes || (p->n_token && !a->out))
        return MK_EBUFFER;
    if (a->steps && a->steps != MK_STEP_ROUTE)
        return MK_ENOTSUP;
    struct mk_ref_route r = mk_ref_route_at(a->saved, at);
    mk_ref_route(&r, p);
    if (a->steps == MK_STEP_ROUTE)
        return MK_OK;
    void *scratch = calloc(scratch_elements(p), sizeof(double));
    if (!scratch)
        return MK_EBUFFER;
    (a->flags & MK_FLAG_CPU_FP32 ? forward_fp32 : forward_fp64)(a, &plan, &r, scratch);
    free(scratch);
    return MK_OK;
}

int mk_ref_backward(const struct mk_backward *a)
{
    const struct mk_problem *p = a->problem;
    struct mk_plan plan;
    int rc = mk_plan(&plan, p);

    if (rc || (rc = mk_check_pointers(p)))
        return rc;
    if (!a->saved || (p->n_token && !a->dout))
        return MK_EBUFFER;
    if ((rc = mk_check_gradients(a)))
        return rc;
    if (a->steps)
        return MK_ENOTSUP;
    void *scratch = calloc(scratch_elements(p), sizeof(double));
    if (!scratch)
        return MK_EBUFFER;
    struct mk_ref_route r = mk_ref_route_at((void *)(uintptr_t)a->saved, &plan.saved); /* read only below */
    for (int64_t c = 0; a->dscore && c < plan.n_row; c++)
        mk_ref_put(a->dscore, p->score_dtype, c / p->top_k * a->dscore_stride + c % p->top_k, 0);
    (a->flags & MK_FLAG_CPU_FP32 ? backward_fp32 : backward_fp64)(a, &plan, &r, scratch);
    free(scratch);
    return MK_OK;
}
