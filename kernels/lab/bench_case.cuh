/* bench_case.cuh: one case of moe_bench: a shape, a number of tokens and a routing, with all buffers of forward and backward.
 * Data is normal, weights are stacked and concatenated, in bf16. */
#ifndef KERNELS_LAB_BENCH_CASE_CUH
#define KERNELS_LAB_BENCH_CASE_CUH

#include <string.h>

#include "kernels/lab/kit.cuh"
#include "kernels/lab/shapes.h"
#include "kernels/moe_kernels.h"

struct bench_case {
    const struct mk_api *api;
    const struct shape *shape;
    const char *routing;
    int n_token;
    struct mk_problem p;
    struct mk_forward f;
    struct mk_backward b;
    struct mk_sizes sizes;
};

static const char *const routings[] = { "uniform", "zipf", "allonk", "half" };
enum { N_ROUTING = sizeof routings / sizeof *routings };

static void bench_check(const struct mk_api *api, int rc)
{
    if (!rc)
        return;
    fprintf(stderr, "moe_bench: %s\n", api->strerror(rc));
    exit(1);
}

static void run_forward(void *arg, cudaStream_t stream)
{
    struct bench_case *b = (struct bench_case *)arg;
    bench_check(b->api, b->api->forward(&b->f, stream));
}

static void run_both(void *arg, cudaStream_t stream)
{
    struct bench_case *b = (struct bench_case *)arg;
    bench_check(b->api, b->api->forward(&b->f, stream));
    bench_check(b->api, b->api->backward(&b->b, stream));
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

/* ---- the problem and its buffers ---- */

static void bench_describe(struct bench_case *b, const struct mk_api *api, const struct shape *s, int n_token,
                           const char *routing)
{
    memset(b, 0, sizeof *b);
    b->api = api;
    b->shape = s;
    b->routing = routing;
    b->n_token = n_token;
    b->p.size = sizeof b->p;
    b->p.n_token = n_token;
    b->p.hidden = s->hidden;
    b->p.inter = s->inter;
    b->p.n_expert = s->n_expert;
    b->p.top_k = s->top_k;
    b->p.index_dtype = MK_INT32;
    b->p.x_stride = s->hidden;
    b->p.index_stride = b->p.score_stride = s->top_k;
    b->p.gate.stride_expert = b->p.up.stride_expert = 2 * (int64_t)s->inter * s->hidden;
    b->p.down.stride_expert = (int64_t)s->hidden * s->inter;
    b->p.gate.stride_row = b->p.up.stride_row = s->hidden;
    b->p.down.stride_row = s->inter;
    b->p.gate.stride_col = b->p.up.stride_col = b->p.down.stride_col = 1;
    bench_check(api, api->sizes(&b->sizes, &b->p));
}

/* GPU memory that bench_open takes. */
static size_t bench_bytes(const struct bench_case *b)
{
    const struct shape *s = b->shape;
    size_t weights = (size_t)s->n_expert * 3 * s->inter * s->hidden * 2, rows = (size_t)b->n_token * s->hidden * 2;

    return 2 * weights + 4 * rows + (size_t)b->n_token * s->top_k * 8 + b->sizes.saved_bytes +
           b->sizes.forward_workspace_bytes + b->sizes.backward_workspace_bytes;
}

static void set_weights(struct bench_case *b)
{
    uint64_t n = (uint64_t)b->shape->n_expert * b->shape->inter * b->shape->hidden;
    int64_t half = (int64_t)b->shape->inter * b->shape->hidden;
    __nv_bfloat16 *gate_up = kit_normal(2 * n, .02f, 3), *dgate_up = (__nv_bfloat16 *)kit_alloc(4 * n);

    b->b.dgate = b->p.gate, b->b.dup = b->p.up, b->b.ddown = b->p.down;
    b->p.gate.base = gate_up;
    b->p.up.base = gate_up + half;
    b->p.down.base = kit_normal(n, .02f, 4);
    b->b.dgate.base = dgate_up;
    b->b.dup.base = dgate_up + half;
    b->b.ddown.base = kit_alloc(2 * n);
}

static void set_calls(struct bench_case *b, uint32_t flags)
{
    size_t n_x = (size_t)b->n_token * b->shape->hidden, n_choice = (size_t)b->n_token * b->shape->top_k;

    b->f.size = sizeof b->f;
    b->b.size = sizeof b->b;
    b->f.problem = b->b.problem = &b->p;
    b->f.flags = b->b.flags = flags;
    b->f.out = kit_alloc(n_x * 2);
    b->f.out_stride = b->b.dx_stride = b->b.dout_stride = b->shape->hidden;
    b->b.saved = b->f.saved = kit_alloc(b->sizes.saved_bytes);
    b->f.saved_bytes = b->sizes.saved_bytes;
    b->f.workspace = kit_alloc(b->sizes.forward_workspace_bytes);
    b->f.workspace_bytes = b->sizes.forward_workspace_bytes;
    b->b.workspace = kit_alloc(b->sizes.backward_workspace_bytes);
    b->b.workspace_bytes = b->sizes.backward_workspace_bytes;
    b->b.dx = kit_alloc(n_x * 2);
    b->b.dscore = kit_alloc(n_choice * 2);
    b->b.dscore_stride = b->shape->top_k;
    b->b.dout = kit_normal(n_x, 1, 5);
}

static void bench_open(struct bench_case *b, uint32_t flags)
{
    b->p.x = kit_normal((uint64_t)b->n_token * b->shape->hidden, 1, 1);
    b->p.index = route(b->shape, b->n_token, b->routing);
    b->p.score = kit_normal((uint64_t)b->n_token * b->shape->top_k, .3f, 2);
    set_weights(b);
    set_calls(b, flags);
    KIT_CHECK(cudaDeviceSynchronize());
}

static void bench_close(struct bench_case *b)
{
    void *const owned[] = { (void *)b->p.x,  (void *)b->p.index, (void *)b->p.score, b->p.gate.base,   b->p.down.base,
                            b->b.dgate.base, b->b.ddown.base,    b->f.out,           b->f.saved,       b->f.workspace,
                            b->b.dx,         b->b.dscore,        b->b.workspace,     (void *)b->b.dout };

    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        KIT_CHECK(cudaFree(owned[i]));
}

#endif
