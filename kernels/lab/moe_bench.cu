/* moe_bench: times the library's forward and backward by named shape.
 *
 *   moe_bench [--shape NAME[,NAME...]|all] [--tokens N[,N...]] [--routing uniform|zipf|allonk|half] [--portable] [-n N] [--json] [--list]
 *
 * TFLOP/s count useful FLOPs: forward 6 T K H I, backward twice that; padding and recomputation do not count.
 * In the time: routing metadata, both GEMMs, activation, combine; gradients of x, all weights and the scores.
 * Two times: as called, and on the GPU alone (the call as a CUDA graph); and what the host spends in a call. L2 is flushed before each call, data is normal.
 * The yardstick is cuBLAS in the same run, where it is on the library path: dense 8192^3. */
#include <getopt.h>
#include <string.h>

#include "kernels/lab/cublas.cuh"
#include "kernels/moe_kernels.h"

struct shape {
    const char *name;
    int hidden, inter, n_expert, top_k;
};

static const struct shape shapes[] = {
    { "qwen3-30b", 2048, 768, 128, 8 },    { "qwen3-235b", 4096, 1536, 128, 8 },  { "qwen3-next", 2048, 512, 512, 10 },
    { "dsv3", 7168, 2048, 256, 8 },        { "glm45", 5120, 1536, 160, 8 },       { "glm45-air", 4096, 1408, 128, 8 },
    { "ernie21b", 2560, 1536, 64, 6 },     { "dots1", 4096, 1408, 128, 6 },       { "mixtral", 4096, 14336, 8, 2 },
    { "gptoss20b", 2880, 2880, 32, 4 },    { "gptoss120b", 2880, 2880, 128, 4 },  { "olmoe", 2048, 1024, 64, 8 },
    { "s1.4b-n256", 768, 256, 128, 8 },    { "s1.4b-n512", 768, 512, 64, 4 },     { "s1.4b-n1024", 768, 1024, 32, 2 },
    { "s7b-n256", 1536, 256, 128, 8 },     { "s7b-n512", 1536, 512, 64, 4 },      { "s7b-n1024", 1536, 1024, 32, 2 },
    { "s30b-n256", 4096, 256, 256, 16 },   { "s30b-n512", 4096, 512, 128, 8 },    { "s30b-n1024", 4096, 1024, 64, 4 },
    { "s120b-n512", 4096, 512, 256, 16 },  { "s120b-n1024", 4096, 1024, 128, 8 }, { "s120b-n2048", 4096, 2048, 64, 4 },
};
enum { N_SHAPE = sizeof shapes / sizeof *shapes };

struct options {
    const char *shape, *tokens, *routing;
    int n, json, host;
    uint32_t flags;
};

/* One case's buffers and calls. */
struct bench {
    const struct mk_api *api;
    struct mk_problem p;
    struct mk_forward f;
    struct mk_backward b;
    struct mk_sizes sizes;
};

static void check(const struct mk_api *api, int rc)
{
    if (!rc)
        return;
    fprintf(stderr, "moe_bench: %s\n", api->strerror(rc));
    exit(1);
}

static void run_forward(void *arg, cudaStream_t stream)
{
    struct bench *b = (struct bench *)arg;
    check(b->api, b->api->forward(&b->f, stream));
}

static void run_both(void *arg, cudaStream_t stream)
{
    struct bench *b = (struct bench *)arg;
    check(b->api, b->api->forward(&b->f, stream));
    check(b->api, b->api->backward(&b->b, stream));
}

/* ---- routing on the host: K different experts a token, by a kind's weights ---- */

static double next_uniform(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) / 9007199254740992.0;
}

static double expert_weight(const char *kind, int e, int n_expert, int top_k)
{
    if (!strcmp(kind, "zipf"))
        return 1.0 / (e + 1);
    if (!strcmp(kind, "allonk"))
        return e < top_k ? 1 : 1e-12;
    if (!strcmp(kind, "half"))
        return e < (n_expert + 1) / 2 || e < top_k ? 1 : 1e-12;
    return 1;
}

