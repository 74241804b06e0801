/* hopper_producer.cuh, version 8: fills the stages. Part of hopper_gemm.cuh.
 * B comes by TMA from one thread, half from each block of the pair. A comes by TMA too, or is gathered by both loading warps
 * with cp.async, 16 bytes each, into the layout that TMA's 128-byte swizzle would give (why no proxy fence: see v7).
 * The next tile, and the row numbers that gathering needs, are loaded while the current tile runs. */

/* First coordinate of an expert's weights: the map counts experts in steps of 16 bytes, so any address will do. */
__device__ inline int expert_coordinate(const hop_args &a, int which, int expert)
{
    return (int)((a.b_offset[which] ? a.b_offset[which][expert] : expert * a.b_stride[which]) / 8);
}

/* The tile after the current one: peeked at in the first step, known in the second; at once where the tile has no more than
 * two steps, since the last but one needs the next tile's first row numbers. */
template <int OP> struct hop_next {
    int i, n_tile;
    int4 seen;
    hop_tile tile;

    __device__ bool look(const hop_args &a, int rank, int step, int n_step)
    {
        if (step == 0)
            seen = peek_tile<OP>(a, i += gridDim.x / 2, n_tile);
        if (step != max(0, min(1, n_step - 2)))
            return false;
        tile = find_tile<OP>(a, i, n_tile, rank, seen);
        return true;
    }
};

template <int OP> __device__ inline hop_next<OP> first_tile(const hop_args &a, int rank)
{
    hop_next<OP> n;

    n.i = blockIdx.x / 2;
    n.n_tile = count_tiles<OP>(a);
    n.seen = peek_tile<OP>(a, n.i, n.n_tile);
    n.tile = find_tile<OP>(a, n.i, n.n_tile, rank, n.seen);
    return n;
}

/* Coordinates of a tile's weights, found once a tile. */
struct hop_coordinate {
    int y[2];
};

template <int OP> __device__ inline hop_coordinate find_coordinates(const hop_args &a, const hop_tile &t, int rank)
{
    hop_coordinate c;

    if (OP == HOP_DW) {
        c.y[0] = c.y[1] = t.half;
    } else if (OP == HOP_UP) { // one block loads gate rows, the other up rows
        c.y[0] = c.y[1] = expert_coordinate(a, rank, t.expert);
    } else {
        c.y[0] = expert_coordinate(a, 0, t.expert);
        c.y[1] = OP == HOP_DX ? expert_coordinate(a, 1, t.expert) : 0;
    }
    return c;
}

/* This block's half of B, to both blocks. */
template <int OP> __device__ inline void load_b(const hop_args &a, const hop_tile &t, const hop_coordinate &c, uint32_t to, uint32_t bar, int step, int rank)
{
    int seg = OP == HOP_DX && step >= steps(a.inter), k = (step - (seg ? steps(a.inter) : 0)) * TILE_K;

    to += rank * (B_BYTES / 2);
    if (OP == HOP_UP) {
        tma_load_pair(to, rank ? &a.b[1] : &a.b[0], k, c.y[0], t.n, bar);
    } else if (OP == HOP_DOWN) {
        tma_load_pair(to, &a.b[0], k, c.y[0], t.n + rank * (TILE_N / 2), bar);
    } else {
        int n = t.n + rank * (TILE_N / 2);
#pragma unroll
        for (int i = 0; i < 2; i++)
            tma_load_pair(to + i * 8192, seg ? &a.b[1] : &a.b[0], n + i * 64, seg ? c.y[1] : c.y[0], k + (OP == HOP_DW ? t.row : 0), bar);
    }
}

/* A by TMA, 64 rows a load, only those that exist. */
template <int OP> __device__ inline void load_a(const hop_args &a, const hop_tile &t, uint32_t to, uint32_t bar, int step)
{
    int seg = OP == HOP_DX && step >= steps(a.inter), k = (step - (seg ? steps(a.inter) : 0)) * TILE_K;

    if (t.n_row > 0)
        tma_load_3d(to, &a.a, k, seg, t.row, bar);
    if (t.n_row > 64)
        tma_load_3d(to + 8192, &a.a, k, seg, t.row + 64, bar);
}

/* DW counts columns through both halves of I, each rounded up to whole tiles. */
template <int OP> __device__ inline hop_info tile_info(const hop_args &a, const hop_tile &t)
{
    return { t.n_step, tile_rows<OP>(a, t), t.expert, t.n + (OP == HOP_DW ? t.half * (a.n_n_tile / a.n_half * TILE_N) : 0) };
}

