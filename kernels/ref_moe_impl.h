/* ref_moe_impl.h: the reference's arithmetic, included once for each REAL (double, float) with NAME() making names.
 * Rounds pre-activations to the problem's type as the GPU paths store them, so that backward sees the same. */

static REAL NAME(sigmoid)(REAL v)
{
    return 1 / (1 + (REAL)exp(-(double)v));
}

static REAL NAME(gelu_tanh)(REAL g, REAL *dg)
{
    const REAL c = (REAL)0.7978845608028654, a = (REAL)0.044715; /* sqrt(2/pi) */
    REAL t = (REAL)tanh((double)(c * (g + a * g * g * g)));

    *dg = (1 + t) / 2 + g * (1 - t * t) / 2 * c * (1 + 3 * a * g * g);
    return g * (1 + t) / 2;
}

static REAL NAME(gelu_erf)(REAL g, REAL *dg)
{
    REAL cdf = (1 + (REAL)erf((double)g / 1.4142135623730951)) / 2;

    *dg = cdf + g * (REAL)(exp(-(double)g * (double)g / 2) * 0.3989422804014327); /* 1/sqrt(2 pi) */
    return g * cdf;
}

/* act(g, u), and its derivatives by g and by u. */
static REAL NAME(act)(const struct mk_problem *p, REAL g, REAL u, REAL *dg, REAL *du)
{
    REAL s, d, limit = (REAL)p->act_limit, alpha = (REAL)p->act_alpha;

    switch (p->act) {
    case MK_ACT_SWIGLU:
        s = NAME(sigmoid)(g);
        *dg = u * s * (1 + g * (1 - s));
        *du = g * s;
        return g * s * u;
    case MK_ACT_GEGLU_TANH:
    case MK_ACT_GEGLU_ERF:
        s = p->act == MK_ACT_GEGLU_ERF ? NAME(gelu_erf)(g, &d) : NAME(gelu_tanh)(g, &d);
        *dg = u * d;
        *du = s;
        return s * u;
    case MK_ACT_CLAMPED_GLU: {
        REAL gc = g > limit ? limit : g, uc = u > limit ? limit : u < -limit ? -limit : u;
        s = NAME(sigmoid)(alpha * gc);
        *dg = g > limit ? 0 : (uc + 1) * s * (1 + alpha * gc * (1 - s));
        *du = u > limit || u < -limit ? 0 : gc * s;
        return gc * s * (uc + 1);
    }
    default: /* MK_ACT_RELU2 */
        *dg = 0;
        *du = u > 0 ? 2 * u : 0;
        return u > 0 ? u * u : 0;
    }
}

static REAL NAME(mat)(const struct mk_matrix *m, uint32_t dtype, int32_t e, int64_t row, int64_t col)
{
    int64_t at = m->expert_offset ? m->expert_offset[e] : e * m->stride_expert;

    return (REAL)mk_ref_get(m->base, dtype, at + row * m->stride_row + col * m->stride_col);
}

static REAL NAME(vec)(const struct mk_vector *v, uint32_t dtype, int32_t e, int64_t i)
{
    return v->base ? (REAL)mk_ref_get(v->base, dtype, e * v->stride_expert + i * v->stride) : 0;
}

#include "kernels/ref_lora_impl.h"

static void NAME(pre)(const struct mk_problem *p, int32_t e, int32_t t, int32_t i, const REAL *low, REAL *g, REAL *u)
{
    REAL sum_g = NAME(vec)(&p->gate_bias, p->dtype, e, i) + NAME(low_pre)(p, e, 0, i, low);
    REAL sum_u = NAME(vec)(&p->up_bias, p->dtype, e, i) + NAME(low_pre)(p, e, 1, i, low);
    bool gate = p->act != MK_ACT_RELU2;

    for (int32_t h = 0; h < p->hidden; h++) {
        REAL x = (REAL)mk_ref_get(p->x, p->dtype, t * p->x_stride + h);
        sum_u += x * NAME(mat)(&p->up, p->dtype, e, i, h);
        if (gate)
            sum_g += x * NAME(mat)(&p->gate, p->dtype, e, i, h);
    }
    *g = gate ? sum_g : 0;
    *u = sum_u;
}

