/* cuda_call.cu: see cuda_call.h. No kernels here. */
#include "kernels/cuda_call.h"
#include "kernels/common.cuh"
#include "kernels/lora.h"

/* ---- the device ---- */

static bool ask_device(struct mk_device *d, int index)
{
    int major, minor, cooperative;

    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index) ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index) ||
        cudaDeviceGetAttribute(&d->n_sm, cudaDevAttrMultiProcessorCount, index) ||
        cudaDeviceGetAttribute(&d->smem_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index) ||
        cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, index))
        return false;
    d->index = index;
    d->sm = major * 10 + minor;
    d->cooperative = cooperative != 0;
    return true;
}

/* Threads that come here at once ask for the same device and write the same. */
struct mk_device mk_device_now(void)
{
    static struct mk_device known[64];
    static uint64_t asked; // a bit a device
    struct mk_device none = {}, d = {};
    int index;

    if (!cudaGetDevice(&index)) {
        uint64_t bit = index < 64 ? (uint64_t)1 << index : 0;
        if (__atomic_load_n(&asked, __ATOMIC_ACQUIRE) & bit)
            return known[index];
        if (ask_device(&d, index)) {
            if (bit)
                known[index] = d;
            __atomic_fetch_or(&asked, bit, __ATOMIC_RELEASE);
            return d;
        }
    }
    cudaGetLastError(); // leave no error behind for the application to find
    return none;
}

extern "C" int mk_device_sm(void)
{
    int sm = mk_device_now().sm;
    return sm ? sm : MK_EDEVICE;
}

/* ---- forward ---- */

/* A sum over the rows of a token's choices. */
static mk_combine_args combine_args(const mk_problem *p, const mk_route_ptr &r, const void *row_value)
{
    mk_combine_args c = {};

    c.row_value = row_value;
    c.choice_row = r.choice_row;
    c.dtype = p->dtype;
    c.n_token = p->n_token;
    c.hidden = p->hidden;
    c.top_k = p->top_k;
    return c;
}

static int run_combine(const mk_forward *f, const struct mk_plan *plan, const mk_saved_layout *at, mk_stream stream)
{
    mk_route_ptr r = mk_route_at(f->saved, at);
    mk_combine_args c = combine_args(f->problem, r, (char *)f->workspace + plan->forward.expert_out);

    c.out = f->out;
    c.out_stride = f->out_stride;
    c.row_score = r.row_score;
    return mk_combine_v2(&c, NULL, stream);
}

int mk_call_forward(const mk_path *path, const mk_forward *f, const struct mk_plan *plan, mk_stream stream)
{
    const mk_saved_layout *at = f->flags & MK_FLAG_INFERENCE ? &plan->saved_inference : &plan->saved;
    uint32_t steps = f->steps ? f->steps : ~0u;
    bool lora = f->problem->lora && steps & MK_STEP_LORA;
    int rc = MK_OK;

    if (steps & MK_STEP_ROUTE)
        rc = mk_route(f->problem, plan, at, f->saved, f->workspace, stream);
    if (!plan->n_row)
        return rc;
    if (!rc && lora)
        rc = mk_lora_pack_v1(f->problem, plan, &plan->forward.lora, f->workspace, false, stream);
    if (!rc && lora)
        rc = mk_lora_low_up(f, plan, at, stream);
    if (!rc && steps & MK_STEP_UP)
        rc = path->up(f, plan, at, stream);
    if (!rc && lora)
        rc = mk_lora_low_down(f, plan, at, stream);
    if (!rc && steps & MK_STEP_DOWN)
        rc = path->down(f, plan, at, stream);
    if (!rc && steps & MK_STEP_COMBINE)
        rc = run_combine(f, plan, at, stream);
    return rc;
}

/* ---- backward ---- */

static mk_combine_args dx_args(const mk_backward *b, const struct mk_plan *plan)
{
    mk_combine_args c = combine_args(b->problem, mk_route_at(b->saved, &plan->saved), mk_work(b, plan->backward.dx_row));

    c.out = b->dx;
    c.out_stride = b->dx_stride;
    return c;
}

static mk_dscore_args dscore_args(const mk_backward *b, const struct mk_plan *plan)
{
    const mk_problem *p = b->problem;
    mk_route_ptr r = mk_route_at(b->saved, &plan->saved);
    mk_dscore_args d = {};

    d.dscore = b->dscore;
    d.dscore_stride = b->dscore_stride;
    d.part = (const float *)mk_work(b, plan->backward.dscore_part);
    d.choice_row = r.choice_row;
    d.offset = r.offset;
    d.dout = b->dout;
    d.dout_stride = b->dout_stride;
    d.down_bias = p->down_bias;
    d.dtype = p->dtype;
    d.score_dtype = p->score_dtype;
    d.n_choice = (int32_t)plan->n_row;
    d.top_k = p->top_k;
    d.n_part = plan->n_dscore_part;
    d.hidden = p->hidden;
    d.n_expert = p->n_expert;
    return d;
}

/* Rows of dx, then the sums over a token's choices: dx and dscore. */
static int run_dx(const mk_path *path, const mk_backward *b, const struct mk_plan *plan, uint32_t steps, mk_stream stream)
{
    bool want_dx = b->dx && steps & MK_STEP_DX, want_dscore = b->dscore && steps & MK_STEP_DSCORE;
    mk_combine_args rows = dx_args(b, plan);
    mk_dscore_args score = dscore_args(b, plan);
    int rc = want_dx ? path->dx(b, plan, stream) : MK_OK;

    return rc ? rc : mk_combine_v2(want_dx ? &rows : NULL, want_dscore ? &score : NULL, stream);
}

/* The gradients that flow back along the rows. */
static int run_rows(const mk_path *path, const mk_backward *b, const struct mk_plan *plan, uint32_t steps, mk_stream stream)
{
    bool lora = b->problem->lora && steps & MK_STEP_LORA;
    int rc = MK_OK;

    if (lora)
        rc = mk_lora_pack_v1(b->problem, plan, &plan->backward.lora, b->workspace, true, stream);
    if (!rc && lora)
        rc = mk_lora_dlow_down(b, plan, stream);
    if (!rc && steps & MK_STEP_DACT)
        rc = path->dact(b, plan, stream);
    if (!rc && lora && (b->dx || b->dlora))
        rc = mk_lora_dlow_up(b, plan, stream);
    return rc ? rc : run_dx(path, b, plan, steps, stream);
}

int mk_call_backward(const mk_path *path, const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    uint32_t steps = b->steps ? b->steps : ~0u;
    int rc = MK_OK;

    if (plan->n_row)
        rc = run_rows(path, b, plan, steps, stream);
    if (!rc && b->ddown.base && steps & MK_STEP_DW_DOWN)
        rc = path->dw(b, plan, false, stream);
    if (!rc && b->dup.base && steps & MK_STEP_DW_UP)
        rc = path->dw(b, plan, true, stream);
    if (!rc && steps & MK_STEP_DBIAS)
        rc = mk_dbias_v2(b, plan, path->dpre_alternates && path->dpre_alternates(b->problem), stream);
    if (!rc && steps & MK_STEP_LORA)
        rc = mk_lora_gradients(b, plan, stream);
    return rc;
}