/* The K largest of log(u)/w: weighted sampling without replacement. */
static void route_token(int32_t *to, const double *weight, int n_expert, int top_k, uint64_t *state)
{
    double best[1024];
    int n = 0;

    for (int e = 0; e < n_expert; e++) {
        double key = log(next_uniform(state) + 1e-300) / weight[e];
        int at = n;
        if (n == top_k && key <= best[n - 1])
            continue;
        if (n < top_k)
            n++;
        else
            at = n - 1;
        for (; at > 0 && best[at - 1] < key; at--) {
            best[at] = best[at - 1];
            to[at] = to[at - 1];
        }
        best[at] = key;
        to[at] = e;
    }
}

static int32_t *route(const struct shape *s, int n_token, const char *kind)
{
    size_t n = (size_t)n_token * s->top_k;
    int32_t *host = (int32_t *)malloc(n * 4), *device = (int32_t *)kit_alloc(n * 4);
    double weight[1024];
    uint64_t state = 1;

    for (int e = 0; e < s->n_expert; e++)
        weight[e] = expert_weight(kind, e, s->n_expert, s->top_k);
    for (int t = 0; t < n_token; t++)
        route_token(host + (size_t)t * s->top_k, weight, s->n_expert, s->top_k, &state);
    KIT_CHECK(cudaMemcpy(device, host, n * 4, cudaMemcpyHostToDevice));
    free(host);
    return device;
}

/* ---- one case ---- */

static void set_weights(struct bench *b, const struct shape *s)
{
    int64_t h = s->hidden, i = s->inter, e = s->n_expert;
    __nv_bfloat16 *gate_up = kit_normal((uint64_t)(e * 2 * i * h), .02f, 3), *down = kit_normal((uint64_t)(e * h * i), .02f, 4);
    char *dgate_up = (char *)kit_alloc((size_t)(e * 2 * i * h) * 2), *ddown = (char *)kit_alloc((size_t)(e * h * i) * 2);

    b->p.gate = { gate_up, NULL, 0, 2 * i * h, h, 1 };
    b->p.up = { gate_up + i * h, NULL, 0, 2 * i * h, h, 1 };
    b->p.down = { down, NULL, 0, h * i, i, 1 };
    b->b.dgate = { dgate_up, NULL, 0, 2 * i * h, h, 1 };
    b->b.dup = { dgate_up + i * h * 2, NULL, 0, 2 * i * h, h, 1 };
    b->b.ddown = { ddown, NULL, 0, h * i, i, 1 };
}

static void set_calls(struct bench *b, const struct shape *s, int n_token, uint32_t flags)
{
    size_t th = (size_t)n_token * s->hidden, tk = (size_t)n_token * s->top_k;

    check(b->api, b->api->sizes(&b->sizes, &b->p));
    void *saved = kit_alloc(b->sizes.saved_bytes);
    b->f.size = sizeof b->f;
    b->f.flags = b->b.flags = flags;
    b->f.out = kit_alloc(th * 2);
    b->f.out_stride = b->b.dx_stride = b->b.dout_stride = s->hidden;
    b->f.saved = saved;
    b->f.saved_bytes = b->sizes.saved_bytes;
    b->f.workspace = kit_alloc(b->sizes.forward_workspace_bytes);
    b->f.workspace_bytes = b->sizes.forward_workspace_bytes;
    b->f.problem = b->b.problem = &b->p;
    b->b.size = sizeof b->b;
    b->b.dx = kit_alloc(th * 2);
    b->b.dscore = kit_alloc(tk * 2);
    b->b.dscore_stride = s->top_k;
    b->b.dweight_dtype = MK_BF16;
    b->b.workspace = kit_alloc(b->sizes.backward_workspace_bytes);
    b->b.workspace_bytes = b->sizes.backward_workspace_bytes;
    b->b.dout = kit_normal(th, 1, 5);
    b->b.saved = saved;
}

static void bench_open(struct bench *b, const struct mk_api *api, const struct shape *s, int n_token, const struct options *o)
{
    memset(b, 0, sizeof *b);
    b->api = api;
    b->p.size = sizeof b->p;
    b->p.n_token = n_token;
    b->p.hidden = s->hidden;
    b->p.inter = s->inter;
    b->p.n_expert = s->n_expert;
    b->p.top_k = s->top_k;
    b->p.dtype = b->p.score_dtype = MK_BF16;
    b->p.index_dtype = MK_INT32;
    b->p.x = kit_normal((uint64_t)n_token * s->hidden, 1, 1);
    b->p.x_stride = s->hidden;
    b->p.index = route(s, n_token, o->routing);
    b->p.score = kit_normal((uint64_t)n_token * s->top_k, .3f, 2);
    b->p.index_stride = b->p.score_stride = s->top_k;
    set_weights(b, s);
    set_calls(b, s, n_token, o->flags);
}

