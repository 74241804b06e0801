/* The formulas of MFU.md, one function each. A row count and a pair count come with a basis; the basis
 * of a sum is the weakest of what went into it. */
#include "profiler/core/flops.h"

#include <string.h>

__extension__ typedef unsigned __int128 wide;

static uint64_t mul(uint64_t a, uint64_t b)
{
    uint64_t v;

    return __builtin_mul_overflow(a, b, &v) ? UINT64_MAX : v;
}

static uint64_t add(uint64_t a, uint64_t b)
{
    uint64_t v;

    return __builtin_add_overflow(a, b, &v) ? UINT64_MAX : v;
}

static uint64_t min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static enum mp_basis weaker(enum mp_basis a, enum mp_basis b)
{
    if (a == MP_UNKNOWN || b == MP_UNKNOWN)
        return MP_UNKNOWN;
    return a > b ? a : b;
}

/* Adds v to a sum; what is unknown or too large spoils the sum's basis, never its value. */
static void accumulate(struct mp_flop *sum, uint64_t flop, enum mp_basis basis)
{
    sum->flop = add(sum->flop, flop);
    sum->basis = weaker(sum->basis, sum->flop == UINT64_MAX ? MP_UNKNOWN : basis);
}

static const struct mp_flop unknown = {.flop = 0, .basis = MP_UNKNOWN};

/* ---- rows --------------------------------------------------------------------------------- */

static struct mp_flop processed_rows(const struct mp_step *s)
{
    return s->processed == UINT64_MAX ? unknown : (struct mp_flop){s->processed, MP_MEASURED};
}

static struct mp_flop useful_rows(const struct mp_step *s)
{
    return s->useful == UINT64_MAX ? unknown : (struct mp_flop){s->useful, s->useful_basis};
}

