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

/* What of a backward is to be done, and where sums are. */
struct todo {
    bool lora, dact, dx, dscore, dw_down, dw_up;
    bool in_down, in_up; // the sums are among the products of these; neither: a launch of their own
};

/* May a gradient be written while DX's rows are read? */
static bool is_apart(const mk_backward *b, const mk_matrix *m, int n_row, int n_column)
{
    const mk_problem *p = b->problem;
    size_t n_byte = (size_t)p->n_token * p->top_k * p->hidden * mk_dtype_bytes(p->dtype);
    int64_t last = (m->expert_offset ? m->span : (p->n_expert - 1) * m->stride_expert) + (n_row - 1) * m->stride_row +
                   (n_column - 1) * m->stride_col;
    const char *first = (const char *)m->base, *rows = (const char *)b->dx_row;

    return !rows || !first || first >= rows + n_byte || first + (last + 1) * (int64_t)mk_dtype_bytes(b->dweight_dtype) <= rows;
}

static struct todo todo_of(const mk_path *path, const mk_backward *b, const struct mk_plan *plan)
{
    const mk_problem *p = b->problem;
    uint32_t steps = b->steps ? b->steps : ~0u;
    bool rows = plan->n_row != 0, may;
    struct todo d = {};

    d.lora = rows && p->lora && steps & MK_STEP_LORA;
    d.dact = rows && steps & MK_STEP_DACT;
    d.dx = rows && b->dx && steps & MK_STEP_DX;
    d.dscore = rows && b->dscore && steps & MK_STEP_DSCORE;
    d.dw_down = b->ddown.base && steps & MK_STEP_DW_DOWN;
    d.dw_up = b->dup.base && steps & MK_STEP_DW_UP;
    may = path->overlaps && d.dact && plan->n_row < INT32_MAX / 2 && // DW counts choices and columns in 32 bits
          (int64_t)p->n_token * p->hidden < INT32_MAX;
    d.in_down = may && d.dx && d.dw_down && is_apart(b, &b->ddown, p->hidden, p->inter);
    d.in_up = may && d.dx && !d.dw_down && d.dw_up && is_apart(b, &b->dgate, p->inter, p->hidden) &&
              is_apart(b, &b->dup, p->inter, p->hidden);
    return d;
}

/* The gradients that flow back along the rows. */
static int run_rows(const mk_path *path, const mk_backward *b, const struct mk_plan *plan, const struct todo *todo,
                    mk_stream stream)
{
    int rc = MK_OK;

    if (todo->lora)
        rc = mk_lora_pack_v1(b->problem, plan, &plan->backward.lora, b->workspace, true, stream);
    if (!rc && todo->lora)
        rc = mk_lora_dlow_down(b, plan, stream);
    if (!rc && todo->dact)
        rc = path->dact(b, plan, stream);
    if (!rc && todo->lora && (b->dx || b->dlora))
        rc = mk_lora_dlow_up(b, plan, stream);
    if (!rc && todo->dx)
        rc = path->dx(b, plan, stream);
    return rc;
}

/* The sums over a token's choices, dx and dscore, and the gradients of the weights. A bias makes dscore's a warp each: those are
 * not for a gradient's few threads. */
static int run_rest(const mk_path *path, const mk_backward *b, const struct mk_plan *plan, const struct todo *todo,
                    mk_stream stream)
{
    bool among = todo->in_down || todo->in_up, score_among = among && !b->problem->down_bias.base;
    mk_combine_args rows = dx_args(b, plan);
    mk_dscore_args score = dscore_args(b, plan);
    const mk_combine_args *sums = todo->dx ? &rows : NULL;
    const mk_dscore_args *scores = todo->dscore ? &score : NULL;
    mk_beside in_down = {}, in_up = {};
    int rc = mk_combine_v2(among ? NULL : sums, score_among ? NULL : scores, stream);

    (todo->in_down ? in_down : in_up) = { false, false, among ? sums : NULL, score_among ? scores : NULL,
                                                  (b->flags & MK_FLAG_CHECKED) != 0 };
    in_down.early = todo->in_down;
    in_up.early = todo->in_up || (todo->in_down && !b->dx_row);
    in_down.led_on = todo->dw_up && in_up.early;
    if (!rc && todo->dw_down)
        rc = path->dw(b, plan, false, &in_down, stream);
    if (!rc && todo->dw_up)
        rc = path->dw(b, plan, true, &in_up, stream);
    return rc;
}

int mk_call_backward(const mk_path *path, const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    uint32_t steps = b->steps ? b->steps : ~0u;
    struct todo todo = todo_of(path, b, plan);
    int rc = plan->n_row ? run_rows(path, b, plan, &todo, stream) : MK_OK;

    if (!rc)
        rc = run_rest(path, b, plan, &todo, stream);
    if (!rc && steps & MK_STEP_DBIAS)
        rc = mk_dbias_v2(b, plan, path->dpre_alternates && path->dpre_alternates(b->problem), stream);
    if (!rc && steps & MK_STEP_LORA)
        rc = mk_lora_gradients(b, plan, stream);
    return rc;
}
