/* route.cu: routing metadata on the device: a stable counting sort of choices by expert, and the list of row tiles.
 *
 * Deterministic: only integer counts use atomics, and the order within an expert is the order of (t, k).
 * v1: count each chunk, scan chunks and experts in one block, scatter each chunk. No host sync. */
#include "kernels/common.cuh"
#include "kernels/cuda_paths.h"

#define N_WARP 8
#define CHOICE_PER_WARP (MK_ROUTE_CHUNK / N_WARP)

struct route_args {
    const void *index, *score;
    int64_t index_stride, score_stride;
    uint32_t index_dtype, score_dtype;
    int32_t n_choice, top_k, n_expert, n_chunk;
    int32_t *count; // (n_chunk, E)
    mk_route_ptr to;
};

/* The expert of a choice, or E where it is dropped. */
__device__ static int expert_of(const route_args &a, int choice)
{
    int64_t at = (int64_t)(choice / a.top_k) * a.index_stride + choice % a.top_k;
    int64_t e = a.index_dtype == MK_INT64 ? ((const int64_t *)a.index)[at] : ((const int32_t *)a.index)[at];

    return e >= 0 && e < a.n_expert ? (int)e : a.n_expert;
}

__global__ static void __launch_bounds__(N_WARP * 32) route_count_v1(route_args a)
{
    __shared__ int count[MK_MAX_EXPERT + 1];
    int begin = blockIdx.x * MK_ROUTE_CHUNK, end = min(begin + MK_ROUTE_CHUNK, a.n_choice);

    for (int e = threadIdx.x; e <= a.n_expert; e += blockDim.x)
        count[e] = 0;
    __syncthreads();
    for (int c = begin + threadIdx.x; c < end; c += blockDim.x)
        atomicAdd(&count[expert_of(a, c)], 1);
    __syncthreads();
    for (int e = threadIdx.x; e < a.n_expert; e += blockDim.x)
        a.count[blockIdx.x * a.n_expert + e] = count[e];
}

/* Exclusive sum over the block's 1024 threads of v; the total in *total. */
__device__ static int block_scan(int v, int *total)
{
    __shared__ int warp_sum[32];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, sum = v;

    for (int d = 1; d < 32; d *= 2) {
        int below = __shfl_up_sync(~0u, sum, d);
        sum += lane >= d ? below : 0;
    }
    __syncthreads(); // guard: an earlier scan's readers are done
    if (lane == 31)
        warp_sum[warp] = sum;
    __syncthreads();
    int before = 0, all = 0;
    for (int w = 0; w < 32; w++) {
        before += w < warp ? warp_sum[w] : 0;
        all += warp_sum[w];
    }
    *total = all;
    return before + sum - v;
}

/* Turns counts into first rows: count[chunk][e] becomes the row of the chunk's first choice of e. */
__device__ static int scan_chunks(const route_args &a, int e)
{
    int sum = 0;

#pragma unroll 8
    for (int c = 0; c < a.n_chunk; c++)
        sum += a.count[(int64_t)c * a.n_expert + e];
    return sum;
}

__device__ static void write_first_rows(const route_args &a, int e, int row)
{
#pragma unroll 8
    for (int c = 0; c < a.n_chunk; c++) {
        int n = a.count[(int64_t)c * a.n_expert + e];
        a.count[(int64_t)c * a.n_expert + e] = row;
        row += n;
    }
}

/* The expert whose tiles hold tile i: the last e with first[e] <= i and tiles of its own. */
__device__ static int tile_expert(const int *first, int n_expert, int i)
{
    int low = 0, high = n_expert;

    while (high - low > 1) {
        int mid = (low + high) / 2;
        if (first[mid] <= i)
            low = mid;
        else
            high = mid;
    }
    return low;
}

