/* api.c: the one exported symbol, and the way from a call to the implementation that serves it. */
#include "kernels/moe_kernels.h"

#include <string.h>

#include "kernels/ref_moe.h"
#include "kernels/registry.h"

static const char *api_strerror(int code)
{
    switch (code) {
    case MK_OK: return "no error";
    case MK_EVERSION: return "the argument struct has a size that this library does not know";
    case MK_ESHAPE:
        return "a dimension is out of range: H and I must be multiples of 8, E at most 1024, K at most E, T*K below 2^31";
    case MK_EALIGN: return "a pointer is not 16-byte aligned or a stride is not a multiple of 8 elements";
    case MK_EDTYPE: return "no path for this combination of data types on this target";
    case MK_ELAYOUT: return "no path for this weight layout: one of the two strides within an expert must be 1";
    case MK_EACT: return "no path for this activation on this target";
    case MK_EBUFFER: return "a needed pointer is null or a buffer is smaller than the sizes call said";
    case MK_EDEVICE: return "no kernels for this device, or no usable device in this process";
    case MK_ECUDA: return "the CUDA runtime or driver refused an operation";
    case MK_ENOTSUP: return "a documented feature that this build does not have";
    default: return "unknown error code";
    }
}

/* Takes a struct of this or an older, smaller size; what it lacks becomes zero. Every struct begins with its size. */
static int take(void *to, size_t bytes, const void *from, size_t oldest_bytes)
{
    uint32_t given = *(const uint32_t *)from, now = (uint32_t)bytes;

    if (given < oldest_bytes || given > bytes)
        return MK_EVERSION;
    memset(to, 0, bytes);
    memcpy(to, from, given);
    memcpy(to, &now, sizeof now);
    return MK_OK;
}

static int take_problem(struct mk_problem *to, const struct mk_problem *from)
{
    return take(to, sizeof *to, from, offsetof(struct mk_problem, lora));
}

static int api_sizes(struct mk_sizes *out, const struct mk_problem *given)
{
    struct mk_problem problem;
    struct mk_plan plan;
    int rc = take_problem(&problem, given);

    if (rc || (rc = mk_plan(&plan, &problem)))
        return rc;
    *out = (struct mk_sizes){ plan.saved.bytes, plan.saved_inference.bytes, plan.forward.bytes, plan.backward.bytes };
    return MK_OK;
}

static bool row_fits(const struct mk_impl *impl, uint32_t flags, int sm)
{
    if (flags & MK_FLAG_PORTABLE && strcmp(impl->row.name, "portable"))
        return false;
    return sm >= impl->row.sm_min && sm <= impl->row.sm_max;
}

/* The first row that fits, or NULL with the last row's reason in rc. */
static const struct mk_impl *find(int *rc, const struct mk_forward *f, const struct mk_backward *b, uint32_t flags)
{
    bool lora = (f ? f->problem : b->problem)->lora;
    int sm = mk_device_sm();

    *rc = MK_EDEVICE;
    for (size_t i = 0; sm > 0 && i < mk_registry_count; i++) {
        const struct mk_impl *impl = &mk_registry[i];
        if (!row_fits(impl, flags, sm) || (f ? !impl->forward : !impl->backward))
            continue;
        *rc = lora && !impl->lora ? MK_ENOTSUP : f ? impl->fits_forward(f) : impl->fits_backward(b);
        if (!*rc)
            return impl;
    }
    return NULL;
}

static int check_forward(const struct mk_forward *a, const struct mk_plan *plan)
{
    const struct mk_saved_layout *saved = a->flags & MK_FLAG_INFERENCE ? &plan->saved_inference : &plan->saved;

    if (a->saved_bytes < saved->bytes || a->workspace_bytes < plan->forward.bytes)
        return MK_EBUFFER;
    if (!a->saved || (a->problem->n_token && (!a->workspace || !a->out)))
        return MK_EBUFFER;
    if ((uintptr_t)a->saved % 256 || (uintptr_t)a->workspace % 256)
        return MK_EALIGN;
    return mk_check_pointers(a->problem);
}

static int api_forward(const struct mk_forward *given, mk_stream stream)
{
    struct mk_problem problem;
    struct mk_forward a;
    struct mk_plan plan;
    int rc;

    if ((rc = take(&a, sizeof a, given, sizeof a)) || (rc = take_problem(&problem, a.problem)) ||
        (rc = mk_plan(&plan, &problem)))
        return rc;
    a.problem = &problem;
    if (problem.target == MK_TARGET_CPU)
        return mk_ref_forward(&a);
    if ((rc = check_forward(&a, &plan)))
        return rc;
    const struct mk_impl *impl = find(&rc, &a, NULL, a.flags);
    return impl ? impl->forward(&a, &plan, stream) : rc;
}

static int check_backward(const struct mk_backward *a, const struct mk_plan *plan)
{
    if (a->workspace_bytes < plan->backward.bytes || !a->saved)
        return MK_EBUFFER;
    if (a->problem->n_token && (!a->workspace || !a->dout))
        return MK_EBUFFER;
    if ((uintptr_t)a->saved % 256 || (uintptr_t)a->workspace % 256 || (uintptr_t)a->dx_row % 256)
        return MK_EALIGN;
    int rc = mk_check_gradients(a);
    return rc ? rc : mk_check_pointers(a->problem);
}

static int api_backward(const struct mk_backward *given, mk_stream stream)
{
    struct mk_problem problem;
    struct mk_backward a;
    struct mk_plan plan;
    int rc;

    if ((rc = take(&a, sizeof a, given, offsetof(struct mk_backward, dlora))) || (rc = take_problem(&problem, a.problem)) ||
        (rc = mk_plan(&plan, &problem)))
        return rc;
    a.problem = &problem;
    if (problem.target == MK_TARGET_CPU)
        return mk_ref_backward(&a);
    mk_plan_apart(&plan, &a);
    if ((rc = check_backward(&a, &plan)))
        return rc;
    const struct mk_impl *impl = find(&rc, NULL, &a, a.flags);
    return impl ? impl->backward(&a, &plan, stream) : rc;
}

static const struct mk_row *api_choose(const char *op, uint32_t flags, const struct mk_problem *given)
{
    struct mk_problem p;
    int rc = take_problem(&p, given);

    if (rc)
        return NULL;
    struct mk_forward f = { .size = sizeof f, .flags = flags, .out_stride = p.hidden, .problem = &p };
    struct mk_backward b = { .size = sizeof b,
                             .flags = flags,
                             .dx_stride = p.hidden,
                             .dout_stride = p.hidden,
                             .dweight_dtype = p.dtype,
                             .problem = &p };
    const struct mk_impl *impl = find(&rc, !strcmp(op, "forward") ? &f : NULL, &b, flags);

    return impl ? &impl->row : NULL;
}

static const struct mk_row *api_row(size_t i)
{
    return i < mk_registry_count ? &mk_registry[i].row : NULL;
}

static const struct mk_api api = {
    .size = sizeof api,
    .version = MK_API_VERSION,
    .strerror = api_strerror,
    .sizes = api_sizes,
    .forward = api_forward,
    .backward = api_backward,
    .choose = api_choose,
    .row = api_row,
};

__attribute__((visibility("default"))) const struct mk_api *mk_get_api(uint32_t version)
{
    return version == MK_API_VERSION ? &api : NULL;
}
