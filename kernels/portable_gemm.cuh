/* portable_gemm.cuh: the same five products as hopper_gemm.cuh for any GPU from sm_80 on: mma.sync, cp.async, one tile a
 * block. Takes every layout: weights contiguous along either dimension by 16-byte copies, others element by element.
 * K may go on over an adapter: A v beside B (UP, DOWN), or the gradient of A v beside A (DACT, DX).
 * Tiles of 128 x 128 x 32, eight warps of 64 x 32 each, four stages; epilogues straight from registers. */
#ifndef KERNELS_PORTABLE_GEMM_CUH
#define KERNELS_PORTABLE_GEMM_CUH

#include "kernels/portable_mma.cuh"

enum por_op { POR_UP, POR_DOWN, POR_DACT, POR_DX, POR_DW };

#define POR_M 128
#define POR_N 128
#define POR_K 32
#define POR_STAGE 4
#define POR_TILE_BYTES (POR_M * POR_K * 2) /* of A, and of B */
#define POR_SMEM (POR_STAGE * 2 * POR_TILE_BYTES)
#define POR_GROUP_M 16 /* row tiles that share weight tiles in L2 */

/* Weights as (n, k): element at base + offset of the expert + n * stride_n + k * stride_k. */
struct por_weight {
    const void *base;
    const int64_t *offset; // (E), or NULL
    int64_t stride_expert, stride_n, stride_k;
};

/* A run of K: rows of A against weights. */
struct por_run {
    const void *rows;            // (T, H) gathered, or (R, k) dense
    int64_t rows_stride;
    por_weight w[2];             // gate, up; or one alone in [0]
    int32_t k, split;            // extent; k from split on is w[1]'s (DX)
};

struct por_args {
    mk_route_ptr route;
    por_run main, low;           // the product, and the adapter's (k 0: none)
    const void *k_rows;          // DW: B (R, n_half, I)
    int32_t n_expert, hidden, inter, n_half, n_n_tile, n_m_tile; // n_m_tile: DW only
    mk_act_param act;
    mk_vector bias[2];
    void *pre, *out, *scaled_act; // as in hop_args
    float *dscore_part;
    int32_t n_dscore_part;
    mk_matrix dw[2];             // rows hidden, columns inter
    uint32_t dw_dtype, accumulate;
};

struct por_tile {
    int expert, row, n_row, m, n, half;
};

template <int OP> __device__ inline bool por_find(const por_args &a, por_tile &t)
{
    int i = blockIdx.x;

    if (OP == POR_DW) {
        int per_expert = a.n_m_tile * a.n_n_tile, n = i % per_expert / a.n_m_tile, n_per_half = a.n_n_tile / a.n_half;
        t.expert = i / per_expert;
        t.m = i % a.n_m_tile * POR_M;
        t.half = n / n_per_half;
        t.n = n % n_per_half * POR_N;
        t.row = a.route.offset[t.expert];
        t.n_row = a.route.offset[t.expert + 1] - t.row;
        return true;
    }
    int n_tile = *a.route.n_tile * (MK_TILE_M / POR_M), group = i / (POR_GROUP_M * a.n_n_tile) * POR_GROUP_M;
    if (group >= n_tile)
        return false;
    int in_group = min(POR_GROUP_M, n_tile - group), rest = i % (POR_GROUP_M * a.n_n_tile);
    if (rest >= in_group * a.n_n_tile)
        return false;
    int m = group + rest % in_group;
    mk_tile whole = a.route.tile[m / (MK_TILE_M / POR_M)];
    t.expert = whole.expert;
    t.row = whole.row_begin + m % (MK_TILE_M / POR_M) * POR_M;
    t.n_row = min(POR_M, whole.row_end - t.row);
    t.n = rest / in_group * POR_N;
    t.m = t.half = 0;
    return t.n_row > 0;
}

/* ---- A ---- */

/* K-major rows: thread i copies piece i%4 of rows i/4 and i/4 + 64, which begin at from. */
template <typename T> __device__ inline void por_load_a_rows(const por_run &s, const por_tile &t, uint32_t to, int k0, const int64_t *from)
{
    int c = threadIdx.x % 4, k = k0 + c * 8;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = threadIdx.x / 4 + 64 * i;
        bool live = row < t.n_row && k < s.k;
        por_copy(por_at<false>(to, row, c), (const T *)s.rows + (live ? from[i] + k : 0), live);
    }
}

/* MN-major, gathered along k: thread i copies piece i%16 of k rows i/16 and i/16 + 16. */
template <typename T> __device__ inline void por_load_a_k(const por_args &a, const por_tile &t, uint32_t to, int k0)
{
    int c = threadIdx.x % 16, column = t.m + c * 8;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        int k = threadIdx.x / 16 + 16 * i;
        bool live = k0 + k < t.n_row && column < a.hidden;
        int64_t from = live ? a.route.row_token[t.row + k0 + k] * a.main.rows_stride + column : 0;
        por_copy(por_at<true>(to, k, c), (const T *)a.main.rows + from, live);
    }
}

