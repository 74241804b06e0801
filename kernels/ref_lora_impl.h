/* ref_lora_impl.h: adapters in the reference's arithmetic; included by ref_moe_impl.h, once for each REAL.
 * The rows of A on gate and up count through: gate's first where they are apart, then up's. */

/* An element of an adapter; 0 where it is absent. */
static REAL NAME(low)(const struct mk_problem *p, const struct mk_matrix *m, int32_t e, int64_t row, int64_t col)
{
    return m->base ? NAME(mat)(m, p->lora->dtype, e, row, col) : 0;
}

/* First of A's rows that a half (0 gate, 1 up) uses. */
static int32_t NAME(low_first)(const struct mk_lora *l, int half)
{
    return l->apart && half ? l->up_rank : 0;
}

static int32_t NAME(low_count)(const struct mk_lora *l)
{
    return l->up_rank * (l->apart ? 2 : 1);
}

/* Row r of the A on gate and up. */
static REAL NAME(low_up_a)(const struct mk_problem *p, int32_t e, int32_t r, int64_t h)
{
    const struct mk_lora *l = p->lora;

    return l->apart && r < l->up_rank ? NAME(low)(p, &l->gate_a, e, r, h) : NAME(low)(p, &l->up_a, e, r % l->up_rank, h);
}

/* low = A x of token t. */
static void NAME(low_up)(const struct mk_problem *p, int32_t e, int32_t t, REAL *low)
{
    for (int32_t r = 0; p->lora && r < NAME(low_count)(p->lora); r++) {
        low[r] = 0;
        for (int32_t h = 0; h < p->hidden; h++)
            low[r] += NAME(low_up_a)(p, e, r, h) * (REAL)mk_ref_get(p->x, p->dtype, t * p->x_stride + h);
    }
}

/* low = A act. */
static void NAME(low_down)(const struct mk_problem *p, int32_t e, const REAL *act, REAL *low)
{
    for (int32_t r = 0; p->lora && r < p->lora->down_rank; r++) {
        low[r] = 0;
        for (int32_t i = 0; i < p->inter; i++)
            low[r] += NAME(low)(p, &p->lora->down_a, e, r, i) * act[i];
    }
}

/* What an adapter adds to element i of gate (half 0) or up (1), from low = A x. */
static REAL NAME(low_pre)(const struct mk_problem *p, int32_t e, int half, int32_t i, const REAL *low)
{
    const struct mk_lora *l = p->lora;
    REAL sum = 0;

    for (int32_t r = 0; l && r < l->up_rank; r++)
        sum += NAME(low)(p, half ? &l->up_b : &l->gate_b, e, i, r) * low[NAME(low_first)(l, half) + r];
    return l ? sum * (REAL)l->up_scale : 0;
}

/* What an adapter adds to element h of down's output, from low = A act. */
static REAL NAME(low_out)(const struct mk_problem *p, int32_t e, int32_t h, const REAL *low)
{
    const struct mk_lora *l = p->lora;
    REAL sum = 0;

    for (int32_t r = 0; l && r < l->down_rank; r++)
        sum += NAME(low)(p, &l->down_b, e, h, r) * low[r];
    return l ? sum * (REAL)l->down_scale : 0;
}

/* Saves low for backward, rounded as the GPU paths store it. */
static void NAME(low_save)(const struct mk_forward *a, const struct mk_plan *plan, int32_t row, const REAL *up,
                           const REAL *down)
{
    const struct mk_problem *p = a->problem;
    char *saved = a->saved;

    if (!p->lora || a->flags & MK_FLAG_INFERENCE)
        return;
    for (int32_t r = 0; r < NAME(low_count)(p->lora); r++)
        mk_ref_put(saved + plan->saved.low_up, p->dtype, (int64_t)row * plan->low_up + r, (double)up[r]);
    for (int32_t r = 0; r < p->lora->down_rank; r++)
        mk_ref_put(saved + plan->saved.low_down, p->dtype, (int64_t)row * plan->low_down + r, (double)down[r]);
}

/* ---- backward ---- */

/* Gradients of one expert's adapters, dense: (rows of A, H), (I, R), (I, R), (R, I), (H, R); and of one row: scale * B^T of
 * what came in. */
struct NAME(low_sums) {
    REAL *up_a, *b[2], *down_a, *down_b;
    REAL dlow_up[2 * MK_MAX_RANK], dlow_down[MK_MAX_RANK];
};

