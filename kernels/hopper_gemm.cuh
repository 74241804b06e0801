/* hopper_gemm.cuh: one persistent, warp-specialised GEMM for all five products of an MoE layer, on sm_90a.
 *
 * A block holds a producer warpgroup and two consumer warpgroups. The producer fills a ring of stages, 64 of K each; the consumers
 * multiply. Two blocks form a cluster and take one pair tile: what both need each loads half of, and multicasts it to both. So L2 reads
 * of a stage fall from 48 to 32 KB, and L2's bandwidth is near its limit without.
 *
 * The epilogue is deferred: a consumer rounds its finished tile to bf16, leaves a part of it in shared memory and begins the next tile;
 * between two steps of that one it takes a slice of the tile before (activation, derivative, stores). So the tensor cores do not wait
 * for the epilogue, and its memory traffic is spread over the whole time instead of coming from all blocks at once. The rest of the
 * tile waits in registers (some of DACT's in L2): all of it would cost one of four stages, and a gathered row takes longer to come than
 * the three would hide.
 *
 *   op    M            N        K        A                          B
 *   UP    gate and up  rows     H        gate and up, TMA           x, gathered by cp.async          hopper_fit.cuh
 *   DOWN  H            rows     I        down, TMA                  act, TMA                         the same
 *   DACT  I            rows     H        down, its rows are k       dout, gathered                   the same
 *   DX    H            rows     2I       gate, then up; rows are k  dpre, TMA                        the same
 *   DW    H            I        rows     x or dout, gathered in k   dpre or scaled act, TMA in k     hopper_dw.cuh
 *
 * DX and the gradients of the weights do not need each other: each begins where the one before leaves room (griddepcontrol), and ends
 * after it. DX's rows are summed beside the products of a gradient (hopper_sum.cuh).
 *
 * Weights may be transposed in memory: their rows are k where they were not, and the other way round. Where rows of gate and up
 * alternate then, a tile of UP has 256 of both, told apart as they leave; DACT leaves their gradients alternating, so that DX
 * and DW see one matrix of 2I rows.
 */
#ifndef KERNELS_HOPPER_GEMM_CUH
#define KERNELS_HOPPER_GEMM_CUH

#include "kernels/common.cuh"
#include "kernels/hopper_ptx.cuh"
#include "kernels/hopper_wgmma.cuh"
#include "kernels/sums.cuh"

enum hop_op { HOP_UP, HOP_DOWN, HOP_DACT, HOP_DX, HOP_DW };

/* How weights lie: contiguous along their columns, along their rows (transposed), or transposed with alternating rows of gate
 * and up. */
enum hop_weights { HOP_ROWS, HOP_COLUMNS, HOP_ALTERNATING };

#define HOP_M           128 /* DW: rows of one block's tile */
#define TILE_N          256
#define TILE_K          64
#define A_BYTES         (HOP_M * TILE_K * 2)
#define B_BYTES         (TILE_N * TILE_K * 2)
#define STAGE_BYTES     (A_BYTES + B_BYTES)
#define N_STAGE         4
#define OUT_BYTES       (HOP_M * TILE_N) /* half of a finished tile, bf16 */
#define N_OFFSET        392              /* experts whose first rows DW keeps in shared memory */
#define N_CONSUMER_WARP 8
#define WARP_OUT_BYTES  (OUT_BYTES / N_CONSUMER_WARP)
#define N_LOAD_THREAD   128
#define K_BLOCK         4 /* steps whose token numbers DW has at hand */
#define K_TOKEN_BYTES   (K_BLOCK * TILE_K * 4)
#define N_THREAD        384
#define ROW_GROUP       9              /* row tiles of an expert whose columns are all taken before the next are begun */
#define FIT_SHARED      256            /* hopper_fit.cuh: rows of a tile that both blocks may have, */
#define FIT_SPLIT       (MK_FIT_M / 2) /* and of a block where each has half, at most */
#define FIT_STAGE_BYTES (B_BYTES + FIT_SPLIT * TILE_K * 2)
#define FIT_OUT_BYTES   (96 * 128 * 2) /* what leaves at once: a group's 96 rows x 64 columns, or 48 x 128 */
#define N_FIT_LOAD      (FIT_SPLIT / 16)
#define N_FIT_STORE     6 /* 96 rows by 16 */
#define N_DRAWN         (2 * N_STAGE) /* places for drawn tiles: a block is ahead of the other by N_STAGE steps, each a tile, at most */

