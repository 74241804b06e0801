/* kit.cuh: what every program of the lab needs: random data, a flushed L2, times of a call and of its graph, order statistics.
 * Programs of the lab may exit; the library may not. */
#ifndef KERNELS_LAB_KIT_CUH
#define KERNELS_LAB_KIT_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define KIT_CHECK(call)                                                                                                     \
    do {                                                                                                                    \
        cudaError_t kit_error = (call);                                                                                     \
        if (kit_error != cudaSuccess) {                                                                                     \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(kit_error));                   \
            exit(1);                                                                                                        \
        }                                                                                                                   \
    } while (0)

#define KIT_FLUSH_BYTES (256u << 20) /* five times the L2 of an H100 */

enum { KIT_MAX_N = 1001 };

struct kit_time {
    double median_s, min_s, max_s;
};

/* A hash of (seed, i) as 32 random bits. */
__device__ inline uint32_t kit_bits(uint64_t seed, uint64_t i)
{
    uint64_t z = seed * 0x9e3779b97f4a7c15u + i;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 16);
}

/* Normal numbers: zeros and integers would run faster than real data does. */
__global__ static void kit_normal_kernel(__nv_bfloat16 *to, uint64_t n, float scale, uint64_t seed)
{
    for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < n; i += (uint64_t)gridDim.x * blockDim.x) {
        float u = (kit_bits(seed, 2 * i) + 1.f) / 4294967296.f, v = kit_bits(seed, 2 * i + 1) / 4294967296.f;
        to[i] = __float2bfloat16(scale * sqrtf(-2.f * logf(fmaxf(u, 1e-12f))) * cospif(2.f * v));
    }
}

static inline void *kit_alloc(size_t bytes)
{
    void *p;
    KIT_CHECK(cudaMalloc(&p, bytes ? bytes : 256));
    return p;
}

static inline __nv_bfloat16 *kit_normal(uint64_t n, float scale, uint64_t seed)
{
    __nv_bfloat16 *p = (__nv_bfloat16 *)kit_alloc(n * 2);
    kit_normal_kernel<<<2048, 256>>>(p, n, scale, seed);
    KIT_CHECK(cudaGetLastError());
    return p;
}

static inline int kit_compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Of n seconds, which are sorted. */
static inline struct kit_time kit_order(float *s, int n)
{
    qsort(s, (size_t)n, sizeof *s, kit_compare);
    return { s[n / 2], s[0], s[n - 1] };
}

typedef void (*kit_fn)(void *arg, cudaStream_t stream);

/* n calls, the L2 flushed before each, after two that do not count. */
static inline struct kit_time kit_time_calls(kit_fn fn, void *arg, int n, void *flush, cudaStream_t stream)
{
    cudaEvent_t begin, end;
    float s[KIT_MAX_N], ms;

    KIT_CHECK(cudaEventCreate(&begin));
    KIT_CHECK(cudaEventCreate(&end));
    for (int i = -2; i < n; i++) {
        KIT_CHECK(cudaMemsetAsync(flush, i & 255, KIT_FLUSH_BYTES, stream));
        KIT_CHECK(cudaEventRecord(begin, stream));
        fn(arg, stream);
        KIT_CHECK(cudaEventRecord(end, stream));
        KIT_CHECK(cudaEventSynchronize(end));
        KIT_CHECK(cudaEventElapsedTime(&ms, begin, end));
        s[i < 0 ? 0 : i] = ms / 1e3f;
    }
    KIT_CHECK(cudaEventDestroy(begin));
    KIT_CHECK(cudaEventDestroy(end));
    return kit_order(s, n);
}

static inline double kit_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

/* What the host spends in one call: `first` after it has waited for the device, its caches cold; `next` in the calls right behind
 * that one, as in a job that keeps ahead of the device. Bursts are far too short to fill the queue and be waited for. */
struct kit_host {
    struct kit_time first, next;
};

enum { KIT_BURST = 4 };

static inline struct kit_host kit_host_time(kit_fn fn, void *arg, int n, cudaStream_t stream)
{
    float first[KIT_MAX_N], next[KIT_MAX_N];

    for (int i = -2; i < n; i++) {
        int at = i < 0 ? 0 : i;
        KIT_CHECK(cudaStreamSynchronize(stream));
        double begin = kit_now_ns();
        fn(arg, stream);
        double middle = kit_now_ns();
        for (int j = 1; j < KIT_BURST; j++)
            fn(arg, stream);
        first[at] = (float)((middle - begin) / 1e9);
        next[at] = (float)((kit_now_ns() - middle) / 1e9 / (KIT_BURST - 1));
    }
    KIT_CHECK(cudaStreamSynchronize(stream));
    return { kit_order(first, n), kit_order(next, n) };
}

static inline void kit_replay(void *arg, cudaStream_t stream)
{
    KIT_CHECK(cudaGraphLaunch(*(cudaGraphExec_t *)arg, stream));
}

/* The same on the GPU alone: the call is captured once and its graph replayed, so no launch is waited for. */
static inline struct kit_time kit_time_graph(kit_fn fn, void *arg, int n, void *flush, cudaStream_t stream)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;

    KIT_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    fn(arg, stream);
    KIT_CHECK(cudaStreamEndCapture(stream, &graph));
    KIT_CHECK(cudaGraphInstantiate(&exec, graph, 0));
    struct kit_time t = kit_time_calls(kit_replay, &exec, n, flush, stream);
    KIT_CHECK(cudaGraphExecDestroy(exec));
    KIT_CHECK(cudaGraphDestroy(graph));
    return t;
}

#endif
