/* hopper_fit.cuh: DOWN and DX, with tiles that fit their rows. Part of hopper_gemm.cuh.
 *
 * The operands change places: columns of the weights are M of the product, the rows are N, so that a tile has as many as there are,
 * in eights. With rows as M they come by 64 a consumer, and an expert of 257 rows pays for another pair tile, whose weights come
 * from L2 once more. The two blocks of a pair share a tile of up to 288 rows and 256 columns in one of two ways:
 *
 *   up to 256 rows   each block has all rows and 128 columns, a consumer 64; a block loads half of the rows, for both
 *   more             each block has half of the rows and all columns, a consumer 128; a block loads half of the weights, for both
 *
 * The second reads more shared memory: a product has at most 256 rows, and twice as many products read the weights.
 *
 * A finished tile leaves in chunks, by TMA: the first waits in shared memory, up to two in registers. A chunk has 16 rows or more
 * where the tile has, so its last store may begin before the one ahead of it ends, and writes the same once more: what lies behind
 * a tile's rows belongs to others.
 *
 * There is code for each number of rows, and all of it is inlined by force: ptxas waits for each product where a call might come
 * between two. */

#define FIT_GROUP_BYTES (FIT_OUT_BYTES / 2)

/* Tile i of the list whose tiles share an expert's rows: as evenly as can be, by sixteens. See find_tile. */
template <typename G> __device__ __forceinline__ hop_tile find_fit_tile(const hop_args &a, int i, int n_tile, const hop_smem &s, int4 seen)
{
    hop_tile t = {};

    if (i >= n_tile)
        return t;
    int all = seen.z - seen.y, n_row_tile = (all + MK_FIT_M - 1) / MK_FIT_M, share = ((all + n_row_tile - 1) / n_row_tile + 15) & ~15;
    row_column at = order(a, i - (i / a.n_n_tile - seen.w) * a.n_n_tile, n_row_tile);
    int row = seen.y + at.row * share, n_row = min(share, seen.z - row), half = (n_row + 1) / 2;
    t.expert = seen.x;
    t.m = n_row > FIT_SHARED;
    t.row = row + (t.m ? s.rank * half : 0);
    t.n_row = !t.m ? n_row : s.rank ? n_row - half : half;
    t.n = at.column * TILE_N + (t.m ? 0 : s.rank * (TILE_N / 2));
    t.n_step = weight_steps<G>(a) + steps(a.low);
    return t;
}

/* ---- loads ---- */

__device__ __forceinline__ uint32_t fit_stage(const hop_smem &s, int stage)
{
    return s.stage + stage * FIT_STAGE_BYTES;
}

/* Rows of a tile that a block loads for both, the first block's first. */
__device__ __forceinline__ int fit_shared_half(int n_row)
{
    return (n_row / 2 + 15) / 16 * 16;
}

/* Loads of up to 144 rows fit them by sixteens. */
__device__ __forceinline__ int fit_bytes(int n_row)
{
    return (n_row + 15) / 16 * (16 * TILE_K * 2);
}

/* Rows from to end of a tile by one TMA. */
__device__ __forceinline__ void load_fit_rows(const CUtensorMap *maps, const hop_tile &t, uint32_t to, uint32_t bar, int k, int half,
                                              int from, int end)
{
    if (from < end)
        load_box(t.m, to + from * 128, maps + (end - from - 1) / 16, k, half, t.row + from, bar);
}

/* The same of an adapter's, 64 a load and the last by 16. */
__device__ __forceinline__ void load_fit_low(const hop_args &a, const hop_tile &t, uint32_t to, uint32_t bar, int k, int from, int end)
{
    for (; from < end; from += from + 48 < end ? 64 : 16)
        load_box(t.m, to + from * 128, from + 48 < end ? &a.low_a : &a.low_few, k, 0, t.row + from, bar);
}

/* What comes to this block in a step: rows, and weights. */
__device__ __forceinline__ int fit_step_bytes(const hop_args &a, const hop_tile &t)
{
    if (t.m)
        return fit_bytes(t.n_row) + (a.hidden - t.n > TILE_N / 2 ? B_BYTES : B_BYTES / 2);
    return fit_bytes(t.n_row) + (a.hidden > t.n ? B_BYTES / 2 : 0);
}

