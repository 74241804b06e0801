/* portable_gemm.cuh: the same five products as hopper_gemm.cuh for any GPU from sm_80 on: mma.sync, cp.async, one tile a
 * block. Takes every layout: weights contiguous along either dimension by 16-byte copies, others element by element.
 * Tiles of 128 x 128 x 32, eight warps of 64 x 32 each, four stages; epilogues straight from registers. */
#ifndef KERNELS_PORTABLE_GEMM_CUH
#define KERNELS_PORTABLE_GEMM_CUH

#include "kernels/common.cuh"

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

struct por_args {
    mk_route_ptr route;
    const void *rows;            // A: (T, H) gathered, or (R, k) dense
    int64_t rows_stride;
    por_weight w[2];             // gate, up; or down alone in [0]
    const void *k_rows;          // DW: B (R, n_half, I)
    int32_t n_expert, hidden, inter, n_half, n_n_tile, n_m_tile; // n_m_tile: DW only
    int32_t k;                   // extent of K; DX: of both halves together
    mk_act_param act;
    mk_vector bias[2];
    void *pre, *out, *scaled_act; // as in hop_args
    float *dscore_part;
    int32_t n_dscore_part;
    mk_matrix dw[2];             // rows hidden, columns inter
    uint32_t dw_dtype, accumulate;
};

struct por_tile {
    int expert, row, n_row, m, n, half, k;
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
        t.n_row = t.k = a.route.offset[t.expert + 1] - t.row;
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
    t.k = a.k;
    return t.n_row > 0;
}

__device__ inline uint32_t por_smem(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

__device__ inline void por_copy(uint32_t to, const void *from, bool live)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(live ? 16 : 0) : "memory");
}

/* Where 16-byte piece c of a row lies. K-major: rows of 64 bytes; MN-major: rows (k) of 256 bytes. No bank conflicts. */
template <bool MN> __device__ inline uint32_t por_at(uint32_t tile, int row, int c)
{
    return MN ? tile + row * 256 + ((c ^ (row & 7)) << 4) : tile + row * 64 + ((c ^ (row >> 1 & 3)) << 4);
}

/* ---- A ---- */

/* K-major rows, gathered or dense: thread i copies piece i%4 of rows i/4 and i/4 + 64. */
template <int OP, typename T> __device__ inline void por_load_a_rows(const por_args &a, const por_tile &t, uint32_t to, int k0, const int64_t *from)
{
    int c = threadIdx.x % 4, k = k0 + c * 8;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = threadIdx.x / 4 + 64 * i;
        bool live = row < t.n_row && k < t.k;
        por_copy(por_at<false>(to, row, c), (const T *)a.rows + (live ? from[i] + k : 0), live);
    }
}

/* MN-major, gathered along k: thread i copies piece i%16 of k rows i/16 and i/16 + 16. */
template <typename T> __device__ inline void por_load_a_k(const por_args &a, const por_tile &t, uint32_t to, int k0)
{
    int c = threadIdx.x % 16, column = t.m + c * 8;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        int k = threadIdx.x / 16 + 16 * i;
        bool live = k0 + k < t.k && column < a.hidden;
        int64_t from = live ? a.route.row_token[t.row + k0 + k] * a.rows_stride + column : 0;
        por_copy(por_at<true>(to, k, c), (const T *)a.rows + from, live);
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
template <int OP> __device__ inline int por_split_k(const por_args &a, int k, int *which)
{
    if (OP != POR_DX)
        return k;
    *which = a.n_half == 1 || k >= a.inter;
    return *which && a.n_half == 2 ? k - a.inter : k;
}

template <int OP, typename T, bool GATED> __device__ inline void por_load_b_any(const por_args &a, const por_tile &t, uint8_t *tile, int k0, int n_limit)
{
    for (int i = threadIdx.x; i < POR_N * POR_K; i += 256) {
        int n = i / POR_K, k = k0 + i % POR_K, which, row = por_b_row<OP, GATED>(t, n, &which);
        int kk = por_split_k<OP>(a, k, &which);
        const por_weight &w = a.w[which];
        bool live = row < n_limit && k < t.k;
        uint32_t at = por_at<false>(0, n, i % POR_K / 8) + i % 8 * 2;
        *(T *)(tile + at) = live ? ((const T *)w.base)[por_expert(w, t.expert) + row * w.stride_n + kk * w.stride_k] : from_float<T>(0.f);
    }
}

template <int OP, typename T, bool GATED> __device__ inline void por_load_b_k(const por_args &a, const por_tile &t, uint32_t to, int k0, int n_limit)
{
    int c = threadIdx.x % 4, k = k0 + c * 8;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        int n = threadIdx.x / 4 + 64 * i, which, row = por_b_row<OP, GATED>(t, n, &which);
        int kk = por_split_k<OP>(a, k, &which);
        const por_weight &w = a.w[which];
        bool live = row < n_limit && k < t.k;
        por_copy(por_at<false>(to, n, c), (const T *)w.base + (live ? por_expert(w, t.expert) + row * w.stride_n + kk : 0), live);
    }
}

