/* portable_gemm.cuh: the same five products as hopper_gemm.cuh for any GPU from sm_80 on: mma.sync, cp.async.
 * Takes every layout: weights contiguous along either dimension by 16-byte copies, others element by element.
 * K comes in runs, one after the other: the product's own (DX: gate's, then up's), then an adapter's: A v beside B (UP,
 * DOWN), or the gradient of A v beside A (DACT, DX).
 * One block a multiprocessor takes tiles of 128 x 256 in turn, K 64 at a time, eight warps of 64 x 64 each. mma.sync needs
 * that size: a warp's 64 x 32 would ask shared memory for more than it delivers, a block's 128 x 128 L2. */
#ifndef KERNELS_PORTABLE_GEMM_CUH
#define KERNELS_PORTABLE_GEMM_CUH

#include "kernels/portable_mma.cuh"

enum por_op { POR_UP, POR_DOWN, POR_DACT, POR_DX, POR_DW };

#ifndef POR_GROUP_M
#define POR_GROUP_M 16 /* row tiles that share weight tiles in L2 */
#endif
#define POR_N           256
#define POR_K           64
#define POR_M           128
#define POR_WARP_N      (POR_N / 64) /* warps along N, two along M */
#define POR_THREAD      (2 * POR_WARP_N * 32)
#define POR_A_BYTES     (POR_M * POR_K * 2)
#define POR_STAGE_BYTES ((POR_M + POR_N) * POR_K * 2)
#define POR_A_COPY      (POR_M * POR_K / 8 / POR_THREAD) /* pieces of 16 bytes a thread and step */
#define POR_B_COPY      (POR_N * POR_K / 8 / POR_THREAD)

/* Weights as (n, k): element at base + offset of the expert + n * stride_n + k * stride_k. */
struct por_weight {
    const void *base;
    const int64_t *offset; // (E), or NULL
    int64_t stride_expert, stride_n, stride_k;
};

/* A run of K: rows of A against weights. */
struct por_run {
    const void *rows; // (T, k) gathered, or (R, k) dense
    int64_t rows_stride;
    por_weight w[2]; // UP with a gate: gate, up, of the same strides; else one alone
    int32_t k;
    uint32_t gathered;
};

/* DW: an operand whose rows are an expert's, k of the product. */
struct por_side {
    const void *rows;
    int64_t stride, half; // elements from row to row; from gate to up
    int32_t width;
};

struct por_args {
    mk_route_ptr route;
    por_run run[3];
    por_side side[2];               // DW: M's, N's
    int32_t n_run, n_stage, n_step; // stages: 3, or 2 where shared memory is short; n_step: of K over all runs, not DW
    int32_t n_expert, hidden, inter, n_half, n_n_tile, n_m_tile; // n_m_tile: DW only
    mk_act_param act;
    mk_vector bias[2];
    void *pre, *out, *scaled_act; // as in hop_args
    float *dscore_part;
    int32_t n_dscore_part;
    mk_matrix dw[2]; // rows M, columns N
    uint32_t dw_dtype, accumulate;
};

struct por_tile {
    int expert, row, n_row, m, n, half;
};

/* What a block has beside its registers: shared memory, and how many tiles there are. */
struct por_block {
    uint8_t *smem;  // stages
    int *first;     // first row tiles of every second expert, whose all it has no room for
    por_tile *tile; // (2, POR_AHEAD), the next ones and those before
    int n_tile;
};

#include "kernels/portable_epilogue.cuh"
#include "kernels/portable_feed.cuh"

/* Shared memory beside the stages. A tile leaves through the stage that its last step has emptied. */
#define POR_FIRST_BYTES   ((MK_MAX_EXPERT / 2 + 4) * 4)
#define POR_SMEM(n_stage) ((n_stage)*POR_STAGE_BYTES + POR_FIRST_BYTES + 2 * POR_AHEAD * (int)sizeof(por_tile))
#define POR_PART_AT       (2 * POR_WARP_N * POR_SLICE_BYTES) /* in that stage: parts of dscore */
static_assert(POR_PART_AT + POR_WARP_N * POR_M * 4 <= POR_STAGE_BYTES, "a stage holds what a tile leaves through");
static_assert(POR_PART == POR_K / 16 - 1, "a part of the copies for every 16 of K but the last");
static_assert(POR_SMEM(2) <= 99 << 10, "Ada has room for a block");

/* ---- products ---- */

/* What a warp multiplies at once: 64 rows and 64 columns, 16 of K. */
struct por_fragment {
    uint32_t a[4][4], b[4][4];
};

/* Where a lane's rows for ldmatrix begin in a tile that is MN wide: the warp's at mn, k 0. Of the four matrices that an
 * instruction loads, A's go along M first, B's along K. */
template <bool MAJOR_MN, int MN, bool IS_B> __device__ inline uint32_t por_lane_at(int mn)
{
    int lane = threadIdx.x % 32, low = lane & 7, bit3 = lane >> 3 & 1, bit4 = lane >> 4;
    int along_mn = IS_B ? bit4 : bit3, along_k = IS_B ? bit3 : bit4;

    return MAJOR_MN ? por_piece<MN * 2>(0, low + 8 * along_k, mn / 8 + along_mn)
                    : por_piece<POR_K * 2>(0, mn + low + 8 * along_mn, along_k);
}

/* The i-th 16 along M or N, the k-th along K: the swizzle makes a step within a row an exclusive or. */
template <bool MAJOR_MN, int MN> __device__ inline uint32_t por_lane_step(uint32_t at, int i, int k)
{
    return MAJOR_MN ? (at ^ (i << 5)) + k * 16 * MN * 2 : (at ^ (k << 5)) + i * 16 * POR_K * 2;
}