/* By one thread: tells the consumers of a new tile, arms the stage's barrier, loads. low: a step of the adapter's. */
template <typename G>
__device__ __forceinline__ void issue_fit(const hop_args &a, const hop_tile &t, const hop_coordinate &c, const hop_smem &s, int stage,
                                          int step, bool low)
{
    uint32_t bar = s.full(stage), weights = fit_stage(s, stage), rows = weights + (t.m ? B_BYTES : B_BYTES / 2);
    int second = G::op == HOP_DX && !low && step >= steps(a.inter), k = (step - (second ? steps(a.inter) : 0)) * TILE_K;
    int y = low ? c.low : second ? c.y[1] : c.y[0], half = fit_shared_half(t.n_row);
    bool begins = step == 0 && !low;
    const CUtensorMap *map = &a.b[low ? 2 : second];

    mbar_expect(bar, fit_step_bytes(a, t) + (begins ? INFO_BYTES : 0));
    if (begins)
        put_tile(s, stage, t);
    int from = !t.m && s.rank ? half : 0, end = t.m || s.rank ? t.n_row : min(half, t.n_row);
    if (low)
        load_fit_low(a, t, rows, bar, k, from, end);
    else
        load_fit_rows(a.rows, t, rows, bar, k, second, from, end);
    if (t.m) {
        if (!(a.hidden - t.n <= TILE_N / 2 && s.rank))
            load_b<G>(map, t, weights, bar, k, y, s.rank, false);
    } else if (a.hidden > t.n) {
        load_b<G>(map, t, weights, bar, k, y, 0, true);
    }
}

template <typename G> __device__ __forceinline__ void fit_produce(const hop_args &a, const hop_smem &s)
{
    hop_ring ring;
    hop_next<G> next = first_tile<G>(a, s);

    while (next.tile.n_step) {
        hop_tile t = next.tile;
        hop_coordinate c = find_coordinates<G>(a, t, s.rank);
        int n_step = weight_steps<G>(a);
        for (int step = 0; step < n_step; step++, ring.next()) {
            mbar_wait(s.empty(ring.stage), ring.phase ^ 1);
            issue_fit<G>(a, t, c, s, ring.stage, step, false);
            next.look(a, s, step, n_step);
        }
        for (int step = 0; step < steps(a.low); step++, ring.next()) {
            mbar_wait(s.empty(ring.stage), ring.phase ^ 1);
            issue_fit<G>(a, t, c, s, ring.stage, step, true);
        }
    }
    announce_end(s, ring, false);
}

/* ---- leaving a tile ---- */

/* A way to share a tile: of N rows that a block has, PIECE pieces of 64 columns that a consumer has. */
template <int N_, int PIECE> struct fit_way {
    static constexpr int N = N_, n_piece = PIECE, n_acc = N / 2 * PIECE;
    static constexpr int most = 12 / PIECE;                                    // eights of rows in a chunk
    static constexpr int n_chunk = (N / 8 + most - 1) / most;                  // 3 at most
    static constexpr int share = (N / 8 + 2 * n_chunk - 1) / (2 * n_chunk) * 2; // eights in all chunks but the last, which has 3 or more
};

/* A chunk as the accumulators lie: of piece j's eight i of rows, at 2 (most * j + i). */
struct fit_chunk {
    uint32_t v[24];
};

struct fit_drain {
    fit_chunk wait[2];   // the second and the third
    int slice, left;     // next; how many are left
    int n_row, share;    // rows of the tile, of a chunk
    int column, n_piece; // the group's first column; pieces of 64
    int row;             // the tile's first
};

/* Chunk c of a tile, rounded. */
template <typename W> __device__ __forceinline__ fit_chunk fit_round(const float *acc, int c)
{
    fit_chunk h;

#pragma unroll
    for (int i = 0; i < 12; i++) {
        int eight = c * W::share + i % W::most;
        bool live = i % W::most < W::share && eight < W::N / 8;
        const float *v = acc + (live ? i / W::most * (W::N / 2) + 4 * eight : 0);
        h.v[2 * i] = live ? pack2<bf16>(v[0], v[1]) : 0;
        h.v[2 * i + 1] = live ? pack2<bf16>(v[2], v[3]) : 0;
    }
    return h;
}

__device__ __forceinline__ uint32_t fit_out(const hop_smem &s, int group)
{
    return s.out + group * FIT_GROUP_BYTES;
}

