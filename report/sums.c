/* A kernel's step closes later than the kernel comes in, and only then is its block known: kernels wait
 * in one table a step. The stream holds two or three open steps at a time; PENDING is room for more,
 * and what overflows it goes to the partial block rather than nowhere. */
#include "report/sums.h"

#include <stdlib.h>

#include "profiler/core/mfu.h"

#define PENDING 8

struct expert_row {
    int16_t layer;
    uint16_t n;
    uint64_t *tokens; /* (n) */
};

struct block {
    struct rp_block head;
    struct mp_total *cell;
    struct rp_kernel_sum kernel;
    struct expert_row *expert; /* (n_expert), one row a layer */
    size_t n_expert;
    bool is_dirty; /* changed since it was last written */
};

struct rp_sums {
    struct block block[RP_BLOCK_COUNT];
    struct {
        bool used;
        uint32_t step;
        struct rp_kernel_sum kernel;
    } pending[PENDING];
    uint32_t n_whole;
};

int rp_block_of(const struct mp_step *step, uint32_t *n_whole)
{
    if (step->flags & MP_STEP_UNTRACED)
        return RP_BLOCK_UNTRACED;
    if (mp_mfu_counts(step) && step->window_ns > 0)
        return (*n_whole)++ < MP_MFU_WARMUP ? RP_BLOCK_WARMUP : RP_BLOCK_STEADY;
    if (step->window_ns == 0 || step->flags & (MP_STEP_PARTIAL | MP_STEP_ASIDE))
        return RP_BLOCK_PARTIAL;
    return RP_BLOCK_LOSSY;
}

struct rp_sums *rp_sums_new(void)
{
    struct rp_sums *s = calloc(1, sizeof *s);

    for (int b = 0; s && b < RP_BLOCK_COUNT; b++)
        if (!(s->block[b].cell = mp_total_new())) {
            rp_sums_free(s);
            s = NULL;
        }
    return s;
}

void rp_sums_free(struct rp_sums *s)
{
    if (!s)
        return;
    for (int b = 0; b < RP_BLOCK_COUNT; b++) {
        if (s->block[b].cell)
            mp_total_free(s->block[b].cell);
        rp_kernel_sum_release(&s->block[b].kernel);
        for (size_t i = 0; i < s->block[b].n_expert; i++)
            free(s->block[b].expert[i].tokens);
        free(s->block[b].expert);
    }
    for (int i = 0; i < PENDING; i++)
        rp_kernel_sum_release(&s->pending[i].kernel);
    free(s);
}

/* ---- kernels ------------------------------------------------------------------------------------ */

static int oldest(const struct rp_sums *s)
{
    int at = 0;

    for (int i = 1; i < PENDING; i++)
        if (s->pending[i].step < s->pending[at].step)
            at = i;
    return at;
}

/* The table of a step: its own, a free one, or the oldest emptied into the partial block. */
static struct rp_kernel_sum *pending_of(struct rp_sums *s, uint32_t step)
{
    int at = -1;

    for (int i = 0; i < PENDING; i++) {
        if (s->pending[i].used && s->pending[i].step == step)
            return &s->pending[i].kernel;
        if (!s->pending[i].used)
            at = i;
    }
    if (at < 0) {
        at = oldest(s);
        rp_kernel_sum_merge(&s->block[RP_BLOCK_PARTIAL].kernel, &s->pending[at].kernel);
        rp_kernel_sum_clear(&s->pending[at].kernel);
    }
    s->pending[at].used = true;
    s->pending[at].step = step;
    return &s->pending[at].kernel;
}

int rp_sums_record(struct rp_sums *s, const union mp_record *record)
{
    const struct mp_event *e = &record->event;
    const struct rp_kernel k = {.name = e->name,
                                .layer = e->layer,
                                .phase = e->phase,
                                .pass = e->pass,
                                .n = 1,
                                .total_ns = e->dur_ns,
                                .min_ns = e->dur_ns,
                                .max_ns = e->dur_ns};

    if (record->head.kind != MP_KERNEL || e->flags & MP_FLAG_OWN)
        return MP_OK;
    return rp_kernel_sum_add(pending_of(s, e->step), &k);
}

static int kernels_settle(struct rp_sums *s, uint32_t step, struct block *b)
{
    int rc = MP_OK;

    for (int i = 0; i < PENDING; i++)
        if (s->pending[i].used && s->pending[i].step == step) {
            rc = rp_kernel_sum_merge(&b->kernel, &s->pending[i].kernel);
            rp_kernel_sum_clear(&s->pending[i].kernel);
            s->pending[i].used = false;
        }
    return rc;
}

/* ---- tokens per expert -------------------------------------------------------------------------- */

static struct expert_row *expert_row(struct block *b, int16_t layer)
{
    struct expert_row *grown;

    for (size_t i = 0; i < b->n_expert; i++)
        if (b->expert[i].layer == layer)
            return &b->expert[i];
    grown = realloc(b->expert, (b->n_expert + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    b->expert = grown;
    b->expert[b->n_expert] = (struct expert_row){.layer = layer};
    return &b->expert[b->n_expert++];
}

static int route_add(struct block *b, const struct mp_route *r)
{
    struct expert_row *row = expert_row(b, r->layer);
    uint64_t *grown;

    if (!row)
        return MP_ENOMEM;
    if (row->n < r->n_expert) {
        grown = realloc(row->tokens, r->n_expert * sizeof *grown);
        if (!grown)
            return MP_ENOMEM;
        for (unsigned i = row->n; i < r->n_expert; i++)
            grown[i] = 0;
        row->tokens = grown;
        row->n = r->n_expert;
    }
    for (unsigned i = 0; i < r->n_expert; i++)
        row->tokens[i] += r->count[i];
    return MP_OK;
}

/* ---- steps -------------------------------------------------------------------------------------- */

int rp_sums_step(struct rp_sums *s, const struct mp_step *step)
{
    struct block *b = &s->block[rp_block_of(step, &s->n_whole)];
    int rc = kernels_settle(s, step->step, b);

    if (b->head.n_step++ == 0)
        b->head.first_step = step->step;
    b->head.last_step = step->step;
    b->head.window_ns += step->window_ns;
    b->head.idle_ns += step->idle_ns;
    b->is_dirty = true;
    for (uint32_t i = 0; rc == MP_OK && i < step->n_route; i++)
        rc = route_add(b, &step->route[i]);
    return rc ? rc : mp_total_add(b->cell, step);
}

static int block_write(struct block *b, int id, struct rp_profile *p, struct mp_err *err)
{
    size_t n;
    const struct mp_cell *cell = mp_total_cells(b->cell, &n);
    int rc = rp_put_block(p, id, &b->head, err);

    if (rc == MP_OK)
        rc = rp_put_cells(p, id, cell, n, err);
    for (size_t i = 0; rc == MP_OK && i < b->kernel.cap; i++)
        if (b->kernel.slot[i].n)
            rc = rp_put_kernel(p, id, &b->kernel.slot[i], err);
    for (size_t i = 0; rc == MP_OK && i < b->n_expert; i++)
        rc = rp_put_expert_tokens(p, id, b->expert[i].layer, b->expert[i].tokens, b->expert[i].n,
                                  err);
    return rc;
}

int rp_sums_write(struct rp_sums *s, struct rp_profile *p, struct mp_err *err)
{
    int rc = MP_OK;

    for (int b = 0; rc == MP_OK && b < RP_BLOCK_COUNT; b++)
        if (s->block[b].is_dirty) {
            rc = block_write(&s->block[b], b, p, err);
            s->block[b].is_dirty = rc != MP_OK;
        }
    return rc;
}
