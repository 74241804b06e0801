/* hopper_gemm.cuh, version 8 of the ladder, built by `make lab` in place of kernels/hopper_gemm.cuh: not promoted yet.
 *
 * As v7, but the epilogue has warps of its own. A block holds two warps that load, two that store, and two consumers
 * (warpgroups, 64 x 256 each). A consumer rounds its tile to bf16, leaves it in shared memory and multiplies on;
 * activation, derivative and stores happen meanwhile, spread over the whole time instead of in bursts of all blocks at
 * once. (A storing warpgroup would make 512 threads, and their 128 registers at launch do not compile m64n256.)
 * The 64 KB for that cost one of four stages. The producer tells the consumers what a tile is in the stage itself, so
 * that they wait for no load between tiles, and finds the next tile while the current one runs.
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
#define N_STAGE 3
#define OUT_BYTES (HOP_M * TILE_N * 2) /* a finished tile, bf16 */
#define N_CONSUMER_WARP 8
#define N_LOAD_THREAD 64
#define N_STORE_WARP 2
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
    static constexpr int smem_bytes = 1024 + N_STAGE * STAGE_BYTES + OUT_BYTES + 1024; // align, barriers
};

/* A tile as all roles see it. */
struct hop_tile {
    int expert, row, n_row; // M: first row and rows of this tile; DW: first row and rows of the expert
    int n, half, m;         // first column; which half of I (DW); first row of H (DW)
    int n_step;             // K steps; 0: there is no such tile
};

template <int OP> __device__ inline int count_tiles(const hop_args &a)
{
    return (OP == HOP_DW ? a.n_expert * a.n_m_pair : *a.route.n_tile) * a.n_n_tile;
}

__device__ inline int steps(int k)
{
    return (k + TILE_K - 1) / TILE_K;
}

/* What memory says of tile i: an entry of the tile list, or first and last row of an expert. Loaded one step before it is
 * used, since a load that is waited for costs the producer most of its lead. */
template <int OP> __device__ inline int4 peek_tile(const hop_args &a, int i, int n_tile)
{
    if (i >= n_tile)
        return make_int4(0, 0, 0, 0);
    if (OP == HOP_DW) {
        const int32_t *offset = a.route.offset + i / (a.n_m_pair * a.n_n_tile);
        return make_int4(0, offset[0], offset[1], 0);
    }
    int group = i / (GROUP_M * a.n_n_tile), m_in_group = min(GROUP_M, n_tile / a.n_n_tile - group * GROUP_M);
    return ((const int4 *)a.route.tile)[group * GROUP_M + i % (GROUP_M * a.n_n_tile) % m_in_group];
}

/* Row tiles run fastest within a group of GROUP_M: neighbours in time share their weight tile. */
template <int OP> __device__ inline hop_tile find_tile(const hop_args &a, int i, int n_tile, int rank, int4 seen)
{
    hop_tile t = {};

    if (i >= n_tile)
        return t;
    if (OP == HOP_DW) {
        int per_expert = a.n_m_pair * a.n_n_tile, n_per_half = a.n_n_tile / a.n_half, n = i % per_expert / a.n_m_pair;
        t.expert = i / per_expert;
        t.m = (i % a.n_m_pair * 2 + rank) * HOP_M;
        t.half = n / n_per_half;
        t.n = n % n_per_half * TILE_N;
        t.row = seen.y;
        t.n_row = seen.z - seen.y;
        t.n_step = max(1, steps(t.n_row)); // without rows one step of zeros
        return t;
    }
    int group = i / (GROUP_M * a.n_n_tile), m_in_group = min(GROUP_M, n_tile / a.n_n_tile - group * GROUP_M);
    int n_row = min(MK_TILE_M, seen.z - seen.y), share = n_row > HOP_M ? HOP_M : HOP_M / 2;
    t.expert = seen.x;
    t.row = seen.y + rank * share;
    t.n_row = min(share, max(0, n_row - rank * share)); // 0: this block only loads its half of B
    t.n = i % (GROUP_M * a.n_n_tile) / m_in_group * (OP == HOP_UP ? TILE_N / 2 : TILE_N); // UP: half the rows of B are gate's, half up's
    t.n_step = OP == HOP_DX ? a.n_half * steps(a.inter) : steps(OP == HOP_DOWN ? a.inter : a.hidden);
    return t;
}

/* Rows of this block's output tile that exist. */
template <int OP> __device__ inline int tile_rows(const hop_args &a, const hop_tile &t)
{
    return OP == HOP_DW ? a.hidden - t.m : t.n_row;
}

/* Position in the ring of stages; producer and consumers walk it alike. */
struct hop_ring {
    int stage = 0;
    uint32_t phase = 0;

    __device__ void next()
    {
        if (++stage == N_STAGE) {
            stage = 0;
            phase ^= 1;
        }
    }
};