/* Until what the group's stores read may be overwritten; the first two warps' are its stores. */
__device__ __forceinline__ void fit_wait_stores(int group)
{
    if (threadIdx.x / 32 % 4 < 2)
        tma_store_wait();
    named_barrier(1 + group, 128);
}

/* A chunk to shared memory, rows of 64 columns as TMA's swizzle would lay them, a piece behind the other. */
__device__ __forceinline__ void fit_leave_chunk(const fit_chunk &h, const hop_smem &s, int group)
{
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, block = 2 * warp + (lane >> 3 & 1), row = (lane & 7) + (lane >> 4) * 8;
    uint32_t at = fit_out(s, group) + row * 128 + ((block ^ (row & 7)) << 4);

#pragma unroll
    for (int i = 0; i < 6; i++)
        stmatrix_x4_trans(at + i * 2048, h.v[4 * i], h.v[4 * i + 1], h.v[4 * i + 2], h.v[4 * i + 3]);
    fence_for_tma();
}

/* Chunk c from shared memory to where it belongs: a warp a piece; one lane stores what is a multiple of 16 rows, the next the last
 * 16; of fewer than 16, each one. */
__device__ __forceinline__ void fit_send(const fit_drain &d, const hop_args &a, const hop_smem &s, int group, int c)
{
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, n = min(d.share, d.n_row - c * d.share);
    int row = n < 16 ? lane : lane ? n - 16 : 0, which = n < 16 ? 0 : lane ? 1 : n / 16;

    named_barrier(1 + group, 128);
    if (warp >= d.n_piece || lane >= (n < 16 ? n : n % 16 ? 2 : 1))
        return;
    tma_store_3d(&a.out_rows[which], fit_out(s, group) + warp * (FIT_GROUP_BYTES / 2) + row * 128, d.column + 64 * warp, 0,
                 d.row + c * d.share + row);
    tma_store_commit();
}

__device__ __forceinline__ void fit_slice(fit_drain &d, const hop_args &a, const hop_smem &s, int group)
{
    int c = d.slice++;

    d.left--;
    if (c) {
        fit_wait_stores(group);
        if (c == 1)
            fit_leave_chunk(d.wait[0], s, group);
        else
            fit_leave_chunk(d.wait[1], s, group);
    }
    fit_send(d, a, s, group, c);
}

__device__ __forceinline__ void fit_drain_rest(fit_drain &d, const hop_args &a, const hop_smem &s, int group)
{
    while (d.left > 0)
        fit_slice(d, a, s, group);
}

/* Adds a bias to a thread's columns, two of each piece. */
template <typename W> __device__ __forceinline__ void fit_add_bias(float *acc, const hop_args &a, const hop_tile &t, int group)
{
    int first = t.n + 64 * W::n_piece * group + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;

    if (!a.bias[0].base)
        return;
#pragma unroll
    for (int j = 0; j < 2 * W::n_piece; j++) {
        float v = bias_at(a.bias[0], t.expert, first + j / 2 * 64 + j % 2 * 8, a.hidden);
#pragma unroll
        for (int i = 0; i < W::N / 8; i++) {
            acc[j / 2 * (W::N / 2) + 4 * i + j % 2 * 2] += v;
            acc[j / 2 * (W::N / 2) + 4 * i + j % 2 * 2 + 1] += v;
        }
    }
}

/* The accumulators to where they wait. The tile before is drained. */
template <typename G, typename W>
__device__ __forceinline__ void fit_leave(float *acc, const hop_args &a, const hop_smem &s, const hop_tile &t, int group, fit_drain &d)
{
    if (G::op == HOP_DOWN)
        fit_add_bias<W>(acc, a, t, group);
    d.slice = 0;
    d.left = W::n_chunk;
    d.share = 8 * W::share;
    d.n_row = t.n_row;
    d.column = t.n + 64 * W::n_piece * group;
    d.n_piece = W::n_piece;
    d.row = t.row;
    if (W::n_chunk > 1)
        d.wait[0] = fit_round<W>(acc, 1);
    if (W::n_chunk > 2)
        d.wait[1] = fit_round<W>(acc, 2);
    fit_chunk first = fit_round<W>(acc, 0);
    fit_wait_stores(group);
    fit_leave_chunk(first, s, group);
}

