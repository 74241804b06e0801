/* portable.cu: forward and backward on any GPU from sm_80 on: what fits, and the order of launches. No kernels here. */
#include "kernels/cuda_paths.h"
#include "kernels/portable_host.h"

/* ---- what fits ---- */

static bool aligned(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

/* Contiguous along one dimension: 16-byte copies need alignment. Along neither: element by element, any address. */
static int fits_matrix(const mk_matrix *m)
{
    bool row = m->stride_row == 1, column = m->stride_col == 1;

    if (!row && !column)
        return MK_OK;
    int64_t other = row ? m->stride_col : m->stride_row;
    return aligned(m->base) && other % 8 == 0 && (m->expert_offset || m->stride_expert % 8 == 0) ? MK_OK : MK_EALIGN;
}

static int fits_problem(const mk_problem *p)
{
    int rc;

    if ((p->dtype != MK_BF16 && p->dtype != MK_FP16) || p->score_dtype == MK_FP64)
        return MK_EDTYPE;
    if (p->act != MK_ACT_RELU2 && (p->gate.stride_row != p->up.stride_row || p->gate.stride_col != p->up.stride_col))
        return MK_ELAYOUT;
    if ((p->act != MK_ACT_RELU2 && (rc = fits_matrix(&p->gate))) || (rc = fits_matrix(&p->up)) || (rc = fits_matrix(&p->down)))
        return rc;
    return aligned(p->x) && p->x_stride % 8 == 0 ? MK_OK : MK_EALIGN;
}

int mk_portable_fits_forward(const mk_forward *a)
{
    int rc = fits_problem(a->problem);

    if (rc)
        return rc;
    return aligned(a->out) && a->out_stride % 8 == 0 ? MK_OK : MK_EALIGN;
}

int mk_portable_fits_backward(const mk_backward *a)
{
    int rc = fits_problem(a->problem);

    if (rc)
        return rc;
    if (a->problem->act != MK_ACT_RELU2 && !a->dgate.base != !a->dup.base)
        return MK_EBUFFER; /* gate and up are frozen together */
    bool ok = aligned(a->dout) && a->dout_stride % 8 == 0 && aligned(a->dx) && a->dx_stride % 8 == 0;
    return ok ? MK_OK : MK_EALIGN;
}

/* ---- arguments ---- */

static por_weight weight(const mk_matrix *m, bool rows_are_k)
{
    return { m->base, m->expert_offset, m->stride_expert, rows_are_k ? m->stride_col : m->stride_row,
             rows_are_k ? m->stride_row : m->stride_col };
}

static por_args common_args(const mk_problem *p, const struct mk_plan *plan, const void *saved, const mk_saved_layout *at)
{
    por_args a = {};

    a.route = mk_route_at(saved, at);
    a.n_expert = p->n_expert;
    a.hidden = p->hidden;
    a.inter = p->inter;
    a.n_half = plan->n_half;
    a.act = { p->act, p->act_alpha, p->act_limit };
    return a;
}

/* ---- forward ---- */

static int run_up(const mk_forward *f, const struct mk_plan *plan, const mk_saved_layout *at, mk_stream stream)
{
    const mk_problem *p = f->problem;
    por_args a = common_args(p, plan, f->saved, at);

    a.rows = p->x;
    a.rows_stride = p->x_stride;
    a.w[0] = weight(&p->gate, false);
    a.w[1] = weight(&p->up, false);
    a.k = p->hidden;
    a.bias[0] = p->gate_bias;
    a.bias[1] = p->up_bias;
    a.pre = f->flags & MK_FLAG_INFERENCE ? NULL : (char *)f->saved + at->pre;
    a.out = (char *)f->workspace + plan->forward.act;
    return por_launch_up(&a, p->dtype, plan->max_tile, stream);
}

static int run_down(const mk_forward *f, const struct mk_plan *plan, const mk_saved_layout *at, mk_stream stream)
{
    const mk_problem *p = f->problem;
    por_args a = common_args(p, plan, f->saved, at);

    a.rows = (char *)f->workspace + plan->forward.act;
    a.rows_stride = p->inter;
    a.w[0] = weight(&p->down, false);
    a.k = p->inter;
    a.bias[0] = p->down_bias;
    a.out = (char *)f->workspace + plan->forward.expert_out;
    return por_launch_down(&a, p->dtype, plan->max_tile, stream);
}

static int run_combine(const mk_forward *f, const struct mk_plan *plan, const mk_saved_layout *at, mk_stream stream)
{
    const mk_problem *p = f->problem;
    mk_route_ptr r = mk_route_at(f->saved, at);
    mk_combine_args c = { f->out, f->out_stride, (char *)f->workspace + plan->forward.expert_out, r.choice_row, r.row_score,
                          p->dtype, p->n_token, p->hidden, p->top_k };

    return mk_combine_v1(&c, stream);
}

int mk_portable_forward(const mk_forward *f, const struct mk_plan *plan, mk_stream stream)
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
    por_args a = common_args(p, plan, b->saved, &plan->saved);

    a.rows = b->dout;
    a.rows_stride = b->dout_stride;
    a.w[0] = weight(&p->down, true);
    a.k = p->hidden;
    a.pre = (char *)b->saved + plan->saved.pre; // read only
    a.out = work(b, plan->backward.dpre);
    a.scaled_act = work(b, plan->backward.scaled_act);
    a.dscore_part = (float *)work(b, plan->backward.dscore_part);
    a.n_dscore_part = plan->n_dscore_part;
    return por_launch_dact(&a, p->dtype, plan->max_tile, stream);
}

static int run_dx(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    const mk_problem *p = b->problem;
    por_args a = common_args(p, plan, b->saved, &plan->saved);
    mk_combine_args c = { b->dx, b->dx_stride, work(b, plan->backward.dx_row), a.route.choice_row, NULL, p->dtype,
                          p->n_token, p->hidden, p->top_k };

    a.rows = work(b, plan->backward.dpre);
    a.rows_stride = (int64_t)plan->n_half * p->inter;
    a.w[0] = plan->has_gate ? weight(&p->gate, true) : weight(&p->up, true);
    a.w[1] = weight(&p->up, true);
    a.k = plan->n_half * p->inter;
    a.out = work(b, plan->backward.dx_row);
    int rc = por_launch_dx(&a, p->dtype, plan->max_tile, stream);
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
    por_args a = common_args(p, plan, b->saved, &plan->saved);

    a.n_half = up ? plan->n_half : 1;
    a.rows = up ? p->x : b->dout;
    a.rows_stride = up ? p->x_stride : b->dout_stride;
    a.k_rows = work(b, up ? plan->backward.dpre : plan->backward.scaled_act);
    a.dw[0] = up ? flipped(plan->has_gate ? b->dgate : b->dup) : b->ddown;
    a.dw[1] = flipped(b->dup);
    a.dw_dtype = b->dweight_dtype;
    a.accumulate = b->accumulate;
    return por_launch_dw(&a, p->dtype, stream);
}

int mk_portable_backward(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
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
