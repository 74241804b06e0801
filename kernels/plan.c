/* plan.c: see plan.h. Pure; runs on a machine without a GPU. */
#include "kernels/plan.h"

#include <math.h>

#define ALIGN_BYTES 256 /* of every part, as cudaMalloc gives; TMA needs 16 */

size_t mk_dtype_bytes(uint32_t dtype)
{
    static const size_t bytes[] = {
        [MK_BF16] = 2, [MK_FP16] = 2, [MK_FP32] = 4, [MK_FP64] = 8, [MK_INT32] = 4, [MK_INT64] = 8,
    };
    return dtype < sizeof bytes / sizeof *bytes ? bytes[dtype] : 0;
}

static size_t put(size_t *at, size_t n, size_t bytes)
{
    size_t here = *at;
    *at = here + (n * bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    return here;
}

static bool is_float(uint32_t dtype)
{
    return dtype <= MK_FP64;
}

static bool rank_ok(int32_t rank, float scale)
{
    return rank >= 0 && rank <= MK_MAX_RANK && isfinite(scale);
}

static int check_lora(const struct mk_lora *l, const struct mk_problem *p)
{
    if (!l)
        return MK_OK;
    if (l->size != sizeof *l)
        return MK_EVERSION;
    if (!rank_ok(l->up_rank, l->up_scale) || !rank_ok(l->down_rank, l->down_scale))
        return MK_ESHAPE;
    if (l->apart && p->act == MK_ACT_RELU2)
        return MK_EACT; /* no gate that could have an A of its own */
    return l->dtype == p->dtype || l->dtype == MK_FP32 ? MK_OK : MK_EDTYPE;
}

static int check(const struct mk_problem *p)
{
    if (p->size != sizeof *p)
        return MK_EVERSION;
    if (p->target > MK_TARGET_CPU)
        return MK_EDEVICE;
    if (p->n_token < 0 || p->hidden < 8 || p->hidden % 8 || p->inter < 8 || p->inter % 8)
        return MK_ESHAPE;
    if (p->n_expert < 1 || p->n_expert > MK_MAX_EXPERT || p->top_k < 1 || p->top_k > p->n_expert)
        return MK_ESHAPE;
    if ((int64_t)p->n_token * p->top_k > INT32_MAX - 65536) /* row numbers are int32, with room to round up */
        return MK_ESHAPE;
    if (!is_float(p->dtype) || !is_float(p->score_dtype))
        return MK_EDTYPE;
    if (p->index_dtype != MK_INT32 && p->index_dtype != MK_INT64)
        return MK_EDTYPE;
    return p->act < MK_ACT_COUNT ? check_lora(p->lora, p) : MK_EACT;
}

static void plan_saved(struct mk_saved_layout *out, const struct mk_plan *plan, const struct mk_problem *p, size_t n_pre)
{
    size_t at = 0, n_row = (size_t)plan->n_row;

    out->pre = put(&at, n_pre, mk_dtype_bytes(p->dtype));
    out->offset = put(&at, (size_t)p->n_expert + 1, 4);
    out->row_token = put(&at, n_row, 4);
    out->row_choice = put(&at, n_row, 4);
    out->choice_row = put(&at, n_row, 4);
    out->row_score = put(&at, n_row, 4);
    out->low_up = put(&at, n_row * (size_t)plan->low_up, mk_dtype_bytes(p->dtype));
    out->low_down = put(&at, n_row * (size_t)plan->low_down, mk_dtype_bytes(p->dtype));
    out->tile = put(&at, (size_t)plan->max_tile, sizeof(struct mk_tile));
    out->fit_tile = put(&at, (size_t)plan->max_tile, sizeof(struct mk_tile));
    out->n_tile = put(&at, 2, 4);
    out->bytes = at;
}

static void plan_lora(struct mk_lora_layout *out, size_t *at, const struct mk_plan *plan, const struct mk_problem *p)
{
    size_t up = (size_t)p->n_expert * (size_t)plan->low_up, down = (size_t)p->n_expert * (size_t)plan->low_down;
    size_t h = (size_t)p->hidden, i = (size_t)p->inter, elt = mk_dtype_bytes(p->dtype);

    out->up_a = put(at, up * h, elt);
    out->up_b = put(at, up * i * (size_t)plan->n_half, elt);
    out->down_a = put(at, down * i, elt);
    out->down_b = put(at, down * h, elt);
}

/* Blocks of DACT at most: two share a tile of rows and 256 columns. */
static size_t dact_blocks(const struct mk_plan *plan, const struct mk_problem *p)
{
    int64_t n = 2 * (int64_t)plan->max_tile * ((p->inter + 255) / 256);
    return (size_t)(n < MK_MAX_BLOCK ? n : MK_MAX_BLOCK);
}

static void plan_workspace(struct mk_plan *plan, const struct mk_problem *p)
{
    size_t n_row = (size_t)plan->n_row, elt = mk_dtype_bytes(p->dtype), at = 0;
    size_t h = (size_t)p->hidden, i = (size_t)p->inter;

    plan->forward.count = put(&at, (size_t)plan->n_chunk * (size_t)p->n_expert, 4);
    plan->forward.next_tile = put(&at, MK_FORWARD_COUNT, 4);
    plan->forward.act = put(&at, n_row * i, elt);
    plan->forward.expert_out = put(&at, n_row * h, elt);
    plan_lora(&plan->forward.lora, &at, plan, p);
    plan->forward.bytes = at;
    at = 0;
    plan->backward.scaled_act = put(&at, n_row * i, elt);
    plan->backward.dpre = put(&at, n_row * i * (size_t)plan->n_half, elt);
    plan->backward.dscore_part = put(&at, n_row * (size_t)plan->n_dscore_part, 4);
    plan->backward.park = put(&at, dact_blocks(plan, p), MK_PARK_BYTES);
    plan->backward.next_tile = put(&at, MK_BACKWARD_COUNT, 4);
    plan_lora(&plan->backward.lora, &at, plan, p);
    plan->backward.dlow_up = put(&at, n_row * (size_t)plan->low_up, elt);
    plan->backward.dlow_down = put(&at, n_row * (size_t)plan->low_down, elt);
    plan->backward.scaled_low = put(&at, n_row * (size_t)plan->low_down, elt);
    plan->backward.dx_row = put(&at, n_row * h, elt);
    plan->backward.bytes = at;
}

static int32_t low_rows(int32_t rank)
{
    return (rank + 7) / 8 * 8; /* 16-byte copies */
}

static void plan_chunks(struct mk_plan *out)
{
    int64_t per_round = (int64_t)MK_ROUTE_CHUNK * MK_ROUTE_BLOCK, n_round = (out->n_row + per_round - 1) / per_round;

    out->chunk = (int32_t)(MK_ROUTE_CHUNK * (n_round ? n_round : 1));
    out->n_chunk = (int32_t)((out->n_row + out->chunk - 1) / out->chunk);
    if (!out->n_chunk)
        out->n_chunk = 1; /* a block without choices still says so */
}

int mk_plan(struct mk_plan *out, const struct mk_problem *p)
{
    int rc = check(p);

    if (rc)
        return rc;
    out->n_row = (int64_t)p->n_token * p->top_k;
    plan_chunks(out);
    /* each expert rounds up once; no more tiles than rows */
    out->max_tile = (int32_t)(out->n_row / MK_TILE_M + (p->n_expert < out->n_row ? p->n_expert : out->n_row));
    out->n_dscore_part = (p->inter + MK_DSCORE_TILE - 1) / MK_DSCORE_TILE;
    out->has_gate = p->act != MK_ACT_RELU2;
    out->n_half = out->has_gate ? 2 : 1;
    out->low_up = p->lora ? low_rows(p->lora->up_rank * (p->lora->apart ? 2 : 1)) : 0;
    out->low_down = p->lora ? low_rows(p->lora->down_rank) : 0;
    plan_saved(&out->saved, out, p, (size_t)out->n_row * (size_t)p->inter * (size_t)out->n_half);
    plan_saved(&out->saved_inference, out, p, 0);
    plan_workspace(out, p);
    return MK_OK;
}

void mk_plan_apart(struct mk_plan *plan, const struct mk_backward *b)
{
    if (!b->dx_row)
        return;
    plan->backward.bytes = plan->backward.dx_row;
    plan->backward.dx_row = (size_t)((uintptr_t)b->dx_row - (uintptr_t)b->workspace);
}

/* An A where there is a rank; a B may be absent. */
static int lora_pointers(const struct mk_lora *l, bool gate)
{
    if (l->up_rank && (!l->up_a.base || (gate && l->apart && !l->gate_a.base)))
        return MK_EBUFFER;
    return l->down_rank && !l->down_a.base ? MK_EBUFFER : MK_OK;
}

int mk_check_pointers(const struct mk_problem *p)
{
    bool gate = p->act != MK_ACT_RELU2;

    if (!p->up.base || !p->down.base || (gate && !p->gate.base))
        return MK_EBUFFER;
    if (p->n_token && (!p->x || !p->index || !p->score))
        return MK_EBUFFER;
    return p->lora ? lora_pointers(p->lora, gate) : MK_OK;
}

int mk_check_gradients(const struct mk_backward *a)
{
    const struct mk_lora_grad *d = a->dlora;
    uint32_t dtype = a->problem->dtype;

    if (a->dweight_dtype != dtype && a->dweight_dtype != MK_FP32)
        return MK_EDTYPE;
    if (!d)
        return MK_OK;
    if (d->size != sizeof *d)
        return MK_EVERSION;
    if (!a->problem->lora)
        return MK_EBUFFER;
    return d->dtype == dtype || d->dtype == MK_FP32 ? MK_OK : MK_EDTYPE;
}
