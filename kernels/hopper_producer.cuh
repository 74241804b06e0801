/* hopper_producer.cuh: fills the stages. Part of hopper_gemm.cuh.
 * B comes by TMA from one thread, half from each block of the pair. A is gathered by four warps with cp.async, 16 bytes each,
 * into the layout that TMA's 128-byte swizzle would give. A stage is full once the copies have landed: their arrival on the
 * barrier follows the write to shared memory, from which the tensor cores read. A proxy fence between the two is left out as in
 * NVIDIA's own cp.async main loops: it comes with a membar that waits for every copy in flight, which made each step as long as a
 * trip to L2 (v4).
 * The next tile, and the row numbers that gathering needs, are loaded while the current tile runs. */

/* First coordinate of an expert's weights: the map counts experts in steps of 16 bytes, so any address will do. */
__device__ inline int expert_coordinate(const hop_args &a, int which, int expert)
{
    return (int)((a.b_offset[which] ? a.b_offset[which][expert] : expert * a.b_stride[which]) / 8);
}

/* The step at which the next tile is looked at, having been loaded in the first: loads return in order behind the gather's,
 * which take long. The last step but one at the latest, which asks for the next tile's first rows. */
__device__ inline int look_step(int n_step)
{
    return max(0, min(8, n_step - 2));
}

/* Warps of DW take turns in what one thread does for a step. */
__device__ inline bool is_turn(int step)
{
    return threadIdx.x == step % (N_LOAD_THREAD / 32) * 32;
}

/* Whose tile is which. A pair's first is told by its place in the grid; the rest are drawn, since tiles cost unlike (an expert's
 * last rows less) and no pair should be left with the dear ones; nor run ahead of the others, who then find in L2 no longer what
 * both read. The first block's first thread draws as a tile begins and tells both blocks two steps later, for what it drew takes
 * as long as a load. Who has a tile changes nothing in it. */
struct hop_draw {
    int n, mine; // taken so far; drawn by this thread

    /* n_round: rounds of tiles before those that are drawn. What DW draws comes as a place, so that one thread divides for all. */
    template <typename G> __device__ void draw(const hop_args &a, const hop_smem &s, int step, int last, int n_round)
    {
        if (threadIdx.x)
            return;
        if (step == 0)
            mbar_expect(s.drawn_bar(n), 16);
        if (step == 0 && s.rank == 0)
            mine = atomicAdd(a.next_tile, 1);
        if (step == min(2, last) && s.rank == 0) {
            int i = mine + n_round * ((int)gridDim.x / 2);
            dw_place p = G::op == HOP_DW ? dw_place_of(a, i) : dw_place{};
            for (int rank = 0; rank < 2; rank++)
                st_async_16(in_block(s.drawn(n), rank), make_uint4(i, p.m, p.n, p.expert), in_block(s.drawn_bar(n), rank));
        }
    }

    __device__ uint4 take(const hop_smem &s)
    {
        mbar_wait(s.drawn_bar(n), n / N_DRAWN & 1);
        return lds_16(s.drawn(n++));
    }
};

/* In hopper_fit.cuh. */
template <typename G>
__device__ __forceinline__ hop_tile find_fit_tile(const hop_args &a, int i, int n_tile, const hop_smem &s, int4 seen);
template <typename G> __device__ __forceinline__ void fit_produce(const hop_args &a, const hop_smem &s);

template <typename G> __device__ inline hop_tile find_any_tile(const hop_args &a, int i, int n_tile, const hop_smem &s, int4 seen)
{
    return G::fit ? find_fit_tile<G>(a, i, n_tile, s, seen) : find_tile<G>(a, i, n_tile, s, seen);
}

/* The tile after the current one. */
template <typename G> struct hop_next {
    int i, n_tile;
    hop_draw draws;
    int4 seen;
    hop_tile tile;

    __device__ bool look(const hop_args &a, const hop_smem &s, int step, int n_step)
    {
        int last = look_step(n_step);

        draws.draw<G>(a, s, step, last, 1);
        if (step == min(4, last))
            seen = peek_tile<G>(a, i = draws.take(s).x, n_tile);
        if (step != last)
            return false;
        tile = find_any_tile<G>(a, i, n_tile, s, seen);
        return true;
    }
};