/* ---- B ---- */

/* Row n of the B tile in terms of the weights: which one, and which of its rows. UP with a gate: each warp's 32 rows are
 * 16 of gate and the same 16 of up, so that a thread holds both of a column. */
template <int OP, bool GATED> __device__ inline int por_b_row(const por_tile &t, int n, int *which)
{
    bool both = OP == POR_UP && GATED;

    *which = both ? n / 16 % 2 : OP == POR_UP ? 1 : 0;
    return both ? t.n / 2 + n / 32 * 16 + n % 16 : t.n + n;
}

__device__ inline int64_t por_expert(const por_weight &w, int expert)
{
    return w.offset ? w.offset[expert] : expert * w.stride_expert;
}

/* Which weight holds k, and the k within it: DX runs through gate, then up. */
template <int OP> __device__ inline int por_split_k(const por_run &s, int k, int *which)
{
    if (OP != POR_DX)
        return k;
    *which = k >= s.split;
    return *which ? k - s.split : k;
}

/* Element by element, from any strides. */
template <int OP, typename T, bool B_MN, bool GATED> __device__ inline void por_load_b_any(const por_run &s, const por_tile &t, uint8_t *tile, int k0, int n_limit)
{
    for (int i = threadIdx.x; i < POR_N * POR_K; i += 256) {
        int n = i / POR_K, kr = i % POR_K, k = k0 + kr, which, row = por_b_row<OP, GATED>(t, n, &which);
        int kk = por_split_k<OP>(s, k, &which);
        const por_weight &w = s.w[which];
        bool live = row < n_limit && k < s.k;
        uint32_t at = B_MN ? por_at<true>(0, kr, n / 8) + n % 8 * 2 : por_at<false>(0, n, kr / 8) + kr % 8 * 2;
        *(T *)(tile + at) = live ? ((const T *)w.base)[por_expert(w, t.expert) + row * w.stride_n + kk * w.stride_k] : from_float<T>(0.f);
    }
}

template <int OP, typename T, bool GATED> __device__ inline void por_load_b_k(const por_run &s, const por_tile &t, uint32_t to, int k0, int n_limit)
{
    int c = threadIdx.x % 4, k = k0 + c * 8;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        int n = threadIdx.x / 4 + 64 * i, which, row = por_b_row<OP, GATED>(t, n, &which);
        int kk = por_split_k<OP>(s, k, &which);
        const por_weight &w = s.w[which];
        bool live = row < n_limit && k < s.k;
        por_copy(por_at<false>(to, n, c), (const T *)w.base + (live ? por_expert(w, t.expert) + row * w.stride_n + kk : 0), live);
    }
}

template <int OP, typename T, bool GATED> __device__ inline void por_load_b_mn(const por_run &s, const por_tile &t, uint32_t to, int k0, int n_limit)
{
    int c = threadIdx.x % 16;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        int kr = threadIdx.x / 16 + 16 * i, k = k0 + kr, which, row = por_b_row<OP, GATED>(t, c * 8, &which);
        int kk = por_split_k<OP>(s, k, &which);
        const por_weight &w = s.w[which];
        bool live = row < n_limit && k < s.k;
        por_copy(por_at<true>(to, kr, c), (const T *)w.base + (live ? por_expert(w, t.expert) + row + kk * w.stride_k : 0), live);
    }
}

/* DW: rows of an expert, dense. */
template <typename T> __device__ inline void por_load_b_rows(const por_args &a, const por_tile &t, uint32_t to, int k0)
{
    int c = threadIdx.x % 16, column = t.n + c * 8;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        int k = threadIdx.x / 16 + 16 * i;
        bool live = k0 + k < t.n_row && column < a.inter;
        int64_t from = live ? ((int64_t)(t.row + k0 + k) * a.n_half + t.half) * a.inter + column : 0;
        por_copy(por_at<true>(to, k, c), (const T *)a.k_rows + from, live);
    }
}

/* ---- products ---- */

