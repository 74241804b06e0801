/* hopper_fit_tile.cuh: how tiles that fit their rows are made, and leave. Part of hopper_gemm.cuh.
 *
 * A finished tile leaves in chunks of rows: the first waits in shared memory, up to two in registers (of DACT one, the third in L2). Between two steps of the tile
 * after it a slice of it is taken: what UP and DACT do with theirs is in hopper_fit_act.cuh. DOWN's and DX's are whole chunks, which go
 * by TMA. A chunk has 16 rows or more where the tile has, so its last store may begin before the one ahead of it ends, and writes the
 * same once more: what lies behind a tile's rows belongs to others.
 *
 * There is code for each number of rows, and all of it is inlined by force: ptxas waits for each product where a call might come
 * between two. */

#define FIT_GROUP_BYTES (FIT_OUT_BYTES / 2)

/* ---- leaving a tile ---- */

/* A way to share a tile: of N rows that a block has, PIECE pieces of 64 columns that a consumer has. */
template <int N_, int PIECE> struct fit_way {
    static constexpr int N = N_, n_piece = PIECE, n_acc = N / 2 * PIECE;
    static constexpr int most = 12 / PIECE;                   // eights of rows in a chunk
    static constexpr int n_chunk = (N / 8 + most - 1) / most; // 3 at most
    static constexpr int share =
        (N / 8 + 2 * n_chunk - 1) / (2 * n_chunk) * 2; // eights in all chunks but the last, which has 3 or more
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
    int chunk, first;    // UP, DACT: which chunk is in shared memory, and which of the tile's sixteens of rows is its first
    uint4 g, u;          // DACT: the next slice's pre-activations
    float score, dscore; // DACT: its row's score; what this lane has of the row's dscore
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
__device__ __forceinline__ void fit_put_chunk(const fit_chunk &h, const hop_smem &s, int group)
{
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, block = 2 * warp + (lane >> 3 & 1),
        row = (lane & 7) + (lane >> 4) * 8;
    uint32_t at = fit_out(s, group) + row * 128 + ((block ^ (row & 7)) << 4);

#pragma unroll
    for (int i = 0; i < 6; i++)
        stmatrix_x4_trans(at + i * 2048, h.v[4 * i], h.v[4 * i + 1], h.v[4 * i + 2], h.v[4 * i + 3]);
}

__device__ __forceinline__ void fit_leave_chunk(const fit_chunk &h, const hop_smem &s, int group)
{
    fit_put_chunk(h, s, group);
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

__device__ __forceinline__ void fit_send_slice(fit_drain &d, const hop_args &a, const hop_smem &s, int group)
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

#include "kernels/hopper_fit_act.cuh"

template <typename G>
__device__ __forceinline__ void fit_slice(fit_drain &d, const hop_args &a, const hop_smem &s, int group)
{
    if (G::op == HOP_UP)
        fit_up_slice<G>(d, a, s, group);
    else if (G::op == HOP_DACT)
        fit_dact_slice<G>(d, a, s, group);
    else
        fit_send_slice(d, a, s, group);
}

template <typename G>
__device__ __forceinline__ void fit_drain_rest(fit_drain &d, const hop_args &a, const hop_smem &s, int group)
{
    while (d.left > 0)
        fit_slice<G>(d, a, s, group);
}

__device__ inline float bias_at(const mk_vector &b, int expert, int column, int n_column)
{
    if (column >= n_column)
        return 0.f;
    return __bfloat162float(((const bf16 *)b.base)[expert * b.stride_expert + column * b.stride]);
}

/* The bias of a thread's j-th column: of piece j / 2, the eight behind those of an even j. Of gate and up one may have none. */
template <typename G>
__device__ __forceinline__ float fit_bias(const hop_args &a, const hop_tile &t, int group, int n_piece, int j)
{
    int in_piece = threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4 + j % 2 * 8, in_group = in_piece + j / 2 * 64;

    if (G::op == HOP_DOWN)
        return bias_at(a.bias[0], t.expert, t.n + 64 * n_piece * group + in_group, a.hidden);
    const mk_vector &b = a.bias[G::apart ? j / 2 : in_piece % 2];
    return b.base ? bias_at(b, t.expert, t.n + 64 * group + (G::apart ? in_piece : in_group / 2), a.inter) : 0.f;
}

template <typename G, typename W>
__device__ __forceinline__ void fit_add_bias(float *acc, const hop_args &a, const hop_tile &t, int group)
{
    if (!a.bias[0].base && (G::op == HOP_DOWN || !a.bias[1].base))
        return;
#pragma unroll
    for (int j = 0; j < 2 * W::n_piece; j++) {
        float v = fit_bias<G>(a, t, group, W::n_piece, j);
#pragma unroll
        for (int i = 0; i < W::N / 8; i++) {
            acc[j / 2 * (W::N / 2) + 4 * i + j % 2 * 2] += v;
            acc[j / 2 * (W::N / 2) + 4 * i + j % 2 * 2 + 1] += v;
        }
    }
}

/* The accumulators to where they wait. The tile before is drained. */
template <typename G, typename W>
__device__ __forceinline__ void fit_leave(float *acc, const hop_args &a, const hop_smem &s, const hop_tile &t, int group,
                                          fit_drain &d)
{
    if (G::op == HOP_DOWN || G::op == HOP_UP)
        fit_add_bias<G, W>(acc, a, t, group);
    d.slice = 0;
    d.left = G::acts ? (t.n_row + 15) / 16 * (G::op == HOP_DACT ? 2 : 1) : W::n_chunk;
    d.share = 8 * W::share;
    d.n_row = t.n_row;
    d.column = t.n + (G::op == HOP_UP ? 64 : 64 * W::n_piece) * group;
    d.n_piece = W::n_piece;
    d.row = t.row;
    if (W::n_chunk > 1)
        d.wait[0] = fit_round<W>(acc, 1);
    if constexpr (W::n_chunk > 2) {
        if constexpr (G::op == HOP_DACT)
            fit_park(fit_round<W>(acc, 2), a, group);
        else
            d.wait[1] = fit_round<W>(acc, 2);
    }
    fit_chunk first = fit_round<W>(acc, 0);
    if constexpr (G::acts) {
        fit_begin<G>(d, a, group);
        fit_put_chunk(first, s, group);
    } else {
        fit_wait_stores(group);
        fit_leave_chunk(first, s, group);
    }
}

/* ---- products ---- */

/* Of a stage's four products of 16 k each, those from FROM to TO. */
template <typename G, typename W, int FROM, int TO>
__device__ __forceinline__ void fit_multiply_some(float *acc, uint32_t w, uint32_t r)
{
#pragma unroll
    for (int k = FROM; k < TO; k++)
#pragma unroll
        for (int j = 0; j < W::n_piece; j++)
            wgmma<W::N, G::b_mn, 0>(acc + j * (W::N / 2),
                                    operand(w + (j * (G::apart ? 16384 : 8192) + k * k_bytes<G::b_mn>()) / 16, 1024),
                                    operand(r + k * k_bytes<0>() / 16, 1024), 1);
    wgmma_commit();
}

/* See multiply. */
template <typename G, typename W>
__device__ __forceinline__ void fit_multiply(float *acc, hop_ring &ring, const hop_args &args, const hop_smem &s, int group,
                                             int n_step, fit_drain &d)
{
    constexpr int early = G::op == HOP_DACT ? 4 : 1;
    int last = 0, n_slice = d.left, due = G::acts ? group * (n_step / 2) : n_step - n_slice * (1 + group);
    uint32_t w_0 = stage_start<G::b_mn>(fit_stage(s, 0) + group * (G::apart ? 1 : W::n_piece) * 8192);
    uint32_t r_0 = stage_start<0>(fit_stage(s, 0) + W::n_piece * (B_BYTES / 2));

    for (int i = 0; i < n_step; i++) {
        uint32_t w = w_0 + ring.stage * (FIT_STAGE_BYTES / 16), r = r_0 + ring.stage * (FIT_STAGE_BYTES / 16);
        mbar_wait(s.full(ring.stage), ring.phase);
        wgmma_fence();
        fit_multiply_some<G, W, 0, early>(acc, w, r);
        wgmma_wait<1>();
        if (i)
            release(s, last);
        if (early < 4)
            fit_multiply_some<G, W, early, 4>(acc, w, r);
        last = ring.stage;
        ring.next();
        for (due += n_slice; due >= n_step && d.left > 0; due -= n_step)
            fit_slice<G>(d, args, s, group);
    }
    wgmma_wait<0>();
    release(s, last);
}

/* A tile, until it waits for its slices. Its accumulators are its own, and begin as zeros: of some that nothing has written ptxas
 * makes copies, and then runs out of registers. */
template <typename G, typename W>
__device__ __forceinline__ void fit_make(hop_ring &ring, const hop_args &a, const hop_smem &s, const hop_tile &t, int group,
                                         fit_drain &d)
{
    float acc[W::n_acc];

#pragma unroll
    for (int i = 0; i < W::n_acc; i++)
        acc[i] = 0.f;
    fit_multiply<G, W>(acc, ring, a, s, group, t.n_step, d);
    fit_drain_rest<G>(d, a, s, group);
    fit_leave<G, W>(acc, a, s, t, group, d);
}

/* The narrowest product that has room for a tile's rows: N or more, by eights where there are many. */
template <typename G, int N, int MOST, int PIECE>
__device__ __forceinline__ void fit_pick(hop_ring &ring, const hop_args &a, const hop_smem &s, const hop_tile &t, int group,
                                         fit_drain &d)
{
    if constexpr (N == MOST)
        fit_make<G, fit_way<N, PIECE>>(ring, a, s, t, group, d);
    else if (t.n_row <= N)
        fit_make<G, fit_way<N, PIECE>>(ring, a, s, t, group, d);
    else
        fit_pick<G, N + (N < 96 ? 16 : 8), MOST, PIECE>(ring, a, s, t, group, d);
}

/* Is there nothing of a tile for this group: no columns, no rows? */
template <typename G> __device__ __forceinline__ bool fit_has_none(const hop_args &a, const hop_tile &t, int group)
{
    int n_column = (G::acts ? a.inter : a.hidden) - t.n;
    return n_column <= (G::op == HOP_UP || !t.m ? 64 : 128) * group || (G::acts && !t.n_row);
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
        if (fit_has_none<G>(a, t, group))
            skip(ring, s, t.n_step);
        else if constexpr (G::acts)
            fit_pick<G, 16, FIT_SPLIT, 2>(ring, a, s, t, group, d);
        else if (t.m)
            fit_pick<G, FIT_SPLIT - 8, FIT_SPLIT, 2>(ring, a, s, t, group, d);
        else
            fit_pick<G, 16, FIT_SHARED, 1>(ring, a, s, t, group, d);
    }
    fit_drain_rest<G>(d, a, s, group);
    if (!G::acts)
        fit_wait_stores(group);
}
