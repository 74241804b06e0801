/* route.cu: routing metadata on the device: a stable counting sort of choices by expert, and the list of row tiles.
 *
 * Deterministic: only integer counts use atomics, and the order within an expert is the order of (t, k).
 * v2: each block counts its chunk; then every block sums all counts for itself (64 KB from L2 at T = 32768 and E = 128) and
 * places its chunk. One launch where all blocks can be on the GPU at once and wait for each other, since a launch costs the
 * host 4 us; else two. No host sync. */
#include <cooperative_groups.h>

#include "kernels/common.cuh"
#include "kernels/cuda_call.h"

#define N_WARP     8
#define N_THREAD   (N_WARP * 32)
#define PER_LANE   8                          /* choices a lane places at a time, at most */
#define PER_THREAD (MK_MAX_EXPERT / N_THREAD) /* experts */

struct route_args {
    const void *index, *score;
    int64_t index_stride, score_stride;
    uint32_t index_dtype, score_dtype;
    int32_t n_choice, top_k, n_expert, n_chunk, chunk;
    int32_t *count; // (n_chunk, E)
    int32_t *next_tile; // (MK_FORWARD_COUNT)
    bool counts, places; // what this launch does
    mk_route_ptr to;
};

/* What a block knows of all choices. */
struct route_sums {
    int first[MK_MAX_EXPERT + 1]; // choices of an expert, then its first row; [MK_MAX_EXPERT] the number of rows
    int first_tile[MK_MAX_EXPERT]; // of the list that is being made
    int before[MK_MAX_EXPERT]; // choices of an expert that come before those the block has yet to place
};

/* The expert of a choice, or E where it is dropped. */
__device__ static int expert_of(const route_args &a, int choice)
{
    int64_t at = (int64_t)(choice / a.top_k) * a.index_stride + choice % a.top_k;
    int64_t e = a.index_dtype == MK_INT64 ? ((const int64_t *)a.index)[at] : ((const int32_t *)a.index)[at];

    return e >= 0 && e < a.n_expert ? (int)e : a.n_expert;
}

/* ---- counting ---- */

__device__ static void count_chunk(const route_args &a, int *count, int begin, int end)
{
    for (int e = threadIdx.x; e <= a.n_expert; e += N_THREAD)
        count[e] = 0;
    __syncthreads();
#pragma unroll 8
    for (int c = begin + threadIdx.x; c < end; c += N_THREAD)
        atomicAdd(&count[expert_of(a, c)], 1);
    __syncthreads();
    for (int e = threadIdx.x; e < a.n_expert; e += N_THREAD)
        a.count[blockIdx.x * a.n_expert + e] = count[e];
}

/* Warps share the chunks, lanes the experts. */
__device__ static void add_counts(const route_args &a, route_sums *s)
{
    for (int e = threadIdx.x; e < MK_MAX_EXPERT; e += N_THREAD)
        s->first[e] = s->before[e] = 0;
    __syncthreads();
    for (int e = threadIdx.x % 32; e < a.n_expert; e += 32) {
        int all = 0, before = 0;
#pragma unroll 8
        for (int c = threadIdx.x / 32; c < a.n_chunk; c += N_WARP) {
            int n = a.count[c * a.n_expert + e];
            all += n;
            before += c < (int)blockIdx.x ? n : 0;
        }
        atomicAdd(&s->first[e], all);
        atomicAdd(&s->before[e], before);
    }
    __syncthreads();
}

/* Exclusive sum over the block's threads of v; the total in *total. */
__device__ static int block_scan(int v, int *total)
{
    __shared__ int warp_sum[N_WARP];
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
    for (int w = 0; w < N_WARP; w++) {
        before += w < warp ? warp_sum[w] : 0;
        all += warp_sum[w];
    }
    *total = all;
    return before + sum - v;
}

/* Counts of the experts become first rows. */
__device__ static void find_first(route_sums *s)
{
    int at = threadIdx.x * PER_THREAD, row = 0, n_row;

    for (int e = at; e < at + PER_THREAD; e++)
        row += s->first[e];
    row = block_scan(row, &n_row);
    for (int e = at; e < at + PER_THREAD; e++) {
        int n = s->first[e];
        s->first[e] = row;
        row += n;
    }
    s->first[MK_MAX_EXPERT] = n_row; // by all threads alike
    __syncthreads();
}

/* ---- the lists of tiles ---- */

/* Expert e's tiles of n rows. */
__device__ static int tiles(const route_sums *s, int e, int n)
{
    return (s->first[e + 1] - s->first[e] + n - 1) / n;
}

