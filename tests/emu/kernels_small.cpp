/* kernels_small.cpp: small problems through the kernels, against the CPU reference: products, adapters, layouts, types, odd
 * shapes. Compiled twice: with the kernels' source emulated on the CPU (make emu), and with MK_ON_GPU against the
 * library's objects on a GPU, where it is what compute-sanitizer runs (tests/gpu/kernels_sanitize.sh).
 *     kernels_small [WORD] [--portable]     cases whose name has the word
 *     kernels_small [--portable] --random N [FIRST]     N cases drawn by lot, from number FIRST on */
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

extern "C" {
#include "kernels/cuda_paths.h"
#include "kernels/ref_moe.h"
#include "kernels/ref_route.h"
}

static uint32_t flags;
static const char *path = "the row that fits"; /* served the last call */

#ifdef MK_ON_GPU
#include <cuda_runtime.h>

static void *dev_alloc(size_t n)
{
    void *p = NULL;
    if (cudaMalloc(&p, n + !n))
        printf("no GPU memory\n"), exit(1);
    return p;
}

static void dev_free(void *p) { cudaFree(p); }
static void dev_put(void *to, const void *from, size_t n) { cudaMemcpy(to, from, n, cudaMemcpyHostToDevice); }

/* Also the place where a launch that failed comes to light. */
static void dev_get(void *to, const void *from, size_t n)
{
    if (cudaMemcpy(to, from, n, cudaMemcpyDeviceToHost))
        printf("%s\n", cudaGetErrorString(cudaGetLastError())), exit(1);
}

static int forward(const mk_forward *f, const struct mk_plan *) { return mk_get_api(MK_API_VERSION)->forward(f, NULL); }
static int backward(const mk_backward *b, const struct mk_plan *) { return mk_get_api(MK_API_VERSION)->backward(b, NULL); }
#else
static void *dev_alloc(size_t n)
{
    void *p = aligned_alloc(256, (n + 255) / 256 * 256 + 256 * !n);
    return memset(p, 0xff, n);
}

static void dev_free(void *p) { free(p); }
static void dev_get(void *to, const void *from, size_t n)
{
    if (n)
        memcpy(to, from, n);
}

static void dev_put(void *to, const void *from, size_t n) { dev_get(to, from, n); }

/* As the registry chooses on a Hopper GPU. */
static int forward(const mk_forward *f, const struct mk_plan *plan)
{
    if (!(f->flags & MK_FLAG_PORTABLE) && !mk_hopper_fits_forward(f))
        return path = "hopper", mk_hopper_forward(f, plan, NULL);
    path = "portable";
    int rc = mk_portable_fits_forward(f);
    return rc ? rc : mk_portable_forward(f, plan, NULL);
}

static int backward(const mk_backward *b, const struct mk_plan *plan)
{
    struct mk_plan mine = *plan;

    mk_plan_apart(&mine, b);
    if (!(b->flags & MK_FLAG_PORTABLE) && !mk_hopper_fits_backward(b))
        return path = "hopper", mk_hopper_backward(b, &mine, NULL);
    path = "portable";
    int rc = mk_portable_fits_backward(b);
    return rc ? rc : mk_portable_backward(b, &mine, NULL);
}
#endif

enum layout { CONCAT, INTERLEAVED, TRANSPOSED, BY_TURNS, STRIDED }; /* by turns: transposed, rows of gate and up alternate */
enum adapter { NONE, SHARED, APART, UP_ONLY, DOWN_ONLY };
enum sharing { PEFT, DENSE }; /* how B lies: the expert fastest, or one matrix an expert */

struct shape {
    const char *name;
    int t, h, i, e, k;
    uint32_t act, dtype, lora_dtype;
    layout weights;
    adapter lora;
    sharing b_lies;
    int up_rank, down_rank;
    bool trained, accumulate, one_expert;
    float limit;     /* of the clamped activation; 0: 7 */
    float tolerance; /* relative RMS error; 0: 1e-2 */
};

