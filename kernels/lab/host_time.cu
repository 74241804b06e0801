/* host_time: where the host's time of a call goes: each call of CUDA that the library makes, and the rest, its own.
 *
 *   host_time [-n N] [--tokens T] [--lora] [--stub]
 *
 * The library's objects are linked with --wrap, so that every call passes here and is timed (25 ns of it are the clock's);
 * --stub answers the calls instead of passing them on: the library's own share, on a machine without a GPU.
 * Medians of N calls, in bursts of four with the device idle before: the first of a burst, which finds its caches cold, does not
 * count. */
#include <cuda.h>
#include <getopt.h>
#include <string.h>

#include "kernels/lab/kit.cuh"
#include "kernels/moe_kernels.h"

enum { MAX_PART = 256, MAX_N = 1001 };

static struct {
    const char *name;
    float ns[MAX_N];
} part[MAX_PART];
static int n_part, round_now;
static bool stub, listen;

static void note(const char *name, double begin)
{
    if (!listen || n_part == MAX_PART)
        return;
    part[n_part].name = name;
    part[n_part++].ns[round_now] = (float)(kit_now_ns() - begin);
}

/* ---- what the library calls ---- */

#define WRAP(type, name, parameters, call, answer)                                                                          \
    extern "C" type __real_##name parameters;                                                                               \
    extern "C" type __wrap_##name parameters                                                                                \
    {                                                                                                                       \
        double begin = kit_now_ns();                                                                                        \
        type rc = stub ? answer : __real_##name call;                                                                       \
        note(#name, begin);                                                                                                 \
        return rc;                                                                                                          \
    }

static int stub_attribute(int *value, int which)
{
    *value = which == cudaDevAttrComputeCapabilityMajor ? 9 : which == cudaDevAttrMultiProcessorCount ? 132 : 0;
    return 0;
}

static struct {
    dim3 grid, block;
    size_t bytes;
    void *stream;
} pushed;

static unsigned stub_push(dim3 grid, dim3 block, size_t bytes, void *stream)
{
    pushed = { grid, block, bytes, stream };
    return 0;
}

static cudaError_t stub_pop(dim3 *grid, dim3 *block, size_t *bytes, void *stream)
{
    *grid = pushed.grid;
    *block = pushed.block;
    *bytes = pushed.bytes;
    *(void **)stream = pushed.stream;
    return cudaSuccess;
}

WRAP(cudaError_t, cudaGetDevice, (int *device), (device), (*device = 0, cudaSuccess))
WRAP(cudaError_t, cudaDeviceGetAttribute, (int *value, cudaDeviceAttr which, int device), (value, which, device),
     (cudaError_t)stub_attribute(value, which))
WRAP(cudaError_t, cudaFuncSetAttribute, (const void *fn, cudaFuncAttribute which, int value), (fn, which, value),
     cudaSuccess)
WRAP(cudaError_t, cudaGetLastError, (void), (), cudaSuccess)
WRAP(unsigned, __cudaPushCallConfiguration, (dim3 grid, dim3 block, size_t bytes, CUstream_st *stream),
     (grid, block, bytes, stream), stub_push(grid, block, bytes, stream))
WRAP(cudaError_t, __cudaPopCallConfiguration, (dim3 * grid, dim3 *block, size_t *bytes, void *stream),
     (grid, block, bytes, stream), stub_pop(grid, block, bytes, stream))
WRAP(cudaError_t, __cudaGetKernel, (cudaKernel_t * kernel, const void *fn), (kernel, fn), (*kernel = NULL, cudaSuccess))
WRAP(cudaError_t, __cudaLaunchKernel,
     (cudaKernel_t fn, dim3 grid, dim3 block, void **args, size_t bytes, cudaStream_t stream),
     (fn, grid, block, args, bytes, stream), cudaSuccess)
WRAP(cudaError_t, cudaLaunchKernelExC, (const cudaLaunchConfig_t *config, const void *fn, void **args), (config, fn, args),
     cudaSuccess)

typedef CUresult (*encode_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *,
                              const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                              CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
static encode_fn real_encode;

static CUresult encode(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *base, const cuuint64_t *size,
                       const cuuint64_t *stride, const cuuint32_t *box, const cuuint32_t *step,
                       CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                       CUtensorMapFloatOOBfill fill)
{
    double begin = kit_now_ns();
    CUresult rc = stub ? CUDA_SUCCESS
                       : real_encode(map, type, rank, base, size, stride, box, step, interleave, swizzle, promotion, fill);
    note("cuTensorMapEncodeTiled", begin);
    return rc;
}

extern "C" cudaError_t __real_cudaGetDriverEntryPointByVersion(const char *, void **, unsigned, unsigned long long,
                                                               cudaDriverEntryPointQueryResult *);
extern "C" cudaError_t __wrap_cudaGetDriverEntryPointByVersion(const char *name, void **fn, unsigned version,
                                                               unsigned long long flags,
                                                               cudaDriverEntryPointQueryResult *found)
{
    cudaError_t rc = stub ? cudaSuccess : __real_cudaGetDriverEntryPointByVersion(name, fn, version, flags, found);

    if (!strcmp(name, "cuTensorMapEncodeTiled")) {
        real_encode = (encode_fn)*fn;
        *fn = (void *)encode;
    }
    return rc;
}

/* ---- a call ---- */

enum { H = 2048, I = 768, E = 128, K = 8, RANK = 16 };

static void *memory(size_t bytes)
{
    void *p;

    if (stub)
        return aligned_alloc(256, 256); // nobody looks into it
    KIT_CHECK(cudaMalloc(&p, bytes));
    KIT_CHECK(cudaMemset(p, 0, bytes));
    return p;
}

static struct mk_matrix matrix(size_t n, int64_t expert, int64_t row)
{
    return { memory(n * 2), NULL, 0, expert, row, 1 };
}

struct call {
    struct mk_problem p;
    struct mk_forward f;
    struct mk_backward b;
    struct mk_lora lora;
    struct mk_lora_grad dlora;
};

static void set_weights(struct call *c)
{
    struct mk_matrix up = matrix((size_t)E * 2 * I * H, 2 * I * H, H), down = matrix((size_t)E * I * H, I * H, I);

    c->p.gate = c->b.dgate = c->p.up = c->b.dup = up;
    c->p.down = c->b.ddown = down;
}

static void set_lora(struct call *c)
{
    struct mk_matrix a = matrix((size_t)E * RANK * H, RANK * H, H), b = matrix((size_t)E * RANK * H, 1, RANK * E);

    b.stride_col = E;
    c->lora = { sizeof c->lora, MK_BF16, RANK, RANK, 0, 1, 1, {}, a, b, b, a, b };
    c->lora.down_a.stride_row = I;
    c->dlora = { sizeof c->dlora, MK_BF16, {}, a, b, b, a, b };
    c->dlora.down_a.stride_row = I;
    c->p.lora = &c->lora;
    c->b.dlora = &c->dlora;
    c->b.dgate.base = c->b.dup.base = c->b.ddown.base = NULL; // frozen
}

static void set_call(struct call *c, const struct mk_api *api, int n_token, bool lora)
{
    size_t th = (size_t)n_token * H * 2, tk = (size_t)n_token * K * 4;
    struct mk_sizes s;

    c->p.size = sizeof c->p, c->f.size = sizeof c->f, c->b.size = sizeof c->b;
    c->p.n_token = n_token, c->p.hidden = H, c->p.inter = I, c->p.n_expert = E, c->p.top_k = K;
    c->p.index_dtype = MK_INT32, c->p.x_stride = c->f.out_stride = c->b.dx_stride = c->b.dout_stride = H;
    c->p.index_stride = c->p.score_stride = c->b.dscore_stride = K;
    c->p.x = memory(th), c->p.index = memory(tk), c->p.score = memory(tk);
    c->f.problem = c->b.problem = &c->p;
    set_weights(c);
    if (lora)
        set_lora(c);
    if (api->sizes(&s, &c->p))
        exit(1);
    c->b.saved = c->f.saved = memory(s.saved_bytes), c->f.saved_bytes = s.saved_bytes;
    c->f.workspace = memory(s.forward_workspace_bytes), c->f.workspace_bytes = s.forward_workspace_bytes;
    c->b.workspace = memory(s.backward_workspace_bytes), c->b.workspace_bytes = s.backward_workspace_bytes;
    c->f.out = memory(th), c->b.dx = memory(th), c->b.dout = memory(th), c->b.dscore = memory(tk);
}

/* ---- timing ---- */

static float median(float *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, kit_compare);
    return v[n / 2];
}

static void print_parts(const char *what, float *total, int n)
{
    double own = median(total, n), sum = own;

    printf("%s: %.1f us (%.1f..%.1f, n=%d)\n", what, own / 1e3, total[n / 10] / 1e3, total[n * 9 / 10] / 1e3, n);
    for (int i = 0, count; i < n_part; i += count) {
        double ns = 0;
        for (count = 0; i + count < n_part && part[i + count].name == part[i].name; count++)
            ns += median(part[i + count].ns, n);
        printf("  %6.0f ns  %s%s", ns, part[i].name, count > 1 ? "" : "\n");
        if (count > 1)
            printf(" x %d\n", count);
        own -= ns;
    }
    printf("  %6.0f ns  the rest: the library's own, and %d times the clock (%.0f %% of all)\n", own, n_part,
           100 * own / sum);
}

template <typename F> static void time_call(const char *what, int n, F call)
{
    static float total[MAX_N];

    for (int i = 0, done = 0; done < n; i++) {
        if (!stub && i % KIT_BURST == 0)
            KIT_CHECK(cudaDeviceSynchronize());
        listen = i % KIT_BURST > 0;
        n_part = 0;
        round_now = done;
        done += listen;
        double begin = kit_now_ns();
        int rc = call();
        total[round_now] = (float)(kit_now_ns() - begin);
        listen = false;
        if (rc) {
            fprintf(stderr, "host_time: %s\n", mk_get_api(MK_API_VERSION)->strerror(rc));
            exit(1);
        }
    }
    print_parts(what, total, n);
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        { "tokens", 1, NULL, 't' }, { "stub", 0, NULL, 's' }, { "lora", 0, NULL, 'l' }, { NULL, 0, NULL, 0 }
    };
    static struct call c;
    const struct mk_api *api = mk_get_api(MK_API_VERSION);
    int n = 201, n_token = 4096, o;
    bool lora = false;
    cudaStream_t stream = NULL;
    struct mk_sizes sizes;

    while ((o = getopt_long(argc, argv, "n:", longs, NULL)) != -1) {
        if (o == 's')
            stub = true;
        else if (o == 'l')
            lora = true;
        else if (o == 't')
            n_token = atoi(optarg);
        else if (o == 'n')
            n = atoi(optarg);
        else
            return 2;
    }
    if (n < 1 || n > MAX_N || n_token < 1)
        return 2;
    if (!stub)
        KIT_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    set_call(&c, api, n_token, lora);
    time_call("sizes", n, [&] { return api->sizes(&sizes, &c.p); });
    time_call("forward", n, [&] { return api->forward(&c.f, stream); });
    time_call("backward", n, [&] { return api->backward(&c.b, stream); });
    return 0;
}
