/* agree.cpp: forward and backward against the CPU reference: products, adapters, layouts, types, odd shapes. */
#include "tests/emu/cases.h"
#include "tests/emu/device.h"
#include "tests/emu/problem.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>

extern "C" {
#include "kernels/ref_moe.h"
}

/* A gradient that is written whole and later, as dx's scratch. */
static void *spare_memory(results &r, const struct mk_plan &plan)
{
    const shape &s = r.s;
    size_t n = (size_t)plan.n_row * s.h;

    return s.trained && !s.accumulate && s.weights != STRIDED && r.dgate_up.n >= n ? r.dgate_up.at(0) : NULL;
}

static std::vector<array *> arrays(results &r)
{
    return { &r.out,     &r.dx,    &r.dscore, &r.dgate_up, &r.ddown, &r.dbias,
             &r.dgate_a, &r.dup_a, &r.dup_b,  &r.ddown_a,  &r.ddown_b };
}

/* A step, and what it writes. */
struct turn {
    uint32_t step;
    void *written;
    size_t n_bytes;
};

static void put_nan(void *to, size_t n_bytes)
{
    std::vector<uint8_t> nan(n_bytes, 0xff);
    dev_put(to, nan.data(), n_bytes);
}

/* Step by step, what it writes being NaN before. */
static void by_steps(const std::vector<turn> &turns, uint32_t *steps, const std::function<int()> &call)
{
    for (const turn &t : turns) {
        put_nan(t.written, t.n_bytes);
        *steps = t.step;
        case_check(call(), "a step");
    }
}

/* The products come twice, the first time for nothing: the second must not rely on what the first left. */
static void call_by_steps(mk_forward &f, mk_backward &b, const struct mk_plan &plan)
{
    size_t row_bytes = (size_t)plan.n_row * 2, inter = f.problem->inter, hidden = f.problem->hidden;
    turn up = { MK_STEP_UP, (char *)f.workspace + plan.forward.act, row_bytes * inter };
    turn down = { MK_STEP_DOWN, (char *)f.workspace + plan.forward.expert_out, row_bytes * hidden };
    turn dact = { MK_STEP_DACT, (char *)b.workspace + plan.backward.dpre, row_bytes * inter * 2 };
    turn dx = { MK_STEP_DX, (char *)b.workspace + plan.backward.dx_row, row_bytes * hidden };

    by_steps({ { MK_STEP_ROUTE }, up, up, down, down, { MK_STEP_COMBINE } }, &f.steps, [&] { return dev_forward(&f, &plan); });
    by_steps({ dact, dact, dx, dx, { MK_STEP_DSCORE }, { MK_STEP_DW_DOWN }, { MK_STEP_DW_UP } }, &b.steps,
             [&] { return dev_backward(&b, &plan); });
}

/* Rows that leave by TMA: a store that is left out shows as NaN in the sums of them. Checkers of unwritten memory do not see such
 * stores, and without this would call every row unwritten. */
static void put_nan_rows(const mk_forward &f, const mk_backward &b, const struct mk_plan &plan)
{
    size_t n_bytes = (size_t)plan.n_row * 2 * f.problem->hidden;

    put_nan((char *)f.workspace + plan.forward.expert_out, n_bytes);
    put_nan(b.dx_row ? b.dx_row : (char *)b.workspace + plan.backward.dx_row, n_bytes);
}

/* Forward and backward by the reference, or by the kernels. */
static void compute(results &r, inputs &in, bool device)
{
    const shape &s = r.s;
    struct mk_plan plan;

    on_device = device;
    in.describe(s, r.n_half);
    case_check(mk_plan(&plan, &in.p), "plan");
    size_t work_bytes = plan.backward.bytes;
    void *dx_row = device ? spare_memory(r, plan) : NULL;
    if (dx_row)
        work_bytes = plan.backward.dx_row;
    blank saved(plan.saved.bytes), work_f(plan.forward.bytes), work_b(work_bytes);
    mk_forward f = describe_forward(r, in);
    f.saved = saved.p, f.saved_bytes = plan.saved.bytes, f.workspace = work_f.p, f.workspace_bytes = plan.forward.bytes;
    mk_lora_grad low = describe_lora_gradients(r);
    mk_backward b = describe_backward(r, in);
    b.saved = saved.p, b.workspace = work_b.p, b.workspace_bytes = work_bytes, b.dx_row = dx_row;
    b.dlora = s.lora == NONE ? NULL : &low;
    if (device)
        put_nan_rows(f, b, plan);
    if (device && s.apart) {
        call_by_steps(f, b, plan);
    } else {
        case_check(device ? dev_forward(&f, &plan) : mk_ref_forward(&f), "forward");
        case_check(device ? dev_backward(&b, &plan) : mk_ref_backward(&b), "backward");
    }
    for (array *a : arrays(r))
        if (device)
            a->get();
}

