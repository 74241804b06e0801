/* hopper_gemm.cuh: one persistent, warp-specialised GEMM for all five products of an MoE layer, on sm_90a.
 *
 * A block holds a producer warpgroup and two consumer warpgroups. The producer fills a ring of stages (128 x 64 of A,
 * 256 x 64 of B); each consumer multiplies 64 x 256. Tiles come from the list that routing made on the device, so the
 * host never learns how many there are. Two blocks form a cluster and take one pair tile: neighbouring rows, the same
 * columns, so each loads half of B and multicasts it to both: L2 reads of a stage fall from 48 to 32 KB, and L2's
 * bandwidth is near its limit without. A pair tile of 128 rows or fewer is split 64 and 64, so it costs half the time.
 *
 *   op    M            N        K        A                          B
 *   UP    rows         I        H        x, gathered by cp.async    gate 128 + up 128 rows, by TMA
 *   DOWN  rows         H        I        act, TMA                   down, TMA
 *   DACT  rows         I        H        dout, gathered             down, its rows are k
 *   DX    rows         H        2I       dpre, TMA                  gate, then up; their rows are k
 *   DW    H            I        rows     x or dout, gathered in k   dpre or scaled act, TMA in k
 */
#ifndef KERNELS_HOPPER_GEMM_CUH
#define KERNELS_HOPPER_GEMM_CUH

#include "kernels/common.cuh"
#include "kernels/hopper_ptx.cuh"
#include "kernels/hopper_wgmma.cuh"

enum hop_op { HOP_UP, HOP_DOWN, HOP_DACT, HOP_DX, HOP_DW };

#define HOP_M 128 /* rows of one block's tile; a pair's is MK_TILE_M */
#define TILE_N 256
#define TILE_K 64
#define A_BYTES (HOP_M * TILE_K * 2)
#define B_BYTES (TILE_N * TILE_K * 2)
#define STAGE_BYTES (A_BYTES + B_BYTES)
#define N_CONSUMER_WARP 8
#define N_THREAD 384
#define GROUP_M 8 /* pair tiles that share weight tiles in L2 before the next are begun */

struct hop_args {
    CUtensorMap a, b[2];
    const int64_t *b_offset[2];  // (E) elements, or NULL
    int64_t b_stride[2];         // elements from expert to expert
    mk_route_ptr route;
    const bf16 *gather;          // (T, H): x or dout
    int64_t gather_stride;
    int32_t n_expert, hidden, inter, n_half, n_n_tile, n_m_pair; // n_m_pair: DW only, pairs of HOP_M
    mk_act_param act;
    mk_vector bias[2];           // UP: gate, up; DOWN: down
    bf16 *pre;                   // UP: out, may be NULL; DACT: in  (R, 2, I)
    bf16 *out;                   // UP: act (R, I); DOWN, DX: (R, H); DACT: dpre (R, 2, I)
    bf16 *scaled_act;            // DACT (R, I)
    float *dscore_part;          // DACT (R, n_dscore_part)
    int32_t n_dscore_part;
    const bf16 *k_rows;          // DW: what map b[0] shows, (R, n_half, I), for the last rows of an expert
    mk_matrix dw[2];             // DW: gradients; rows and columns as (hidden, inter) of the tile
    uint32_t dw_dtype, accumulate;
};

template <int OP> struct hop_config {
    static constexpr bool gather = OP == HOP_UP || OP == HOP_DACT || OP == HOP_DW;
    static constexpr int a_mn = OP == HOP_DW, b_mn = OP == HOP_DACT || OP == HOP_DX || OP == HOP_DW;
    static constexpr int n_stage = 4;
    static constexpr int warp_bytes = 4096; // a consumer warp's staging
    static constexpr int smem_bytes = 1024 + n_stage * STAGE_BYTES + N_CONSUMER_WARP * warp_bytes + 1024; // align, barriers
};

/* A tile as both roles see it. */
struct hop_tile {
    int expert, row, n_row; // M: first row and rows of this tile; DW: first row and rows of the expert
    int n, half, m;         // first column; which half of I (DW); first row of H (DW)
    int n_step;             // K steps
};