template <typename G> __device__ inline hop_next<G> first_tile(const hop_args &a, const hop_smem &s)
{
    hop_next<G> n;

    n.i = blockIdx.x / 2;
    n.draws = {};
    n.n_tile = a.route.n_tile[G::fit] * a.n_n_tile;
    n.seen = peek_tile<G>(a, n.i, n.n_tile);
    n.tile = find_any_tile<G>(a, n.i, n.n_tile, s, n.seen);
    return n;
}

/* Coordinates of a tile's weights, found once a tile. */
struct hop_coordinate {
    int y[2], low; // low: of the packed adapter
};

template <typename G> __device__ inline hop_coordinate find_coordinates(const hop_args &a, const hop_tile &t, int rank)
{
    hop_coordinate c;

    c.low = a.low ? expert_coordinate(a, G::op == HOP_UP ? 2 + rank : 2, t.expert) : 0;
    if (G::op == HOP_UP && !G::alternating) { // one block loads gate rows, the other up rows
        c.y[0] = c.y[1] = expert_coordinate(a, rank, t.expert);
    } else {
        c.y[0] = expert_coordinate(a, 0, t.expert);
        c.y[1] = G::op == HOP_DX ? expert_coordinate(a, 1, t.expert) : 0;
    }
    return c;
}

/* First row of this block's half of B: half of the tile's, but where gate and up each have half of it. */
template <typename G> __device__ inline int first_b(const hop_tile &t, int rank)
{
    if (G::op == HOP_UP && !G::alternating)
        return t.n;
    return (G::op == HOP_UP ? 2 * t.n : t.n) + rank * (TILE_N / 2);
}

/* A box by TMA, to this block alone or to both. */
__device__ inline void load_box(bool alone, uint32_t to, const CUtensorMap *map, int x, int y, int z, uint32_t bar)
{
    if (alone)
        tma_load_3d(to, map, x, y, z, bar);
    else
        tma_load_pair(to, map, x, y, z, bar);
}

/* Half of B, this block's by its rank: columns k of the rows that y says, in map which. */
template <typename G>
__device__ inline void load_b(const CUtensorMap *map, const hop_tile &t, uint32_t to, uint32_t bar, int k, int y, int rank, bool alone)
{
    int n = first_b<G>(t, rank);

    to += rank * (B_BYTES / 2);
    if (!G::b_mn) {
        load_box(alone, to, map, k, y, n, bar);
    } else {
#pragma unroll
        for (int i = 0; i < 2; i++)
            load_box(alone, to + i * 8192, map, n + i * 64, y, k, bar);
    }
}

/* A by TMA, 64 rows a load, only those that exist. */
__device__ inline void load_a(const CUtensorMap *map, const hop_tile &t, uint32_t to, uint32_t bar, int k)
{
    if (t.n_row > 0)
        tma_load_3d(to, map, k, 0, t.row, bar);
    if (t.n_row > 64)
        tma_load_3d(to + 8192, map, k, 0, t.row + 64, bar);
}

__device__ inline int a_bytes(const hop_tile &t)
{
    return t.n_row > 64 ? A_BYTES : t.n_row > 0 ? A_BYTES / 2 : 0;
}

/* By one thread, for UP and DACT: tells the consumers of a new tile, arms the stage's barrier, loads what TMA loads. */
template <typename G>
__device__ inline void issue_tma(const hop_args &a, const hop_tile &t, const hop_coordinate &c, const hop_smem &s, int stage,
                                 int step)
{
    uint32_t bar = s.full(stage);

    mbar_expect(bar, B_BYTES + (step ? 0 : INFO_BYTES));
    if (step == 0)
        put_tile(s, stage, t);
    load_b<G>(&a.b[G::op == HOP_UP && !G::alternating ? s.rank : 0], t, s.b(stage), bar, step * TILE_K, c.y[0], s.rank, false);
}