static uint64_t state = 1;

static double uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 40) / (double)(1 << 24) * 2 - 1;
}

static bool on_device; /* whose memory descriptions point to */

/* An array on the host and its twin on the device, exactly as long as it is: a sanitizer sees a step beyond. */
struct array {
    uint32_t dtype;
    size_t n;
    std::vector<char> bytes;
    void *dev;

    array(uint32_t type, size_t count, double scale) : dtype(type), n(count), bytes(count * mk_dtype_bytes(type)), dev(dev_alloc(bytes.size()))
    {
        for (size_t i = 0; i < n; i++)
            mk_ref_put(bytes.data(), dtype, (int64_t)i, scale == 0 ? NAN : scale * uniform());
        put();
    }
    array(const array &a) : dtype(a.dtype), n(a.n), bytes(a.bytes), dev(dev_alloc(bytes.size())) { put(); }
    ~array() { dev_free(dev); }
    array &operator=(const array &) = delete;
    void *at(size_t i) { return (on_device ? (char *)dev : bytes.data()) + i * mk_dtype_bytes(dtype); }
    double value(size_t i) { return mk_ref_get(bytes.data(), dtype, (int64_t)i); }
    void put(void) { dev_put(dev, bytes.data(), bytes.size()); }
    void get(void) { dev_get(bytes.data(), dev, bytes.size()); }
};

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

/* A problem with everything it can have, its outputs and gradients, once for each implementation. */
struct run {
    shape s;
    int n_half;
    array out, dx, dscore, dgate_up, ddown, dbias, dgate_a, dup_a, dup_b, ddown_a, ddown_b;

    run(const shape &c) : s(c), n_half(c.act == MK_ACT_RELU2 ? 1 : 2), out(c.dtype, (size_t)c.t * c.h, 0), dx(c.dtype, (size_t)c.t * c.h, 0),
        dscore(MK_FP32, (size_t)c.t * c.k, 0), dgate_up(c.dtype, weight_elements(c, n_half), c.accumulate), ddown(c.dtype, weight_elements(c, 1), c.accumulate),
        dbias(c.dtype, (size_t)c.e * (2 * c.i + c.h), c.accumulate), dgate_a(c.lora_dtype, (size_t)c.e * c.up_rank * c.h, c.accumulate), dup_a(dgate_a), dup_b(c.lora_dtype, (size_t)c.e * c.up_rank * n_half * c.i, c.accumulate),
        ddown_a(c.lora_dtype, (size_t)c.e * c.down_rank * c.i, c.accumulate), ddown_b(c.lora_dtype, (size_t)c.e * c.down_rank * c.h, c.accumulate) {}
    std::vector<array *> results(void) { return { &out, &dx, &dscore, &dgate_up, &ddown, &dbias, &dgate_a, &dup_a, &dup_b, &ddown_a, &ddown_b }; }
    static size_t weight_elements(const shape &c, int n) { return (size_t)c.e * n * c.i * c.h * (c.weights == STRIDED ? 3 : 1); }
};

struct inputs {
    array x, score, dout, gate_up, down, bias, gate_a, up_a, up_b, down_a, down_b, index;
    mk_lora lora;
    mk_problem p;

    inputs(const shape &s, int n_half);
    void describe(const shape &s, int n_half);
    void adapters(const shape &s, int n_half);
};