static void NAME(forward_row)(const struct mk_forward *a, const struct mk_plan *plan, const struct mk_ref_route *r,
                              int32_t e, int32_t row, REAL *act, REAL *out)
{
    const struct mk_problem *p = a->problem;
    int64_t n_i = p->inter;
    REAL low_up[2 * MK_MAX_RANK], low_down[MK_MAX_RANK];

    NAME(low_up)(p, e, r->row_token[row], low_up);
    for (int32_t i = 0; i < p->inter; i++) {
        REAL g, u, dg, du;
        NAME(pre)(p, e, r->row_token[row], i, low_up, &g, &u);
        act[i] = NAME(act)(p, g, u, &dg, &du);
        if (a->flags & MK_FLAG_INFERENCE)
            continue;
        int64_t at = (int64_t)row * plan->n_half * n_i + i;
        if (plan->has_gate)
            mk_ref_put((char *)a->saved + plan->saved.pre, p->dtype, at, (double)g);
        mk_ref_put((char *)a->saved + plan->saved.pre, p->dtype, at + (plan->n_half - 1) * n_i, (double)u);
    }
    NAME(low_down)(p, e, act, low_down);
    NAME(low_save)(a, plan, row, low_up, low_down);
    for (int32_t h = 0; h < p->hidden; h++) {
        REAL y = NAME(vec)(&p->down_bias, p->dtype, e, h) + NAME(low_out)(p, e, h, low_down);
        for (int32_t i = 0; i < p->inter; i++)
            y += act[i] * NAME(mat)(&p->down, p->dtype, e, h, i);
        out[(int64_t)r->row_token[row] * p->hidden + h] += y * (REAL)r->row_score[row];
    }
}

static void NAME(forward)(const struct mk_forward *a, const struct mk_plan *plan, const struct mk_ref_route *r,
                          void *scratch)
{
    const struct mk_problem *p = a->problem;
    REAL *act = scratch, *out = act + p->inter;

    for (int32_t e = 0; e < p->n_expert; e++)
        for (int32_t row = r->offset[e]; row < r->offset[e + 1]; row++)
            NAME(forward_row)(a, plan, r, e, row, act, out);
    for (int64_t t = 0; t < p->n_token; t++)
        for (int64_t h = 0; h < p->hidden; h++)
            mk_ref_put(a->out, p->dtype, t * a->out_stride + h, (double)out[t * p->hidden + h]);
}

/* Sums of one backward: gradients in REAL, added to or stored over the caller's at the end. */
struct NAME(sums) {
    REAL *dx;                     /* (T, H) */
    REAL *gate, *up, *down;       /* of one expert: (I, H), (I, H), (H, I) */
    REAL *gate_b, *up_b, *down_b; /* (I), (I), (H) */
    REAL *act, *dg, *du;          /* of one row: (I) */
    struct NAME(low_sums) low;
};

