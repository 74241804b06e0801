/* ref_route.c: stable counting sort of choices by expert, and the tile list, on the CPU. */
#include <string.h>

#include "kernels/ref_moe.h"
#include "kernels/ref_route.h"

struct mk_ref_route mk_ref_route_at(void *saved, const struct mk_saved_layout *at)
{
    char *s = saved;

    return (struct mk_ref_route){
        .offset = (int32_t *)(s + at->offset),
        .row_token = (int32_t *)(s + at->row_token),
        .row_choice = (int32_t *)(s + at->row_choice),
        .choice_row = (int32_t *)(s + at->choice_row),
        .n_tile = (int32_t *)(s + at->n_tile),
        .row_score = (float *)(s + at->row_score),
        .tile = (struct mk_tile *)(s + at->tile),
        .fit_tile = (struct mk_tile *)(s + at->fit_tile),
    };
}

/* The expert of choice k of token t, or -1 where it is dropped. */
static int32_t expert_of(const struct mk_problem *p, int32_t t, int32_t k)
{
    int64_t at = t * p->index_stride + k;
    int64_t e = p->index_dtype == MK_INT64 ? ((const int64_t *)p->index)[at] : ((const int32_t *)p->index)[at];

    return e >= 0 && e < p->n_expert ? (int32_t)e : -1;
}

static void list_tiles(struct mk_ref_route *r, const struct mk_problem *p)
{
    int32_t n = 0, n_fit = 0;

    for (int32_t e = 0; e < p->n_expert; e++) {
        int32_t first = r->offset[e], end = r->offset[e + 1];
        for (int32_t row = first; row < end; row += MK_TILE_M)
            r->tile[n++] = (struct mk_tile){ e, row, end, (row - first) / MK_TILE_M };
        for (int32_t row = first; row < end; row += MK_FIT_M)
            r->fit_tile[n_fit++] = (struct mk_tile){ e, first, end, (row - first) / MK_FIT_M };
    }
    r->n_tile[0] = n;
    r->n_tile[1] = n_fit;
}

void mk_ref_route(struct mk_ref_route *r, const struct mk_problem *p)
{
    int32_t row = 0;

    for (int32_t e = 0; e < p->n_expert; e++) { /* E passes over the choices: obvious rather than quick */
        r->offset[e] = row;
        for (int32_t t = 0; t < p->n_token; t++)
            for (int32_t k = 0; k < p->top_k; k++)
                if (expert_of(p, t, k) == e) {
                    r->row_token[row] = t;
                    r->row_choice[row] = t * p->top_k + k;
                    r->choice_row[t * p->top_k + k] = row;
                    r->row_score[row++] = (float)mk_ref_get(p->score, p->score_dtype, t * p->score_stride + k);
                }
    }
    r->offset[p->n_expert] = row;
    for (int32_t t = 0; t < p->n_token; t++)
        for (int32_t k = 0; k < p->top_k; k++)
            if (expert_of(p, t, k) < 0)
                r->choice_row[t * p->top_k + k] = -1;
    list_tiles(r, p);
}
