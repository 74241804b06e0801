/* Shape first (which layers, how many experts), then sums by difference. */
#include "profiler/dash/experts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EXPERTS_BUDGET (16u << 20) /* bytes of history; 94 x 1024 experts keep 14 steps of it */
#define WINDOW_MIN     8u
#define WINDOW_MAX     120u
#define LAYER_MAX      4096u
#define EXPERT_MAX     8192u

static size_t cells(const struct dash_experts *e)
{
    return (size_t)e->n_layer * e->n_expert;
}

void dash_experts_release(struct dash_experts *e)
{
    free(e->layer);
    free(e->width);
    free(e->basis);
    free(e->tokens);
    free(e->time_ns);
    free(e->step_tokens);
    free(e->step_ns);
    memset(e, 0, sizeof *e);
}

static int allocate(struct dash_experts *e)
{
    size_t n = cells(e),
           window = EXPERTS_BUDGET / (n * (sizeof *e->step_tokens + sizeof *e->step_ns));

    e->window = (uint32_t)(window < WINDOW_MIN   ? WINDOW_MIN
                           : window > WINDOW_MAX ? WINDOW_MAX
                                                 : window);
    e->layer = calloc(e->n_layer, sizeof *e->layer);
    e->width = calloc(e->n_layer, sizeof *e->width);
    e->basis = calloc(e->n_layer, sizeof *e->basis);
    e->tokens = calloc(n, sizeof *e->tokens);
    e->time_ns = calloc(n, sizeof *e->time_ns);
    e->step_tokens = calloc(n * e->window, sizeof *e->step_tokens);
    e->step_ns = calloc(n * e->window, sizeof *e->step_ns);
    if (e->layer && e->width && e->basis && e->tokens && e->time_ns && e->step_tokens && e->step_ns)
        return MP_OK;
    dash_experts_release(e);
    return MP_ENOMEM;
}

int dash_experts_copy(struct dash_experts *out, const struct dash_experts *e)
{
    size_t n = cells(e);

    memset(out, 0, sizeof *out);
    if (n == 0)
        return MP_OK;
    out->n_layer = e->n_layer;
    out->n_expert = e->n_expert;
    if (allocate(out) != MP_OK)
        return MP_ENOMEM;
    out->n_step = e->n_step;
    out->has_tokens = e->has_tokens;
    out->has_time = e->has_time;
    memcpy(out->layer, e->layer, e->n_layer * sizeof *e->layer);
    memcpy(out->width, e->width, e->n_layer * sizeof *e->width);
    memcpy(out->basis, e->basis, e->n_layer * sizeof *e->basis);
    memcpy(out->tokens, e->tokens, n * sizeof *e->tokens);
    memcpy(out->time_ns, e->time_ns, n * sizeof *e->time_ns);
    memcpy(out->step_tokens, e->step_tokens, n * e->window * sizeof *e->step_tokens);
    memcpy(out->step_ns, e->step_ns, n * e->window * sizeof *e->step_ns);
    return MP_OK;
}

/* ---- shape ---------------------------------------------------------------------------------- */

static bool is_expert_cell(const struct mp_cell *c)
{
    return c->phase == MP_PHASE_EXPERT && c->layer >= 0;
}

/* width[layer] = experts seen in this step; returns one past the last layer that has any. */
static uint32_t widths(const struct mp_step *step, uint16_t width[LAYER_MAX])
{
    uint32_t end = 0;

    memset(width, 0, LAYER_MAX * sizeof *width);
    for (uint32_t i = 0; i < step->n_route; i++) {
        const struct mp_route *r = &step->route[i];

        if (r->layer < 0 || (uint32_t)r->layer >= LAYER_MAX || r->n_expert > EXPERT_MAX)
            continue;
        if (r->n_expert > width[r->layer])
            width[r->layer] = r->n_expert;
        end = (uint32_t)r->layer + 1 > end ? (uint32_t)r->layer + 1 : end;
    }
    for (uint32_t i = 0; i < step->n_cell; i++) {
        const struct mp_cell *c = &step->cell[i];

        if (!is_expert_cell(c) || c->expert < 0 || (uint32_t)c->layer >= LAYER_MAX ||
            c->expert >= (int)EXPERT_MAX)
            continue;
        if (c->expert + 1 > width[c->layer])
            width[c->layer] = (uint16_t)(c->expert + 1);
        end = (uint32_t)c->layer + 1 > end ? (uint32_t)c->layer + 1 : end;
    }
    return end;
}