static REAL NAME(row_dact)(const struct mk_backward *a, const struct mk_plan *plan, const struct NAME(sums) *s, int32_t e,
                           int32_t row, int32_t t, REAL score)
{
    const struct mk_problem *p = a->problem;
    const char *pre = (const char *)a->saved + plan->saved.pre;
    REAL dscore = 0;

    for (int32_t i = 0; i < p->inter; i++) {
        int64_t at = (int64_t)row * plan->n_half * p->inter + i;
        REAL g = plan->has_gate ? (REAL)mk_ref_get(pre, p->dtype, at) : 0, dact = 0;
        REAL u = (REAL)mk_ref_get(pre, p->dtype, at + (plan->n_half - 1) * (int64_t)p->inter);
        for (int32_t h = 0; h < p->hidden; h++)
            dact += (REAL)mk_ref_get(a->dout, p->dtype, t * a->dout_stride + h) * NAME(mat)(&p->down, p->dtype, e, h, i);
        dact += NAME(low_dact)(p, &s->low, e, i);
        s->act[i] = NAME(act)(p, g, u, &s->dg[i], &s->du[i]);
        dscore += dact * s->act[i];
        s->dg[i] *= dact * score;
        s->du[i] *= dact * score;
    }
    for (int32_t h = 0; h < p->hidden; h++)
        dscore += (REAL)mk_ref_get(a->dout, p->dtype, t * a->dout_stride + h) * NAME(vec)(&p->down_bias, p->dtype, e, h);
    return dscore;
}

static void NAME(row_weights)(const struct mk_backward *a, const struct NAME(sums) *s, int32_t t, REAL score)
{
    const struct mk_problem *p = a->problem;

    for (int32_t h = 0; h < p->hidden; h++) {
        REAL x = (REAL)mk_ref_get(p->x, p->dtype, t * p->x_stride + h);
        REAL dy = score * (REAL)mk_ref_get(a->dout, p->dtype, t * a->dout_stride + h);
        s->down_b[h] += dy;
        for (int64_t i = 0; i < p->inter; i++) {
            s->gate[i * p->hidden + h] += s->dg[i] * x;
            s->up[i * p->hidden + h] += s->du[i] * x;
            s->down[(int64_t)h * p->inter + i] += dy * s->act[i];
        }
    }
    for (int32_t i = 0; i < p->inter; i++) {
        s->gate_b[i] += s->dg[i];
        s->up_b[i] += s->du[i];
    }
}

static void NAME(row_dx)(const struct mk_problem *p, const struct NAME(sums) *s, int32_t e, int32_t t)
{
    for (int32_t h = 0; h < p->hidden; h++) {
        REAL sum = NAME(low_dx)(p, &s->low, e, h);
        for (int32_t i = 0; i < p->inter; i++) {
            sum += s->du[i] * NAME(mat)(&p->up, p->dtype, e, i, h);
            if (p->act != MK_ACT_RELU2)
                sum += s->dg[i] * NAME(mat)(&p->gate, p->dtype, e, i, h);
        }
        s->dx[(int64_t)t * p->hidden + h] += sum;
    }
}

static void NAME(store)(const struct mk_backward *a, uint32_t dtype, void *base, int64_t at, REAL v)
{
    if (a->accumulate)
        v += (REAL)mk_ref_get(base, dtype, at);
    mk_ref_put(base, dtype, at, (double)v);
}

static void NAME(store_mat)(const struct mk_backward *a, uint32_t dtype, const struct mk_matrix *m, int32_t e, const REAL *v,
                            int32_t n_row, int32_t n_col)
{
    if (!m->base)
        return;
    int64_t at = m->expert_offset ? m->expert_offset[e] : e * m->stride_expert;
    for (int64_t i = 0; i < n_row; i++)
        for (int64_t j = 0; j < n_col; j++)
            NAME(store)(a, dtype, m->base, at + i * m->stride_row + j * m->stride_col, v[i * n_col + j]);
}

static void NAME(store_vec)(const struct mk_backward *a, const struct mk_vector *d, int32_t e, const REAL *v, int32_t n)
{
    if (!d->base)
        return;
    for (int64_t i = 0; i < n; i++)
        NAME(store)(a, a->dweight_dtype, d->base, e * d->stride_expert + i * d->stride, v[i]);
}