/* By one thread: tells the consumers of a new tile, arms the stage's barrier, loads what TMA loads. */
template <int OP> __device__ inline void issue_tma(const hop_args &a, const hop_tile &t, const hop_coordinate &c, const hop_smem &s, int stage, int step)
{
    uint32_t bar = s.full(stage);

    if (step == 0)
        put_info(s, stage, tile_info<OP>(a, t));
    mbar_expect(bar, B_BYTES + (hop_config<OP>::gather || t.n_row <= 0 ? 0 : t.n_row > 64 ? A_BYTES : A_BYTES / 2));
    if (!hop_config<OP>::gather)
        load_a<OP>(a, t, s.a(stage), bar, step);
    load_b<OP>(a, t, c, s.b(stage), bar, step, s.rank);
}

/* The consumers' sign that no tile follows: a stage without data whose tile has no steps. */
__device__ inline void announce_end(const hop_smem &s, hop_ring &ring, bool gather)
{
    mbar_wait(s.empty(ring.stage), ring.phase ^ 1);
    if (threadIdx.x == 0) {
        put_info(s, ring.stage, {});
        mbar_arrive(s.full(ring.stage));
    }
    if (gather)
        mbar_arrive(s.full(ring.stage));
}

/* One thread feeds ops without a gather. */
template <int OP> __device__ inline void produce_tma(const hop_args &a, const hop_smem &s)
{
    hop_ring ring;
    hop_next<OP> next = first_tile<OP>(a, s.rank);

    while (next.tile.n_step) {
        hop_tile t = next.tile;
        hop_coordinate c = find_coordinates<OP>(a, t, s.rank);
        for (int step = 0; step < t.n_step; step++, ring.next()) {
            mbar_wait(s.empty(ring.stage), ring.phase ^ 1);
            issue_tma<OP>(a, t, c, s, ring.stage, step);
            next.look(a, s.rank, step, t.n_step);
        }
    }
    announce_end(s, ring, false);
}

#define ROW_PER_THREAD (HOP_M * 8 / N_LOAD_THREAD)

/* M gather: thread i copies piece i%8 (16 bytes) of rows i/8, i/8 + 8, ... of the tile. */
struct row_gather {
    int token[ROW_PER_THREAD];
};

__device__ inline row_gather find_rows(const hop_args &a, const hop_tile &t)
{
    row_gather g;

#pragma unroll
    for (int i = 0; i < ROW_PER_THREAD; i++) // past the end: any row of the expert, never stored
        g.token[i] = t.n_row > 0 ? a.route.row_token[t.row + min((int)threadIdx.x / 8 + N_LOAD_THREAD / 8 * i, t.n_row - 1)] : 0;
    return g;
}

__device__ inline void gather_rows(const row_gather &g, const hop_args &a, const hop_tile &t, uint32_t to, int step)
{
    int row = threadIdx.x / 8, piece = threadIdx.x % 8;
    uint32_t at = to + row * 128 + ((piece ^ (row & 7)) << 4), bytes = step * TILE_K + piece * 8 < a.hidden ? 16 : 0;
    const bf16 *from = a.gather + step * TILE_K + piece * 8;
    int n = t.n_row > 64 ? ROW_PER_THREAD : t.n_row > 0 ? ROW_PER_THREAD / 2 : 0;

#pragma unroll
    for (int i = 0; i < ROW_PER_THREAD; i++)
        if (i < n)
            cp_async_16(at + i * (N_LOAD_THREAD / 8 * 128), from + g.token[i] * a.gather_stride, bytes);
}

template <int OP> __device__ inline void produce_rows(const hop_args &a, const hop_smem &s)
{
    hop_ring ring;
    hop_next<OP> next = first_tile<OP>(a, s.rank);
    row_gather g, ahead = find_rows(a, next.tile);

    while (next.tile.n_step) {
        hop_tile t = next.tile;
        hop_coordinate c = find_coordinates<OP>(a, t, s.rank);
        g = ahead;
        for (int step = 0; step < t.n_step; step++, ring.next()) {
            mbar_wait(s.empty(ring.stage), ring.phase ^ 1);
            if (threadIdx.x == 0)
                issue_tma<OP>(a, t, c, s, ring.stage, step);
            gather_rows(g, a, t, s.a(ring.stage), step);
            mbar_arrive_cp_async(s.full(ring.stage));
            if (next.look(a, s.rank, step, t.n_step))
                ahead = find_rows(a, next.tile);
        }
    }
    announce_end(s, ring, true);
}