/* The same for step of an adapter's, whose rows are dense. */
template <typename G>
__device__ inline void issue_low(const hop_args &a, const hop_tile &t, const hop_coordinate &c, const hop_smem &s, int stage,
                                 int step)
{
    uint32_t bar = s.full(stage);

    mbar_expect(bar, B_BYTES + a_bytes(t));
    load_a(&a.low_a, t, s.a(stage), bar, step * TILE_K);
    load_b<G>(&a.b[G::op == HOP_UP ? 2 + s.rank : 2], t, s.b(stage), bar, step * TILE_K, c.low, s.rank, false);
}

/* The steps of an adapter, which follow the weight's: a loop of their own, so that the weight's do not pay for them. */
template <typename G>
__device__ inline void produce_low(const hop_args &a, const hop_tile &t, const hop_coordinate &c, const hop_smem &s,
                                   hop_ring &ring)
{
    for (int step = 0; step < steps(a.low); step++, ring.next()) {
        mbar_wait(s.empty(ring.stage), ring.phase ^ 1);
        if (threadIdx.x == 0)
            issue_low<G>(a, t, c, s, ring.stage, step);
        if (G::gather)
            mbar_arrive(s.full(ring.stage));
    }
}

/* The consumers' sign that no tile follows: a stage without data whose tile has no steps. */
__device__ inline void announce_end(const hop_smem &s, hop_ring &ring, bool gather)
{
    mbar_wait(s.empty(ring.stage), ring.phase ^ 1);
    if (threadIdx.x == 0) {
        mbar_expect(s.full(ring.stage), INFO_BYTES);
        put_tile(s, ring.stage, {});
    }
    if (gather)
        mbar_arrive(s.full(ring.stage));
}

/* A token's row, base being the row of token 0. Token numbers are loaded a step or more before: the multiplication would wait
 * for the load, and with it everything behind it in the producer. */
__device__ inline const void *at_token(const hop_args &a, const bf16 *base, int token)
{
    return row_address(base, (uint32_t)token, a.gather_stride_bytes);
}

#define ROW_PER_THREAD (HOP_M * 8 / N_LOAD_THREAD)

/* M gather: thread i copies piece i%8 (16 bytes) of rows i/8, i/8 + 16, ... of the tile. A warp's 32 tokens, one of each lane,
 * wait in shared memory: eight registers less, which the addresses need. */
__device__ inline int find_token(const hop_args &a, const hop_tile &t)
{
    int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 4 + lane / 8 + N_LOAD_THREAD / 8 * (lane % 8);

    // past the end: any row of the expert, never stored
    return a.route.row_token[t.n_row > 0 ? t.row + min(row, t.n_row - 1) : 0];
}

__device__ inline void put_token(int token, const hop_smem &s)
{
    __syncwarp(); // all have read what was there
    sts_int(s.token + threadIdx.x * 4, token);
    __syncwarp();
}

/* All addresses before the first copy: an address built in another's registers waits until that copy has read them. */
__device__ inline void gather_rows(const hop_args &a, const hop_smem &s, const hop_tile &t, uint32_t to, int step)
{
    int row = threadIdx.x / 8, piece = threadIdx.x % 8, column = step * TILE_K + piece * 8;
    uint32_t at = to + row * 128 + ((piece ^ (row & 7)) << 4), bytes = column < a.hidden ? 16 : 0;
    uint4 low = lds_16(s.token + row * 32), high = lds_16(s.token + row * 32 + 16);
    const uint32_t token[ROW_PER_THREAD] = { low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w };
    const void *from[ROW_PER_THREAD];

#pragma unroll
    for (int i = 0; i < ROW_PER_THREAD; i++)
        from[i] = at_token(a, a.gather + column, token[i]);
#pragma unroll
    for (int i = 0; i < ROW_PER_THREAD; i++) // halves of 64 rows that do not exist are not read
        cp_async_16(at + i * (N_LOAD_THREAD / 8 * 128), from[i], t.n_row > i / (ROW_PER_THREAD / 2) * 64 ? bytes : 0);
}