static void NAME(store_expert)(const struct mk_backward *a, const struct NAME(sums) *s, int32_t e)
{
    const struct mk_problem *p = a->problem;

    if (p->act != MK_ACT_RELU2) {
        NAME(store_mat)(a, a->dweight_dtype, &a->dgate, e, s->gate, p->inter, p->hidden);
        NAME(store_vec)(a, &a->dgate_bias, e, s->gate_b, p->inter);
    }
    NAME(store_mat)(a, a->dweight_dtype, &a->dup, e, s->up, p->inter, p->hidden);
    NAME(store_mat)(a, a->dweight_dtype, &a->ddown, e, s->down, p->hidden, p->inter);
    NAME(store_vec)(a, &a->dup_bias, e, s->up_b, p->inter);
    NAME(store_vec)(a, &a->ddown_bias, e, s->down_b, p->hidden);
}

static void NAME(store_lora)(const struct mk_backward *a, const struct NAME(low_sums) *s, int32_t e)
{
    const struct mk_problem *p = a->problem;
    const struct mk_lora *l = p->lora;
    const struct mk_lora_grad *d = a->dlora;

    if (!l || !d)
        return;
    if (l->apart)
        NAME(store_mat)(a, d->dtype, &d->gate_a, e, s->up_a, l->up_rank, p->hidden);
    NAME(store_mat)(a, d->dtype, &d->up_a, e, s->up_a + (int64_t)NAME(low_first)(l, 1) * p->hidden, l->up_rank, p->hidden);
    if (p->act != MK_ACT_RELU2)
        NAME(store_mat)(a, d->dtype, &d->gate_b, e, s->b[0], p->inter, l->up_rank);
    NAME(store_mat)(a, d->dtype, &d->up_b, e, s->b[1], p->inter, l->up_rank);
    NAME(store_mat)(a, d->dtype, &d->down_a, e, s->down_a, l->down_rank, p->inter);
    NAME(store_mat)(a, d->dtype, &d->down_b, e, s->down_b, p->hidden, l->down_rank);
}

static void NAME(backward)(const struct mk_backward *a, const struct mk_plan *plan, const struct mk_ref_route *r,
                           void *scratch)
{
    const struct mk_problem *p = a->problem;
    int64_t n_hi = (int64_t)p->hidden * p->inter, n_th = (int64_t)p->n_token * p->hidden;
    REAL *at = (REAL *)scratch + n_th; /* per-expert sums follow dx */
    struct NAME(sums) s = {
        scratch, at,   at + n_hi, at + 2 * n_hi, at + 3 * n_hi, at + 3 * n_hi + p->inter, at + 3 * n_hi + 2 * p->inter,
        NULL,    NULL, NULL,      { NULL }
    };
    int64_t n_expert_sums = 3 * n_hi + 2 * p->inter + p->hidden;

    n_expert_sums += NAME(low_carve)(&s.low, p, at + n_expert_sums);
    s.act = at + n_expert_sums;
    s.dg = s.act + p->inter;
    s.du = s.dg + p->inter;
    for (int32_t e = 0; e < p->n_expert; e++) {
        memset(at, 0, (size_t)n_expert_sums * sizeof(REAL));
        for (int32_t row = r->offset[e]; row < r->offset[e + 1]; row++) {
            int32_t t = r->row_token[row], c = r->row_choice[row];
            NAME(low_dout)(a, &s.low, e, t);
            REAL score = (REAL)r->row_score[row], dscore = NAME(row_dact)(a, plan, &s, e, row, t, score);
            if (a->dscore)
                mk_ref_put(a->dscore, p->score_dtype, t * a->dscore_stride + c % p->top_k, (double)dscore);
            NAME(row_weights)(a, &s, t, score);
            NAME(low_row)(a, plan, &s.low, e, row, t, score, s.act, s.dg, s.du);
            NAME(row_dx)(p, &s, e, t);
        }
        NAME(store_expert)(a, &s, e);
        NAME(store_lora)(a, &s.low, e);
    }
    for (int64_t i = 0; a->dx && i < n_th; i++)
        mk_ref_put(a->dx, p->dtype, i / p->hidden * a->dx_stride + i % p->hidden, (double)s.dx[i]);
}