static int row_of(const struct dash_experts *e, int layer)
{
    uint32_t lo = 0, hi = e->n_layer;

    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;

        if (e->layer[mid] < layer)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < e->n_layer && e->layer[lo] == layer ? (int)lo : -1;
}

static bool fits(const struct dash_experts *e, const uint16_t *width, uint32_t end)
{
    for (uint32_t layer = 0; layer < end; layer++) {
        int row = width[layer] ? row_of(e, (int)layer) : 0;

        if (width[layer] && (row < 0 || width[layer] > e->width[row]))
            return false;
    }
    return true;
}

/* A new table, wide enough for what was known and what this step brings. */
static int reshape(struct dash_experts *e, uint16_t *width, uint32_t end)
{
    uint32_t row = 0;

    for (uint32_t i = 0; i < e->n_layer; i++) {
        uint32_t layer = (uint32_t)e->layer[i];

        if (e->width[i] > width[layer])
            width[layer] = e->width[i];
        end = layer + 1 > end ? layer + 1 : end;
    }
    dash_experts_release(e);
    for (uint32_t layer = 0; layer < end; layer++) {
        e->n_layer += width[layer] > 0;
        e->n_expert = width[layer] > e->n_expert ? width[layer] : e->n_expert;
    }
    if (cells(e) == 0 || allocate(e) != MP_OK)
        return cells(e) ? MP_ENOMEM : MP_OK;
    for (uint32_t layer = 0; layer < end; layer++) {
        if (!width[layer])
            continue;
        e->layer[row] = (int16_t)layer;
        e->width[row++] = width[layer];
    }
    return MP_OK;
}

/* ---- sums ----------------------------------------------------------------------------------- */

static void forget_oldest(struct dash_experts *e, size_t slot)
{
    size_t n = cells(e);
    uint32_t *tokens = e->step_tokens + slot * n;
    uint64_t *ns = e->step_ns + slot * n;

    for (size_t i = 0; i < n; i++) {
        e->tokens[i] -= tokens[i];
        e->time_ns[i] -= ns[i];
    }
    memset(tokens, 0, n * sizeof *tokens);
    memset(ns, 0, n * sizeof *ns);
}

static const struct mp_route *route_of(const struct mp_step *step, int layer)
{
    for (uint32_t i = 0; i < step->n_route; i++)
        if (step->route[i].layer == layer)
            return &step->route[i];
    return NULL;
}

static void add_routes(struct dash_experts *e, const struct mp_step *step, uint32_t *tokens)
{
    for (uint32_t i = 0; i < step->n_route; i++) {
        const struct mp_route *r = &step->route[i];
        int row = row_of(e, r->layer);

        for (uint32_t x = 0; row >= 0 && x < r->n_expert && x < e->n_expert; x++)
            tokens[(size_t)row * e->n_expert + x] += r->count[x];
        e->has_tokens = e->has_tokens || row >= 0;
    }
}

/* Time that belongs to all experts of the layer together. */
static void share_cell(struct dash_experts *e, const struct mp_step *step, const struct mp_cell *c,
                       int row, uint64_t *ns)
{
    const struct mp_route *r = route_of(step, c->layer);
    uint64_t part[EXPERT_MAX];

    if (!r || r->n_expert > e->n_expert || !mp_split(c->booked_ns, r->count, r->n_expert, part))
        return;
    for (uint32_t x = 0; x < r->n_expert; x++)
        ns[(size_t)row * e->n_expert + x] += part[x];
    e->basis[row] = MP_APPORTIONED;
    e->has_time = true;
}