static double mean_square(array &a)
{
    double sum = 0;

    for (size_t i = 0; i < a.n; i++)
        sum += a.value(i) * a.value(i);
    return a.n ? sum / a.n : 0;
}

/* Relative RMS error, or relative to least where the result happens to be smaller; elements that neither wrote are NaN in both. */
static bool close(const char *what, array &got, array &want, double tolerance, double least)
{
    double error = 0, norm = 0;

    for (size_t i = 0; i < got.n; i++) {
        double g = got.value(i), w = want.value(i);
        if (std::isnan(w) && std::isnan(g))
            continue;
        error += (g - w) * (g - w);
        norm += w * w;
    }
    norm = std::fmax(norm, want.n * least * least);
    bool ok = std::sqrt(error) <= tolerance * std::sqrt(norm);
    if (!ok)
        printf("  %s: relative error %.2e\n", what, std::sqrt(error / norm));
    return ok;
}

static bool agree(const shape &s)
{
    lot_begin(1 + (uint64_t)s.t);
    results got(s), want = got;
    inputs in(s, got.n_half);

    compute(want, in, false);
    compute(got, in, true);
    static const char *const name[] = { "out",     "dx",    "dscore", "dgate_up", "ddown", "dbias",
                                        "dgate_a", "dup_a", "dup_b",  "ddown_a",  "ddown_b" };
    std::vector<array *> mine = arrays(got), other = arrays(want);
    /* One score's gradient is a sum over H that may cancel: it is held against what such a sum is without. */
    double row_square = s.t ? mean_square(want.out) / (s.k * mean_square(in.score)) : 0;
    double dscore_rms = std::sqrt(s.h * row_square * mean_square(in.dout));
    bool ok = true;
    for (size_t i = 0; i < mine.size(); i++)
        ok &= close(name[i], *mine[i], *other[i], s.tolerance ? s.tolerance : 1e-2, mine[i] == &got.dscore ? dscore_rms : 0);
    printf("%s %s (%s)\n", ok ? "ok  " : "FAIL", s.name, dev_path);
    fflush(stdout);
    return ok;
}