template <int OP, typename T, bool GATED> __device__ inline void por_load_b_mn(const por_args &a, const por_tile &t, uint32_t to, int k0, int n_limit)
{
    int c = threadIdx.x % 16;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        int kr = threadIdx.x / 16 + 16 * i, k = k0 + kr, which, row = por_b_row<OP, GATED>(t, c * 8, &which);
        int kk = por_split_k<OP>(a, k, &which);
        bool live = row < n_limit && k < t.k;
        const T *from;
        if (OP == POR_DW) {
            from = (const T *)a.k_rows + (live ? ((int64_t)(t.row + k) * a.n_half + t.half) * a.inter + row : 0);
        } else {
            const por_weight &w = a.w[which];
            from = (const T *)w.base + (live ? por_expert(w, t.expert) + row + kk * w.stride_k : 0);
        }
        por_copy(por_at<true>(to, kr, c), from, live);
    }
}

/* ---- products ---- */

__device__ inline void por_ldmatrix(uint32_t *v, uint32_t from, bool trans)
{
    if (trans)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(from) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(from) : "memory");
}

template <typename T> __device__ inline void por_mma(float *d, const uint32_t *a, const uint32_t *b);
template <> __device__ inline void por_mma<bf16>(float *d, const uint32_t *a, const uint32_t *b)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <> __device__ inline void por_mma<half>(float *d, const uint32_t *a, const uint32_t *b)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

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

template <int OP, typename T, bool B_MN, bool GATED>
__device__ inline void por_load(const por_args &a, const por_tile &t, uint8_t *smem, int stage, int step, const int64_t *from, bool any)
{
    uint8_t *tile = smem + stage * 2 * POR_TILE_BYTES;
    int k0 = step * POR_K, n_limit = OP == POR_DOWN || OP == POR_DX ? a.hidden : a.inter;

    if (k0 < t.k) {
        if (OP == POR_DW)
            por_load_a_k<T>(a, t, por_smem(tile), k0);
        else
            por_load_a_rows<OP, T>(a, t, por_smem(tile), k0, from);
        if (B_MN)
            por_load_b_mn<OP, T, GATED>(a, t, por_smem(tile + POR_TILE_BYTES), k0, n_limit);
        else if (any)
            por_load_b_any<OP, T, GATED>(a, t, tile + POR_TILE_BYTES, k0, n_limit);
        else
            por_load_b_k<OP, T, GATED>(a, t, por_smem(tile + POR_TILE_BYTES), k0, n_limit);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
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
    for (int i = 0; OP != POR_DW && i < 2; i++) {
        int row = t.row + min((int)threadIdx.x / 4 + 64 * i, t.n_row - 1);
        from[i] = (OP == POR_UP || OP == POR_DACT ? a.route.row_token[row] : row) * a.rows_stride;
    }
    bool any = OP != POR_DW && a.w[OP == POR_UP].stride_k != 1 && !B_MN;
    int n_step = (t.k + POR_K - 1) / POR_K;
    for (int s = 0; s < POR_STAGE - 1; s++)
        por_load<OP, T, B_MN, GATED>(a, t, por_raw, s, s, from, any);
    for (int s = 0; s < n_step; s++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(POR_STAGE - 2) : "memory");
        __syncthreads();
        int ahead = s + POR_STAGE - 1;
        por_load<OP, T, B_MN, GATED>(a, t, por_raw, ahead % POR_STAGE, ahead, from, any);
        uint32_t tile = por_smem(por_raw + s % POR_STAGE * 2 * POR_TILE_BYTES);
        por_stage<T, OP == POR_DW, B_MN>(acc, tile, tile + POR_TILE_BYTES, wm, wn);
    }
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    __syncthreads();
    por_finish<OP, T, GATED>(acc, a, t, wm, wn, (float *)por_raw);
}

#endif
