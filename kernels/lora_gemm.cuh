/* lora_gemm.cuh: the two products of adapters, whose one dimension is a rank: rows times a packed matrix, and an expert's
 * rows times its rows. Bound by the reading of the wide operand, so a tile is as narrow as the rank: 128 x N x 32, N 16 to
 * 128, eight warps of 16 x N, four stages of cp.async, mma.sync. */
#ifndef KERNELS_LORA_GEMM_CUH
#define KERNELS_LORA_GEMM_CUH

#include "kernels/portable_mma.cuh"

#define LOW_M 128
#define LOW_K 32
#define LOW_STAGE 4
#define LOW_A_BYTES (LOW_M * LOW_K * 2)

struct low_rows_args {
    mk_route_ptr route;
    const void *rows;            // (T, k) gathered, or (R, k) dense
    int64_t rows_stride;
    const void *w;               // (E, low, k) dense
    void *out;                   // (R, low)
    const void *saved;           // (R, low), or NULL
    void *scaled;                // (R, low): score * saved
    int32_t gathered, k, low;
};

struct low_grad_args {
    mk_route_ptr route;
    const void *wide;            // (T, n_wide) gathered, or (R, n_wide) dense
    int64_t wide_stride;
    const void *narrow;          // (R, low)
    int32_t gathered, n_wide, low, n_expert;
    int32_t per_half;            // columns of wide that belong to one matrix of a B; 0: the gradient of an A
    int32_t rank, apart;         // of the narrow columns each half has its own `rank` where apart
    mk_matrix out[2];
    uint32_t out_dtype, accumulate;
    float scale;
};

/* Where 16-byte piece c of row k of the narrow operand lies: rows of 256 bytes, whatever N is. */
#define LOW_NARROW_BYTES (LOW_K * 256)

/* Products of one stage: 16 rows of this warp. A and B are both along K (MN false) or both across (true). */
template <typename T, int N, bool MN> __device__ inline void low_stage(float acc[N / 8][4], uint32_t a, uint32_t b, int warp)
{
    int lane = threadIdx.x % 32, low = lane & 7, bit3 = lane >> 3 & 1, bit4 = lane >> 4, m = 16 * warp;

#pragma unroll
    for (int k = 0; k < LOW_K / 16; k++) {
        uint32_t fa[4], fb[4];
        por_ldmatrix(fa, MN ? por_at<true>(a, 16 * k + low + 8 * bit4, m / 8 + bit3) : por_at<false>(a, m + low + 8 * bit3, 2 * k + bit4), MN);
#pragma unroll
        for (int j = 0; j < N / 16; j++) {
            por_ldmatrix(fb, MN ? por_at<true>(b, 16 * k + low + 8 * bit3, 2 * j + bit4) : por_at<false>(b, 16 * j + low + 8 * bit4, 2 * k + bit3), MN);
            por_mma<T>(acc[2 * j], fa, fb);
            por_mma<T>(acc[2 * j + 1], fa, fb + 2);
        }
    }
}

/* ---- rows ---- */

struct low_tile {
    int expert, row, n_row, n; // n: first column
};

template <typename T, int N> __device__ inline void low_load_rows(const low_rows_args &a, const low_tile &t, uint32_t to, int k0, const int64_t *from)
{
    int c = threadIdx.x % 4, k = k0 + c * 8;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = threadIdx.x / 4 + 64 * i;
        bool live = row < t.n_row && k < a.k;
        por_copy(por_at<false>(to, row, c), (const T *)a.rows + (live ? from[i] + k : 0), live);
    }
    for (int n = threadIdx.x / 4; n < N; n += 64) {
        bool live = t.n + n < a.low && k < a.k;
        por_copy(por_at<false>(to + LOW_A_BYTES, n, c), (const T *)a.w + (live ? ((int64_t)t.expert * a.low + t.n + n) * a.k + k : 0), live);
    }
}

template <typename T, int N> __device__ inline void low_finish_rows(const float acc[N / 8][4], const low_rows_args &a, const low_tile &t, int warp)
{
    int lane = threadIdx.x % 32;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        int r = 16 * warp + 8 * i + lane / 4;
        if (r >= t.n_row)
            continue;
        float score = a.saved ? a.route.row_score[t.row + r] : 0.f;
#pragma unroll
        for (int j = 0; j < N / 8; j++) {
            int column = t.n + 8 * j + 2 * (lane % 4);
            int64_t at = (int64_t)(t.row + r) * a.low + column;
            if (column >= a.low)
                continue;
            *(uint32_t *)((T *)a.out + at) = pack2<T>(acc[j][2 * i], acc[j][2 * i + 1]);
            if (!a.saved)
                continue;
            float2 v = unpack2<T>(*(const uint32_t *)((const T *)a.saved + at));
            *(uint32_t *)((T *)a.scaled + at) = pack2<T>(score * v.x, score * v.y);
        }
    }
}

__device__ inline bool low_find(const low_rows_args &a, low_tile &t, int n)
{
    const int per_tile = MK_TILE_M / LOW_M;
    int i = blockIdx.x / per_tile;

    if (i >= *a.route.n_tile)
        return false;
    mk_tile whole = a.route.tile[i];
    t.expert = whole.expert;
    t.row = whole.row_begin + blockIdx.x % per_tile * LOW_M;
    t.n_row = min(LOW_M, whole.row_end - t.row);
    t.n = n;
    return t.n_row > 0;
}

