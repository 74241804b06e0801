/* hopper_gemm.cuh: one persistent, warp-specialised GEMM for all five products of an MoE layer, on sm_90a.
 *
 * A block holds a producer warpgroup and two consumer warpgroups. The producer fills a ring of stages (128 x 64 of A,
 * 256 x 64 of B); each consumer multiplies 64 x 256. Two blocks form a cluster and take one pair tile: neighbouring rows,
 * the same columns, so each loads half of B and multicasts it to both: L2 reads of a stage fall from 48 to 32 KB, and
 * L2's bandwidth is near its limit without. A pair tile of 128 rows or fewer is split 64 and 64, so it costs less.
 *
 * The epilogue is deferred: a consumer warp rounds its finished tile to bf16, leaves half of it in its own 4 KB of shared memory
 * and begins the next tile; between two steps of that one it takes a slice of the tile before (activation, derivative,
 * stores). So the tensor cores do not wait for the epilogue, and its memory traffic is spread over the whole time instead
 * of coming from all blocks at once. Half of the tile waits in registers until the other half is stored: all of it would
 * cost one of four stages, and a gathered row takes longer to come than the three would hide.
 *
 *   op    M            N        K        A                          B
 *   UP    rows         I        H        x, gathered by cp.async    gate 128 + up 128 rows, by TMA
 *   DACT  rows         I        H        dout, gathered             down, its rows are k
 *   DW    H            I        rows     x or dout, gathered in k   dpre or scaled act, TMA in k
 *   DOWN  H            rows     I        down, TMA                  act, TMA                         hopper_fit.cuh
 *   DX    H            rows     2I       gate, then up; rows are k  dpre, TMA                        the same
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

enum hop_op { HOP_UP, HOP_DOWN, HOP_DACT, HOP_DX, HOP_DW };

/* How weights lie: contiguous along their columns, along their rows (transposed), or transposed with alternating rows of gate
 * and up. */
enum hop_weights { HOP_ROWS, HOP_COLUMNS, HOP_ALTERNATING };

#define HOP_M           128 /* rows of one block's tile; a pair's is MK_TILE_M */
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
#define ROW_GROUP       9             /* row tiles of an expert whose columns are all taken before the next are begun */
#define FIT_SHARED      256            /* hopper_fit.cuh: rows of a tile that both blocks may have, */
#define FIT_SPLIT       (MK_FIT_M / 2) /* and of a block where each has half, at most */
#define FIT_STAGE_BYTES (B_BYTES + FIT_SPLIT * TILE_K * 2)
#define FIT_OUT_BYTES   (96 * 128 * 2) /* what leaves at once: a group's 96 rows x 64 columns, or 48 x 128 */
#define N_FIT_LOAD      (FIT_SPLIT / 16)
#define N_FIT_STORE     6 /* 96 rows by 16 */
#define N_DRAWN         (2 * N_STAGE) /* places for drawn tiles: a block is ahead of the other by N_STAGE steps, each a tile, at most */

struct hop_args {
    CUtensorMap b[4];              // gate, up, or one alone; the packed adapters beside them
    CUtensorMap low_a, low_few;    // rows of the adapter (R, low), 64 a load; 16 (DOWN, DX)
    CUtensorMap rows[N_FIT_LOAD];  // DOWN, DX: act or dpre, 16, 32, ... rows a load
    const int64_t *b_offset[4]; // (E) elements, or NULL
    int64_t b_stride[4];        // elements from expert to expert
    int32_t low;                // K of the adapter, which follows the weight's; 0: none
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
    const bf16 *k_rows;    // DW: what map b[0] shows, (R, n_half, I), for the last rows of an expert
    mk_matrix dw[2];        // DW: gradients; rows and columns as (hidden, inter) of the tile
    CUtensorMap out_map[2]; // of these, unless they are stored by element
    CUtensorMap out_rows[1 + N_FIT_STORE]; // DOWN, DX: out, one row a store, 16, 32, ...
    uint32_t dw_dtype, accumulate;
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
    static constexpr bool fit = OP == HOP_DOWN || OP == HOP_DX; // see hopper_fit.cuh
    static constexpr int a_mn = OP == HOP_DW; // b_mn: of the weights, which are A in hopper_fit.cuh
    static constexpr int b_mn = OP == HOP_DW || (OP == HOP_DACT || OP == HOP_DX) == (WEIGHTS == HOP_ROWS);
    // a thread's, of loads and of products: 64512 in all at most. With 72 a step's copies are issued back to back; DACT, whose
    // slices need theirs, does nearly so with 56
    static constexpr bool many_load = OP == HOP_DW || OP == HOP_UP;
    static constexpr int n_load_register = many_load ? 72 : 56, n_register = many_load ? 216 : 224;
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
    int n, half, m;         // first column; which half of I (DW); first row of H (DW), or do blocks split the rows (DOWN, DX)
    int n_step;             // K steps; 0: there is no such tile
};