/* Carves the gradients out of zeroed scratch; returns how many elements they take. */
static int64_t NAME(low_carve)(struct NAME(low_sums) *s, const struct mk_problem *p, REAL *at)
{
    int64_t up = p->lora ? p->lora->up_rank : 0, down = p->lora ? p->lora->down_rank : 0;

    s->up_a = at;
    s->b[0] = s->up_a + 2 * up * p->hidden;
    s->b[1] = s->b[0] + up * p->inter;
    s->down_a = s->b[1] + up * p->inter;
    s->down_b = s->down_a + down * p->inter;
    return s->down_b + down * p->hidden - at;
}

/* dlow_down = scale * B^T dout, before dact needs it. */
static void NAME(low_dout)(const struct mk_backward *a, struct NAME(low_sums) *s, int32_t e, int32_t t)
{
    const struct mk_problem *p = a->problem;

    for (int32_t r = 0; p->lora && r < p->lora->down_rank; r++) {
        REAL sum = 0;
        for (int32_t h = 0; h < p->hidden; h++)
            sum += (REAL)mk_ref_get(a->dout, p->dtype, t * a->dout_stride + h) * NAME(low)(p, &p->lora->down_b, e, h, r);
        s->dlow_down[r] = sum * (REAL)p->lora->down_scale;
    }
}

/* What the adapter adds to the gradient of act[i]. */
static REAL NAME(low_dact)(const struct mk_problem *p, const struct NAME(low_sums) *s, int32_t e, int32_t i)
{
    REAL sum = 0;

    for (int32_t r = 0; p->lora && r < p->lora->down_rank; r++)
        sum += s->dlow_down[r] * NAME(low)(p, &p->lora->down_a, e, r, i);
    return sum;
}

/* dlow_up = scale * B^T dpre, and the gradients of B on gate and up. */
static void NAME(low_dpre)(const struct mk_backward *a, const struct mk_plan *plan, struct NAME(low_sums) *s, int32_t e,
                           int32_t row, const REAL *dg, const REAL *du)
{
    const struct mk_problem *p = a->problem;
    const struct mk_lora *l = p->lora;
    const char *low = (const char *)a->saved + plan->saved.low_up;

    memset(s->dlow_up, 0, sizeof s->dlow_up);
    for (int half = plan->has_gate ? 0 : 1; half < 2; half++)
        for (int32_t r = 0; r < l->up_rank; r++)
            for (int32_t i = 0; i < p->inter; i++) {
                int32_t at = NAME(low_first)(l, half) + r;
                REAL d = (half ? du : dg)[i] * (REAL)l->up_scale;
                s->dlow_up[at] += d * NAME(low)(p, half ? &l->up_b : &l->gate_b, e, i, r);
                s->b[half][(int64_t)i * l->up_rank + r] +=
                    d * (REAL)mk_ref_get(low, p->dtype, (int64_t)row * plan->low_up + at);
            }
}

/* Gradients of one row, after its dact. */
static void NAME(low_row)(const struct mk_backward *a, const struct mk_plan *plan, struct NAME(low_sums) *s, int32_t e,
                          int32_t row, int32_t t, REAL score, const REAL *act, const REAL *dg, const REAL *du)
{
    const struct mk_problem *p = a->problem;
    const struct mk_lora *l = p->lora;
    const char *low = (const char *)a->saved + plan->saved.low_down;

    if (!l)
        return;
    for (int32_t r = 0; r < l->down_rank; r++) {
        REAL v = score * (REAL)l->down_scale * (REAL)mk_ref_get(low, p->dtype, (int64_t)row * plan->low_down + r);
        for (int32_t h = 0; h < p->hidden; h++)
            s->down_b[(int64_t)h * l->down_rank + r] += v * (REAL)mk_ref_get(a->dout, p->dtype, t * a->dout_stride + h);
        for (int32_t i = 0; i < p->inter; i++)
            s->down_a[(int64_t)r * p->inter + i] += score * s->dlow_down[r] * act[i];
    }
    NAME(low_dpre)(a, plan, s, e, row, dg, du);
    for (int32_t r = 0; r < NAME(low_count)(l); r++)
        for (int32_t h = 0; h < p->hidden; h++)
            s->up_a[(int64_t)r * p->hidden + h] += s->dlow_up[r] * (REAL)mk_ref_get(p->x, p->dtype, t * p->x_stride + h);
}

/* What the adapter adds to the gradient of x[h]. */
static REAL NAME(low_dx)(const struct mk_problem *p, const struct NAME(low_sums) *s, int32_t e, int32_t h)
{
    REAL sum = 0;

    for (int32_t r = 0; p->lora && r < NAME(low_count)(p->lora); r++)
        sum += s->dlow_up[r] * NAME(low_up_a)(p, e, r, h);
    return sum;
}