template <typename G> __device__ inline void produce_rows(const hop_args &a, const hop_smem &s)
{
    hop_ring ring;
    hop_next<G> next = first_tile<G>(a, s);
    int ahead = find_token(a, next.tile);

    while (next.tile.n_step) {
        hop_tile t = next.tile;
        hop_coordinate c = find_coordinates<G>(a, t, s.rank);
        int n_step = weight_steps<G>(a);
        put_token(ahead, s);
        for (int step = 0; step < n_step; step++, ring.next()) {
            mbar_wait(s.empty(ring.stage), ring.phase ^ 1);
            if (threadIdx.x == 0)
                issue_tma<G>(a, t, c, s, ring.stage, step);
            gather_rows(a, s, t, s.a(ring.stage), step);
            mbar_arrive_cp_async(s.full(ring.stage));
            if (next.look(a, s, step, n_step))
                ahead = find_token(a, next.tile);
        }
        produce_low<G>(a, t, c, s, ring);
    }
    announce_end(s, ring, true);
}

/* K gather: warp w copies rows of a step that are 2w or 2w + 1 modulo 8, two at a time, 16 lanes each: their places differ by
 * multiples of 1024 bytes, so a lane's swizzle stays the same. Token numbers are loaded for four steps, four steps ahead, and
 * go through shared memory to the lanes that use them. */
struct k_tokens {
    int of[2];
};

__device__ inline k_tokens find_k_tokens(const hop_args &a, const hop_tile &t, int block)
{
    int lane = threadIdx.x % 32,
        row = (block * K_BLOCK + lane / 16) * TILE_K + lane % 8 * 8 + threadIdx.x / 32 * 2 + lane % 16 / 8;
    k_tokens k;

#pragma unroll
    for (int i = 0; i < 2; i++) // past the end: any row of the expert, multiplied with nothing
        k.of[i] = a.route.row_token[t.n_row > 0 ? t.row + min(row + 2 * i * TILE_K, t.n_row - 1) : 0];
    return k;
}

/* A warp's own place for the tokens of four steps: 8 of each lane's half in a row. */
__device__ inline uint32_t token_at(const hop_smem &s, int step)
{
    return s.token + threadIdx.x / 32 * (K_TOKEN_BYTES / 4) + step % K_BLOCK * 64;
}

__device__ inline void put_k_tokens(int even, int odd, const hop_smem &s)
{
    __syncwarp(); // all have read what was there
    sts_int(token_at(s, 0) + threadIdx.x % 32 * 4, even);
    sts_int(token_at(s, 2) + threadIdx.x % 32 * 4, odd);
    __syncwarp();
}

/* n_row: rows of the step that exist. */
template <bool TAIL>
__device__ inline void gather_k(const hop_args &a, const hop_smem &s, int m, int stage, int step, int n_row)
{
    int half = threadIdx.x % 32 / 16, row = threadIdx.x / 32 * 2 + half, piece = threadIdx.x % 16, column = m + piece * 8;
    uint32_t at = s.a(stage) + piece / 8 * 8192 + row * 128 + ((piece % 8 ^ row) << 4);
    uint4 low = lds_16(token_at(s, step) + half * 32), high = lds_16(token_at(s, step) + half * 32 + 16);
    const uint32_t token[8] = { low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w };
    int left = column < a.hidden ? TAIL ? n_row - row : TILE_K : 0;
    const bf16 *from = a.gather + column;

#pragma unroll
    for (int i = 0; i < 8; i++)
        cp_async_16(at + i * 1024, at_token(a, from, token[i]), (TAIL ? 8 * i : 0) < left ? 16 : 0);
}

/* By all threads: the last, partial step of an expert that ends within the first 64 rows of all. */
__device__ inline void copy_k_tail(const hop_args &a, const hop_tile &t, uint32_t to, int step)
{
    int piece = threadIdx.x % 32, column = t.n + piece * 8;
    const bf16 *from = a.k_rows + ((int64_t)t.row * a.n_half + t.half) * a.inter + column;

#pragma unroll 4
    for (int k = threadIdx.x / 32; k < TILE_K; k += N_LOAD_THREAD / 32) {
        int row = step * TILE_K + k;
        bool live = row < t.n_row && column < a.inter;
        cp_async_16(to + piece / 8 * 8192 + k * 128 + ((piece % 8 ^ (k & 7)) << 4),
                    live ? from + (int64_t)row * a.n_half * a.inter : a.k_rows, live ? 16 : 0);
    }
}