#define SUM_COLUMNS     2048          /* hopper_sum.cuh: columns of a unit at most, eight a thread, */
#define SUM_CHOICE      256           /* and choices of a unit of scores */

/* What DW sums among its products. rows, score: as in combine.cu. */
struct hop_sum {
    mk_combine_args rows;
    mk_dscore_args score;
    int32_t n_unit, n_piece, piece;  // units of sums; a token's, and their columns
    int32_t n_step_row, n_unit_step; // rows of a step, steps of a unit
    int32_t n_pair, n_round;         // pairs that sum, 0: none; units of each block of theirs
    bool checked;                    // MK_FLAG_CHECKED
};

struct hop_args {
    CUtensorMap b[4];             // gate, up, or one alone; the packed adapters beside them
    CUtensorMap low_a, low_few;   // rows of the adapter (R, low), 64 a load; 16
    CUtensorMap rows[N_FIT_LOAD]; // DOWN, DX: act or dpre, 16, 32, ... rows a load
    const int64_t *b_offset[4];   // (E) elements, or NULL
    int64_t b_stride[4];          // elements from expert to expert
    int32_t low;                  // K of the adapter, which follows the weight's; 0: none
    mk_route_ptr route;
    int32_t *next_tile; // how many tiles were drawn of those behind each pair's first (DW: first two)
    const bf16 *gather; // (T, H): x or dout
    uint32_t gather_stride_bytes;
    int32_t n_expert, hidden, inter, n_half, n_n_tile, n_m_pair; // n_m_pair: DW only, pairs of HOP_M
    mk_act_param act;
    mk_vector bias[2];  // UP: gate, up; DOWN: down
    bf16 *pre;          // UP: out, may be NULL; DACT: in  (R, 2, I)
    bf16 *out;          // UP: act (R, I); DOWN, DX: (R, H); DACT: dpre (R, 2, I)
    bf16 *scaled_act;   // DACT (R, I)
    float *dscore_part; // DACT (R, n_dscore_part)
    int32_t n_dscore_part;
    uint4 *park;                           // DACT: MK_PARK_BYTES a block
    const bf16 *k_rows;                    // DW: what map b[0] shows, (R, n_half, I), for the last rows of an expert
    mk_matrix dw[2];                       // DW: gradients; rows and columns as (hidden, inter) of the tile
    CUtensorMap out_map[2];                // of these, unless they are stored by element
    CUtensorMap out_rows[1 + N_FIT_STORE]; // DOWN, DX: out, one row a store, 16, 32, ...
    uint32_t dw_dtype, accumulate;
    hop_sum sum;        // DW
    bool early, led_on; // begins before the launch ahead has ended; DW: such a launch follows
};

/* Is a weight gradient written by the consumers themselves, element by element, in fp32 or onto what is there? */
__host__ __device__ inline bool hop_dw_by_element(const hop_args *a)
{
    return a->dw_dtype != MK_BF16 || a->accumulate;
}

