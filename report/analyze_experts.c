/* Layers and experts of some blocks.
 *
 * An expert's own time is measured where kernels are launched an expert at a time. Where one kernel
 * serves all experts of a layer its time is shared out by routed tokens and marked apportioned; so is,
 * in both cases, what dispatch and combine cost. Without routing counts there is nothing to share by,
 * and the figure is unknown, not 0.
 */
#include "report/analyze_part.h"

#include <stdlib.h>
#include <string.h>

struct slot { /* what is collected for one expert */
    uint64_t tokens, own_ns;
};

struct layer_sum {
    bool used, has_tokens, has_own;
    uint64_t booked_ns[MP_PHASE_COUNT];
    uint64_t any_ns;     /* all of it; 0: the GPU was not watched */
    uint64_t shared_ns;  /* dispatch and combine */
    uint64_t grouped_ns; /* expert kernels of all experts together */
    struct slot *expert; /* (n_expert) */
    size_t n_expert;
};

struct collect {
    struct layer_sum layer[RP_ACC_LAYERS];
    struct mp_err *err;
};

static struct slot *slot_of(struct layer_sum *l, int expert)
{
    if ((size_t)expert >= l->n_expert) {
        size_t n = (size_t)expert + 1;
        struct slot *grown = realloc(l->expert, n * sizeof *grown);

        if (!grown)
            return NULL;
        memset(grown + l->n_expert, 0, (n - l->n_expert) * sizeof *grown);
        l->expert = grown;
        l->n_expert = n;
    }
    return &l->expert[expert];
}

static int on_cell(void *arg, const struct mp_cell *c)
{
    struct collect *all = arg;
    struct layer_sum *l;
    struct slot *slot;

    if (c->layer < 0 || c->layer >= RP_ACC_LAYERS)
        return MP_OK;
    l = &all->layer[c->layer];
    l->used = true;
    l->booked_ns[c->phase] += c->booked_ns;
    l->any_ns += c->booked_ns;
    if (c->phase == MP_PHASE_DISPATCH || c->phase == MP_PHASE_COMBINE)
        l->shared_ns += c->booked_ns;
    if (c->phase != MP_PHASE_EXPERT)
        return MP_OK;
    if (c->expert < 0) {
        l->grouped_ns += c->booked_ns;
        return MP_OK;
    }
    slot = slot_of(l, c->expert);
    if (!slot)
        return mp_fail(all->err, MP_ENOMEM, "no memory for the experts");
    slot->own_ns += c->booked_ns;
    l->has_own = true;
    return MP_OK;
}

static int on_tokens(void *arg, int layer, int expert, uint64_t tokens)
{
    struct collect *all = arg;
    struct slot *slot;

    if (layer < 0 || layer >= RP_ACC_LAYERS || expert < 0)
        return MP_OK;
    slot = slot_of(&all->layer[layer], expert);
    if (!slot)
        return mp_fail(all->err, MP_ENOMEM, "no memory for the experts");
    slot->tokens += tokens;
    all->layer[layer].used = all->layer[layer].has_tokens = true;
    return MP_OK;
}

/* ---- one layer ---------------------------------------------------------------------------------- */

/* mp_split takes 32-bit weights; a long run's sums are scaled down to fit, which costs 2^-32. */
static void weights_of(uint32_t *weight, const struct layer_sum *l)
{
    uint64_t max = 0;
    unsigned shift = 0;

    for (size_t i = 0; i < l->n_expert; i++)
        max = l->expert[i].tokens > max ? l->expert[i].tokens : max;
    while (max >> shift > UINT32_MAX)
        shift++;
    for (size_t i = 0; i < l->n_expert; i++)
        weight[i] = (uint32_t)(l->expert[i].tokens >> shift);
}

static struct mp_val apportioned(bool known, uint64_t ns)
{
    return known ? (struct mp_val){(double)ns * 1e-9, MP_APPORTIONED}
                 : (struct mp_val){0, MP_UNKNOWN};
}

