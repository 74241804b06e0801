/* hopper.cu: forward and backward on sm_90a: what fits, and the order of launches. No kernels here. */
#include "kernels/cuda_paths.h"
#include "kernels/hopper_host.h"

extern "C" int mk_device_sm(void)
{
    int device, major, minor;

    if (cudaGetDevice(&device) || cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device)) {
        cudaGetLastError(); // leave no error behind for the application to find
        return MK_EDEVICE;
    }
    return major * 10 + minor;
}

/* ---- what fits ---- */

static bool aligned(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

static int fits_matrix(const mk_matrix *m)
{
    if (m->stride_col != 1)
        return MK_ELAYOUT;
    if (!aligned(m->base) || m->stride_row % 8 || (!m->expert_offset && m->stride_expert % 8))
        return MK_EALIGN;
    return m->span / 8 < INT32_MAX ? MK_OK : MK_ELAYOUT; /* TMA's coordinates are 32-bit */
}

static int fits_problem(const mk_problem *p)
{
    int rc;

    if (p->dtype != MK_BF16 || p->score_dtype == MK_FP64)
        return MK_EDTYPE;
    if (p->act == MK_ACT_RELU2)
        return MK_EACT;
    if ((rc = fits_matrix(&p->gate)) || (rc = fits_matrix(&p->up)) || (rc = fits_matrix(&p->down)))
        return rc;
    return aligned(p->x) && p->x_stride % 8 == 0 ? MK_OK : MK_EALIGN;
}

int mk_hopper_fits_forward(const mk_forward *a)
{
    int rc = fits_problem(a->problem);

    if (rc)
        return rc;
    return aligned(a->out) && a->out_stride % 8 == 0 ? MK_OK : MK_EALIGN;
}

static int fits_gradient(const mk_matrix *m, const mk_backward *a)
{
    if (!m->base || a->dweight_dtype != MK_BF16 || a->accumulate)
        return MK_OK; /* stored element by element */
    return fits_matrix(m);
}

int mk_hopper_fits_backward(const mk_backward *a)
{
    int rc = fits_problem(a->problem);

    if (rc || (rc = fits_gradient(&a->dgate, a)) || (rc = fits_gradient(&a->dup, a)) || (rc = fits_gradient(&a->ddown, a)))
        return rc;
    if (!a->dgate.base != !a->dup.base)
        return MK_EBUFFER; /* gate and up are frozen together */
    bool ok = aligned(a->dout) && a->dout_stride % 8 == 0 && aligned(a->dx) && a->dx_stride % 8 == 0;
    return ok ? MK_OK : MK_EALIGN;
}

/* ---- arguments ---- */

static void set_weight(hop_args *a, int which, const mk_matrix *m)
{
    a->b_offset[which] = m->expert_offset;
    a->b_stride[which] = m->stride_expert;
}

static hop_args common_args(const mk_problem *p, const void *saved, const mk_saved_layout *at)
{
    hop_args a = {};

    a.route = mk_route_at(saved, at);
    a.n_expert = p->n_expert;
    a.hidden = p->hidden;
    a.inter = p->inter;
    a.n_half = 2;
    a.act = { p->act, p->act_alpha, p->act_limit };
    return a;
}

/* ---- forward ---- */

static int run_up(const mk_forward *f, const struct mk_plan *plan, const mk_saved_layout *at, mk_stream stream)
{
    const mk_problem *p = f->problem;
    hop_args a = common_args(p, f->saved, at);
    int rc;

    if ((rc = hop_map_weight(&a.b[0], &p->gate, p->n_expert, p->hidden, p->gate.stride_row, p->inter, 128)) ||
        (rc = hop_map_weight(&a.b[1], &p->up, p->n_expert, p->hidden, p->up.stride_row, p->inter, 128)))
        return rc;
    set_weight(&a, 0, &p->gate);
    set_weight(&a, 1, &p->up);
    a.gather = (const bf16 *)p->x;
    a.gather_stride = p->x_stride;
    a.bias[0] = p->gate_bias;
    a.bias[1] = p->up_bias;
    a.pre = f->flags & MK_FLAG_INFERENCE ? NULL : (bf16 *)((char *)f->saved + at->pre);
    a.out = (bf16 *)((char *)f->workspace + plan->forward.act);
    return hop_launch_up(&a, plan->max_tile, stream);
}

static int run_down(const mk_forward *f, const struct mk_plan *plan, const mk_saved_layout *at, mk_stream stream)
{
    const mk_problem *p = f->problem;
    hop_args a = common_args(p, f->saved, at);
    int rc;

    a.out = (bf16 *)((char *)f->workspace + plan->forward.expert_out);
    if ((rc = hop_map_weight(&a.b[0], &p->down, p->n_expert, p->inter, p->down.stride_row, p->hidden, 128)) ||
        (rc = hop_map_rows(&a.a, (char *)f->workspace + plan->forward.act, p->inter, 1, plan->n_row)))
        return rc;
    set_weight(&a, 0, &p->down);
    a.bias[0] = p->down_bias;
    return hop_launch_down(&a, plan->max_tile, stream);
}

static int run_combine(const mk_forward *f, const struct mk_plan *plan, const mk_saved_layout *at, mk_stream stream)
{
    const mk_problem *p = f->problem;
    mk_route_ptr r = mk_route_at(f->saved, at);
    mk_combine_args c = { f->out, f->out_stride, (char *)f->workspace + plan->forward.expert_out, r.choice_row, r.row_score,
                          p->dtype, p->n_token, p->hidden, p->top_k };

    return mk_combine_v1(&c, stream);
}

int mk_hopper_forward(const mk_forward *f, const struct mk_plan *plan, mk_stream stream)
{
    const mk_saved_layout *at = f->flags & MK_FLAG_INFERENCE ? &plan->saved_inference : &plan->saved;
    uint32_t steps = f->steps ? f->steps : ~0u;
    int rc = MK_OK;

    if (steps & MK_STEP_ROUTE)
        rc = mk_route_v1(f->problem, plan, at, f->saved, (int32_t *)((char *)f->workspace + plan->forward.count), stream);
    if (!plan->n_row)
        return rc;
    if (!rc && steps & MK_STEP_UP)
        rc = run_up(f, plan, at, stream);
    if (!rc && steps & MK_STEP_DOWN)
        rc = run_down(f, plan, at, stream);
    if (!rc && steps & MK_STEP_COMBINE)
        rc = run_combine(f, plan, at, stream);
    return rc;
}

/* ---- backward ---- */

static void *work(const mk_backward *b, size_t at)
{
    return (char *)b->workspace + at;
}

static int run_dact(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    const mk_problem *p = b->problem;
    hop_args a = common_args(p, b->saved, &plan->saved);
    int rc = hop_map_weight(&a.b[0], &p->down, p->n_expert, p->inter, p->down.stride_row, p->hidden, TILE_K);

    if (rc)
        return rc;
    set_weight(&a, 0, &p->down);
    a.gather = (const bf16 *)b->dout;
    a.gather_stride = b->dout_stride;
    a.pre = (bf16 *)((char *)b->saved + plan->saved.pre); // read only
    a.out = (bf16 *)work(b, plan->backward.dpre);
    a.scaled_act = (bf16 *)work(b, plan->backward.scaled_act);
    a.dscore_part = (float *)work(b, plan->backward.dscore_part);
    a.n_dscore_part = plan->n_dscore_part;
    return hop_launch_dact(&a, plan->max_tile, stream);
}

static int run_dx(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    const mk_problem *p = b->problem;
    hop_args a = common_args(p, b->saved, &plan->saved);
    mk_combine_args c = { b->dx, b->dx_stride, work(b, plan->backward.dx_row), a.route.choice_row, NULL, p->dtype,
                          p->n_token, p->hidden, p->top_k };
    int rc;

    a.out = (bf16 *)work(b, plan->backward.dx_row);
    if ((rc = hop_map_weight(&a.b[0], &p->gate, p->n_expert, p->hidden, p->gate.stride_row, p->inter, TILE_K)) ||
        (rc = hop_map_weight(&a.b[1], &p->up, p->n_expert, p->hidden, p->up.stride_row, p->inter, TILE_K)) ||
        (rc = hop_map_rows(&a.a, work(b, plan->backward.dpre), p->inter, 2, plan->n_row)))
        return rc;
    set_weight(&a, 0, &p->gate);
    set_weight(&a, 1, &p->up);
    rc = hop_launch_dx(&a, plan->max_tile, stream);
    return rc ? rc : mk_combine_v1(&c, stream);
}

/* The gradient's matrix with the tile's rows (hidden) first. */
static mk_matrix flipped(mk_matrix m)
{
    int64_t row = m.stride_row;

    m.stride_row = m.stride_col;
    m.stride_col = row;
    return m;
}

static int run_dw(const mk_backward *b, const struct mk_plan *plan, bool up, mk_stream stream)
{
    const mk_problem *p = b->problem;
    hop_args a = common_args(p, b->saved, &plan->saved);
    const void *rows = plan->n_row ? work(b, up ? plan->backward.dpre : plan->backward.scaled_act) : p->up.base;
    int rc;

    a.n_half = up ? 2 : 1;
    rc = hop_map_rows(&a.b[0], rows, p->inter, a.n_half, plan->n_row ? plan->n_row : 1); // no tokens: nothing is loaded
    if (rc)
        return rc;
    a.gather = (const bf16 *)(up ? p->x : b->dout);
    a.gather_stride = up ? p->x_stride : b->dout_stride;
    a.k_rows = (const bf16 *)rows;
    a.dw[0] = up ? flipped(b->dgate) : b->ddown;
    a.dw[1] = up ? flipped(b->dup) : b->ddown;
    a.dw_dtype = b->dweight_dtype;
    a.accumulate = b->accumulate;
    return hop_launch_dw(&a, stream);
}

int mk_hopper_backward(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    uint32_t steps = b->steps ? b->steps : ~0u;
    int rc = MK_OK;

    if (plan->n_row && steps & MK_STEP_DACT)
        rc = run_dact(b, plan, stream);
    if (!rc && plan->n_row && b->dx && steps & MK_STEP_DX)
        rc = run_dx(b, plan, stream);
    if (!rc && b->ddown.base && steps & MK_STEP_DW_DOWN)
        rc = run_dw(b, plan, false, stream);
    if (!rc && b->dup.base && steps & MK_STEP_DW_UP)
        rc = run_dw(b, plan, true, stream);
    if (!rc && steps & MK_STEP_DBIAS)
        rc = mk_dbias_v1(b, plan, stream);
    if (!rc && b->dscore && steps & MK_STEP_DSCORE)
        rc = mk_dscore_v1(b, plan, stream);
    return rc;
}