static void bench_close(struct bench *b)
{
    void *const owned[] = { (void *)b->p.x, (void *)b->p.index, (void *)b->p.score, b->p.gate.base, b->p.down.base, b->b.dgate.base,
                            b->b.ddown.base, b->f.out, b->f.saved, b->f.workspace, b->b.dx, b->b.dscore, b->b.workspace, (void *)b->b.dout };

    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        KIT_CHECK(cudaFree(owned[i]));
}

static void print_row(const struct options *o, const struct shape *s, int n_token, const char *what, const struct bench *b,
                      struct kit_time called, struct kit_time alone, double host_us, double flop, double dense)
{
    double tf = flop / called.median_ms / 1e9, tf_alone = flop / alone.median_ms / 1e9;
    const char *path = b->api->choose("forward", o->flags, &b->p)->name;

    if (!o->json) {
        printf("%-12s T=%6d %-8s %-8s %-8s called %8.3f ms (%.3f..%.3f) %6.1f | GPU alone %8.3f ms (%.3f..%.3f) %6.1f TFLOP/s", s->name, n_token,
               o->routing, path, what, called.median_ms, called.min_ms, called.max_ms, tf, alone.median_ms, alone.min_ms, alone.max_ms, tf_alone);
        if (dense > 0)
            printf(" = %.3f of dense", tf_alone / dense);
        printf(", host %.0f us, n=%d\n", host_us, o->n);
    } else {
        printf("{\"shape\": \"%s\", \"tokens\": %d, \"routing\": \"%s\", \"path\": \"%s\", \"what\": \"%s\", \"n\": %d, \"called_ms\": [%.4f, %.4f, %.4f], "
               "\"gpu_ms\": [%.4f, %.4f, %.4f], \"gpu_tflops\": %.1f, \"host_us\": %.1f, \"saved_bytes\": %zu, \"workspace_bytes\": %zu, \"dense_tflops\": ",
               s->name, n_token, o->routing, path, what, o->n, called.median_ms, called.min_ms, called.max_ms, alone.median_ms, alone.min_ms,
               alone.max_ms, tf_alone, host_us, b->sizes.saved_bytes, b->sizes.forward_workspace_bytes + b->sizes.backward_workspace_bytes);
        printf(dense > 0 ? "%.1f}\n" : "null}\n", dense);
    }
    fflush(stdout);
}

static void run_backward(void *arg, cudaStream_t stream)
{
    struct bench *b = (struct bench *)arg;
    check(b->api, b->api->backward(&b->b, stream));
}

/* What the host spends in each step alone, so that one sees which launch costs it. */
static void print_host(struct bench *b, int n, cudaStream_t stream)
{
    static const struct {
        const char *name;
        uint32_t step;
    } steps[] = { { "route", MK_STEP_ROUTE }, { "up", MK_STEP_UP },           { "down", MK_STEP_DOWN },   { "combine", MK_STEP_COMBINE }, { "dact", MK_STEP_DACT },
                  { "dx", MK_STEP_DX },       { "dw_down", MK_STEP_DW_DOWN }, { "dw_up", MK_STEP_DW_UP }, { "dbias", MK_STEP_DBIAS },     { "dscore", MK_STEP_DSCORE } };

    printf("  host, us:");
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        b->f.steps = b->b.steps = steps[i].step;
        printf(" %s %.1f", steps[i].name, kit_host_us(steps[i].step < MK_STEP_DACT ? run_forward : run_backward, b, n, stream));
    }
    printf("\n");
    b->f.steps = b->b.steps = 0;
}