/* One stage of a warp: acc[mi][ni] += A rows 64 wm + 16 mi, B rows 32 wn + 8 ni. */
template <typename T, bool A_MN, bool B_MN> __device__ inline void por_stage(float acc[4][4][4], uint32_t a, uint32_t b, int wm, int wn)
{
    int lane = threadIdx.x % 32, low = lane & 7, bit3 = lane >> 3 & 1, bit4 = lane >> 4;

#pragma unroll
    for (int k = 0; k < POR_K / 16; k++) {
        uint32_t fa[4][4], fb[2][4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int m = 64 * wm + 16 * i;
            por_ldmatrix(fa[i], A_MN ? por_at<true>(a, 16 * k + low + 8 * bit4, m / 8 + bit3)
                                     : por_at<false>(a, m + low + 8 * bit3, 2 * k + bit4), A_MN);
        }
#pragma unroll
        for (int j = 0; j < 2; j++) {
            int n = 32 * wn + 16 * j;
            por_ldmatrix(fb[j], B_MN ? por_at<true>(b, 16 * k + low + 8 * bit3, n / 8 + bit4)
                                     : por_at<false>(b, n + low + 8 * bit4, 2 * k + bit3), B_MN);
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                por_mma<T>(acc[i][j], fa[i], &fb[j / 2][j % 2 * 2]);
    }
}

#include "kernels/portable_epilogue.cuh"

/* Weights that are contiguous along the dimension of the kernel's tile come in 16-byte copies. */
template <int OP, typename T, bool B_MN, bool GATED>
__device__ inline void por_load_run(const por_run &s, const por_tile &t, uint8_t *tile, int k0, const int64_t *from, int n_limit)
{
    uint8_t *b = tile + POR_TILE_BYTES;
    const por_weight &w = s.w[OP == POR_UP];

    por_load_a_rows<T>(s, t, por_smem(tile), k0, from);
    if ((B_MN ? w.stride_n : w.stride_k) != 1)
        por_load_b_any<OP, T, B_MN, GATED>(s, t, b, k0, n_limit);
    else if (B_MN)
        por_load_b_mn<OP, T, GATED>(s, t, por_smem(b), k0, n_limit);
    else
        por_load_b_k<OP, T, GATED>(s, t, por_smem(b), k0, n_limit);
}

/* Where this thread's two rows of a run begin. */
template <int OP> __device__ inline void por_rows(const por_args &a, const por_run &s, const por_tile &t, bool gathered, int64_t *from)
{
    for (int i = 0; OP != POR_DW && i < 2; i++) {
        int row = t.row + min((int)threadIdx.x / 4 + 64 * i, t.n_row - 1);
        from[i] = (gathered ? a.route.row_token[row] : row) * s.rows_stride;
    }
}

/* Steps: the main run's, then the adapter's. */
struct por_steps {
    int main, all;
};

template <int OP> __device__ inline por_steps por_count_steps(const por_args &a, const por_tile &t)
{
    int k = OP == POR_DW ? t.n_row : a.main.k, n = (k + POR_K - 1) / POR_K;

    return { n, OP == POR_DW ? n : n + (a.low.k + POR_K - 1) / POR_K };
}

template <int OP, typename T, bool B_MN, bool GATED>
__device__ inline void por_load(const por_args &a, const por_tile &t, uint8_t *smem, int step, const por_steps &n, const int64_t *from)
{
    uint8_t *tile = smem + step % POR_STAGE * 2 * POR_TILE_BYTES;
    int n_limit = OP == POR_DOWN || OP == POR_DX ? a.hidden : a.inter;

    if (step < n.main) {
        if (OP == POR_DW) {
            por_load_a_k<T>(a, t, por_smem(tile), step * POR_K);
            por_load_b_rows<T>(a, t, por_smem(tile + POR_TILE_BYTES), step * POR_K);
        } else {
            por_load_run<OP, T, B_MN, GATED>(a.main, t, tile, step * POR_K, from, n_limit);
        }
    } else if (step < n.all) {
        int64_t low[2];
        por_rows<OP>(a, a.low, t, false, low);
        por_load_run<OP, T, B_MN, GATED>(a.low, t, tile, (step - n.main) * POR_K, low, n_limit);
    }
    por_commit();
}

template <int OP, typename T, bool B_MN, bool GATED>
__global__ static void __launch_bounds__(256, 2) portable_gemm_v1(const __grid_constant__ por_args a)
{
    extern __shared__ __align__(128) uint8_t por_raw[];
    por_tile t;
    float acc[4][4][4] = {};
    int wm = threadIdx.x / 32 / 4, wn = threadIdx.x / 32 % 4;
    int64_t from[2] = {};

    if (!por_find<OP>(a, t))
        return;
    por_steps n = por_count_steps<OP>(a, t);
    por_rows<OP>(a, a.main, t, OP == POR_UP || OP == POR_DACT, from);
    for (int s = 0; s < POR_STAGE - 1; s++)
        por_load<OP, T, B_MN, GATED>(a, t, por_raw, s, n, from);
    for (int s = 0; s < n.all; s++) {
        por_wait<POR_STAGE - 2>();
        __syncthreads();
        por_load<OP, T, B_MN, GATED>(a, t, por_raw, s + POR_STAGE - 1, n, from);
        uint32_t tile = por_smem(por_raw + s % POR_STAGE * 2 * POR_TILE_BYTES);
        por_stage<T, OP == POR_DW, B_MN>(acc, tile, tile + POR_TILE_BYTES, wm, wn);
    }
    por_wait<0>();
    __syncthreads();
    por_finish<OP, T, GATED>(acc, a, t, wm, wn, (float *)por_raw);
}

#endif