/* A product, as far as it is known at compile time. ACT: an enum mk_act, or -1 to look at the arguments. */
template <int OP, int ACT = -1, int WEIGHTS = HOP_ROWS> struct hop_gemm {
    static constexpr int op = OP, act = ACT;
    static constexpr bool gather = OP == HOP_UP || OP == HOP_DACT || OP == HOP_DW;
    static constexpr bool alternating = WEIGHTS == HOP_ALTERNATING;
    static constexpr bool fit = OP != HOP_DW;                                 // see hopper_fit.cuh
    static constexpr bool acts = OP == HOP_UP || OP == HOP_DACT;              // activates, see hopper_fit_act.cuh
    static constexpr bool apart = OP == HOP_UP && WEIGHTS != HOP_ALTERNATING; // a consumer's columns of gate, and of up
    static constexpr int b_mn = (OP == HOP_DACT || OP == HOP_DX) == (WEIGHTS == HOP_ROWS); // of the weights; of DW both are
    // a thread's, of loads and of products: 64512 in all at most. With 72 DW's copies of a step are issued back to back
    static constexpr int n_load_register = OP == HOP_DW ? 72 : 56, n_register = OP == HOP_DW ? 216 : 224;
    static constexpr int stage_bytes = fit ? FIT_STAGE_BYTES : STAGE_BYTES, out_bytes = fit ? FIT_OUT_BYTES : OUT_BYTES;
    static constexpr int smem_bytes = N_STAGE * stage_bytes + out_bytes + 256 + N_DRAWN * 24 + // barriers, info, drawn
                                      (OP == HOP_DW ? K_TOKEN_BYTES + 4 * (N_OFFSET + 1) : HOP_M * 4);
};

/* Shared memory of a block. info: 32 bytes a stage, written with a tile's first stage; draws: 16 bytes and a barrier each.
 * token: of a tile's rows, or (DW) of some steps. DW: offset, first rows of experts. */
struct hop_smem {
    uint32_t stage, out, barrier, info, draws, token, offset;
    int rank; // of this block in its pair

    __device__ uint32_t a(int s) const
    {
        return stage + s * STAGE_BYTES;
    }
    __device__ uint32_t b(int s) const
    {
        return a(s) + A_BYTES;
    }
    __device__ uint32_t full(int s) const
    {
        return barrier + 8 * s;
    }
    __device__ uint32_t empty(int s) const
    {
        return barrier + 8 * (N_STAGE + s);
    }
    __device__ uint32_t drawn(int i) const
    {
        return draws + 16 * (i % N_DRAWN);
    }
    __device__ uint32_t drawn_bar(int i) const
    {
        return draws + 16 * N_DRAWN + 8 * (i % N_DRAWN);
    }
};

template <typename G> __device__ inline hop_smem carve(void *raw)
{
    hop_smem s;

    s.stage = smem_address(raw);
    s.out = s.stage + N_STAGE * G::stage_bytes;
    s.barrier = s.out + G::out_bytes;
    s.info = s.barrier + 128;
    s.draws = s.info + 128;
    s.token = s.draws + N_DRAWN * 24;
    s.offset = s.token + K_TOKEN_BYTES;
    s.rank = cluster_rank();
    return s;
}

/* A tile as all roles see it. */
struct hop_tile {
    int expert, row, n_row; // M: first row and rows of this tile; DW: first row and rows of the expert
    int n, half, m; // first column; which half of I (DW); first row of H (DW), or do blocks split the rows
    int n_step;     // K steps; 0: there is no such tile
};

/* The same in all lanes, and known to be: what follows from it stays in uniform registers, where wgmma wants its operands. */
__device__ inline int uniform(int v)
{
    return __shfl_sync(~0u, v, 0);
}