static void bench_case(const struct mk_api *api, const struct shape *s, int n_token, const struct options *o, double dense, void *flush, cudaStream_t stream)
{
    double flop = 6.0 * n_token * s->top_k * s->hidden * s->inter;
    struct bench b;

    bench_open(&b, api, s, n_token, o);
    KIT_CHECK(cudaDeviceSynchronize());
    struct kit_time f = kit_time_calls(run_forward, &b, o->n, flush, stream), fg = kit_time_graph(run_forward, &b, o->n, flush, stream);
    struct kit_time a = kit_time_calls(run_both, &b, o->n, flush, stream), ag = kit_time_graph(run_both, &b, o->n, flush, stream);
    print_row(o, s, n_token, "forward", &b, f, fg, kit_host_us(run_forward, &b, o->n, stream), flop, dense);
    print_row(o, s, n_token, "fwd+bwd", &b, a, ag, kit_host_us(run_both, &b, o->n, stream), 3 * flop, dense);
    if (o->host)
        print_host(&b, o->n, stream);
    bench_close(&b);
}

/* TFLOP/s of cuBLAS on 8192^3, or 0 where there is no cuBLAS. */
static double dense_tflops(int n, void *flush, cudaStream_t stream)
{
    struct cublas lib;
    struct cublas_gemm g = { &lib, 8192, 8192, 8192, 1, NULL, NULL, NULL };

    if (!cublas_open(&lib)) {
        fprintf(stderr, "moe_bench: no cuBLAS on the library path: no yardstick\n");
        return 0;
    }
    void *a = kit_normal(8192u * 8192u, 1, 6), *b = kit_normal(8192u * 8192u, 1, 7), *c = kit_alloc(8192u * 8192u * 2);
    g.a = a;
    g.b = b;
    g.c = c;
    struct kit_time t = kit_time_calls(cublas_run, &g, n, flush, stream);
    cudaFree(a);
    cudaFree(b);
    cudaFree(c);
    return 2.0 * 8192 * 8192 * 8192 / t.median_ms / 1e9;
}

/* Is name one of the comma-separated list? */
static bool listed(const char *list, const char *name)
{
    size_t n = strlen(name);

    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, name, n) && (at[n] == ',' || !at[n]))
            return true;
    return !strcmp(list, "all");
}

static void parse(struct options *o, int argc, char **argv)
{
    static const struct option longs[] = { { "shape", 1, NULL, 's' }, { "tokens", 1, NULL, 't' }, { "routing", 1, NULL, 'r' },
                                           { "portable", 0, NULL, 'p' }, { "json", 0, NULL, 'j' }, { "list", 0, NULL, 'l' }, { "host", 0, NULL, 'H' }, { NULL, 0, NULL, 0 } };
    int c;

    while ((c = getopt_long(argc, argv, "n:", longs, NULL)) != -1) {
        if (c == 's') o->shape = optarg;
        else if (c == 't') o->tokens = optarg;
        else if (c == 'r') o->routing = optarg;
        else if (c == 'p') o->flags |= MK_FLAG_PORTABLE;
        else if (c == 'j') o->json = 1;
        else if (c == 'H') o->host = 1;
        else if (c == 'n') o->n = atoi(optarg);
        else if (c == 'l') {
            for (int i = 0; i < N_SHAPE; i++)
                printf("%-12s H %5d I %5d E %3d K %2d\n", shapes[i].name, shapes[i].hidden, shapes[i].inter, shapes[i].n_expert, shapes[i].top_k);
            exit(0);
        } else
            exit(2);
    }
    if (o->n < 1 || o->n > 64) {
        fprintf(stderr, "moe_bench: -n must be 1 to 64\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct options o = { "qwen3-30b", "4096,32768", "uniform", 9, 0, 0, 0 };
    const struct mk_api *api = mk_get_api(MK_API_VERSION);
    struct cudaDeviceProp device;
    cudaStream_t stream;

    parse(&o, argc, argv);
    if (cudaGetDeviceProperties(&device, 0)) {
        fprintf(stderr, "moe_bench: no CUDA device in this machine\n");
        return 1;
    }
    KIT_CHECK(cudaStreamCreate(&stream));
    void *flush = kit_alloc(KIT_FLUSH_BYTES);
    double dense = dense_tflops(o.n, flush, stream);
    if (!o.json)
        printf("%s, dense bf16 8192^3 by cuBLAS %.0f TFLOP/s\n", device.name, dense);
    for (int i = 0; i < N_SHAPE; i++)
        for (const char *t = o.tokens; listed(o.shape, shapes[i].name) && t; t = strchr(t, ',') ? strchr(t, ',') + 1 : NULL)
            bench_case(api, &shapes[i], atoi(t), &o, dense, flush, stream);
    return 0;
}
