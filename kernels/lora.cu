/* lora.cu: which products adapters need at which point of a call. Host code; the kernels are in lora_gemm.cuh. */
#include "kernels/cuda_call.h"
#include "kernels/lora.h"
#include "kernels/lora_gemm.cuh"

/* ---- launches ---- */

template <typename T, int N> static int start_rows(const low_rows_args *a, int64_t max_tile, mk_stream stream)
{
    static uint64_t done;
    int bytes = LOW_STAGE * (LOW_A_BYTES + N * LOW_K * 2), rc = mk_allow_smem((const void *)lora_rows_v1<T, N>, bytes, &done);
    dim3 grid((unsigned)(max_tile * (MK_TILE_M / LOW_M)), (a->low + N - 1) / N);

    if (rc)
        return rc;
    return mk_launch(lora_rows_v1<T, N>, grid, 256, bytes, *a, stream);
}

template <typename T, int N> static int start_grad(const low_grad_args *a, int64_t n_m_tile, mk_stream stream)
{
    static uint64_t done;
    int bytes = LOW_STAGE * (LOW_A_BYTES + LOW_NARROW_BYTES), rc = mk_allow_smem((const void *)lora_grad_v1<T, N>, bytes, &done);
    dim3 grid((unsigned)(n_m_tile * a->n_expert), (a->low + N - 1) / N);

    if (rc)
        return rc;
    return mk_launch(lora_grad_v1<T, N>, grid, 256, bytes, *a, stream);
}

template <typename T> static int pick_rows(const low_rows_args *a, int64_t max_tile, mk_stream stream)
{
    if (a->low <= 16)
        return start_rows<T, 16>(a, max_tile, stream);
    if (a->low <= 32)
        return start_rows<T, 32>(a, max_tile, stream);
    return a->low <= 64 ? start_rows<T, 64>(a, max_tile, stream) : start_rows<T, 128>(a, max_tile, stream);
}

template <typename T> static int pick_grad(const low_grad_args *a, mk_stream stream)
{
    int64_t n_m_tile = (a->n_wide + LOW_M - 1) / LOW_M;

    if (a->low <= 16)
        return start_grad<T, 16>(a, n_m_tile, stream);
    if (a->low <= 32)
        return start_grad<T, 32>(a, n_m_tile, stream);
    return a->low <= 64 ? start_grad<T, 64>(a, n_m_tile, stream) : start_grad<T, 128>(a, n_m_tile, stream);
}

static int run_rows(const mk_problem *p, const struct mk_plan *plan, const low_rows_args *a, mk_stream stream)
{
    if (!a->low)
        return MK_OK;
    return p->dtype == MK_BF16 ? pick_rows<bf16>(a, plan->max_tile, stream) : pick_rows<half>(a, plan->max_tile, stream);
}

static int run_grad(const mk_problem *p, const low_grad_args *a, mk_stream stream)
{
    if (!a->out[0].base && !a->out[1].base)
        return MK_OK;
    return p->dtype == MK_BF16 ? pick_grad<bf16>(a, stream) : pick_grad<half>(a, stream);
}

/* ---- forward ---- */

int mk_lora_low_up(const mk_forward *f, const struct mk_plan *plan, const mk_saved_layout *at, mk_stream stream)
{
    const mk_problem *p = f->problem;
    low_rows_args a = {};

    a.route = mk_route_at(f->saved, at);
    a.rows = p->x;
    a.rows_stride = p->x_stride;
    a.gathered = 1;
    a.k = p->hidden;
    a.w = (char *)f->workspace + plan->forward.lora.up_a;
    a.low = plan->low_up;
    a.out = (char *)f->saved + at->low_up;
    return run_rows(p, plan, &a, stream);
}

int mk_lora_low_down(const mk_forward *f, const struct mk_plan *plan, const mk_saved_layout *at, mk_stream stream)
{
    const mk_problem *p = f->problem;
    low_rows_args a = {};

    a.route = mk_route_at(f->saved, at);
    a.rows = (char *)f->workspace + plan->forward.act;
    a.rows_stride = a.k = p->inter;
    a.w = (char *)f->workspace + plan->forward.lora.down_a;
    a.low = plan->low_down;
    a.out = (char *)f->saved + at->low_down;
    return run_rows(p, plan, &a, stream);
}