__device__ inline int steps(int k)
{
    return (k + TILE_K - 1) / TILE_K;
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

#define INFO_BYTES 32

/* The producer tells the consumers of a tile, so that they wait for no load between tiles; INFO_BYTES more for the stage's barrier
 * to expect. A plain store would do, but checkers of races do not know what an mbarrier orders. */
__device__ inline void put_tile(const hop_smem &s, int stage, const hop_tile &t)
{
    uint32_t to = s.info + INFO_BYTES * stage;

    st_async_16(to, make_uint4(t.n_step, t.expert, t.row, t.n_row), s.full(stage));
    st_async_16(to + 16, make_uint4(t.n, t.half, t.m, 0), s.full(stage));
}

__device__ inline hop_tile get_tile(const hop_smem &s, int stage)
{
    uint4 v = lds_16(s.info + INFO_BYTES * stage), w = lds_16(s.info + INFO_BYTES * stage + 16);

    __syncwarp(); // two lanes hand the stage back for all
    return { (int)v.y, (int)v.z, uniform(v.w), (int)w.x, (int)w.y, uniform(w.z), uniform(v.x) };
}

/* Where an operand of a stage starts, and bytes from one of its four steps of 16 k to the next. */
template <int MN> __device__ inline uint32_t stage_start(uint32_t at)
{
    return operand_start(at, MN ? 8192 : 16);
}

template <int MN> __host__ __device__ constexpr uint32_t k_bytes(void)
{
    return MN ? 2048 : 32;
}

/* Hands a stage back to both producers, since each fills half of both blocks' B. Every warp speaks for itself: one alone
 * cannot know that the others have read the stage. */
__device__ inline void release(const hop_smem &s, int stage)
{
    int lane = threadIdx.x % 32;

    if (lane < 2)
        mbar_arrive_cluster(in_block(s.empty(stage), lane));
}

/* A consumer without rows only hands the stages back. */
__device__ inline void skip(hop_ring &ring, const hop_smem &s, int n_step)
{
    for (int i = 0; i < n_step; i++) {
        mbar_wait(s.full(ring.stage), ring.phase);
        __syncwarp(); // two lanes release for all: none may still be looking
        release(s, ring.stage);
        ring.next();
    }
}

#include "kernels/hopper_producer.cuh"

#include "kernels/hopper_leave.cuh"
#include "kernels/hopper_sum.cuh"
#include "kernels/hopper_dw.cuh"
#include "kernels/hopper_fit.cuh"
#include "kernels/hopper_fit_tile.cuh"
#include "kernels/hopper_gather.cuh"

template <typename G> __device__ inline void produce(const hop_args &a, const hop_smem &s)
{
    if constexpr (G::op == HOP_DW) {
        produce_sums(a, s);
        produce_k(a, s);
    } else if constexpr (G::gather)
        produce_rows<G>(a, s);
    else if (threadIdx.x == 0)
        fit_produce<G>(a, s);
}

#define HOP_KERNEL hopper_gemm_v20

template <typename G> __device__ inline void init_barriers(const hop_smem &s)
{
    for (int i = 0; i < N_DRAWN; i++)
        mbar_init(s.drawn_bar(i), 1);
    for (int i = 0; i < N_STAGE; i++) {
        mbar_init(s.full(i), G::gather ? N_LOAD_THREAD + 1 : 1); // gathering threads and the TMA's
        mbar_init(s.empty(i), 2 * N_CONSUMER_WARP);              // of both blocks
    }
    fence_mbar_init();
}

template <typename G>
__global__ static void __cluster_dims__(2, 1, 1) __launch_bounds__(N_THREAD, 1)
    hopper_gemm_v20(const __grid_constant__ hop_args a)
{
    extern __shared__ __align__(1024) uint8_t raw[]; // the swizzle repeats every 1024 bytes
    hop_smem s = carve<G>(raw);

    if (threadIdx.x == 0)
        init_barriers<G>(s);
    if (G::op == HOP_DW)
        for (int e = threadIdx.x; e <= min(a.n_expert, N_OFFSET); e += N_THREAD)
            sts_int(s.offset + 4 * e, a.route.offset[e]);
    if (G::op == HOP_DX || (G::op == HOP_DW && a.led_on))
        let_next_begin();
    cluster_sync();
    if (threadIdx.x < N_LOAD_THREAD) {
        registers_shrink<G::n_load_register>();
        produce<G>(a, s);
    } else {
        registers_grow<G::n_register>();
        if constexpr (G::fit)
            fit_consume<G>(a, s);
        else
            consume_k(a, s);
    }
    if (G::op == HOP_DW)
        wait_for_last(); // so that what waits for this one has waited for that
    cluster_sync(); // neither block leaves while the other may write into it
}

#endif