/* First tiles of the experts. Returns the number of tiles. */
__device__ static int find_first_tile(route_sums *s, int n)
{
    int at = threadIdx.x * PER_THREAD, tile = 0, n_tile;

    for (int e = at; e < at + PER_THREAD; e++)
        tile += tiles(s, e, n);
    tile = block_scan(tile, &n_tile); // whoever read the list before is done
    for (int e = at; e < at + PER_THREAD; e++) {
        s->first_tile[e] = tile;
        tile += tiles(s, e, n);
    }
    __syncthreads();
    return n_tile;
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

/* A list of tiles of n rows, shared by all blocks. even: they share an expert's rows, so that each tells where these begin. */
__device__ static void write_tiles(mk_tile *to, int32_t *n_to, const route_args &a, route_sums *s, int n, bool even)
{
    int n_tile = find_first_tile(s, n);

    for (int i = blockIdx.x * N_THREAD + threadIdx.x; i < n_tile; i += gridDim.x * N_THREAD) {
        int e = tile_expert(s->first_tile, a.n_expert, i), nth = i - s->first_tile[e];
        to[i] = { e, s->first[e] + (even ? 0 : nth * n), s->first[e + 1], nth };
    }
    if (!blockIdx.x)
        *n_to = n_tile;
}

/* By the first block. */
__device__ static void write_offsets(const route_args &a, const route_sums *s)
{
    if (blockIdx.x)
        return;
    for (int e = threadIdx.x; e < a.n_expert; e += N_THREAD)
        a.to.offset[e] = s->first[e];
    a.to.offset[a.n_expert] = s->first[MK_MAX_EXPERT]; // by all threads alike
    if (threadIdx.x < MK_FORWARD_COUNT)
        a.next_tile[threadIdx.x] = 0;
}

/* ---- placing ---- */

__device__ static void put_choice(const route_args &a, int choice, int row, float score)
{
    a.to.choice_row[choice] = row;
    if (row < 0)
        return;
    a.to.row_token[row] = choice / a.top_k;
    a.to.row_choice[row] = choice;
    a.to.row_score[row] = score;
}

/* Numbers of choices, by warp and expert, become each warp's first row of the expert. */
__device__ static void first_of_warps(int *next, route_sums *s, int n_expert)
{
    for (int e = threadIdx.x; e < n_expert; e += N_THREAD) {
        int row = s->first[e] + s->before[e];
        for (int w = 0; w < N_WARP; w++) {
            int *at = &next[w * (n_expert + 1) + e], n = *at;
            *at = row;
            row += n;
        }
        s->before[e] = row - s->first[e];
    }
}

/* Places the choices from begin to end, PER_LANE * N_THREAD at most. Warps take them in order, n_round rows of 32 each.
 * next: (N_WARP, E+1). */
__device__ static void place(const route_args &a, route_sums *s, int *next, int begin, int end)
{
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, *mine = next + warp * (a.n_expert + 1);
    int n_round = (end - begin + N_THREAD - 1) / N_THREAD, first = begin + warp * n_round * 32 + lane, expert[PER_LANE];
    float score[PER_LANE];

    for (int i = threadIdx.x; i < N_WARP * (a.n_expert + 1); i += N_THREAD)
        next[i] = 0;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        int choice = first + 32 * i;
        bool live = i < n_round && choice < end;
        expert[i] = live ? expert_of(a, choice) : a.n_expert;
        score[i] = live ? load_any(a.score, a.score_dtype, choice / a.top_k * a.score_stride + choice % a.top_k) : 0.f;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < PER_LANE; i++)
        if (i < n_round)
            atomicAdd(&mine[expert[i]], 1);
    __syncthreads();
    first_of_warps(next, s, a.n_expert);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        if (i >= n_round)
            break;
        unsigned same = __match_any_sync(~0u, expert[i]), below = same & ((1u << lane) - 1);
        int row = mine[expert[i]] + __popc(below);
        __syncwarp();
        if (!below)
            mine[expert[i]] += __popc(same);
        __syncwarp();
        if (first + 32 * i < end)
            put_choice(a, first + 32 * i, expert[i] < a.n_expert ? row : -1, score[i]);
    }
    __syncthreads();
}

__global__ static void __launch_bounds__(N_THREAD) route_v2(const __grid_constant__ route_args a)
{
    extern __shared__ __align__(128) uint8_t raw[];
    __shared__ route_sums s;
    int begin = blockIdx.x * a.chunk, end = begin + min(a.chunk, a.n_choice - begin);

    if (a.counts)
        count_chunk(a, s.first, begin, end);
    if (a.counts && a.places)
        cooperative_groups::this_grid().sync();
    if (!a.places)
        return;
    add_counts(a, &s);
    find_first(&s);
    write_tiles(a.to.tile, a.to.n_tile, a, &s, MK_TILE_M, false);
    write_tiles(a.to.fit_tile, a.to.n_tile + 1, a, &s, MK_FIT_M, true);
    write_offsets(a, &s);
    for (; begin < end; begin += PER_LANE * N_THREAD)
        place(a, &s, (int *)raw, begin, min(end, begin + PER_LANE * N_THREAD));
}

/* ---- launcher ---- */

static int launch(route_args *a, bool counts, bool places, mk_stream stream)
{
    size_t smem_bytes = places ? (size_t)N_WARP * (a->n_expert + 1) * 4 : 0;
    cudaLaunchAttribute together = {};

    a->counts = counts;
    a->places = places;
    together.id = cudaLaunchAttributeCooperative;
    together.val.cooperative = 1;
    return mk_launch(route_v2, a->n_chunk, N_THREAD, smem_bytes, *a, stream, counts && places ? &together : NULL);
}

int mk_route(const mk_problem *p, const struct mk_plan *plan, const mk_saved_layout *at, void *saved, void *workspace,
             mk_stream stream)
{
    struct mk_device device = mk_device_now();
    route_args a = {};

    a.index = p->index;
    a.score = p->score;
    a.index_stride = p->index_stride;
    a.score_stride = p->score_stride;
    a.index_dtype = p->index_dtype;
    a.score_dtype = p->score_dtype;
    a.n_choice = (int32_t)plan->n_row;
    a.top_k = p->top_k;
    a.n_expert = p->n_expert;
    a.n_chunk = plan->n_chunk;
    a.chunk = plan->chunk;
    a.count = (int32_t *)((char *)workspace + plan->forward.count);
    a.next_tile = (int32_t *)((char *)workspace + plan->forward.next_tile);
    a.to = mk_route_at(saved, at);
    /* one block a multiprocessor: there is room for that beside whatever else runs, unless the process has but a share of the GPU */
    if (device.cooperative && a.n_chunk <= device.n_sm && !launch(&a, true, true, stream))
        return MK_OK;
    int rc = launch(&a, true, false, stream);
    return rc ? rc : launch(&a, false, true, stream);
}