/* Shared memory of a block. Barriers: full and empty of each stage; of each group's half of the finished tile,
 * ready (4 consumer warps) and free (the storing warps). info: 16 bytes a stage, written with a tile's first stage. */
struct hop_smem {
    uint32_t stage, out, barrier, info;
    int rank; // of this block in its pair

    __device__ uint32_t a(int s) const { return stage + s * STAGE_BYTES; }
    __device__ uint32_t b(int s) const { return a(s) + A_BYTES; }
    __device__ uint32_t full(int s) const { return barrier + 8 * s; }
    __device__ uint32_t empty(int s) const { return barrier + 8 * (N_STAGE + s); }
    __device__ uint32_t ready(int group) const { return barrier + 8 * (2 * N_STAGE + group); }
    __device__ uint32_t free(int group) const { return barrier + 8 * (2 * N_STAGE + 2 + group); }
};

__device__ inline hop_smem carve(void *raw)
{
    uint32_t base = (smem_address(raw) + 1023) & ~1023u; // the swizzle repeats every 1024 bytes
    hop_smem s;

    s.stage = base;
    s.out = base + N_STAGE * STAGE_BYTES;
    s.barrier = s.out + OUT_BYTES;
    s.info = s.barrier + 128;
    s.rank = cluster_rank();
    return s;
}

/* What a consumer must know of a tile. */
struct hop_info {
    int n_step, n_row, expert, n;
};

__device__ inline void put_info(const hop_smem &s, int stage, hop_info f)
{
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(s.info + 16 * stage), "r"(f.n_step), "r"(f.n_row), "r"(f.expert), "r"(f.n) : "memory");
}

__device__ inline hop_info get_info(const hop_smem &s, int stage)
{
    uint4 v = lds_16(s.info + 16 * stage);
    return { (int)v.x, (int)v.y, (int)v.z, (int)v.w };
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

/* Hands a stage back to both producers, since each fills half of both blocks' B. Every warp speaks for itself: one alone
 * cannot know that the others have read the stage. */
__device__ inline void release(const hop_smem &s, int stage)
{
    int lane = threadIdx.x % 32;

    if (lane < 2)
        mbar_arrive_cluster(in_block(s.empty(stage), lane));
}

/* The products of one tile, one stage's in flight while the next is waited for. */
template <int OP> __device__ inline void multiply(float *acc, hop_ring &ring, const hop_smem &s, int group, int n_step)
{
    int last = 0;

    for (int i = 0; i < n_step; i++) {
        mbar_wait(s.full(ring.stage), ring.phase);
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
__device__ inline void skip(hop_ring &ring, const hop_smem &s, int n_step)
{
    for (int i = 0; i < n_step; i++) {
        mbar_wait(s.full(ring.stage), ring.phase);
        release(s, ring.stage);
        ring.next();
    }
}

template <int OP> __device__ inline void consume(const hop_args &a, const hop_smem &s)
{
    hop_ring ring;
    int group = threadIdx.x / 128 - 1;
    uint32_t turn = 0; // of the group's half of the finished tile
    float acc[128];

    for (;;) {
        mbar_wait(s.full(ring.stage), ring.phase);
        hop_info f = get_info(s, ring.stage);
        if (!f.n_step)
            break;
        if (f.n_row <= 64 * group) {
            skip(ring, s, f.n_step);
            continue;
        }
        multiply<OP>(acc, ring, s, group, f.n_step);
        leave_tile<OP>(acc, a, s, f, group, turn);
        turn ^= 1;
    }
}

#define HOP_KERNEL hopper_gemm_v8

__device__ inline void init_barriers(const hop_smem &s, bool gather)
{
    for (int i = 0; i < N_STAGE; i++) {
        mbar_init(s.full(i), gather ? N_LOAD_THREAD + 1 : 1); // gathering threads and the TMA's
        mbar_init(s.empty(i), 2 * N_CONSUMER_WARP); // of both blocks
    }
    for (int g = 0; g < 2; g++) {
        mbar_init(s.ready(g), 4);
        mbar_init(s.free(g), N_STORE_WARP);
    }
    fence_mbar_init();
}

template <int OP, int ACT> __global__ static void __cluster_dims__(2, 1, 1) __launch_bounds__(N_THREAD, 1) hopper_gemm_v8(const __grid_constant__ hop_args a)
{
    extern __shared__ uint8_t raw[];
    hop_smem s = carve(raw);

    if (threadIdx.x == 0)
        init_barriers(s, hop_config<OP>::gather);
    cluster_sync();
    if (threadIdx.x < N_LOAD_THREAD)
        produce<OP>(a, s);
    else if (threadIdx.x < 128)
        store_tiles<OP, ACT>(a, s);
    else
        consume<OP>(a, s);
    cluster_sync(); // neither block leaves while the other may write into it
}

#endif
