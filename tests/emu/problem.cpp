/* problem.cpp: see problem.h. */
#include "tests/emu/problem.h"

#include "tests/emu/cases.h"

#include <algorithm>

/* ---- how matrices lie in their arrays ---- */

static mk_matrix matrix(array &a, size_t first, int64_t expert, int64_t row, int64_t col)
{
    return { a.n ? a.at(first) : NULL, NULL, 0, expert, row, col };
}

/* One weight that is not gate and up. */
static mk_matrix whole(array &a, layout l, int n_out, int n_in)
{
    int64_t n = (int64_t)n_out * n_in;
    if (l == STRIDED)
        return matrix(a, 0, 3 * n, 3 * n_in, 3);
    return l == TRANSPOSED || l == BY_TURNS ? matrix(a, 0, n, 1, n_out) : matrix(a, 0, n, n_in, 1);
}

static mk_matrix half(array &a, layout l, int n_half, int which, int inter, int hidden)
{
    int64_t n = (int64_t)n_half * inter * hidden;
    switch (l) {
    case CONCAT: return matrix(a, (size_t)which * inter * hidden, n, hidden, 1);
    case INTERLEAVED: return matrix(a, (size_t)which * hidden, n, n_half * hidden, 1);
    case BY_TURNS: return matrix(a, (size_t)which, n, n_half, n_half * inter);
    case TRANSPOSED: return matrix(a, (size_t)which * inter, n, 1, n_half * inter);
    default: return matrix(a, (size_t)which * inter * hidden * 3, 3 * n, 3 * hidden, 3);
    }
}

static mk_matrix low_a(array &a, int rank, int in)
{
    return matrix(a, 0, (int64_t)rank * in, in, 1);
}

static mk_matrix low_b(array &a, const shape &s, int rank, int out, int first, int step)
{
    if (s.b_lies == PEFT)
        return matrix(a, (size_t)first * rank * s.e, 1, (int64_t)step * rank * s.e, s.e);
    return matrix(a, (size_t)first * rank, (int64_t)out * rank, (int64_t)step * rank, 1);
}

/* Of one weight, or of gate and up; the strided ones have gaps of two. */
static size_t weight_elements(const shape &s, int n_half)
{
    return (size_t)s.e * n_half * s.i * s.h * (s.weights == STRIDED ? 3 : 1);
}

/* ---- results ---- */

results::results(const shape &c)
    : s(c), n_half(c.act == MK_ACT_RELU2 ? 1 : 2), out(c.dtype, (size_t)c.t * c.h, 0), dx(c.dtype, (size_t)c.t * c.h, 0),
      dscore(MK_FP32, (size_t)c.t * c.k, 0), dgate_up(c.dtype, weight_elements(c, n_half), c.accumulate),
      ddown(c.dtype, weight_elements(c, 1), c.accumulate), dbias(c.dtype, (size_t)c.e * (2 * c.i + c.h), c.accumulate),
      dgate_a(c.lora_dtype, (size_t)c.e * c.up_rank * c.h, c.accumulate), dup_a(dgate_a),
      dup_b(c.lora_dtype, (size_t)c.e * c.up_rank * n_half * c.i, c.accumulate),
      ddown_a(c.lora_dtype, (size_t)c.e * c.down_rank * c.i, c.accumulate),
      ddown_b(c.lora_dtype, (size_t)c.e * c.down_rank * c.h, c.accumulate)
{
}

/* ---- inputs ---- */

/* An expert twice or never, and choices that are dropped. */
static int choice_of(const shape &s, int t, int k)
{
    if (s.one_expert)
        return 1 % s.e;
    return t % 7 == 6 && !k ? s.e : (t * (k + 1) + k) % std::max(1, s.e - (s.e > 2));
}

inputs::inputs(const shape &s, int n_half)
    : x(s.dtype, (size_t)s.t * s.h, 1), score(MK_FP32, (size_t)s.t * s.k, 1), dout(s.dtype, (size_t)s.t * s.h, 1),
      gate_up(s.dtype, weight_elements(s, n_half), .5), down(s.dtype, weight_elements(s, 1), .5), bias(s.dtype, (size_t)s.e * (2 * s.i + s.h), .3),
      gate_a(s.lora_dtype, (size_t)s.e * s.up_rank * s.h, .5), up_a(s.lora_dtype, (size_t)s.e * s.up_rank * s.h, .5),
      up_b(s.lora_dtype, (size_t)s.e * s.up_rank * n_half * s.i, .5), down_a(s.lora_dtype, (size_t)s.e * s.down_rank * s.i, .5),
      down_b(s.lora_dtype, (size_t)s.e * s.down_rank * s.h, .5), index(MK_INT32, (size_t)s.t * s.k, 1)
{
    for (int t = 0; t < s.t; t++)
        for (int k = 0; k < s.k; k++)
            ((int32_t *)index.bytes.data())[t * s.k + k] = choice_of(s, t, k);
    index.put();
}

static int up_first(const shape &s, int n_half)
{
    return n_half == 1 ? 0 : s.weights == INTERLEAVED ? 1 : s.i;
}

