/* Layer x expert: tokens and GPU time over the last steps, and the history behind them.
 *
 * The window is what fits EXPERTS_BUDGET; sums over it are kept as integers, so that a value that
 * leaves the window takes away exactly what it brought. Time of a kernel that serves all experts of a
 * layer is shared out by that step's tokens, and the layer is marked apportioned.
 */
#ifndef DASH_EXPERTS_H
#define DASH_EXPERTS_H

#include "profiler/core/step.h"

struct dash_experts {
    uint32_t n_layer;  /* layers that have experts, in order of index */
    uint32_t n_expert; /* the most that any layer has */
    uint32_t window;   /* steps of history at most */
    uint64_t n_step;   /* steps ever added */
    int16_t *layer;    /* (n_layer) decoder index */
    uint16_t *width;   /* (n_layer) experts of that layer */
    uint8_t *basis;    /* (n_layer) enum mp_basis of the time */
    bool has_tokens, has_time;
    uint64_t *tokens;      /* (n_layer, n_expert) over the window */
    uint64_t *time_ns;     /* (n_layer, n_expert) over the window */
    uint32_t *step_tokens; /* (window, n_layer, n_expert) */
    uint64_t *step_ns;     /* (window, n_layer, n_expert) */
};

enum dash_expert_metric { DASH_LOAD = 0, DASH_TIME };

void dash_experts_release(struct dash_experts *e);
int dash_experts_copy(struct dash_experts *out, const struct dash_experts *e);

/* Adds a step. The first one with experts sets the shape; a step that brings layers or experts not
 * seen before starts the table anew. MP_ENOMEM leaves the table empty. */
int dash_experts_add(struct dash_experts *e, const struct mp_step *step);

/* Steps now in the window. */
uint32_t dash_experts_depth(const struct dash_experts *e);

/* Tokens or ns over the window; NAN when unknown or past the layer's width. */
double dash_experts_value(const struct dash_experts *e, enum dash_expert_metric metric,
                          uint32_t row, uint32_t expert);

/* Mean over the layer's experts; NAN when unknown, or when none got anything. */
double dash_experts_mean(const struct dash_experts *e, enum dash_expert_metric metric,
                         uint32_t row);

/* max/mean - 1 of a layer; NAN when unknown. */
double dash_experts_maxvio(const struct dash_experts *e, enum dash_expert_metric metric,
                           uint32_t row);

/* Experts of a layer that got nothing over the window. */
uint32_t dash_experts_dead(const struct dash_experts *e, uint32_t row);

/* One expert's values, oldest first; returns how many. */
size_t dash_experts_history(const struct dash_experts *e, enum dash_expert_metric metric,
                            uint32_t row, uint32_t expert, double *out, size_t cap);

#endif