inputs::inputs(const shape &s, int n_half)
    : x(s.dtype, (size_t)s.t * s.h, 1), score(MK_FP32, (size_t)s.t * s.k, 1), dout(s.dtype, (size_t)s.t * s.h, 1),
      gate_up(s.dtype, run::weight_elements(s, n_half), .5), down(s.dtype, run::weight_elements(s, 1), .5), bias(s.dtype, (size_t)s.e * (2 * s.i + s.h), .3),
      gate_a(s.lora_dtype, (size_t)s.e * s.up_rank * s.h, .5), up_a(s.lora_dtype, (size_t)s.e * s.up_rank * s.h, .5),
      up_b(s.lora_dtype, (size_t)s.e * s.up_rank * n_half * s.i, .5), down_a(s.lora_dtype, (size_t)s.e * s.down_rank * s.i, .5),
      down_b(s.lora_dtype, (size_t)s.e * s.down_rank * s.h, .5), index(MK_INT32, (size_t)s.t * s.k, 1)
{
    for (int t = 0; t < s.t; t++)
        for (int k = 0; k < s.k; k++) /* an expert twice or never, and choices that are dropped */
            ((int32_t *)index.bytes.data())[t * s.k + k] = s.one_expert ? 1 % s.e : t % 7 == 6 && !k ? s.e : (t * (k + 1) + k) % std::max(1, s.e - (s.e > 2));
    index.put();
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
        p.gate_bias = { bias.at(0), s.i, 1 };
        p.up_bias = { bias.at((size_t)s.e * s.i), s.i, 1 };
        p.down_bias = { bias.at((size_t)s.e * 2 * s.i), s.h, 1 };
    }
    if (s.lora != NONE)
        adapters(s, n_half);
}

static int up_first(const shape &s, int n_half)
{
    return n_half == 1 ? 0 : s.weights == INTERLEAVED ? 1 : s.i;
}

static int b_step(const shape &s, int n_half)
{
    return n_half == 2 && s.weights == INTERLEAVED ? 2 : 1;
}

void inputs::adapters(const shape &s, int n_half)
{
    int rows = n_half * s.i, step = b_step(s, n_half);

    lora = {};
    lora.size = sizeof lora, lora.dtype = s.lora_dtype;
    lora.up_rank = s.lora == DOWN_ONLY ? 0 : s.up_rank, lora.down_rank = s.lora == UP_ONLY ? 0 : s.down_rank;
    lora.apart = s.lora == APART, lora.up_scale = 2.f, lora.down_scale = .75f;
    lora.gate_a = low_a(gate_a, s.up_rank, s.h), lora.up_a = low_a(up_a, s.up_rank, s.h);
    if (n_half == 2)
        lora.gate_b = low_b(up_b, s, s.up_rank, rows, 0, step);
    lora.up_b = low_b(up_b, s, s.up_rank, rows, up_first(s, n_half), step);
    lora.down_a = low_a(down_a, s.down_rank, s.i), lora.down_b = low_b(down_b, s, s.down_rank, s.h, 0, 1);
    p.lora = &lora;
}