/* K gather: a warp copies 32 rows of a step, two at a time, 16 lanes each. Every lane loads one row number, two steps
 * ahead, and each copy asks the lane that has the number. */
__device__ inline int find_k_row(const hop_args &a, const hop_tile &t, int step)
{
    int row = step * TILE_K + threadIdx.x;

    return row < t.n_row ? a.route.row_token[t.row + row] : -1;
}

__device__ inline void gather_k(int tokens, const hop_args &a, const hop_tile &t, uint32_t to)
{
    int lane = threadIdx.x % 32, odd_row = lane / 16, piece = lane % 16, column = t.m + piece * 8;
    uint32_t at = to + piece / 8 * 8192 + (threadIdx.x / 32 * 32 + odd_row) * 128;
    bool inside = column < a.hidden;

#pragma unroll
    for (int i = 0; i < 16; i++) {
        int token = __shfl_sync(~0u, tokens, 2 * i + odd_row);
        bool live = inside && token >= 0;
        cp_async_16(at + i * 256 + ((piece % 8 ^ ((2 * i & 7) | odd_row)) << 4), a.gather + (live ? token * a.gather_stride + column : 0), live ? 16 : 0);
    }
}

/* The last, partial step of an expert in DW: rows past its end must be zero, and TMA would bring the next expert's. */
__device__ inline void copy_k_tail(const hop_args &a, const hop_tile &t, uint32_t to, int step)
{
    int piece = threadIdx.x % 32, column = t.n + piece * 8;
    const bf16 *from = a.k_rows + ((int64_t)t.row * a.n_half + t.half) * a.inter + column;

#pragma unroll 4
    for (int k = threadIdx.x / 32; k < TILE_K; k += N_LOAD_THREAD / 32) {
        int row = step * TILE_K + k;
        bool live = row < t.n_row && column < a.inter;
        cp_async_16(to + piece / 8 * 8192 + k * 128 + ((piece % 8 ^ (k & 7)) << 4), live ? from + (int64_t)row * a.n_half * a.inter : a.k_rows, live ? 16 : 0);
    }
}

__device__ inline void fill_k_stage(const hop_args &a, const hop_tile &t, const hop_coordinate &c, const hop_smem &s, int stage, int step, int tokens)
{
    bool tail = (step + 1) * TILE_K > t.n_row;

    if (tail)
        copy_k_tail(a, t, s.b(stage), step);
    if (threadIdx.x == 0 && tail) {
        if (step == 0)
            put_info(s, stage, tile_info<HOP_DW>(a, t));
        mbar_arrive(s.full(stage));
    }
    if (threadIdx.x == 0 && !tail)
        issue_tma<HOP_DW>(a, t, c, s, stage, step);
    gather_k(tokens, a, t, s.a(stage));
    mbar_arrive_cp_async(s.full(stage));
}

__device__ inline void produce_k(const hop_args &a, const hop_smem &s)
{
    hop_ring ring;
    hop_next<HOP_DW> next = first_tile<HOP_DW>(a, s.rank);
    int now = find_k_row(a, next.tile, 0), soon = 0; // row numbers of this step and of the next

    if (next.tile.n_step > 1)
        soon = find_k_row(a, next.tile, 1);
    while (next.tile.n_step) {
        hop_tile t = next.tile;
        hop_coordinate c = find_coordinates<HOP_DW>(a, t, s.rank);
        for (int step = 0; step < t.n_step; step++, ring.next()) {
            mbar_wait(s.empty(ring.stage), ring.phase ^ 1);
            fill_k_stage(a, t, c, s, ring.stage, step, now);
            next.look(a, s.rank, step, t.n_step);
            int left = t.n_step - step - 2; // <= 0: the step after next is one of the next tile
            now = t.n_step > 1 ? soon : find_k_row(a, next.tile, 0);
            soon = left > 0 ? find_k_row(a, t, step + 2) : find_k_row(a, next.tile, left < 0);
        }
    }
    announce_end(s, ring, true);
}

template <int OP> __device__ inline void produce(const hop_args &a, const hop_smem &s)
{
    if constexpr (OP == HOP_DW)
        produce_k(a, s);
    else if constexpr (hop_config<OP>::gather)
        produce_rows<OP>(a, s);
    else if (threadIdx.x == 0)
        produce_tma<OP>(a, s);
}
