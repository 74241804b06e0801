/* portable.cu: forward and backward on any GPU from sm_80 on: what fits, and arguments of the products. No kernels here. */
#include "kernels/cuda_call.h"
#include "kernels/portable_host.h"

/* ---- what fits ---- */

/* Contiguous along one dimension: 16-byte copies need alignment. Along neither: element by element, any address. */
static int fits_matrix(const mk_matrix *m)
{
    bool row = m->stride_row == 1, column = m->stride_col == 1;

    if (!row && !column)
        return MK_OK;
    int64_t other = row ? m->stride_col : m->stride_row;
    return mk_aligned(m->base) && other % 8 == 0 && (m->expert_offset || m->stride_expert % 8 == 0) ? MK_OK : MK_EALIGN;
}

static int fits_problem(const mk_problem *p)
{
    int rc;

    if ((p->dtype != MK_BF16 && p->dtype != MK_FP16) || p->score_dtype == MK_FP64)
        return MK_EDTYPE;
    if (p->act != MK_ACT_RELU2 && (p->gate.stride_row != p->up.stride_row || p->gate.stride_col != p->up.stride_col))
        return MK_ELAYOUT;
    if ((p->act != MK_ACT_RELU2 && (rc = fits_matrix(&p->gate))) || (rc = fits_matrix(&p->up)) ||
        (rc = fits_matrix(&p->down)))
        return rc;
    return mk_rows_aligned(p->x, p->x_stride) ? MK_OK : MK_EALIGN;
}

int mk_portable_fits_forward(const mk_forward *a)
{
    int rc = fits_problem(a->problem);

    if (rc)
        return rc;
    return mk_rows_aligned(a->out, a->out_stride) ? MK_OK : MK_EALIGN;
}

int mk_portable_fits_backward(const mk_backward *a)
{
    int rc = fits_problem(a->problem);

    if (rc)
        return rc;
    if (a->problem->act != MK_ACT_RELU2 && !a->dgate.base != !a->dup.base)
        return MK_EBUFFER; /* gate and up are frozen together */
    return mk_rows_aligned(a->dout, a->dout_stride) && mk_rows_aligned(a->dx, a->dx_stride) ? MK_OK : MK_EALIGN;
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

static void add_run(por_args *a, const void *rows, int64_t stride, int32_t k, const por_weight &w, const por_weight &second)
{
    por_run *r = &a->run[a->n_run];

    if (!k)
        return;
    a->n_run++;
    r->rows = rows;
    r->rows_stride = stride;
    r->k = k;
    r->w[0] = w;
    r->w[1] = second;
}

/* ---- forward ---- */

static int run_up(const mk_forward *f, const struct mk_plan *plan, const mk_saved_layout *at, mk_stream stream)
{
    const mk_problem *p = f->problem;
    por_args a = common_args(p, plan, f->saved, at);
    const char *b = (char *)f->workspace + plan->forward.lora.up_b;
    int64_t low = plan->low_up, half = low * p->inter, both = half * plan->n_half;

    add_run(&a, p->x, p->x_stride, p->hidden, weight(plan->has_gate ? &p->gate : &p->up, false), weight(&p->up, false));
    a.run[0].gathered = true;
    add_run(&a, (char *)f->saved + at->low_up, low, plan->low_up, { b, NULL, both, low, 1 },
            { b + half * 2, NULL, both, low, 1 });
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
    int64_t low = plan->low_down;

    add_run(&a, (char *)f->workspace + plan->forward.act, p->inter, p->inter, weight(&p->down, false), {});
    add_run(&a, (char *)f->saved + at->low_down, low, plan->low_down,
            { (char *)f->workspace + plan->forward.lora.down_b, NULL, low * p->hidden, low, 1 }, {});
    a.bias[0] = p->down_bias;
    a.out = (char *)f->workspace + plan->forward.expert_out;
    return por_launch_down(&a, p->dtype, plan->max_tile, stream);
}

/* ---- backward ---- */

static int run_dact(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    const mk_problem *p = b->problem;
    por_args a = common_args(p, plan, b->saved, &plan->saved);
    int64_t low = plan->low_down;

    add_run(&a, b->dout, b->dout_stride, p->hidden, weight(&p->down, true), {});
    a.run[0].gathered = true;
    add_run(&a, mk_work(b, plan->backward.dlow_down), low, plan->low_down,
            { mk_work(b, plan->backward.lora.down_a), NULL, low * p->inter, 1, p->inter }, {});
    a.pre = (char *)b->saved + plan->saved.pre; // read only
    a.out = mk_work(b, plan->backward.dpre);
    a.scaled_act = mk_work(b, plan->backward.scaled_act);
    a.dscore_part = (float *)mk_work(b, plan->backward.dscore_part);
    a.n_dscore_part = plan->n_dscore_part;
    return por_launch_dact(&a, p->dtype, plan->max_tile, stream);
}

static int run_dx(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    const mk_problem *p = b->problem;
    por_args a = common_args(p, plan, b->saved, &plan->saved);
    const char *dpre = (char *)mk_work(b, plan->backward.dpre);
    int64_t low = plan->low_up, stride = (int64_t)plan->n_half * p->inter;
    size_t to_up = (plan->n_half - 1) * (size_t)p->inter * mk_dtype_bytes(p->dtype);

    if (plan->has_gate)
        add_run(&a, dpre, stride, p->inter, weight(&p->gate, true), {});
    add_run(&a, dpre + to_up, stride, p->inter, weight(&p->up, true), {});
    add_run(&a, mk_work(b, plan->backward.dlow_up), low, plan->low_up,
            { mk_work(b, plan->backward.lora.up_a), NULL, low * p->hidden, 1, p->hidden }, {});
    a.out = mk_work(b, plan->backward.dx_row);
    return por_launch_dx(&a, p->dtype, plan->max_tile, stream);
}

/* The gradient is made the way it lies in memory: its contiguous dimension along N. */
static int run_dw(const mk_backward *b, const struct mk_plan *plan, bool up, const struct mk_beside *, mk_stream stream)
{
    const mk_problem *p = b->problem;
    por_args a = common_args(p, plan, b->saved, &plan->saved);
    const mk_matrix *m = up ? plan->has_gate ? &b->dgate : &b->dup : &b->ddown;
    bool flip = m->stride_row == 1 && m->stride_col != 1, a_gathered = up == flip;

    a.n_half = up ? plan->n_half : 1;
    a.side[!a_gathered] = { up ? p->x : b->dout, up ? p->x_stride : b->dout_stride, 0, p->hidden };
    a.side[a_gathered] = { mk_work(b, up ? plan->backward.dpre : plan->backward.scaled_act), (int64_t)a.n_half * p->inter,
                           p->inter, p->inter };
    a.dw[0] = flip ? mk_flipped(*m) : *m;
    a.dw[1] = flip ? mk_flipped(b->dup) : b->dup;
    a.dw_dtype = b->dweight_dtype;
    a.accumulate = b->accumulate;
    return por_launch_dw(&a, a_gathered, p->dtype, stream);
}

/* ---- the path ---- */

static const mk_path portable_path = { run_up, run_down, run_dact, run_dx, run_dw };

int mk_portable_forward(const mk_forward *f, const struct mk_plan *plan, mk_stream stream)
{
    return mk_call_forward(&portable_path, f, plan, stream);
}

int mk_portable_backward(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    return mk_call_backward(&portable_path, b, plan, stream);
}