template <int OP> __device__ inline int count_tiles(const hop_args &a)
{
    return (OP == HOP_DW ? a.n_expert * a.n_m_pair : *a.route.n_tile) * a.n_n_tile;
}

__device__ inline int steps(int k)
{
    return (k + TILE_K - 1) / TILE_K;
}

/* Row tiles run fastest within a group of GROUP_M: neighbours in time share their weight tile. */
template <int OP> __device__ inline hop_tile find_tile(const hop_args &a, int i, int rank)
{
    hop_tile t;

    if (OP == HOP_DW) {
        int per_expert = a.n_m_pair * a.n_n_tile, n_per_half = a.n_n_tile / a.n_half;
        t.expert = i / per_expert;
        int n = i % per_expert / a.n_m_pair;
        t.m = (i % a.n_m_pair * 2 + rank) * HOP_M;
        t.half = n / n_per_half;
        t.n = n % n_per_half * TILE_N;
        t.row = a.route.offset[t.expert];
        t.n_row = a.route.offset[t.expert + 1] - t.row;
        t.n_step = max(1, steps(t.n_row)); // without rows one step of zeros: clearing the accumulators apart made them spill
        return t;
    }
    int group = i / (GROUP_M * a.n_n_tile), rest = i % (GROUP_M * a.n_n_tile);
    int m_in_group = min(GROUP_M, *a.route.n_tile - group * GROUP_M);
    mk_tile m = a.route.tile[group * GROUP_M + rest % m_in_group];
    int n_row = min(MK_TILE_M, m.row_end - m.row_begin), share = n_row > HOP_M ? HOP_M : HOP_M / 2;
    t.expert = m.expert;
    t.row = m.row_begin + rank * share;
    t.n_row = min(share, max(0, n_row - rank * share)); // 0: this block only loads its half of B
    t.n = rest / m_in_group * (OP == HOP_UP ? TILE_N / 2 : TILE_N); // UP: half the rows of B are gate's, half up's
    t.half = t.m = 0;
    t.n_step = OP == HOP_DX ? a.n_half * steps(a.inter) : steps(OP == HOP_DOWN ? a.inter : a.hidden);
    return t;
}

/* Position in the ring of stages; both roles walk it alike. */
template <int N> struct hop_ring {
    int stage = 0;
    uint32_t phase = 0;

    __device__ void next()
    {
        if (++stage == N) {
            stage = 0;
            phase ^= 1;
        }
    }
};

/* Shared memory of a block. */
template <int OP> struct hop_smem {
    uint32_t stage, warp, full, empty;
    int rank; // of this block in its pair

    __device__ uint32_t a(int s) const { return stage + s * STAGE_BYTES; }
    __device__ uint32_t b(int s) const { return a(s) + A_BYTES; }
};

template <int OP> __device__ inline hop_smem<OP> carve(void *raw)
{
    uint32_t base = (smem_address(raw) + 1023) & ~1023u; // the swizzle repeats every 1024 bytes
    hop_smem<OP> s;

    s.stage = base;
    s.warp = base + hop_config<OP>::n_stage * STAGE_BYTES;
    s.full = s.warp + N_CONSUMER_WARP * hop_config<OP>::warp_bytes;
    s.empty = s.full + 8 * hop_config<OP>::n_stage;
    s.rank = cluster_rank();
    return s;
}

#include "kernels/hopper_producer.cuh"
#include "kernels/hopper_epilogue.cuh"

/* One stage: four products of 16 k each. */
template <int OP> __device__ inline void multiply_stage(float *acc, uint32_t a, uint32_t b, bool first)
{
    typedef hop_config<OP> C;

#pragma unroll
    for (int k = 0; k < TILE_K / 16; k++) {
        uint64_t da = C::a_mn ? operand(a + k * 2048, 8192, 1024) : operand(a + k * 32, 16, 1024);
        uint64_t db = C::b_mn ? operand(b + k * 2048, 8192, 1024) : operand(b + k * 32, 16, 1024);
        wgmma_256<C::a_mn, C::b_mn>(acc, da, db, !first || k);
    }
}

/* Hands a stage back to both producers, since each fills half of both blocks' B. Every warp speaks for itself: the warps
 * of a group drift apart in the epilogue, and one alone cannot know that the others have read the stage (v6 hung so). */
