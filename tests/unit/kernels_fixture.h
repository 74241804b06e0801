/* What the tests of the CPU reference share: one small problem in fp64 that uses every part of it, its forward, and
 * gradients against central differences. */
#ifndef TESTS_KERNELS_FIXTURE_H
#define TESTS_KERNELS_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/plan.h"
#include "kernels/ref_moe.h"

enum { T = 6, H = 16, I = 8, E = 5, K = 2, EMPTY = 3 }; /* EMPTY: the expert without a token */

struct moe {
    double x[T * H], score[T * K], gate_up[E * 2 * I * H], down[E * H * I];
    double gate_b[E * I], up_b[E * I], down_b[E * H], out[T * H], dout[T * H];
    double dx[T * H], dscore[T * K];
    int32_t index[T * K];
    void *saved;
    struct mk_problem p;
    struct mk_plan plan;
};

static inline double uniform(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 40) / (double)(1 << 24) * 2 - 1;
}

static inline void fill(double *v, size_t n, double scale, uint64_t *state)
{
    for (size_t i = 0; i < n; i++)
        v[i] = scale * uniform(state);
}

static inline void moe_values(struct moe *m, uint64_t state)
{
    fill(m->x, T * H, 1, &state);
    fill(m->score, T * K, 1, &state);
    for (int i = 0; i < T * K; i++)
        m->score[i] = (float)m->score[i];
    fill(m->gate_up, E * 2 * I * H, 1, &state);
    fill(m->down, E * H * I, 1, &state);
    fill(m->gate_b, E * I, .5, &state);
    fill(m->up_b, E * I, .5, &state);
    fill(m->down_b, E * H, .5, &state);
    fill(m->dout, T * H, 1, &state);
    /* The last token's second choice is dropped. */
    for (int t = 0; t < T; t++) {
        m->index[t * K] = t % EMPTY;
        m->index[t * K + 1] = t == T - 1 ? E : EMPTY + 1;
    }
}

static inline void moe_init(struct moe *m, uint32_t act)
{
    memset(m, 0, sizeof *m);
    moe_values(m, 7 + act);
    m->p = (struct mk_problem){
        .size = sizeof m->p,
        .target = MK_TARGET_CPU,
        .n_token = T,
        .hidden = H,
        .inter = I,
        .n_expert = E,
        .top_k = K,
        .dtype = MK_FP64,
        .index_dtype = MK_INT32,
        .score_dtype = MK_FP64,
        .act = act,
        .act_alpha = 1.702f,
        .act_limit = 1.f,
        .x = m->x,
        .index = m->index,
        .score = m->score,
        .x_stride = H,
        .index_stride = K,
        .score_stride = K,
        .gate = {m->gate_up, NULL, 0, 2 * I * H, H, 1},
        .up = {m->gate_up + I * H, NULL, 0, 2 * I * H, H, 1},
        .down = {m->down, NULL, 0, H * I, I, 1},
        .gate_bias = {m->gate_b, I, 1},
        .up_bias = {m->up_b, I, 1},
        .down_bias = {m->down_b, H, 1},
    };
    assert_int_equal(mk_plan(&m->plan, &m->p), MK_OK);
    m->saved = malloc(m->plan.saved.bytes);
}

static inline void forward(struct moe *m, uint32_t flags)
{
    struct mk_forward a = {.size = sizeof a,
                           .flags = flags,
                           .out = m->out,
                           .out_stride = H,
                           .saved = m->saved,
                           .saved_bytes = m->plan.saved.bytes,
                           .problem = &m->p};
    assert_int_equal(mk_ref_forward(&a), MK_OK);
}

static inline double loss(struct moe *m)
{
    double sum = 0;

    forward(m, 0);
    for (int i = 0; i < T * H; i++)
        sum += m->out[i] * m->dout[i];
    return sum;
}

/* Central difference of the loss by each element of v, against the gradient. */
static inline void check_gradient(struct moe *m, double *v, const double *want, size_t n,
                                  double step)
{
    for (size_t i = 0; i < n; i++) {
        double keep = v[i];
        v[i] = keep + step;
        double above = loss(m);
        v[i] = keep - step;
        double slope = (above - loss(m)) / (2 * step);
        v[i] = keep;
        if (fabs(slope - want[i]) > 5e-6 * (1 + fabs(slope)))
            fail_msg("element %zu: difference %.9g, gradient %.9g", i, slope, want[i]);
    }
}

#endif