static mk_lora_grad lora_gradients(run &r, const shape &s)
{
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

static int check(int rc, const char *what)
{
    if (rc)
        printf("%s gives %d\n", what, rc), exit(1);
    return rc;
}

/* Bytes that nobody has written. */
struct blank {
    void *p;

    blank(size_t n) : p(on_device ? dev_alloc(n) : aligned_alloc(256, (n + 511) / 256 * 256)) {}
    ~blank() { on_device ? dev_free(p) : free(p); }
};

static mk_backward describe_backward(run &r, inputs &in)
{
    const shape &s = r.s;
    mk_backward b = {};

    b.size = sizeof b, b.flags = flags, b.dx = r.dx.at(0), b.dx_stride = s.h, b.dscore = r.dscore.at(0), b.dscore_stride = s.k;
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

/* A gradient that is written whole and later, as dx's scratch. */
static void *spare_memory(run &r, const struct mk_plan &plan)
{
    const shape &s = r.s;
    size_t n = (size_t)plan.n_row * s.h;

    return s.trained && !s.accumulate && s.weights != STRIDED && r.dgate_up.n >= n ? r.dgate_up.at(0) : NULL;
}

/* Forward and backward by the reference, or by the kernels. */
static void compute(run &r, inputs &in, bool device)
{
    const shape &s = r.s;
    struct mk_plan plan;

    on_device = device;
    in.describe(s, r.n_half);
    check(mk_plan(&plan, &in.p), "plan");
    size_t work_bytes = plan.backward.bytes;
    void *dx_row = device ? spare_memory(r, plan) : NULL;
    if (dx_row)
        work_bytes = plan.backward.dx_row;
    blank saved(plan.saved.bytes), work_f(plan.forward.bytes), work_b(work_bytes);
    mk_forward f = {};
    f.size = sizeof f, f.flags = flags, f.out = r.out.at(0), f.out_stride = s.h, f.problem = &in.p;
    f.saved = saved.p, f.saved_bytes = plan.saved.bytes, f.workspace = work_f.p, f.workspace_bytes = plan.forward.bytes;
    mk_lora_grad low = lora_gradients(r, s);
    mk_backward b = describe_backward(r, in);
    b.saved = saved.p, b.workspace = work_b.p, b.workspace_bytes = work_bytes, b.dx_row = dx_row, b.dlora = s.lora == NONE ? NULL : &low;
    check(device ? forward(&f, &plan) : mk_ref_forward(&f), "forward");
    check(device ? backward(&b, &plan) : mk_ref_backward(&b), "backward");
    for (array *a : r.results())
        if (device)
            a->get();
}

/* Relative RMS error; elements that neither wrote are NaN in both. */
static bool close(const char *what, array &got, array &want, double tolerance)
{
    double error = 0, norm = 0;

    for (size_t i = 0; i < got.n; i++) {
        double g = got.value(i), w = want.value(i);
        if (std::isnan(w) && std::isnan(g))
            continue;
        error += (g - w) * (g - w);
        norm += w * w;
    }
    bool ok = std::sqrt(error) <= tolerance * std::sqrt(norm);
    if (!ok)
        printf("  %s: relative error %.2e\n", what, std::sqrt(error / norm));
    return ok;
}

static bool agree(const shape &s)
{
    state = 1 + (uint64_t)s.t;
    run got(s), want = got;
    inputs in(s, got.n_half);

    compute(want, in, false);
    compute(got, in, true);
    static const char *const name[] = { "out", "dx", "dscore", "dgate_up", "ddown", "dbias", "dgate_a", "dup_a", "dup_b", "ddown_a", "ddown_b" };
    std::vector<array *> mine = got.results(), other = want.results();
    bool ok = true;
    for (size_t i = 0; i < mine.size(); i++)
        ok &= close(name[i], *mine[i], *other[i], s.tolerance ? s.tolerance : 1e-2);
    printf("%s %s (%s)\n", ok ? "ok  " : "FAIL", s.name, path);
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
    { "many tiles, few rows", 50, 264, 392, 5, 3, MK_ACT_GEGLU_ERF, MK_BF16, MK_FP32, INTERLEAVED, NONE, PEFT, 0, 0, true, false, false },
    { "adapters, many rows of one expert", 330, 72, 264, 3, 1, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, SHARED, PEFT, 16, 16, true, false, true },
    { "transposed", 150, 136, 264, 3, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, TRANSPOSED, NONE, PEFT, 0, 0, true, false, false },
    { "transposed, gate and up by turns", 150, 136, 200, 3, 2, MK_ACT_CLAMPED_GLU, MK_BF16, MK_FP32, BY_TURNS, NONE, PEFT, 0, 0, true, false, false },
    { "transposed, by turns, added up", 40, 264, 72, 4, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, BY_TURNS, NONE, PEFT, 0, 0, true, true, false },
    { "transposed, by turns, frozen", 40, 72, 136, 4, 2, MK_ACT_CLAMPED_GLU, MK_BF16, MK_FP32, BY_TURNS, NONE, PEFT, 0, 0, false, false, false },
    { "adapters, no tokens", 0, 64, 64, 3, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, SHARED, PEFT, 16, 16, false, false, false },
};

/* ---- cases by lot ---- */

template <typename T> static T one_of(std::initializer_list<T> v)
{
    return v.begin()[(size_t)((uniform() + 1) / 2 * (double)v.size()) % v.size()];
}

static int between(int least, int most)
{
    return std::min(most, least + (int)((uniform() + 1) / 2 * (most - least + 1)));
}

/* The same number gives the same case. Nothing is clamped: at the limit a rounding decides between two derivatives. The clamped
 * activation is steep besides (1.702 g): with few numbers a rounded g shows as much. */
static shape random_shape(int number)
{
    shape s = {};

    state = 7777777 + (uint64_t)number * 1000003;
    uniform();
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

/* ---- routing alone: bit for bit what the reference says ---- */

struct routing {
    const char *name;
    int t, k, e;
    uint32_t index_dtype;
};

static const routing routings[] = {
    { "one choice", 1, 1, 1, MK_INT32 },
    { "six chunks", 700, 2, 7, MK_INT64 },
    { "many experts", 3000, 2, 1024, MK_INT32 },
    { "a chunk for most blocks", 5800, 4, 67, MK_INT64 },
    { "rounds of a chunk", 300000, 2, 3, MK_INT32 },
};

template <typename T> static bool same(const char *what, const T *got, const T *want, int n)
{
    bool ok = !n || !memcmp(got, want, (size_t)n * sizeof(T));
    if (!ok)
        printf("  %s differs\n", what);
    return ok;
}

static bool same_routing(const struct mk_ref_route &got, const struct mk_ref_route &want, const mk_problem &p)
{
    int n = want.offset[p.n_expert];
    bool ok = same("offset", got.offset, want.offset, p.n_expert + 1) & same("n_tile", got.n_tile, want.n_tile, 1);

    ok = ok && same("tile", got.tile, want.tile, *want.n_tile) & same("row_token", got.row_token, want.row_token, n) &
                   same("row_choice", got.row_choice, want.row_choice, n) & same("row_score", got.row_score, want.row_score, n);
    return ok & same("choice_row", got.choice_row, want.choice_row, p.n_token * p.top_k);
}

static bool routes(const routing &c)
{
    int n = c.t * c.k;
    array index(c.index_dtype, (size_t)n, 1), score(MK_FP32, (size_t)n, 1);
    mk_problem p = {};
    struct mk_plan plan;

    for (int i = 0; i < n; i++)
        mk_ref_put(index.bytes.data(), c.index_dtype, i, floor((uniform() + 1) / 2 * (c.e + 2)) - 1); /* -1 and E are dropped */
    index.put();
    p.size = sizeof p, p.n_token = c.t, p.hidden = p.inter = 8, p.n_expert = c.e, p.top_k = c.k, p.index_dtype = c.index_dtype;
    p.score_dtype = MK_FP32, p.index_stride = p.score_stride = c.k, p.index = index.bytes.data(), p.score = score.bytes.data();
    check(mk_plan(&plan, &p), "plan");
    std::vector<char> want(plan.saved.bytes), got(plan.saved.bytes);
    struct mk_ref_route w = mk_ref_route_at(want.data(), &plan.saved);
    mk_ref_route(&w, &p);
    on_device = true;
    blank saved(plan.saved.bytes), count(plan.forward.bytes);
    p.index = index.dev, p.score = score.dev;
    check(mk_route(&p, &plan, &plan.saved, saved.p, (int32_t *)count.p, NULL), "route");
    dev_get(got.data(), saved.p, got.size());
    bool ok = same_routing(mk_ref_route_at(got.data(), &plan.saved), w, p);
    printf("%s routing, %s\n", ok ? "ok  " : "FAIL", c.name);
    return ok;
}

/* ---- what is refused, before anything is launched ---- */

struct broken {
    const char *name;
    int code;
    void (*breaks)(mk_problem *p, mk_forward *f, mk_backward *b);
};

static void *shifted(const void *p)
{
    return (char *)p + 2;
}

static const broken brokens[] = {
    { "misaligned x", MK_EALIGN, [](mk_problem *p, mk_forward *, mk_backward *) { p->x = shifted(p->x); } },
    { "rows of x not 16 bytes apart", MK_EALIGN, [](mk_problem *p, mk_forward *, mk_backward *) { p->x_stride += 4; } },
    { "misaligned gate", MK_EALIGN, [](mk_problem *p, mk_forward *, mk_backward *) { p->gate.base = shifted(p->gate.base); } },
    { "misaligned down", MK_EALIGN, [](mk_problem *p, mk_forward *, mk_backward *) { p->down.base = shifted(p->down.base); } },
    { "rows of up not 16 bytes apart", MK_EALIGN, [](mk_problem *p, mk_forward *, mk_backward *) { p->gate.stride_row = p->up.stride_row += 4; } },
    { "experts of down not 16 bytes apart", MK_EALIGN, [](mk_problem *p, mk_forward *, mk_backward *) { p->down.stride_expert += 4; } },
    { "fp32", MK_EDTYPE, [](mk_problem *p, mk_forward *, mk_backward *) { p->dtype = MK_FP32; } },
    { "score in fp64", MK_EDTYPE, [](mk_problem *p, mk_forward *, mk_backward *) { p->score_dtype = MK_FP64; } },
    { "gate unlike up", MK_ELAYOUT, [](mk_problem *p, mk_forward *, mk_backward *) { p->gate.stride_row *= 2; } },
    { "misaligned out", MK_EALIGN, [](mk_problem *, mk_forward *f, mk_backward *) { f->out = shifted(f->out); } },
    { "rows of out not 16 bytes apart", MK_EALIGN, [](mk_problem *, mk_forward *f, mk_backward *) { f->out_stride += 4; } },
    { "misaligned dout", MK_EALIGN, [](mk_problem *, mk_forward *, mk_backward *b) { b->dout = shifted(b->dout); } },
    { "misaligned dx", MK_EALIGN, [](mk_problem *, mk_forward *, mk_backward *b) { b->dx = shifted(b->dx); } },
    { "gate frozen, up not", MK_EBUFFER, [](mk_problem *, mk_forward *, mk_backward *b) { b->dgate.base = NULL; } },
};

/* A break of the problem is found by both, one of the call's own arguments by that call. */
static bool refuses(const broken &c)
{
    const shape &s = shapes[0];
    run r(s);
    inputs in(s, r.n_half);

    on_device = true;
    in.describe(s, r.n_half);
    mk_forward f = {};
    f.size = sizeof f, f.out = r.out.at(0), f.out_stride = s.h, f.problem = &in.p;
    mk_backward b = describe_backward(r, in), b_before = b;
    mk_forward f_before = f;
    mk_problem p_before = in.p;
    c.breaks(&in.p, &f, &b);
    int rc = memcmp(&p_before, &in.p, sizeof in.p) || memcmp(&f_before, &f, sizeof f) ? mk_portable_fits_forward(&f) : c.code;
    int rc_back = memcmp(&p_before, &in.p, sizeof in.p) || memcmp(&b_before, &b, sizeof b) ? mk_portable_fits_backward(&b) : c.code;
    bool ok = rc == c.code && rc_back == c.code;
    printf("%s refused: %s\n", ok ? "ok  " : "FAIL", c.name);
    return ok;
}

int main(int argc, char **argv)
{
    const char *word = "";
    int bad = 0, by_lot = 0, first = 0;

    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--portable"))
            flags = MK_FLAG_PORTABLE;
        else if (!strcmp(argv[i], "--random") && i + 1 < argc)
            by_lot = atoi(argv[++i]), first = i + 1 < argc ? atoi(argv[++i]) : 0;
        else
            word = argv[i];
    for (int i = 0; i < by_lot; i++)
        bad += !agree_by_lot(first + i);
    if (by_lot)
        return bad != 0;
    for (const shape &s : shapes)
        if (strstr(s.name, word))
            bad += !agree(s);
    for (const routing &c : routings)
        if (strstr(c.name, word))
            bad += !routes(c);
    for (const broken &c : brokens)
        if (!*word)
            bad += !refuses(c);
    return bad != 0;
}