/* The same in all lanes, and known to be: what follows from it stays in uniform registers, where wgmma wants its operands. */
__device__ inline int uniform(int v)
{
    return __shfl_sync(~0u, v, 0);
}

/* DW: first row of expert e. */
__device__ inline int first_row(const hop_args &a, const hop_smem &s, int e)
{
    return e <= N_OFFSET ? lds_int(s.offset + 4 * e) : a.route.offset[e];
}

__device__ inline int steps(int k)
{
    return (k + TILE_K - 1) / TILE_K;
}

/* What memory says of tile i: an entry of the tile list, one of the expert's. A place that depends on the thread, by a zero,
 * keeps it out of uniform registers, where the load would be waited for at once. */
template <typename G> __device__ inline int4 peek_tile(const hop_args &a, int i, int n_tile)
{
    const int4 *tile = (const int4 *)(G::fit ? a.route.fit_tile : a.route.tile);
    return i < n_tile ? tile[i / a.n_n_tile + threadIdx.x / N_LOAD_THREAD] : make_int4(0, 0, 0, 0);
}

/* A row tile of an expert and a column tile. */
struct row_column {
    int row, column;
};

/* Tile i of an expert's with n_row_tile rows of tiles: ROW_GROUP of them at most, in shares as equal as can be, with all their
 * columns before the next are begun. No group spans two experts: it would read the weights of both. 66 pairs that take as many
 * rows as columns read least from memory at once; more rows read weights fewer times, but what is in use outgrows L2 (Mixtral,
 * T = 32768: up 1.04 with 17, 1.01 with 11 and 4). */
__device__ inline row_column order(const hop_args &a, int i, int n_row_tile)
{
    int n_group = (n_row_tile + ROW_GROUP - 1) / ROW_GROUP, share = (n_row_tile + n_group - 1) / n_group;
    int first = i / (share * a.n_n_tile) * share, n_row = min(share, n_row_tile - first);

    i -= first * a.n_n_tile;
    return { first + i % n_row, i / n_row };
}

/* K steps of the weights; the adapter's follow. */
template <typename G> __device__ inline int weight_steps(const hop_args &a)
{
    return G::op == HOP_DX ? a.n_half * steps(a.inter) : steps(G::op == HOP_DOWN ? a.inter : a.hidden);
}

template <typename G>
__device__ inline hop_tile find_tile(const hop_args &a, int i, int n_tile, const hop_smem &s, int4 seen)
{
    hop_tile t = {};

    if (i >= n_tile)
        return t;
    int first = seen.y - seen.w * MK_TILE_M, n_row_tile = (seen.z - first + MK_TILE_M - 1) / MK_TILE_M;
    row_column at = order(a, i - (i / a.n_n_tile - seen.w) * a.n_n_tile, n_row_tile);
    int row = first + at.row * MK_TILE_M, n_row = min(MK_TILE_M, seen.z - row);
    if (G::gather) { // by whole warps: what the copies do not need stays out of their registers
        seen.x = uniform(seen.x);
        n_row = uniform(n_row);
        at.column = uniform(at.column);
    }
    int share = n_row > HOP_M ? HOP_M : HOP_M / 2;
    t.expert = seen.x;
    t.row = row + s.rank * share;
    t.n_row = min(share, max(0, n_row - s.rank * share));      // 0: this block only loads its half of B
    t.n = at.column * (G::op == HOP_UP ? TILE_N / 2 : TILE_N); // UP: half the rows of B are gate's, half up's
    t.n_step = weight_steps<G>(a) + steps(a.low);
    return t;
}

/* DW: where among all tiles; m runs fastest. */
struct dw_place {
    int m, n, expert;
};

__device__ inline dw_place dw_place_of(const hop_args &a, int i)
{
    return { i % a.n_m_pair, i / a.n_m_pair % a.n_n_tile, i / a.n_m_pair / a.n_n_tile };
}