static const shape shapes[] = {
    { "no adapters", 40, 64, 48, 4, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, NONE, PEFT, 0, 0, true, false, false },
    { "no adapters, transposed, fp16", 40, 136, 72, 4, 2, MK_ACT_GEGLU_TANH, MK_FP16, MK_FP32, TRANSPOSED, NONE, PEFT, 0, 0, true, true, false },
    { "no adapters, relu2", 40, 72, 136, 3, 2, MK_ACT_RELU2, MK_BF16, MK_FP32, CONCAT, NONE, PEFT, 0, 0, true, false, false },
    { "no adapters, any strides", 30, 40, 24, 3, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, STRIDED, NONE, PEFT, 0, 0, true, false, false },
    { "adapters, PEFT's form, fp32", 40, 72, 136, 5, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, SHARED, PEFT, 8, 8, false, false, false },
    { "adapters, rank 4 and 12, trained weights", 40, 136, 72, 5, 2, MK_ACT_SWIGLU, MK_BF16, MK_BF16, CONCAT, SHARED, PEFT, 4, 12, true, true, false },
    { "adapters, rank 40 and 24, interleaved, fp16", 40, 72, 72, 4, 3, MK_ACT_GEGLU_ERF, MK_FP16, MK_FP16, INTERLEAVED, SHARED, PEFT, 40, 24, false, true, false },
    { "adapters, rank 128, many rows, one expert", 150, 64, 64, 3, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, SHARED, PEFT, 128, 100, false, false, true },
    { "adapters apart, rank 12", 40, 72, 72, 4, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, APART, DENSE, 12, 5, false, false, false },
    { "adapters apart, rank 72", 40, 64, 40, 4, 2, MK_ACT_SWIGLU, MK_BF16, MK_BF16, CONCAT, APART, PEFT, 72, 64, false, false, false },
    { "adapters, transposed weights, biases", 40, 72, 136, 4, 2, MK_ACT_CLAMPED_GLU, MK_BF16, MK_FP32, TRANSPOSED, SHARED, PEFT, 16, 16, false, false, false },
    { "no adapters, biases, added up", 40, 72, 136, 4, 2, MK_ACT_CLAMPED_GLU, MK_BF16, MK_FP32, CONCAT, NONE, PEFT, 0, 0, true, true, false },
    { "adapters, any strides", 30, 40, 24, 3, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, STRIDED, SHARED, DENSE, 3, 5, false, false, false },
    { "adapters, relu2", 40, 72, 72, 4, 2, MK_ACT_RELU2, MK_BF16, MK_FP32, CONCAT, SHARED, DENSE, 16, 33, false, false, false },
    { "adapters on gate and up alone", 40, 72, 72, 4, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, UP_ONLY, PEFT, 8, 8, false, false, false },
    { "adapters on down alone", 40, 72, 72, 4, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, DOWN_ONLY, PEFT, 8, 8, false, false, false },
    { "adapters, one token, 40 experts", 1, 64, 64, 40, 3, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, SHARED, PEFT, 16, 16, false, false, false },
    { "many rows an expert, several tiles wide", 340, 264, 136, 2, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, NONE, PEFT, 0, 0, true, false, false },
    { "an expert of 256 rows", 256, 200, 72, 2, 1, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, NONE, PEFT, 0, 0, false, false, true },
    { "an expert of 257 rows, biases", 257, 328, 72, 2, 1, MK_ACT_CLAMPED_GLU, MK_BF16, MK_FP32, CONCAT, NONE, PEFT, 0, 0, true, false, true },
    { "a bias on gate alone", 40, 72, 136, 4, 2, MK_ACT_CLAMPED_GLU, MK_BF16, MK_FP32, CONCAT, NONE, PEFT, 0, 0, true, false, false, 0, 0, false, 2 },
    { "a bias on up alone, by turns", 40, 72, 136, 4, 2, MK_ACT_CLAMPED_GLU, MK_BF16, MK_FP32, BY_TURNS, NONE, PEFT, 0, 0, true, false, false, 0, 0, false, 1 },
    { "an expert of 288 rows, transposed", 288, 136, 72, 2, 1, MK_ACT_SWIGLU, MK_BF16, MK_FP32, TRANSPOSED, NONE, PEFT, 0, 0, true, false, true },
    { "an expert of 285 rows, by turns, several tiles wide", 285, 72, 600, 2, 1, MK_ACT_CLAMPED_GLU, MK_BF16, MK_FP32, BY_TURNS, NONE, PEFT, 0, 0, true, false, true },
    { "an expert of 289 rows, adapters", 289, 264, 72, 2, 1, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, SHARED, PEFT, 16, 72, false, false, true },
    { "no tokens, many tiles", 0, 520, 264, 4, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, NONE, PEFT, 0, 0, true, false, false },
    { "the last columns half a tile", 150, 384, 136, 3, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, NONE, PEFT, 0, 0, true, false, false },
    { "half a tile, added up", 150, 384, 392, 3, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, INTERLEAVED, NONE, PEFT, 0, 0, true, true, false },
    { "many tiles, few rows", 50, 264, 392, 5, 3, MK_ACT_GEGLU_ERF, MK_BF16, MK_FP32, INTERLEAVED, NONE, PEFT, 0, 0, true, false, false },
    { "adapters, many rows of one expert", 330, 72, 264, 3, 1, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, SHARED, PEFT, 16, 16, true, false, true },
    { "transposed", 150, 136, 264, 3, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, TRANSPOSED, NONE, PEFT, 0, 0, true, false, false },
    { "transposed, gate and up by turns", 150, 136, 200, 3, 2, MK_ACT_CLAMPED_GLU, MK_BF16, MK_FP32, BY_TURNS, NONE, PEFT, 0, 0, true, false, false },
    { "transposed, by turns, added up", 40, 264, 72, 4, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, BY_TURNS, NONE, PEFT, 0, 0, true, true, false },
    { "transposed, by turns, frozen", 40, 72, 136, 4, 2, MK_ACT_CLAMPED_GLU, MK_BF16, MK_FP32, BY_TURNS, NONE, PEFT, 0, 0, false, false, false },
    { "step by step", 450, 264, 392, 3, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, NONE, PEFT, 0, 0, true, true, false, 0, 0, true },
    { "rows of dx in two pieces", 30, 2184, 24, 3, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, NONE, PEFT, 0, 0, true, false, false },
    { "more choices than a step sums", 20, 2056, 16, 40, 30, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, NONE, PEFT, 0, 0, true, true, false },
    { "adapters, no tokens", 0, 64, 64, 3, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, SHARED, PEFT, 16, 16, false, false, false },
};