/* B: rows past the expert's end must be zero, and the next expert's follow. The map shows each row 64 times, as row z from
 * row w on, z below 64: with w 64 rows before the end, what follows is outside the map. */
__device__ inline void issue_k(const hop_args &a, const hop_tile &t, const hop_smem &s, int stage, int step)
{
    int row = t.row + step * TILE_K, w = min(row, t.row + t.n_row - TILE_K), n = t.n + s.rank * (TILE_N / 2);
    uint32_t bar = s.full(stage), to = s.b(stage) + s.rank * (B_BYTES / 2);
    bool narrow = is_narrow<hop_gemm<HOP_DW>>(a, t);

    mbar_expect(bar, (narrow ? B_BYTES / 2 : B_BYTES) + (step ? 0 : INFO_BYTES));
    if (narrow && s.rank)
        return;
#pragma unroll
    for (int i = 0; i < 2; i++)
        tma_load_pair_4d(to + i * 8192, &a.b[0], n + i * 64, t.half, row - w, w, bar);
}

__device__ inline void fill_k_stage(const hop_args &a, const hop_tile &t, const hop_smem &s, int stage, int step)
{
    int left = t.n_row - step * TILE_K;
    bool tail = left < TILE_K, copied = tail && t.row + t.n_row < TILE_K;

    if (is_turn(step)) {
        if (copied)
            mbar_expect(s.full(stage), step ? 0 : INFO_BYTES);
        else
            issue_k(a, t, s, stage, step);
        if (step == 0)
            put_tile(s, stage, t);
    }
    if (copied)
        copy_k_tail(a, t, s.b(stage), step);
    if (tail)
        gather_k<true>(a, s, t.m, stage, step, left);
    else
        gather_k<false>(a, s, t.m, stage, step, left);
    mbar_arrive_cp_async(s.full(stage));
}

__device__ inline void produce_k(const hop_args &a, const hop_smem &s)
{
    hop_ring ring;
    hop_tile next = find_dw_tile(a, dw_place_of(a, blockIdx.x / 2), s);
    dw_place after = dw_place_of(a, (blockIdx.x + gridDim.x) / 2); // the tile after it; those that follow are drawn
    hop_draw draws = {};
    k_tokens soon, first = find_k_tokens(a, next, 0); // of the next four steps; of the next tile's first

    while (next.n_step) {
        hop_tile t = next;
        int last = (t.n_step - 1) / K_BLOCK;
        next = find_dw_tile(a, after, s);
        for (int step = 0; step < t.n_step; step++, ring.next()) {
            if (step % K_BLOCK == 0)
                put_k_tokens(step ? soon.of[0] : first.of[0], step ? soon.of[1] : first.of[1], s);
            mbar_wait(s.empty(ring.stage), ring.phase ^ 1);
            fill_k_stage(a, t, s, ring.stage, step);
            draws.draw<hop_gemm<HOP_DW>>(a, s, step, t.n_step - 1, 2);
            if (step == 0)
                first = find_k_tokens(a, next, 0);
            if (step % K_BLOCK == 0 && step / K_BLOCK < last)
                soon = find_k_tokens(a, t, step / K_BLOCK + 1);
        }
        uint4 drawn = draws.take(s);
        after = { (int)drawn.y, (int)drawn.z, (int)drawn.w };
    }
    announce_end(s, ring, true);
}

template <typename G> __device__ inline void produce(const hop_args &a, const hop_smem &s)
{
    if constexpr (G::op == HOP_DW)
        produce_k(a, s);
    else if constexpr (G::gather)
        produce_rows<G>(a, s);
    else if (threadIdx.x == 0)
        fit_produce<G>(a, s);
}