__global__ static void __launch_bounds__(1024) route_scan_v1(route_args a)
{
    __shared__ int first_tile[MK_MAX_EXPERT], first_row[MK_MAX_EXPERT + 1];
    int e = threadIdx.x, n_tile, n_row;
    int n = e < a.n_expert ? scan_chunks(a, e) : 0;
    int row = block_scan(n, &n_row), tile = block_scan((n + MK_TILE_M - 1) / MK_TILE_M, &n_tile);

    first_tile[e] = tile;
    first_row[e] = row;
    if (e < a.n_expert) {
        a.to.offset[e] = row;
        write_first_rows(a, e, row);
    }
    if (e == 0) {
        a.to.offset[a.n_expert] = first_row[MK_MAX_EXPERT] = n_row;
        *a.to.n_tile = n_tile;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n_tile; i += blockDim.x) {
        int x = tile_expert(first_tile, a.n_expert, i), begin = first_row[x] + (i - first_tile[x]) * MK_TILE_M;
        int end = x + 1 < MK_MAX_EXPERT ? first_row[x + 1] : n_row;
        a.to.tile[i] = { x, begin, end, i == first_tile[x] };
    }
}

__device__ static void put_choice(const route_args &a, int choice, int row)
{
    int t = choice / a.top_k, k = choice % a.top_k;

    a.to.choice_row[choice] = row;
    if (row < 0)
        return;
    a.to.row_token[row] = t;
    a.to.row_choice[row] = choice;
    a.to.row_score[row] = load_any(a.score, a.score_dtype, t * a.score_stride + k);
}

/* Each warp counts its own share first, so that it knows where its first choice of every expert goes. */
__global__ static void __launch_bounds__(N_WARP * 32) route_scatter_v1(route_args a)
{
    extern __shared__ int next[]; // (N_WARP, E+1): next free row
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, width = a.n_expert + 1;
    int begin = blockIdx.x * MK_ROUTE_CHUNK + warp * CHOICE_PER_WARP, end = min(begin + CHOICE_PER_WARP, a.n_choice);

    for (int i = threadIdx.x; i < N_WARP * width; i += blockDim.x)
        next[i] = 0;
    __syncthreads();
    for (int c = begin + lane; c < end; c += 32)
        atomicAdd(&next[warp * width + expert_of(a, c)], 1);
    __syncthreads();
    for (int e = threadIdx.x; e < a.n_expert; e += blockDim.x) {
        int row = a.count[(int64_t)blockIdx.x * a.n_expert + e];
        for (int w = 0; w < N_WARP; w++) {
            int n = next[w * width + e];
            next[w * width + e] = row;
            row += n;
        }
    }
    __syncthreads();
    for (int base = begin; base < end; base += 32) {
        bool live = base + lane < end;
        int e = live ? expert_of(a, base + lane) : a.n_expert;
        unsigned same = __match_any_sync(~0u, e), below = same & ((1u << lane) - 1);
        int row = next[warp * width + e] + __popc(below);
        __syncwarp();
        if (!below)
            next[warp * width + e] += __popc(same);
        __syncwarp();
        if (live)
            put_choice(a, base + lane, e < a.n_expert ? row : -1);
    }
}

/* ---- launcher ---- */

int mk_route_v1(const mk_problem *p, const struct mk_plan *plan, const mk_saved_layout *at, void *saved, int32_t *count,
                mk_stream stream)
{
    route_args a = { p->index, p->score, p->index_stride, p->score_stride, p->index_dtype, p->score_dtype,
                     (int32_t)plan->n_row, p->top_k, p->n_expert, plan->n_chunk, count, mk_route_at(saved, at) };

    if (a.n_chunk)
        route_count_v1<<<a.n_chunk, N_WARP * 32, 0, stream>>>(a);
    route_scan_v1<<<1, 1024, 0, stream>>>(a);
    if (a.n_chunk)
        route_scatter_v1<<<a.n_chunk, N_WARP * 32, N_WARP * (p->n_expert + 1) * 4, stream>>>(a);
    MK_LAUNCHED();
    return MK_OK;
}