int cases_agree(const char *word)
{
    return count_failed(shapes, word, agree);
}

/* ---- cases by lot ---- */

template <typename T> static T one_of(std::initializer_list<T> v)
{
    return v.begin()[(size_t)((lot_draw() + 1) / 2 * (double)v.size()) % v.size()];
}

static int between(int least, int most)
{
    return std::min(most, least + (int)((lot_draw() + 1) / 2 * (most - least + 1)));
}

/* The same number gives the same case. Nothing is clamped: at the limit a rounding decides between two derivatives. The clamped
 * activation is steep besides (1.702 g): with few numbers a rounded g shows as much. */
static shape random_shape(int number)
{
    shape s = {};

    lot_begin(7777777 + (uint64_t)number * 1000003);
    lot_draw();
    s.t = one_of({ 1, 7, 40, 64, 65, between(1, 200), between(200, 400) });
    s.h = 8 * between(1, 40), s.i = 8 * between(1, 40);
    s.e = between(1, 7), s.k = between(1, std::min(s.e, 4));
    s.act = one_of<uint32_t>({ MK_ACT_SWIGLU, MK_ACT_SWIGLU, MK_ACT_GEGLU_TANH, MK_ACT_GEGLU_ERF, MK_ACT_CLAMPED_GLU, MK_ACT_RELU2 });
    s.dtype = one_of<uint32_t>({ MK_BF16, MK_BF16, MK_BF16, MK_FP16 }), s.lora_dtype = one_of<uint32_t>({ MK_FP32, s.dtype });
    s.weights = one_of({ CONCAT, CONCAT, INTERLEAVED, TRANSPOSED, BY_TURNS, STRIDED });
    s.limit = 1e3f, s.tolerance = s.act == MK_ACT_CLAMPED_GLU ? .1f : 1.5e-2f;
    if (s.weights == BY_TURNS && s.act == MK_ACT_RELU2)
        s.weights = TRANSPOSED;
    s.lora = one_of({ NONE, NONE, SHARED, APART, UP_ONLY, DOWN_ONLY });
    if (s.lora == APART && s.act == MK_ACT_RELU2)
        s.lora = SHARED;
    if (s.lora != NONE)
        s.b_lies = one_of({ PEFT, DENSE }), s.up_rank = between(1, 128), s.down_rank = between(1, 128);
    s.trained = between(0, 3), s.accumulate = !between(0, 3), s.one_expert = !between(0, 5);
    return s;
}

static bool agree_by_lot(int number)
{
    char name[200];
    shape s = random_shape(number);

    snprintf(name, sizeof name, "case %d: T %d H %d I %d E %d K %d, act %u, dtype %u, weights %d, adapters %d (%d, %d)%s%s%s", number, s.t, s.h,
             s.i, s.e, s.k, s.act, s.dtype, s.weights, s.lora, s.up_rank, s.down_rank, s.trained ? "" : ", frozen",
             s.accumulate ? ", added up" : "", s.one_expert ? ", one expert" : "");
    s.name = name;
    return agree(s);
}

int cases_agree_by_lot(int n, int first)
{
    int bad = 0;

    for (int i = 0; i < n; i++)
        bad += !agree_by_lot(first + i);
    return bad;
}