static int b_step(const shape &s, int n_half)
{
    return n_half == 2 && s.weights == INTERLEAVED ? 2 : 1;
}

static void describe_lora(inputs &in, const shape &s, int n_half)
{
    int rows = n_half * s.i, step = b_step(s, n_half);
    mk_lora &lora = in.lora;

    lora = {};
    lora.size = sizeof lora, lora.dtype = s.lora_dtype;
    lora.up_rank = s.lora == DOWN_ONLY ? 0 : s.up_rank, lora.down_rank = s.lora == UP_ONLY ? 0 : s.down_rank;
    lora.apart = s.lora == APART, lora.up_scale = 2.f, lora.down_scale = .75f;
    lora.gate_a = low_a(in.gate_a, s.up_rank, s.h), lora.up_a = low_a(in.up_a, s.up_rank, s.h);
    if (n_half == 2)
        lora.gate_b = low_b(in.up_b, s, s.up_rank, rows, 0, step);
    lora.up_b = low_b(in.up_b, s, s.up_rank, rows, up_first(s, n_half), step);
    lora.down_a = low_a(in.down_a, s.down_rank, s.i), lora.down_b = low_b(in.down_b, s, s.down_rank, s.h, 0, 1);
    in.p.lora = &lora;
}

void inputs::describe(const shape &s, int n_half)
{
    p = {};
    p.size = sizeof p;
    p.target = on_device ? MK_TARGET_CUDA : MK_TARGET_CPU;
    p.n_token = s.t, p.hidden = s.h, p.inter = s.i, p.n_expert = s.e, p.top_k = s.k;
    p.dtype = s.dtype, p.index_dtype = MK_INT32, p.score_dtype = MK_FP32, p.act = s.act, p.act_alpha = 1.702f, p.act_limit = s.limit ? s.limit : 7.f;
    p.x = x.at(0), p.index = index.at(0), p.score = score.at(0);
    p.x_stride = s.h, p.index_stride = p.score_stride = s.k;
    p.gate = n_half == 2 ? half(gate_up, s.weights, 2, 0, s.i, s.h) : mk_matrix{};
    p.up = half(gate_up, s.weights, n_half, n_half - 1, s.i, s.h);
    p.down = whole(down, s.weights, s.h, s.i);
    if (s.act == MK_ACT_CLAMPED_GLU) {
        p.gate_bias = { s.lacks & 1 ? NULL : bias.at(0), s.i, 1 };
        p.up_bias = { s.lacks & 2 ? NULL : bias.at((size_t)s.e * s.i), s.i, 1 };
        p.down_bias = { bias.at((size_t)s.e * 2 * s.i), s.h, 1 };
    }
    if (s.lora != NONE)
        describe_lora(*this, s, n_half);
}

/* ---- calls ---- */

mk_forward describe_forward(results &r, inputs &in)
{
    mk_forward f = {};

    f.size = sizeof f, f.flags = case_flags, f.out = r.out.at(0), f.out_stride = r.s.h, f.problem = &in.p;
    return f;
}

mk_backward describe_backward(results &r, inputs &in)
{
    const shape &s = r.s;
    mk_backward b = {};

    b.size = sizeof b, b.flags = case_flags, b.dx = r.dx.at(0), b.dx_stride = s.h, b.dscore = r.dscore.at(0), b.dscore_stride = s.k;
    if (s.trained) {
        b.dgate = r.n_half == 2 ? half(r.dgate_up, s.weights, 2, 0, s.i, s.h) : mk_matrix{};
        b.dup = half(r.dgate_up, s.weights, r.n_half, r.n_half - 1, s.i, s.h);
        b.ddown = whole(r.ddown, s.weights, s.h, s.i);
    }
    if (s.act == MK_ACT_CLAMPED_GLU) {
        b.dgate_bias = { r.dbias.at(0), s.i, 1 };
        b.dup_bias = { r.dbias.at((size_t)s.e * s.i), s.i, 1 };
        b.ddown_bias = { r.dbias.at((size_t)s.e * 2 * s.i), s.h, 1 };
    }
    b.dweight_dtype = s.dtype, b.accumulate = s.accumulate, b.dout = in.dout.at(0), b.dout_stride = s.h, b.problem = &in.p;
    return b;
}

mk_lora_grad describe_lora_gradients(results &r)
{
    const shape &s = r.s;
    int rows = r.n_half * s.i, step = b_step(s, r.n_half);
    mk_lora_grad g = {};

    g.size = sizeof g, g.dtype = s.lora_dtype;
    g.gate_a = low_a(r.dgate_a, s.up_rank, s.h), g.up_a = low_a(r.dup_a, s.up_rank, s.h);
    if (r.n_half == 2)
        g.gate_b = low_b(r.dup_b, s, s.up_rank, rows, 0, step);
    g.up_b = low_b(r.dup_b, s, s.up_rank, rows, up_first(s, r.n_half), step);
    g.down_a = low_a(r.ddown_a, s.down_rank, s.i), g.down_b = low_b(r.ddown_b, s, s.down_rank, s.h, 0, 1);
    return g;
}