/* ---- products ---- */

/* Of a stage's four products of 16 k each, those from FROM to TO. */
template <typename G, typename W, int FROM, int TO> __device__ __forceinline__ void fit_multiply_some(float *acc, uint32_t w, uint32_t r)
{
#pragma unroll
    for (int k = FROM; k < TO; k++)
#pragma unroll
        for (int j = 0; j < W::n_piece; j++)
            wgmma<W::N, G::b_mn, 0>(acc + j * (W::N / 2), operand(w + (j * 8192 + k * k_bytes<G::b_mn>()) / 16, 1024),
                                    operand(r + k * k_bytes<0>() / 16, 1024), 1);
    wgmma_commit();
}

/* See multiply. */
template <typename G, typename W>
__device__ __forceinline__ void fit_multiply(float *acc, hop_ring &ring, const hop_args &args, const hop_smem &s, int group, int n_step,
                                             fit_drain &d)
{
    int last = 0, n_slice = d.left, due = n_step - n_slice * (1 + group);
    uint32_t w_0 = stage_start<G::b_mn>(fit_stage(s, 0) + group * W::n_piece * 8192);
    uint32_t r_0 = stage_start<0>(fit_stage(s, 0) + W::n_piece * (B_BYTES / 2));

    for (int i = 0; i < n_step; i++) {
        uint32_t w = w_0 + ring.stage * (FIT_STAGE_BYTES / 16), r = r_0 + ring.stage * (FIT_STAGE_BYTES / 16);
        mbar_wait(s.full(ring.stage), ring.phase);
        wgmma_fence();
        fit_multiply_some<G, W, 0, 1>(acc, w, r);
        wgmma_wait<1>();
        if (i)
            release(s, last);
        fit_multiply_some<G, W, 1, 4>(acc, w, r);
        last = ring.stage;
        ring.next();
        for (due += n_slice; due >= n_step && d.left > 0; due -= n_step)
            fit_slice(d, args, s, group);
    }
    wgmma_wait<0>();
    release(s, last);
}

/* A tile, until it waits for its slices. Its accumulators are its own, and begin as zeros: of some that nothing has written ptxas
 * makes copies, and then runs out of registers. */
template <typename G, typename W>
__device__ __forceinline__ void fit_make(hop_ring &ring, const hop_args &a, const hop_smem &s, const hop_tile &t, int group, fit_drain &d)
{
    float acc[W::n_acc];

#pragma unroll
    for (int i = 0; i < W::n_acc; i++)
        acc[i] = 0.f;
    fit_multiply<G, W>(acc, ring, a, s, group, t.n_step, d);
    fit_drain_rest(d, a, s, group);
    fit_leave<G, W>(acc, a, s, t, group, d);
}

/* The narrowest product that has room for a tile's rows: N or more, by eights where there are many. */
template <typename G, int N, int MOST, int PIECE>
__device__ __forceinline__ void fit_pick(hop_ring &ring, const hop_args &a, const hop_smem &s, const hop_tile &t, int group, fit_drain &d)
{
    if constexpr (N == MOST)
        fit_make<G, fit_way<N, PIECE>>(ring, a, s, t, group, d);
    else if (t.n_row <= N)
        fit_make<G, fit_way<N, PIECE>>(ring, a, s, t, group, d);
    else
        fit_pick<G, N + (N < 96 ? 16 : 8), MOST, PIECE>(ring, a, s, t, group, d);
}

template <typename G> __device__ __forceinline__ void fit_consume(const hop_args &a, const hop_smem &s)
{
    hop_ring ring;
    fit_drain d;
    int group = uniform(threadIdx.x / 128 - 1);

    d.left = 0;
    for (;;) {
        mbar_wait(s.full(ring.stage), ring.phase);
        hop_tile t = get_tile(s, ring.stage);
        if (!t.n_step)
            break;
        if (a.hidden - t.n <= (t.m ? 128 : 64) * group)
            skip(ring, s, t.n_step);
        else if (t.m)
            fit_pick<G, FIT_SPLIT - 8, FIT_SPLIT, 2>(ring, a, s, t, group, d);
        else
            fit_pick<G, 16, FIT_SHARED, 1>(ring, a, s, t, group, d);
    }
    fit_drain_rest(d, a, s, group);
    fit_wait_stores(group);
}
