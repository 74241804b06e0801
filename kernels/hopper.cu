/* hopper.cu: forward and backward on sm_90a: what fits, and the order of launches. No kernels here. */
#include "kernels/cuda_call.h"
#include "kernels/hopper_host.h"

/* ---- what fits ---- */

/* Contiguous along columns or rows, and within reach of TMA, whose coordinates are 32-bit. */
static int fits_matrix(const mk_matrix *m)
{
    if (m->stride_col != 1 && m->stride_row != 1)
        return MK_ELAYOUT;
    int64_t stride = m->stride_col == 1 ? m->stride_row : m->stride_col;
    if (!mk_aligned(m->base) || stride % 8 || (!m->expert_offset && m->stride_expert % 8))
        return MK_EALIGN;
    return m->span / 8 < INT32_MAX ? MK_OK : MK_ELAYOUT;
}

/* Do both lie alike, up so many bytes after gate? */
static bool begins_after(const mk_matrix *gate, const mk_matrix *up, int64_t n_byte)
{
    return gate->stride_row == up->stride_row && gate->stride_col == up->stride_col && gate->stride_expert == up->stride_expert &&
           !gate->expert_offset && !up->expert_offset && (char *)up->base == (char *)gate->base + n_byte;
}

/* Do the rows of two matrices, transposed in memory, alternate? */
static bool alternate(const mk_matrix *gate, const mk_matrix *up, uint32_t dtype)
{
    return gate->stride_row == 2 && begins_after(gate, up, mk_dtype_bytes(dtype));
}

/* Both as one matrix of twice the rows. */
static mk_matrix both_of(mk_matrix gate)
{
    gate.stride_row = 1;
    return gate;
}

/* Do up's rows follow gate's, so that they are one matrix of twice the rows already? */
static bool follow(const mk_matrix *gate, const mk_matrix *up, int n_row, uint32_t dtype)
{
    return begins_after(gate, up, n_row * gate->stride_row * (int64_t)mk_dtype_bytes(dtype));
}

/* How a matrix lies that fits. */
static hop_weights lies(const mk_matrix *m)
{
    return m->stride_col == 1 ? HOP_ROWS : HOP_COLUMNS;
}

static hop_weights gate_and_up_lie(const mk_problem *p)
{
    return alternate(&p->gate, &p->up, p->dtype) ? HOP_ALTERNATING : lies(&p->gate);
}

/* Gate and up lie alike; where they alternate, down is transposed as well. */
static int fits_weights(const mk_problem *p)
{
    mk_matrix both = both_of(p->gate);
    bool by_turns = alternate(&p->gate, &p->up, p->dtype);
    int rc;

    if ((rc = fits_matrix(&p->down)) || (rc = fits_matrix(by_turns ? &both : &p->gate)) ||
        (rc = by_turns ? MK_OK : fits_matrix(&p->up)))
        return rc;
    if (!by_turns && lies(&p->gate) != lies(&p->up))
        return MK_ELAYOUT;
    if (by_turns && lies(&p->down) == HOP_ROWS)
        return MK_ELAYOUT;
    bool plain = lies(&p->gate) == HOP_ROWS && lies(&p->down) == HOP_ROWS;
    return p->lora && !plain ? MK_ELAYOUT : MK_OK; // adapters are packed for plain weights
}

/* From row to row are 32 bits of bytes at most. */
static bool fits_gather(int64_t stride)
{
    return stride >= 0 && stride <= UINT32_MAX / 2;
}

static int fits_problem(const mk_problem *p)
{
    int rc;

    if (p->dtype != MK_BF16 || p->score_dtype == MK_FP64)
        return MK_EDTYPE;
    if (p->act == MK_ACT_RELU2)
        return MK_EACT;
    if ((rc = fits_weights(p)))
        return rc;
    if (!fits_gather(p->x_stride))
        return MK_ESHAPE;
    return mk_aligned(p->x) && p->x_stride % 8 == 0 ? MK_OK : MK_EALIGN;
}