/* ---- backward ---- */

int mk_lora_dlow_down(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    const mk_problem *p = b->problem;
    low_rows_args a = {};

    a.route = mk_route_at(b->saved, &plan->saved);
    a.rows = b->dout;
    a.rows_stride = b->dout_stride;
    a.gathered = 1;
    a.k = p->hidden;
    a.w = mk_work(b, plan->backward.lora.down_b);
    a.low = plan->low_down;
    a.out = mk_work(b, plan->backward.dlow_down);
    a.saved = (const char *)b->saved + plan->saved.low_down;
    a.scaled = mk_work(b, plan->backward.scaled_low);
    return run_rows(p, plan, &a, stream);
}

int mk_lora_dlow_up(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    const mk_problem *p = b->problem;
    low_rows_args a = {};

    a.route = mk_route_at(b->saved, &plan->saved);
    a.rows = mk_work(b, plan->backward.dpre);
    a.rows_stride = a.k = plan->n_half * p->inter;
    a.w = mk_work(b, plan->backward.lora.up_b);
    a.low = plan->low_up;
    a.out = mk_work(b, plan->backward.dlow_up);
    return run_rows(p, plan, &a, stream);
}

static low_grad_args grad_args(const mk_backward *b, const struct mk_plan *plan, int low, int rank)
{
    low_grad_args a = {};

    a.route = mk_route_at(b->saved, &plan->saved);
    a.n_expert = b->problem->n_expert;
    a.low = low;
    a.rank = rank;
    a.out_dtype = b->dlora->dtype;
    a.accumulate = b->accumulate;
    a.scale = 1.f;
    return a;
}

static int up_gradients(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    const mk_problem *p = b->problem;
    const mk_lora *l = p->lora;
    low_grad_args da = grad_args(b, plan, plan->low_up, l->up_rank), db = da;

    da.apart = db.apart = l->apart != 0;
    da.wide = p->x;
    da.wide_stride = p->x_stride;
    da.n_wide = p->hidden;
    da.gathered = 1;
    da.narrow = mk_work(b, plan->backward.dlow_up);
    da.out[0] = l->apart ? b->dlora->gate_a : b->dlora->up_a;
    da.out[1] = l->apart ? b->dlora->up_a : mk_matrix{};
    db.wide = mk_work(b, plan->backward.dpre);
    db.wide_stride = db.n_wide = plan->n_half * p->inter;
    db.narrow = (const char *)b->saved + plan->saved.low_up;
    db.per_half = p->inter;
    db.out[0] = plan->has_gate ? b->dlora->gate_b : b->dlora->up_b;
    db.out[1] = plan->has_gate ? b->dlora->up_b : mk_matrix{};
    db.scale = l->up_scale;
    int rc = run_grad(p, &da, stream);
    return rc ? rc : run_grad(p, &db, stream);
}

static int down_gradients(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    const mk_problem *p = b->problem;
    const mk_lora *l = p->lora;
    low_grad_args da = grad_args(b, plan, plan->low_down, l->down_rank), db = da;

    da.wide = mk_work(b, plan->backward.scaled_act);
    da.wide_stride = da.n_wide = p->inter;
    da.narrow = mk_work(b, plan->backward.dlow_down);
    da.out[0] = b->dlora->down_a;
    db.wide = b->dout;
    db.wide_stride = b->dout_stride;
    db.n_wide = db.per_half = p->hidden;
    db.gathered = 1;
    db.narrow = mk_work(b, plan->backward.scaled_low);
    db.out[0] = b->dlora->down_b;
    db.scale = l->down_scale;
    int rc = run_grad(p, &da, stream);
    return rc ? rc : run_grad(p, &db, stream);
}

int mk_lora_gradients(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    int rc = MK_OK;

    if (b->dlora && plan->low_up)
        rc = up_gradients(b, plan, stream);
    return !rc && b->dlora && plan->low_down ? down_gradients(b, plan, stream) : rc;
}