static void add_times(struct dash_experts *e, const struct mp_step *step, uint64_t *ns)
{
    for (uint32_t i = 0; i < step->n_cell; i++) {
        const struct mp_cell *c = &step->cell[i];
        int row = is_expert_cell(c) ? row_of(e, c->layer) : -1;

        if (row < 0)
            continue;
        if (c->expert < 0) {
            share_cell(e, step, c, row, ns);
        } else if ((uint32_t)c->expert < e->n_expert) {
            ns[(size_t)row * e->n_expert + (uint32_t)c->expert] += c->booked_ns;
            if (e->basis[row] != MP_APPORTIONED)
                e->basis[row] = c->basis == MP_APPORTIONED ? MP_APPORTIONED : MP_MEASURED;
            e->has_time = true;
        }
    }
}

int dash_experts_add(struct dash_experts *e, const struct mp_step *step)
{
    static _Thread_local uint16_t width[LAYER_MAX];
    uint32_t end = widths(step, width);
    size_t slot, n;

    if (!fits(e, width, end)) {
        int rc = reshape(e, width, end);

        if (rc != MP_OK)
            return rc;
    }
    n = cells(e);
    if (n == 0)
        return MP_OK;
    slot = e->n_step++ % e->window;
    forget_oldest(e, slot);
    add_routes(e, step, e->step_tokens + slot * n);
    add_times(e, step, e->step_ns + slot * n);
    for (size_t i = 0; i < n; i++) {
        e->tokens[i] += e->step_tokens[slot * n + i];
        e->time_ns[i] += e->step_ns[slot * n + i];
    }
    return MP_OK;
}

/* ---- questions ------------------------------------------------------------------------------ */

uint32_t dash_experts_depth(const struct dash_experts *e)
{
    return e->n_step < e->window ? (uint32_t)e->n_step : e->window;
}

static const uint64_t *row_values(const struct dash_experts *e, enum dash_expert_metric metric,
                                  uint32_t row)
{
    if (row >= e->n_layer || !(metric == DASH_LOAD ? e->has_tokens : e->has_time))
        return NULL;
    return (metric == DASH_LOAD ? e->tokens : e->time_ns) + (size_t)row * e->n_expert;
}

double dash_experts_value(const struct dash_experts *e, enum dash_expert_metric metric,
                          uint32_t row, uint32_t expert)
{
    const uint64_t *v = row_values(e, metric, row);

    return v && expert < e->width[row] ? (double)v[expert] : NAN;
}

double dash_experts_mean(const struct dash_experts *e, enum dash_expert_metric metric, uint32_t row)
{
    const uint64_t *v = row_values(e, metric, row);
    double sum = 0;

    for (uint32_t i = 0; v && i < e->width[row]; i++)
        sum += (double)v[i];
    return v && sum > 0 ? sum / e->width[row] : NAN;
}

double dash_experts_maxvio(const struct dash_experts *e, enum dash_expert_metric metric,
                           uint32_t row)
{
    const uint64_t *v = row_values(e, metric, row);
    uint64_t top = 0;

    if (!v)
        return NAN;
    for (uint32_t i = 0; i < e->width[row]; i++)
        top = v[i] > top ? v[i] : top;
    return (double)top / dash_experts_mean(e, metric, row) - 1;
}

uint32_t dash_experts_dead(const struct dash_experts *e, uint32_t row)
{
    const uint64_t *v = row_values(e, DASH_LOAD, row);
    uint32_t dead = 0;

    for (uint32_t i = 0; v && i < e->width[row]; i++)
        dead += v[i] == 0;
    return dead;
}

size_t dash_experts_history(const struct dash_experts *e, enum dash_expert_metric metric,
                            uint32_t row, uint32_t expert, double *out, size_t cap)
{
    size_t depth = dash_experts_depth(e), n = depth < cap ? depth : cap;

    if (!row_values(e, metric, row) || expert >= e->width[row])
        return 0;
    for (size_t i = 0; i < n; i++) {
        size_t slot = (size_t)((e->n_step - n + i) % e->window);
        size_t at = (slot * e->n_layer + row) * e->n_expert + expert;

        out[i] = metric == DASH_LOAD ? (double)e->step_tokens[at] : (double)e->step_ns[at];
    }
    return n;
}