static void expert_fill(struct rp_expert *e, const struct layer_sum *l, size_t i,
                        const uint64_t *shared, const uint64_t *grouped)
{
    if (l->has_tokens)
        e->tokens = (struct mp_val){(double)l->expert[i].tokens, MP_MEASURED};
    if (l->has_own) {
        e->seconds = (struct mp_val){(double)l->expert[i].own_ns * 1e-9, MP_MEASURED};
        e->shared_seconds =
            apportioned(shared && grouped, shared && grouped ? shared[i] + grouped[i] : 0);
        return;
    }
    e->seconds = apportioned(grouped != NULL, grouped ? grouped[i] : 0);
    e->shared_seconds = apportioned(shared != NULL, shared ? shared[i] : 0);
}

static int experts_fill(struct rp_report *r, int layer, const struct layer_sum *l)
{
    size_t n = l->n_expert;
    uint32_t *weight = calloc(n + 1, sizeof *weight);
    uint64_t *share = calloc(2 * n + 1, sizeof *share);
    struct rp_expert *grown = realloc(r->expert, (r->n_expert + n + 1) * sizeof *grown);
    bool known;

    r->expert = grown ? grown : r->expert;
    if (!weight || !share || !grown) {
        free(weight);
        free(share);
        return MP_ENOMEM;
    }
    weights_of(weight, l);
    known = l->has_tokens && l->any_ns && mp_split(l->shared_ns, weight, n, share) &&
            mp_split(l->grouped_ns, weight, n, share + n);
    for (size_t i = 0; i < n; i++) {
        struct rp_expert *e = &r->expert[r->n_expert++];

        *e = (struct rp_expert){.layer = layer, .expert = (int)i};
        expert_fill(e, l, i, known ? share : NULL, known ? share + n : NULL);
    }
    free(weight);
    free(share);
    return MP_OK;
}

static int imbalance_fill(struct rp_layer *row, const struct layer_sum *l, const struct rp_acc *acc)
{
    uint64_t *tokens, sum = 0;

    if (!l->has_tokens)
        return MP_OK;
    tokens = malloc(l->n_expert * sizeof *tokens);
    if (!tokens)
        return MP_ENOMEM;
    for (size_t i = 0; i < l->n_expert; i++) {
        sum += tokens[i] = l->expert[i].tokens;
        row->n_dead += tokens[i] == 0;
    }
    row->n_expert = (int)l->n_expert;
    row->tokens = (struct mp_val){(double)sum, MP_MEASURED};
    row->max_vio = rp_max_vio(tokens, l->n_expert);
    if (acc->vio_n[row->layer])
        row->max_vio_step =
            (struct mp_val){acc->vio_sum[row->layer] / acc->vio_n[row->layer], MP_MEASURED};
    free(tokens);
    return MP_OK;
}

static int layer_fill(struct rp_report *r, int layer, const struct layer_sum *l,
                      const struct rp_acc *acc)
{
    struct rp_layer *row = &r->layer[r->n_layer++];

    *row = (struct rp_layer){.layer = layer};
    for (int phase = 0; phase < MP_PHASE_COUNT; phase++) {
        row->seconds[phase] = (double)l->booked_ns[phase] * 1e-9;
        row->total_s += row->seconds[phase];
    }
    if (imbalance_fill(row, l, acc))
        return MP_ENOMEM;
    return l->n_expert ? experts_fill(r, layer, l) : MP_OK;
}

int rp_analyze_experts(struct rp_report *r, struct rp_profile *p, unsigned blocks,
                       const struct rp_acc *acc, struct mp_err *err)
{
    struct collect *all = calloc(1, sizeof *all);
    int rc = MP_OK;

    r->layer = calloc(RP_ACC_LAYERS, sizeof *r->layer);
    if (!all || !r->layer) {
        free(all);
        return mp_fail(err, MP_ENOMEM, "no memory for the layers");
    }
    all->err = err;
    for (int b = 0; rc == MP_OK && b < RP_BLOCK_COUNT; b++)
        if (blocks >> b & 1 && (rc = rp_each_cell(p, b, on_cell, all, err)) == MP_OK)
            rc = rp_each_expert(p, b, on_tokens, all, err);
    for (int i = 0; i < RP_ACC_LAYERS; i++) {
        if (rc == MP_OK && all->layer[i].used && layer_fill(r, i, &all->layer[i], acc))
            rc = mp_fail(err, MP_ENOMEM, "no memory for the experts");
        free(all->layer[i].expert);
    }
    free(all);
    return rc;
}