__device__ inline hop_tile find_dw_tile(const hop_args &a, const dw_place &p, const hop_smem &s)
{
    hop_tile t = {};
    int n_per_half = a.n_half == 1 ? a.n_n_tile : a.n_n_tile / 2;

    if (p.expert >= a.n_expert)
        return t;
    t.expert = p.expert;
    t.m = (p.m * 2 + s.rank) * HOP_M;
    t.half = p.n >= n_per_half;
    t.n = (p.n - (t.half ? n_per_half : 0)) * TILE_N;
    t.row = first_row(a, s, t.expert);
    t.n_row = first_row(a, s, t.expert + 1) - t.row;
    t.n_step = max(1, steps(t.n_row)); // without rows one step of zeros
    return t;
}

/* Rows of this block's output tile that exist. */
template <typename G> __device__ inline int tile_rows(const hop_args &a, const hop_tile &t)
{
    return G::op == HOP_DW ? a.hidden - t.m : t.n_row;
}

/* Has this tile 128 columns or fewer? Then only the first half of B is loaded and multiplied. UP's halves are gate's and up's;
 * DACT waits for its slices, and is slower with twice the code (1.01, where no tile is narrow). */
template <typename G> __device__ inline bool is_narrow(const hop_args &a, const hop_tile &t)
{
    return G::op == HOP_DW && a.inter - t.n <= TILE_N / 2;
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

#include "kernels/hopper_epilogue.cuh"
#include "kernels/hopper_producer.cuh"

/* Where an operand of a stage starts, and bytes from one of its four steps of 16 k to the next. */
template <int MN> __device__ inline uint32_t stage_start(uint32_t at)
{
    return operand_start(at, MN ? 8192 : 16);
}

template <int MN> __host__ __device__ constexpr uint32_t k_bytes(void)
{
    return MN ? 2048 : 32;
}

/* Of a stage's four products of 16 k each, those from FROM to TO, of N columns. */
template <typename G, int N, int FROM, int TO>
__device__ inline void multiply_some(float *acc, uint32_t a, uint32_t b, bool first)
{
#pragma unroll
    for (int k = FROM; k < TO; k++) {
        uint64_t a_k = operand(a + k * k_bytes<G::a_mn>() / 16, 1024), b_k = operand(b + k * k_bytes<G::b_mn>() / 16, 1024);
        wgmma<N, G::a_mn, G::b_mn>(acc, a_k, b_k, !first || k);
    }
    wgmma_commit();
}

/* Of a step's products those that have rows: DW's last step may have n of four. */
template <typename G, int N> __device__ inline void multiply_rest(float *acc, uint32_t a, uint32_t b, bool first, int n)
{
    if (n > 1)
        multiply_some<G, N, 1, 2>(acc, a, b, first);
    if (n > 2)
        multiply_some<G, N, 2, 3>(acc, a, b, first);
    if (n > 3)
        multiply_some<G, N, 3, 4>(acc, a, b, first);
}

/* Hands a stage back to both producers, since each fills half of both blocks' B. Every warp speaks for itself: one alone
 * cannot know that the others have read the stage. */
__device__ inline void release(const hop_smem &s, int stage)
{
    int lane = threadIdx.x % 32;

    if (lane < 2)
        mbar_arrive_cluster(in_block(s.empty(stage), lane));
}

/* When the first slice of the tile before is due. Of DW, which has two, at once, and a group's a step after the other's. */
template <typename G> __device__ inline int first_due(int n_slice, int n_step, int group)
{
    return G::op == HOP_DW && n_slice == 2 ? n_step - 2 * (1 + group) : group * (n_step / 2);
}

/* The products of N columns of one tile. The stage before is handed back as soon as the first product of this one is under way;
 * DACT, whose slices are long, is faster with all four. Between the steps come slices of the tile before, spread over them, the
 * second group's half a turn later: one group's slice then meets the other's products. */
template <typename G, int N>
__device__ inline void multiply(float *acc, hop_ring &ring, const hop_args &args, const hop_smem &s, int group, const hop_tile &t,
                                hop_drain &d)
{
    constexpr int early = G::op == HOP_DACT ? 4 : 1;
    int n_step = t.n_step, last = 0, n_slice = d.left, due = first_due<G>(n_slice, n_step, group);
    uint32_t a_0 = stage_start<G::a_mn>(s.a(0) + group * 8192), b_0 = stage_start<G::b_mn>(s.b(0));

    for (int i = 0; i < n_step; i++) {
        uint32_t a = a_0 + ring.stage * (STAGE_BYTES / 16), b = b_0 + ring.stage * (STAGE_BYTES / 16);
        mbar_wait(s.full(ring.stage), ring.phase);
        wgmma_fence();
        multiply_some<G, N, 0, early>(acc, a, b, i == 0);
        wgmma_wait<1>();
        if (i)
            release(s, last);
        if (G::op == HOP_DW && i == n_step - 1)
            multiply_rest<G, N>(acc, a, b, i == 0, (t.n_row - i * TILE_K + 15) / 16);
        else if (early < 4)
            multiply_some<G, N, early, 4>(acc, a, b, i == 0);
        last = ring.stage;
        ring.next();
        for (due += n_slice; due >= n_step && d.left > 0; due -= n_step)
            drain_slice<G>(d, args, s);
    }
    wgmma_wait<0>();
    release(s, last);
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

template <typename G> __device__ inline void drain_rest(hop_drain &d, const hop_args &a, const hop_smem &s)
{
    while (d.left > 0)
        drain_slice<G>(d, a, s);
}

/* A tile of N columns, until it waits for its slices. Nothing is shared with another N: ptxas would see an accumulator written
 * within the other's products, and put these in order (C7515). */
template <typename G, int N>
__device__ inline void make_tile(float *acc, hop_ring &ring, const hop_args &a, const hop_smem &s, const hop_tile &t, int group,
                                 hop_drain &d)
{
    multiply<G, N>(acc, ring, a, s, group, t, d);
    drain_rest<G>(d, a, s);
    for (int i = N / 2; i < TILE_N / 2; i++)
        acc[i] = 0.f;
    leave_tile<G>(acc, a, s, t, group, d);
}

template <typename G> __device__ inline void consume(const hop_args &a, const hop_smem &s)
{
    hop_ring ring;
    hop_drain d = {};
    int group = uniform(threadIdx.x / 128 - 1);
    float acc[TILE_N / 2];

    for (;;) {
        mbar_wait(s.full(ring.stage), ring.phase);
        hop_tile t = get_tile(s, ring.stage);
        if (!t.n_step)
            break;
        if (tile_rows<G>(a, t) <= 64 * group) {
            skip(ring, s, t.n_step);
            continue;
        }
        if (is_narrow<G>(a, t))
            make_tile<G, TILE_N / 2>(acc, ring, a, s, t, group, d);
        else
            make_tile<G, TILE_N>(acc, ring, a, s, t, group, d);
    }
    drain_rest<G>(d, a, s);
    if (G::op == HOP_DW)
        tma_store_wait();
}

#include "kernels/hopper_fit.cuh"

#define HOP_KERNEL hopper_gemm_v18

template <typename G> __device__ inline void init_barriers(const hop_smem &s)
{
    for (int i = 0; i < N_DRAWN; i++)
        mbar_init(s.drawn_bar(i), 1);
    for (int i = 0; i < N_STAGE; i++) {
        mbar_init(s.full(i), G::gather ? N_LOAD_THREAD + 1 : 1); // gathering threads and the TMA's
        mbar_init(s.empty(i), 2 * N_CONSUMER_WARP);           // of both blocks
    }
    fence_mbar_init();
}

template <typename G>
__global__ static void __cluster_dims__(2, 1, 1) __launch_bounds__(N_THREAD, 1)
    hopper_gemm_v18(const __grid_constant__ hop_args a)
{
    extern __shared__ __align__(1024) uint8_t raw[]; // the swizzle repeats every 1024 bytes
    hop_smem s = carve<G>(raw);

    if (threadIdx.x == 0)
        init_barriers<G>(s);
    if (G::op == HOP_DW)
        for (int e = threadIdx.x; e <= min(a.n_expert, N_OFFSET); e += N_THREAD)
            sts_int(s.offset + 4 * e, a.route.offset[e]);
    cluster_sync();
    if (threadIdx.x < N_LOAD_THREAD) {
        registers_shrink<G::n_load_register>();
        produce<G>(a, s);
    } else {
        registers_grow<G::n_register>();
        if constexpr (G::fit)
            fit_consume<G>(a, s);
        else
            consume<G>(a, s);
    }
    cluster_sync(); // neither block leaves while the other may write into it
}

#endif