int mk_hopper_fits_forward(const mk_forward *a)
{
    int rc = fits_problem(a->problem);

    if (rc)
        return rc;
    return mk_aligned(a->out) && a->out_stride % 8 == 0 ? MK_OK : MK_EALIGN;
}

static int fits_gradient(const mk_matrix *m, const mk_backward *a)
{
    if (!m->base || a->dweight_dtype != MK_BF16 || a->accumulate)
        return MK_OK; /* stored element by element */
    return fits_matrix(m);
}

/* Gradients of gate and up: where the weights alternate, they must too. */
static int fits_up_gradients(const mk_backward *a)
{
    mk_matrix both = both_of(a->dgate);
    int rc;

    if (!a->dgate.base != !a->dup.base)
        return MK_EBUFFER; /* gate and up are frozen together */
    if (!a->dup.base)
        return MK_OK;
    if (gate_and_up_lie(a->problem) != HOP_ALTERNATING)
        return (rc = fits_gradient(&a->dgate, a)) ? rc : fits_gradient(&a->dup, a);
    return alternate(&a->dgate, &a->dup, a->dweight_dtype) ? fits_gradient(&both, a) : MK_ELAYOUT;
}

int mk_hopper_fits_backward(const mk_backward *a)
{
    int rc = fits_problem(a->problem);

    if (rc || (rc = fits_up_gradients(a)) || (rc = fits_gradient(&a->ddown, a)))
        return rc;
    if (!fits_gather(a->dout_stride))
        return MK_ESHAPE;
    bool ok = mk_aligned(a->dout) && a->dout_stride % 8 == 0 && mk_aligned(a->dx) && a->dx_stride % 8 == 0;
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

/* B of a product from a weight of n_row x n_col; k_rows: K runs over its rows. */
static int map_weight(hop_args *a, int which, const mk_matrix *m, int n_row, int n_col, bool k_rows)
{
    bool rows = lies(m) == HOP_ROWS;
    int n_box = k_rows == rows ? TILE_K : 128; // z is K, or a block's half of N

    set_weight(a, which, m);
    return rows ? hop_map_weight(&a->b[which], m, a->n_expert, n_col, m->stride_row, n_row, n_box)
                : hop_map_weight(&a->b[which], m, a->n_expert, n_row, m->stride_col, n_col, n_box);
}

/* Gate and up, as one where they alternate. */
static int map_gate_and_up(hop_args *a, const mk_problem *p, bool k_rows)
{
    if (gate_and_up_lie(p) == HOP_ALTERNATING) {
        mk_matrix both = both_of(p->gate);
        return map_weight(a, 0, &both, 2 * p->inter, p->hidden, k_rows);
    }
    int rc = map_weight(a, 0, &p->gate, p->inter, p->hidden, k_rows);
    return rc ? rc : map_weight(a, 1, &p->up, p->inter, p->hidden, k_rows);
}

/* Gradients of pre-activations, and what belongs to them, as one matrix of 2I columns. */
static void merge_halves(hop_args *a)
{
    a->inter *= 2;
    a->n_half = 1;
}

/* An adapter's run of K: its rows (R, low), and one packed matrix an expert: n_other rows of n_contiguous elements. */
static int set_low(hop_args *a, int which, const void *packed, int64_t stride_expert, int n_contiguous, int n_other,
                   int n_box)
{
    mk_matrix m = { (void *)packed, NULL, 0, stride_expert, n_contiguous, 1 };

    set_weight(a, which, &m);
    return hop_map_weight(&a->b[which], &m, a->n_expert, n_contiguous, n_contiguous, n_other, n_box);
}

static int set_low_rows(hop_args *a, const void *rows, int low, int64_t n_row)
{
    int rc = hop_map_rows(&a->low_a, rows, low, 1, n_row, 64);

    a->low = low;
    return rc ? rc : hop_map_rows(&a->low_few, rows, low, 1, n_row, 16);
}

/* Rows in and out of a product whose tiles fit them. */
static int map_fit(hop_args *a, const void *rows, int n_half, int64_t n_row)
{
    int rc = hop_map_rows(&a->out_rows[0], a->out, a->hidden, 1, n_row, 1);

    for (int i = 0; i < N_FIT_LOAD && !rc; i++)
        rc = hop_map_rows(&a->rows[i], rows, a->inter, n_half, n_row, 16 * (i + 1));
    for (int i = 1; i <= N_FIT_STORE && !rc; i++)
        rc = hop_map_rows(&a->out_rows[i], a->out, a->hidden, 1, n_row, 16 * i);
    return rc;
}

static bool is_called(uint32_t steps, uint32_t step)
{
    return !steps || steps & step;
}

/* Of a call's n counts of tiles drawn, the one for this product; all zeroed where an earlier step has not. */
static int set_count(hop_args *a, void *counts, int n, int which, bool zeroed, mk_stream stream)
{
    a->next_tile = (int32_t *)counts + which;
    if (zeroed || cudaMemsetAsync(counts, 0, n * sizeof *a->next_tile, stream) == cudaSuccess)
        return MK_OK;
    cudaGetLastError(); // leave no error behind for the application to find
    return MK_ECUDA;
}

static int set_forward_count(hop_args *a, const mk_forward *f, const struct mk_plan *plan, int which, mk_stream stream)
{
    void *counts = (char *)f->workspace + plan->forward.next_tile;
    return set_count(a, counts, MK_FORWARD_COUNT, which, is_called(f->steps, MK_STEP_ROUTE), stream);
}

/* The first, DACT, zeroes them where there are tokens. */
static int set_backward_count(hop_args *a, const mk_backward *b, const struct mk_plan *plan, int which, mk_stream stream)
{
    bool zeroed = which && plan->n_row && is_called(b->steps, MK_STEP_DACT);
    return set_count(a, mk_work(b, plan->backward.next_tile), MK_BACKWARD_COUNT, which, zeroed, stream);
}

/* ---- forward ---- */

static int up_adapter(hop_args *a, const mk_forward *f, const struct mk_plan *plan, const mk_saved_layout *at)
{
    int low = plan->low_up, inter = f->problem->inter, rc;
    int64_t half = (int64_t)inter * low;
    const bf16 *b = (const bf16 *)((char *)f->workspace + plan->forward.lora.up_b);

    if (!low)
        return MK_OK;
    if ((rc = set_low(a, 2, b, 2 * half, low, inter, 128)) || (rc = set_low(a, 3, b + half, 2 * half, low, inter, 128)))
        return rc;
    return set_low_rows(a, (char *)f->saved + at->low_up, low, plan->n_row);
}

static int down_adapter(hop_args *a, const mk_forward *f, const struct mk_plan *plan, const mk_saved_layout *at)
{
    int low = plan->low_down, hidden = f->problem->hidden, rc;

    if (!low)
        return MK_OK;
    rc = set_low(a, 2, (char *)f->workspace + plan->forward.lora.down_b, (int64_t)hidden * low, low, hidden, 128);
    return rc ? rc : set_low_rows(a, (char *)f->saved + at->low_down, low, plan->n_row);
}

static int run_up(const mk_forward *f, const struct mk_plan *plan, const mk_saved_layout *at, mk_stream stream)
{
    const mk_problem *p = f->problem;
    hop_args a = common_args(p, f->saved, at);
    int rc;

    if ((rc = map_gate_and_up(&a, p, false)) || (rc = up_adapter(&a, f, plan, at)))
        return rc;
    if ((rc = set_forward_count(&a, f, plan, 0, stream)))
        return rc;
    a.gather = (const bf16 *)p->x;
    a.gather_stride_bytes = (uint32_t)(p->x_stride * 2);
    a.bias[0] = p->gate_bias;
    a.bias[1] = p->up_bias;
    a.pre = f->flags & MK_FLAG_INFERENCE ? NULL : (bf16 *)((char *)f->saved + at->pre);
    a.out = (bf16 *)((char *)f->workspace + plan->forward.act);
    return hop_launch_up(&a, gate_and_up_lie(p), plan->max_tile, stream);
}

static int run_down(const mk_forward *f, const struct mk_plan *plan, const mk_saved_layout *at, mk_stream stream)
{
    const mk_problem *p = f->problem;
    hop_args a = common_args(p, f->saved, at);
    int rc;

    a.out = (bf16 *)((char *)f->workspace + plan->forward.expert_out);
    if ((rc = map_weight(&a, 0, &p->down, p->hidden, p->inter, false)) ||
        (rc = map_fit(&a, (char *)f->workspace + plan->forward.act, 1, plan->n_row)))
        return rc;
    if ((rc = down_adapter(&a, f, plan, at)))
        return rc;
    if ((rc = set_forward_count(&a, f, plan, 1, stream)))
        return rc;
    a.bias[0] = p->down_bias;
    return hop_launch_down(&a, lies(&p->down), plan->max_tile, stream);
}

/* ---- backward ---- */

/* K runs over the rank: rows of the packed A, n_column elements each. */
static int back_adapter(hop_args *a, const mk_backward *b, const struct mk_plan *plan, int low, int n_column, size_t packed,
                        size_t rows)
{
    int rc;

    if (!low)
        return MK_OK;
    rc = set_low(a, 2, mk_work(b, packed), (int64_t)low * n_column, n_column, low, TILE_K);
    return rc ? rc : set_low_rows(a, mk_work(b, rows), low, plan->n_row);
}

static int run_dact(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    const mk_problem *p = b->problem;
    hop_args a = common_args(p, b->saved, &plan->saved);
    hop_weights weights = gate_and_up_lie(p) == HOP_ALTERNATING ? HOP_ALTERNATING : lies(&p->down);
    int rc = map_weight(&a, 0, &p->down, p->hidden, p->inter, true);

    if (rc ||
        (rc = back_adapter(&a, b, plan, plan->low_down, p->inter, plan->backward.lora.down_a, plan->backward.dlow_down)))
        return rc;
    a.gather = (const bf16 *)b->dout;
    a.gather_stride_bytes = (uint32_t)(b->dout_stride * 2);
    a.pre = (bf16 *)((char *)b->saved + plan->saved.pre); // read only
    a.out = (bf16 *)mk_work(b, plan->backward.dpre);
    a.scaled_act = (bf16 *)mk_work(b, plan->backward.scaled_act);
    a.dscore_part = (float *)mk_work(b, plan->backward.dscore_part);
    a.n_dscore_part = plan->n_dscore_part;
    a.park = (uint4 *)mk_work(b, plan->backward.park);
    if ((rc = set_backward_count(&a, b, plan, 0, stream)))
        return rc;
    return hop_launch_dact(&a, weights, plan->max_tile, stream);
}

static int run_dx(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    const mk_problem *p = b->problem;
    hop_args a = common_args(p, b->saved, &plan->saved);
    int rc;

    a.out = (bf16 *)mk_work(b, plan->backward.dx_row);
    if (gate_and_up_lie(p) == HOP_ALTERNATING)
        merge_halves(&a);
    if ((rc = map_gate_and_up(&a, p, true)) ||
        (rc = map_fit(&a, mk_work(b, plan->backward.dpre), a.n_half, plan->n_row)))
        return rc;
    if ((rc = back_adapter(&a, b, plan, plan->low_up, p->hidden, plan->backward.lora.up_a, plan->backward.dlow_up)))
        return rc;
    if ((rc = set_backward_count(&a, b, plan, 1, stream)))
        return rc;
    return hop_launch_dx(&a, gate_and_up_lie(p), plan->max_tile, stream);
}

/* Maps to store the gradients by: rows of 64 along whichever dimension is contiguous, for one warp. */
static int out_maps(hop_args *a)
{
    for (int i = 0; i < a->n_half && !hop_dw_by_element(a); i++) {
        const mk_matrix *m = &a->dw[i];
        bool transposed = m->stride_col != 1;
        int rc = transposed ? hop_map_weight(&a->out_map[i], m, a->n_expert, a->hidden, m->stride_col, a->inter, 32)
                            : hop_map_weight(&a->out_map[i], m, a->n_expert, a->inter, m->stride_row, a->hidden, 16);
        if (rc)
            return rc;
    }
    return MK_OK;
}

/* Pairs that sum, so that they end by some 0.6 of the time of the products: a step takes a block some 0.6 us, a trip to memory by
 * as many as there are stages, the products 2 T K H n_column operations at some 500 TFLOP/s. */
static int sum_pairs(const mk_problem *p, int64_t n_step, int64_t n_column)
{
    int most = mk_device_now().n_sm / 4;
    double n = 2e8 * (double)n_step / ((double)p->n_token * p->top_k * p->hidden * (double)n_column);

    return n < 1 || !most ? 1 : n < most ? (int)n : most;
}

/* Sums beside the products, if any: a token's pieces are as wide as can be, and about as wide as each other. */
static void set_sums(hop_args *a, const mk_problem *p, const struct mk_beside *beside)
{
    hop_sum *m = &a->sum;

    a->early = beside->early;
    a->led_on = beside->led_on;
    if (!beside->rows)
        return;
    m->rows = *beside->rows;
    if (beside->score)
        m->score = *beside->score;
    m->checked = beside->checked;
    m->n_piece = hop_ceil(m->rows.hidden, SUM_COLUMNS);
    m->piece = hop_ceil(m->rows.hidden / 8, m->n_piece) * 8;
    m->n_step_row = STAGE_BYTES / (2 * m->piece) < 32 ? STAGE_BYTES / (2 * m->piece) : 32;
    m->n_unit_step = hop_ceil(m->rows.top_k, m->n_step_row);
    m->n_unit = m->rows.n_token * m->n_piece;
    m->n_pair = sum_pairs(p, (int64_t)m->n_unit * m->n_unit_step, (int64_t)a->inter * a->n_half);
    m->n_round = hop_ceil(m->n_unit + hop_ceil(m->score.n_choice, SUM_CHOICE), 2 * m->n_pair);
}

static int run_dw(const mk_backward *b, const struct mk_plan *plan, bool up, const struct mk_beside *beside, mk_stream stream)
{
    const mk_problem *p = b->problem;
    hop_args a = common_args(p, b->saved, &plan->saved);
    bool by_turns = up && gate_and_up_lie(p) == HOP_ALTERNATING;
    const void *rows = plan->n_row ? mk_work(b, up ? plan->backward.dpre : plan->backward.scaled_act) : p->up.base;
    int rc;

    a.n_half = up ? 2 : 1;
    if (by_turns || (up && follow(&b->dgate, &b->dup, p->inter, b->dweight_dtype)))
        merge_halves(&a); // halves that end within a tile each would waste the rest of it
    rc = hop_map_k_rows(&a.b[0], rows, a.inter, a.n_half, plan->n_row); // no tokens: nothing is loaded
    if (rc)
        return rc;
    a.gather = (const bf16 *)(up ? p->x : b->dout);
    a.gather_stride_bytes = (uint32_t)((up ? p->x_stride : b->dout_stride) * 2);
    a.k_rows = (const bf16 *)rows;
    a.dw[0] = by_turns ? mk_flipped(both_of(b->dgate)) : up ? mk_flipped(b->dgate) : b->ddown;
    a.dw[1] = up ? mk_flipped(b->dup) : b->ddown;
    a.dw_dtype = b->dweight_dtype;
    a.accumulate = b->accumulate;
    if ((rc = out_maps(&a)) || (rc = set_backward_count(&a, b, plan, 2 + up, stream)))
        return rc;
    set_sums(&a, p, beside);
    return hop_launch_dw(&a, stream);
}

static bool dpre_alternates(const mk_problem *p)
{
    return gate_and_up_lie(p) == HOP_ALTERNATING;
}

static const mk_path hopper_path = { run_up, run_down, run_dact, run_dx, run_dw, dpre_alternates, true };

int mk_hopper_forward(const mk_forward *f, const struct mk_plan *plan, mk_stream stream)
{
    return mk_call_forward(&hopper_path, f, plan, stream);
}

int mk_hopper_backward(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    return mk_call_backward(&hopper_path, b, plan, stream);
}
