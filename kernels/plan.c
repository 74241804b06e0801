/* plan.c: see plan.h. Pure; runs on a machine without a GPU. */
#include "kernels/plan.h"

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
    return p->act < MK_ACT_COUNT ? MK_OK : MK_EACT;
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
    out->tile = put(&at, (size_t)plan->max_tile, sizeof(struct mk_tile));
    out->n_tile = put(&at, 1, 4);
    out->bytes = at;
}

static void plan_workspace(struct mk_plan *plan, const struct mk_problem *p)
{
    size_t n_row = (size_t)plan->n_row, elt = mk_dtype_bytes(p->dtype), at = 0;
    size_t h = (size_t)p->hidden, i = (size_t)p->inter;

    plan->forward.count = put(&at, (size_t)plan->n_chunk * (size_t)p->n_expert, 4);
    plan->forward.act = put(&at, n_row * i, elt);
    plan->forward.expert_out = put(&at, n_row * h, elt);
    plan->forward.bytes = at;
    at = 0;
    plan->backward.scaled_act = put(&at, n_row * i, elt);
    plan->backward.dpre = put(&at, n_row * i * (size_t)plan->n_half, elt);
    plan->backward.dx_row = put(&at, n_row * h, elt);
    plan->backward.dscore_part = put(&at, n_row * (size_t)plan->n_dscore_part, 4);
    plan->backward.bytes = at;
}

int mk_plan(struct mk_plan *out, const struct mk_problem *p)
{
    int rc = check(p);

    if (rc)
        return rc;
    out->n_row = (int64_t)p->n_token * p->top_k;
    out->n_chunk = (int32_t)((out->n_row + MK_ROUTE_CHUNK - 1) / MK_ROUTE_CHUNK);
    /* each expert rounds up once; no more tiles than rows */
    out->max_tile = (int32_t)(out->n_row / MK_TILE_M + (p->n_expert < out->n_row ? p->n_expert : out->n_row));
    out->n_dscore_part = (p->inter + MK_DSCORE_TILE - 1) / MK_DSCORE_TILE;
    out->has_gate = p->act != MK_ACT_RELU2;
    out->n_half = out->has_gate ? 2 : 1;
    plan_saved(&out->saved, out, p, (size_t)out->n_row * (size_t)p->inter * (size_t)out->n_half);
    plan_saved(&out->saved_inference, out, p, 0);
    plan_workspace(out, p);
    return MK_OK;
}

int mk_check_pointers(const struct mk_problem *p)
{
    bool gate = p->act != MK_ACT_RELU2;

    if (!p->up.base || !p->down.base || (gate && !p->gate.base))
        return MK_EBUFFER;
    if (p->n_token && (!p->x || !p->index || !p->score))
        return MK_EBUFFER;
    return MK_OK;
}