template <int OP> __device__ inline void release(const hop_smem<OP> &s, int stage)
{
    int lane = threadIdx.x % 32;

    if (lane < 2)
        mbar_arrive_cluster(in_block(s.empty + 8 * stage, lane));
}

/* The products of one tile, one stage's in flight while the next is waited for. */
template <int OP> __device__ inline void multiply(float *acc, hop_ring<hop_config<OP>::n_stage> &ring, const hop_smem<OP> &s,
                                                  int group, int n_step)
{
    int last = 0;

    for (int i = 0; i < n_step; i++) {
        mbar_wait(s.full + 8 * ring.stage, ring.phase);
        wgmma_fence();
        multiply_stage<OP>(acc, s.a(ring.stage) + group * 8192, s.b(ring.stage), i == 0);
        wgmma_commit();
        wgmma_wait<1>();
        if (i)
            release(s, last);
        last = ring.stage;
        ring.next();
    }
    wgmma_wait<0>();
    release(s, last);
}

/* A consumer without rows only hands the stages back. */
template <int OP> __device__ inline void skip(hop_ring<hop_config<OP>::n_stage> &ring, const hop_smem<OP> &s, int n_step)
{
    for (int i = 0; i < n_step; i++) {
        mbar_wait(s.full + 8 * ring.stage, ring.phase);
        release(s, ring.stage);
        ring.next();
    }
}

/* Makes the compiler forget what it knows of the tile, so that it computes the epilogue's addresses after the products:
 * computed before, they took the accumulators' registers (1100 bytes of spills in DW). */
__device__ inline void forget(hop_tile &t, hop_warp &w)
{
    asm volatile("" : "+r"(t.expert), "+r"(t.row), "+r"(t.n), "+r"(t.m), "+r"(w.lane), "+r"(w.smem), "+r"(w.warp), "+r"(w.n_row));
}

template <int OP, int ACT> __device__ inline void consume(const hop_args &a, const hop_smem<OP> &s)
{
    hop_ring<hop_config<OP>::n_stage> ring;
    int group = threadIdx.x / 128 - 1, n_tile = count_tiles<OP>(a);
    float acc[128];

    for (int i = blockIdx.x / 2; i < n_tile; i += gridDim.x / 2) {
        hop_tile t = find_tile<OP>(a, i, s.rank);
        int left = (OP == HOP_DW ? a.hidden - t.m : t.n_row) - 64 * group;
        if (left <= 0) {
            skip(ring, s, t.n_step);
            continue;
        }
        hop_warp w = { (int)threadIdx.x / 32 % 4, group, (int)threadIdx.x & 31, min(64, left),
                       s.warp + (threadIdx.x / 32 - 4) * hop_config<OP>::warp_bytes };
        if (OP == HOP_DACT)
            dact_prefetch(a, t, w);
        multiply<OP>(acc, ring, s, group, t.n_step);
        forget(t, w);
        finish<OP, ACT>(acc, a, t, w);
    }
}

#define HOP_KERNEL hopper_gemm_v7

template <int OP, int ACT> __global__ static void __cluster_dims__(2, 1, 1) __launch_bounds__(N_THREAD, 1) hopper_gemm_v7(const __grid_constant__ hop_args a)
{
    extern __shared__ uint8_t raw[];
    hop_smem<OP> s = carve<OP>(raw);

    if (threadIdx.x == 0) {
        for (int i = 0; i < hop_config<OP>::n_stage; i++) {
            mbar_init(s.full + 8 * i, hop_config<OP>::gather ? 129 : 1); // 128 gathering threads and the TMA's
            mbar_init(s.empty + 8 * i, 2 * N_CONSUMER_WARP); // of both blocks
        }
        fence_mbar_init();
    }
    cluster_sync();
    if (threadIdx.x < 128) {
        registers_shrink<hop_config<OP>::gather ? 56 : 40>();
        produce<OP>(a, s);
    } else {
        registers_grow<hop_config<OP>::gather ? 224 : 232>();
        consume<OP, ACT>(a, s);
    }
    cluster_sync(); // neither block leaves while the other may write into it
}

#endif