static const struct mp_route *route_of(const struct mp_step *s, int layer)
{
    uint32_t low = 0, high = s->n_route;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;

        if (s->route[mid].layer == layer)
            return &s->route[mid];
        if (s->route[mid].layer < layer)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

static uint32_t top_k_of(const struct mp_model *m, int layer)
{
    for (uint32_t i = 0; i < m->n_layer; i++)
        if (m->layer[i].layer == layer)
            return m->layer[i].top_k;
    return 0;
}

static struct mp_flop nominal_assignments(const struct mp_model *m, const struct mp_step *s,
                                          int layer)
{
    uint32_t top_k = top_k_of(m, layer);

    if (top_k == 0 || s->processed == UINT64_MAX)
        return unknown;
    return (struct mp_flop){mul(s->processed, top_k), MP_MODELLED};
}

struct mp_flop mp_flops_assignments(const struct mp_model *m, const struct mp_step *s, int layer)
{
    const struct mp_route *route = route_of(s, layer);
    struct mp_flop sum = {0, MP_MEASURED};

    if (!route || route->basis == MP_UNKNOWN)
        return nominal_assignments(m, s, layer);
    sum.basis = route->basis;
    for (uint32_t i = 0; i < route->n_expert; i++)
        sum.flop = add(sum.flop, route->count[i]);
    return sum;
}

/* The router sees padding too, so its counts hold it; the useful part is taken in proportion. */
static struct mp_flop useful_assignments(const struct mp_model *m, const struct mp_step *s,
                                         int layer)
{
    struct mp_flop all = mp_flops_assignments(m, s, layer);

    if (all.basis == MP_UNKNOWN || s->useful == UINT64_MAX || s->processed == UINT64_MAX)
        return unknown;
    all.basis = weaker(all.basis, s->useful_basis);
    if (s->useful >= s->processed)
        return all;
    all.flop = (uint64_t)(((wide)all.flop * s->useful + s->processed / 2) / s->processed);
    all.basis = weaker(all.basis, MP_APPORTIONED);
    return all;
}

static struct mp_flop head_rows(const struct mp_step *s)
{
    return s->head_rows == UINT64_MAX ? processed_rows(s)
                                      : (struct mp_flop){s->head_rows, MP_MEASURED};
}

/* A head that leaves rows out leaves out padding and prompt first. */
static struct mp_flop useful_head_rows(const struct mp_step *s)
{
    struct mp_flop head = head_rows(s), useful = useful_rows(s);

    return (struct mp_flop){min(head.flop, useful.flop), weaker(head.basis, useful.basis)};
}

static struct mp_flop model_rows(const struct mp_model *m, const struct mp_step *s,
                                 const struct mp_op *op)
{
    switch (op->per) {
    case MP_PER_ASSIGNMENT:
        return useful_assignments(m, s, op->layer);
    case MP_PER_HEAD_ROW:
        return useful_head_rows(s);
    default:
        return useful_rows(s);
    }
}

static struct mp_flop executed_rows(const struct mp_model *m, const struct mp_step *s,
                                    const struct mp_op *op)
{
    switch (op->per) {
    case MP_PER_ASSIGNMENT:
        return mp_flops_assignments(m, s, op->layer);
    case MP_PER_HEAD_ROW:
        return head_rows(s);
    default:
        return processed_rows(s);
    }
}

/* ---- pairs -------------------------------------------------------------------------------- */

uint64_t mp_causal_pairs(uint64_t length, uint64_t window)
{
    if (window == 0 || window >= length)
        return (uint64_t)((wide)length * (length + 1) / 2);
    return mul(window, length) - window * (window - 1) / 2;
}

struct pairs {
    struct mp_flop useful, processed;
};

/* Without counts: all segments of one length. */
static struct pairs modelled_pairs(const struct mp_step *s, uint32_t window)
{
    struct pairs p = {unknown, unknown};
    uint64_t n = s->n_segment;

    if (n == 0)
        return p;
    if (s->useful != UINT64_MAX)
        p.useful = (struct mp_flop){mul(n, mp_causal_pairs(s->useful / n, window)), MP_MODELLED};
    if (s->processed != UINT64_MAX)
        p.processed =
            (struct mp_flop){mul(n, mp_causal_pairs(s->processed / n, window)), MP_MODELLED};
    if (p.processed.flop < p.useful.flop)
        p.processed.flop = p.useful.flop;
    return p;
}

static struct pairs causal_pairs(const struct mp_step *s, uint32_t window)
{
    const struct mp_pairs_sum *full = NULL;

    for (uint32_t i = 0; i < s->n_pairs && i < MP_WINDOW_MAX; i++) {
        const struct mp_pairs_sum *p = &s->pairs[i];

        if (p->basis == MP_UNKNOWN)
            continue;
        if (p->window == window)
            return (struct pairs){{p->useful, p->basis}, {p->processed, p->basis}};
        if (p->window == 0)
            full = p;
    }
    if (full && full->max_len && full->max_len <= window) /* a window that nothing is longer than */
        return (struct pairs){{full->useful, full->basis}, {full->processed, full->basis}};
    return modelled_pairs(s, window);
}

/* All L x L pairs from the causal ones: sum of L^2 = 2 x sum of L(L+1)/2 - sum of L. */
static struct mp_flop square(struct mp_flop pairs, struct mp_flop tokens)
{
    uint64_t twice = mul(2, pairs.flop);

    pairs.basis = weaker(pairs.basis, tokens.basis);
    pairs.flop = twice > tokens.flop ? twice - tokens.flop : 0;
    return pairs;
}

static struct pairs attended(const struct mp_step *s, const struct mp_attn *a)
{
    struct pairs p = causal_pairs(s, a->causal ? a->window : 0);

    if (!a->causal) {
        p.useful = square(p.useful, useful_rows(s));
        p.processed = square(p.processed, processed_rows(s));
    }
    return p;
}

/* ---- what replays ------------------------------------------------------------------------- */

/* Where the GPU was watched, cells of the recompute pass say what was replayed; else the settings. */
static bool is_replayed(const struct mp_model *m, const struct mp_step *s, int layer,
                        unsigned phase)
{
    uint32_t low = 0, high = s->n_cell;

    if (layer < 0 || s->n_kernel == 0)
        return layer >= 0 && m->checkpointing;
    while (low < high) { /* cells are sorted by layer, then phase */
        uint32_t mid = low + (high - low) / 2;
        const struct mp_cell *c = &s->cell[mid];

        if (c->layer < layer || (c->layer == layer && c->phase < phase))
            low = mid + 1;
        else
            high = mid;
    }
    for (; low < s->n_cell && s->cell[low].layer == layer && s->cell[low].phase == phase; low++)
        if (s->cell[low].pass == MP_PASS_RECOMPUTE && s->cell[low].n)
            return true;
    return false;
}

/* ---- sums --------------------------------------------------------------------------------- */

struct work { /* FLOPs of one op or core, by pass */
    uint64_t model[MP_PASS_COUNT], executed[MP_PASS_COUNT];
};

static void book(struct mp_flops *out, int layer, unsigned phase, const struct work *w,
                 enum mp_basis model, enum mp_basis executed)
{
    if (phase >= MP_PHASE_COUNT)
        phase = MP_PHASE_OTHER;
    for (int pass = 0; pass < MP_PASS_COUNT; pass++) {
        accumulate(&out->model, w->model[pass], model);
        accumulate(&out->executed, w->executed[pass], executed);
        out->phase[phase][pass].model = add(out->phase[phase][pass].model, w->model[pass]);
        out->phase[phase][pass].executed = add(out->phase[phase][pass].executed, w->executed[pass]);
        if (layer >= 0 && layer < MP_FLOPS_LAYERS) {
            out->layer[layer].model = add(out->layer[layer].model, w->model[pass]);
            out->layer[layer].executed = add(out->layer[layer].executed, w->executed[pass]);
        }
    }
}

static uint64_t op_flop(const struct mp_op *op, uint64_t rows)
{
    return mul(mul(mul(2, op->in), mul(op->out, op->count)), rows);
}

static void book_op(struct mp_flops *out, const struct mp_model *m, const struct mp_step *s,
                    const struct mp_op *op)
{
    struct mp_flop useful = model_rows(m, s, op), rows = executed_rows(m, s, op);
    uint64_t model = op_flop(op, useful.flop), executed = op_flop(op, rows.flop);
    uint64_t backward = (uint64_t)op->dgrad + op->wgrad;
    struct work w = {
        .model = {[MP_PASS_FORWARD] = model, [MP_PASS_BACKWARD] = mul(model, backward)},
        .executed = {[MP_PASS_FORWARD] = executed, [MP_PASS_BACKWARD] = mul(executed, backward)},
    };

    if (is_replayed(m, s, op->layer, op->phase))
        w.executed[MP_PASS_RECOMPUTE] = executed;
    book(out, op->layer, op->phase, &w, useful.basis, weaker(rows.basis, MP_MODELLED));
}

/* 2 d_qk for the scores and 2 d_v for the values: per head and pair. */
static uint64_t core_flop(const struct mp_attn *a, uint64_t pairs)
{
    return mul(mul(2, a->heads), mul((uint64_t)a->d_qk + a->d_v, pairs));
}

static void book_core(struct mp_flops *out, const struct mp_model *m, const struct mp_step *s,
                      const struct mp_attn *a)
{
    struct pairs p = attended(s, a);
    struct mp_flop run = p.processed;
    uint64_t model, executed;
    struct work w = {{0}, {0}};

    if (m->full_scores && a->causal)
        run = square(causal_pairs(s, 0).processed, processed_rows(s));
    model = core_flop(a, p.useful.flop);
    executed = core_flop(a, run.flop);
    w.model[MP_PASS_FORWARD] = model;
    w.executed[MP_PASS_FORWARD] = executed;
    if (a->dgrad) {
        w.model[MP_PASS_BACKWARD] = mul(model, 2);
        /* flash attention computes the scores once more in the backward: 5 products in place of 4 */
        w.executed[MP_PASS_BACKWARD] =
            m->full_scores ? mul(executed, 2) : add(mul(executed, 2), executed / 2);
    }
    if (is_replayed(m, s, a->layer, MP_PHASE_ATTENTION))
        w.executed[MP_PASS_RECOMPUTE] = executed;
    book(out, a->layer, MP_PHASE_ATTENTION, &w, p.useful.basis, weaker(run.basis, MP_MODELLED));
}

/* ---- other people's conventions ----------------------------------------------------------- */

/* Training FLOPs of one op when every weight is trained and every token counts. */
static struct mp_flop naive_op(const struct mp_model *m, const struct mp_step *s,
                               const struct mp_op *op)
{
    struct mp_flop rows =
        op->per == MP_PER_ASSIGNMENT ? nominal_assignments(m, s, op->layer) : processed_rows(s);

    return (struct mp_flop){mul(3, op_flop(op, rows.flop)), weaker(rows.basis, MP_MODELLED)};
}

static struct mp_flop naive_core(const struct mp_step *s, const struct mp_attn *a)
{
    struct mp_flop pairs = square(causal_pairs(s, 0).processed, processed_rows(s));

    return (struct mp_flop){mul(3, core_flop(a, pairs.flop)), weaker(pairs.basis, MP_MODELLED)};
}

static void conventions(struct mp_flops *out, const struct mp_model *m, const struct mp_step *s)
{
    struct mp_flop tokens = processed_rows(s);
    uint64_t embedding = mul(m->vocab, m->hidden);

    out->palm = out->trl = out->adjusted = (struct mp_flop){0, MP_MODELLED};
    for (uint32_t i = 0; i < m->n_op; i++) {
        struct mp_flop op = naive_op(m, s, &m->op[i]);

        accumulate(&out->palm, op.flop, op.basis);
        if (m->op[i].phase != MP_PHASE_SHARED_EXPERT && !m->op[i].lora) {
            accumulate(&out->trl, op.flop, op.basis);
            accumulate(&out->adjusted, op.flop, op.basis);
        }
    }
    for (uint32_t i = 0; i < m->n_attn; i++) {
        struct mp_flop core = naive_core(s, &m->attn[i]);

        accumulate(&out->palm, core.flop, core.basis);
        accumulate(&out->trl, core.flop, core.basis);
        accumulate(&out->adjusted, core.flop / 2, core.basis);
    }
    /* an untied model's input embedding counts there like a product with the whole vocabulary */
    if (!m->tied) {
        enum mp_basis basis = embedding ? weaker(tokens.basis, MP_MODELLED) : MP_UNKNOWN;

        accumulate(&out->trl, mul(6, mul(embedding, tokens.flop)), basis);
        accumulate(&out->adjusted, mul(6, mul(embedding, tokens.flop)), basis);
    }
    out->hf = unknown;
    if (m->params_total > embedding && embedding)
        out->hf = (struct mp_flop){mul(6, mul(m->params_total - embedding, tokens.flop)),
                                   weaker(tokens.basis, MP_MODELLED)};
}

void mp_flops_step(struct mp_flops *out, const struct mp_model *model, const struct mp_step *step)
{
    memset(out, 0, sizeof *out);
    if (model->n_op == 0)
        return;
    out->model.basis = MP_MEASURED;
    out->executed.basis = MP_MODELLED;
    for (uint32_t i = 0; i < model->n_op; i++)
        book_op(out, model, step, &model->op[i]);
    for (uint32_t i = 0; i < model->n_attn; i++)
        book_core(out, model, step, &model->attn[i]);
    conventions(out, model, step);
}