template <bool A_MN, bool B_MN> __device__ inline void por_read(por_fragment &x, uint32_t a, uint32_t b, int k)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        por_ldmatrix(x.a[i], por_lane_step<A_MN, POR_M>(a, i, k), A_MN);
#pragma unroll
    for (int i = 0; i < 4; i++)
        por_ldmatrix(x.b[i], por_lane_step<B_MN, POR_N>(b, i, k), B_MN);
}

template <typename T> __device__ inline void por_multiply(float acc[4][8][4], const por_fragment &x)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 8; j++)
            por_mma<T>(acc[i][j], x.a[i], &x.b[j / 2][j % 2 * 2]);
}

/* Where a lane of a warp reads A and B in a stage, and which stage comes next. */
struct por_place {
    uint32_t a, b, ring, last; // bytes; last: of the last stage
};

__device__ inline uint32_t por_emptied(const por_place &p)
{
    return p.ring ? p.ring - POR_STAGE_BYTES : p.last;
}

template <int OP, bool B_MN> __device__ inline void por_read_next(por_fragment &x, const por_place &p, int k)
{
    por_read<OP == POR_DW, B_MN>(x, p.a + p.ring, p.b + p.ring, k);
}

/* Until the next step's operands are there, for all threads: those asked for last but one, or last. */
__device__ inline void por_arrived(int n_stage)
{
    if (n_stage == 3)
        por_wait<1>();
    else
        por_wait<0>();
    __syncthreads();
}

/* n steps; the first 16 of K are in x, and at the end the next tile's. Operands are read from shared memory while those
 * before are multiplied; a stage's successor is asked for as soon as all have read it. */
template <int OP, typename T, bool B_MN, bool GATED, bool ANY>
__device__ inline void por_steps(float acc[4][8][4], por_fragment x[2], const por_args &a, const por_block &b,
                                 por_feed<T> &f, por_place &p, int n)
{
#pragma unroll 1
    for (; n > 0; n--) {
#pragma unroll
        for (int k = 0; k < POR_K / 16; k++) {
            bool last = k + 1 == POR_K / 16;
            if (last) {
                por_advance<OP, T, GATED>(a, f);
                por_arrived(a.n_stage);
                p.ring = p.ring == p.last ? 0 : p.ring + POR_STAGE_BYTES;
            }
            por_read_next<OP, B_MN>(x[(k + 1) % 2], p, last ? 0 : k + 1);
            if (!last)
                por_load<OP, T, B_MN, GATED, ANY>(a, b, f, por_emptied(p), k);
            por_multiply<T>(acc, x[k % 2]);
        }
    }
}

/* A tile's steps, in stretches within which the feed stays in one run. */
template <int OP, typename T, bool B_MN, bool GATED>
__device__ inline void por_product(float acc[4][8][4], const por_args &a, const por_block &b, por_feed<T> &f, por_place &p,
                                   int n)
{
    por_fragment x[2];

    por_read_next<OP, B_MN>(x[0], p, 0);
    while (n > 0) {
        por_open_next<OP, T, B_MN, GATED>(a, b, f);
        int m = f.left ? min(f.left, n) : n;
        if (f.any)
            por_steps<OP, T, B_MN, GATED, true>(acc, x, a, b, f, p, m);
        else
            por_steps<OP, T, B_MN, GATED, false>(acc, x, a, b, f, p, m);
        n -= m;
        f.left -= f.left ? m : 0;
    }
}

template <int OP, typename T, bool B_MN, bool GATED>
__global__ static void __launch_bounds__(POR_THREAD, 1) portable_gemm_v3(const __grid_constant__ por_args a)
{
    extern __shared__ __align__(128) uint8_t por_raw[];
    uint8_t *beside = por_raw + a.n_stage * POR_STAGE_BYTES;
    por_block b = { por_raw, (int *)beside, (por_tile *)(beside + POR_FIRST_BYTES) };
    int warp = threadIdx.x / 32, wm = warp / POR_WARP_N, wn = warp % POR_WARP_N;
    por_place p = { por_smem(por_raw) + por_lane_at<OP == POR_DW, POR_M, false>(64 * wm),
                    por_smem(por_raw) + POR_A_BYTES + por_lane_at<B_MN, POR_N, true>(64 * wn), 0,
                    (uint32_t)(a.n_stage - 1) * POR_STAGE_BYTES };
    por_feed<T> f;

    if (OP != POR_DW && !warp)
        por_count_tiles(a, b.first);
    __syncthreads();
    b.n_tile = por_tiles<OP>(a, b.first);
    por_keep(p.a);
    por_keep(p.b);
    por_begin<OP, T, B_MN>(a, f);
    por_fill<OP, T, B_MN, GATED>(a, b, f);
    por_arrived(a.n_stage);
#pragma unroll 1
    for (int i = blockIdx.x, n = 0; i < b.n_tile; i += gridDim.x, n++) {
        float acc[4][8][4] = {};
        por_product<OP, T, B_MN, GATED>(acc, a, b, f, p, OP == POR_DW ? por_dw_steps(a, b, i) : a.n_step);
        por_tile t = por_tile_of<OP>(a, b, i, n); // only now: registers
        uint8_t *out = b.smem + por_emptied(p);
        por_finish<OP, T, GATED>(acc, a, t, wm, wn, out + warp * POR_SLICE_BYTES, (float *)(out + POR_PART_AT));
        __syncthreads(); // guard: that stage is filled again
    }
    por_wait<0>();
}

#endif