template <typename T, int N> __global__ static void __launch_bounds__(256) lora_rows_v1(const __grid_constant__ low_rows_args a)
{
    extern __shared__ __align__(128) uint8_t low_raw[];
    const int stage_bytes = LOW_A_BYTES + N * LOW_K * 2;
    uint32_t smem = por_smem(low_raw);
    int warp = threadIdx.x / 32, n_step = (a.k + LOW_K - 1) / LOW_K;
    float acc[N / 8][4] = {};
    int64_t from[2];
    low_tile t;

    if (!low_find(a, t, blockIdx.y * N))
        return;
    for (int i = 0; i < 2; i++) {
        int row = t.row + min((int)threadIdx.x / 4 + 64 * i, t.n_row - 1);
        from[i] = (a.gathered ? a.route.row_token[row] : row) * a.rows_stride;
    }
    for (int s = 0; s < n_step + LOW_STAGE - 1; s++) { // loads run three steps ahead of products
        int ready = s - (LOW_STAGE - 1);
        if (ready >= 0) {
            por_wait<LOW_STAGE - 2>();
            __syncthreads();
        }
        if (s < n_step)
            low_load_rows<T, N>(a, t, smem + s % LOW_STAGE * stage_bytes, s * LOW_K, from);
        por_commit();
        uint32_t at = smem + ready % LOW_STAGE * stage_bytes;
        if (ready >= 0)
            low_stage<T, N, false>(acc, at, at + LOW_A_BYTES, warp);
    }
    low_finish_rows<T, N>(acc, a, t, warp);
}

/* ---- gradients: K runs over the rows of an expert ---- */

template <typename T, int N> __device__ inline void low_load_grad(const low_grad_args &a, int row, int n_row, int m, int n, uint32_t to, int k0)
{
    int c = threadIdx.x % 16, column = m + c * 8;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        int k = threadIdx.x / 16 + 16 * i;
        bool live = k0 + k < n_row && column < a.n_wide;
        int64_t r = live ? row + k0 + k : 0;
        int64_t from = live ? (a.gathered ? a.route.row_token[r] : r) * a.wide_stride + column : 0;
        por_copy(por_at<true>(to, k, c), (const T *)a.wide + from, live);
    }
    for (int i = threadIdx.x; i < LOW_K * (N / 8); i += 256) {
        int k = i / (N / 8), piece = i % (N / 8);
        bool live = k0 + k < n_row && n + piece * 8 < a.low;
        por_copy(por_at<true>(to + LOW_A_BYTES, k, piece), (const T *)a.narrow + (live ? (int64_t)(row + k0 + k) * a.low + n + piece * 8 : 0), live);
    }
}

/* Column m of wide and column n of narrow belong to one element of one matrix, or, where halves keep apart, to none. */
__device__ inline void low_put(const low_grad_args &a, int expert, int m, int n, float v)
{
    int own = n / a.rank, which = a.per_half ? m / a.per_half : own;

    if (own > a.apart || (a.per_half && a.apart && own != which))
        return;
    const mk_matrix &to = which ? a.out[1] : a.out[0];
    if (!to.base)
        return;
    int row = a.per_half ? m % a.per_half : n % a.rank, column = a.per_half ? n % a.rank : m;
    int64_t at = (to.expert_offset ? to.expert_offset[expert] : expert * to.stride_expert) + row * to.stride_row + column * to.stride_col;
    store_any(to.base, a.out_dtype, at, v * a.scale + (a.accumulate ? load_any(to.base, a.out_dtype, at) : 0.f));
}

template <typename T, int N> __global__ static void __launch_bounds__(256) lora_grad_v1(const __grid_constant__ low_grad_args a)
{
    extern __shared__ __align__(128) uint8_t low_raw[];
    const int stage_bytes = LOW_A_BYTES + LOW_NARROW_BYTES;
    uint32_t smem = por_smem(low_raw);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int expert = blockIdx.x % a.n_expert, m = blockIdx.x / a.n_expert * LOW_M, n = blockIdx.y * N; // neighbours: PEFT's B has experts side by side
    int row = a.route.offset[expert], n_row = a.route.offset[expert + 1] - row, n_step = (n_row + LOW_K - 1) / LOW_K;
    float acc[N / 8][4] = {};

    for (int s = 0; s < n_step + LOW_STAGE - 1; s++) {
        int ready = s - (LOW_STAGE - 1);
        if (ready >= 0) {
            por_wait<LOW_STAGE - 2>();
            __syncthreads();
        }
        if (s < n_step)
            low_load_grad<T, N>(a, row, n_row, m, n, smem + s % LOW_STAGE * stage_bytes, s * LOW_K);
        por_commit();
        uint32_t at = smem + ready % LOW_STAGE * stage_bytes;
        if (ready >= 0)
            low_stage<T, N, true>(acc, at, at + LOW_A_BYTES, warp);
    }
#pragma unroll
    for (int j = 0; j < N / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int wide = m + 16 * warp + lane / 4 + 8 * (i / 2), narrow = n + 8 * j + 2 * (lane % 4) + i % 2;
            if (wide < a.n_wide && narrow < a.low)
                low_put(a, expert, wide, narrow, acc[j][i]);
        }
}

#endif
