/* hopper_fit_act.cuh: how tiles of UP and DACT leave, which activate. Part of hopper_fit_tile.cuh.
 * A consumer group's chunk lies in shared memory, rows of 64 columns twice: UP's gate and up (where they alternate, each half of both),
 * DACT's 128 columns of dout times down. A slice takes sixteen rows of it, 16 bytes a lane, eight lanes a row, four rows a warp. */

/* Of two registers, the first elements or the second ones. */
__device__ inline uint32_t low_halves(uint32_t x, uint32_t y)
{
    return (x & 0xffff) | y << 16;
}

__device__ inline uint32_t high_halves(uint32_t x, uint32_t y)
{
    return x >> 16 | (y & 0xffff0000u);
}

template <typename G> __device__ inline uint32_t up_pair(uint32_t g, uint32_t u, const mk_act_param &p)
{
    float2 gv = unpack2<bf16>(g), uv = unpack2<bf16>(u);
    float dg, du;
    return pack2<bf16>(activate<G::act>(gv.x, uv.x, &dg, &du, p), activate<G::act>(gv.y, uv.y, &dg, &du, p));
}

/* Two neighbouring elements: gate and up become their gradients, act comes out scaled; returns what they add to dscore. */
template <typename G>
__device__ inline float dact_pair(uint32_t *g, uint32_t *u, uint32_t *act, uint32_t d, float score, const mk_act_param &p)
{
    float2 gv = unpack2<bf16>(*g), uv = unpack2<bf16>(*u), dv = unpack2<bf16>(d);
    float dg0, dg1, du0, du1;
    float v0 = activate<G::act>(gv.x, uv.x, &dg0, &du0, p), v1 = activate<G::act>(gv.y, uv.y, &dg1, &du1, p);
    float d0 = dv.x * score, d1 = dv.y * score;

    *g = pack2<bf16>(d0 * dg0, d1 * dg1);
    *u = pack2<bf16>(d0 * du0, d1 * du1);
    *act = pack2<bf16>(score * v0, score * v1);
    return dv.x * v0 + dv.y * v1;
}

/* Which of a slice's sixteen rows this lane has. */
__device__ __forceinline__ int fit_lane_row(void)
{
    return threadIdx.x / 32 % 4 * 4 + threadIdx.x % 32 / 8;
}

/* Eight columns of this lane's row, of sixteen rows and one piece of the chunk in shared memory. */
__device__ __forceinline__ uint4 fit_get(const fit_drain &d, const hop_smem &s, int group, int sixteen, int piece, int block)
{
    int row = fit_lane_row();
    return lds_16(fit_out(s, group) + piece * (FIT_GROUP_BYTES / 2) + (sixteen - d.first) * 2048 + row * 128 +
                  ((block ^ (row & 7)) << 4));
}

/* DACT's third chunk waits in memory, where it stays in L2: its slices want the registers. A thread reads only what it wrote. */
static_assert(MK_PARK_BYTES == FIT_OUT_BYTES, "a chunk of each group");
__device__ __forceinline__ uint4 *fit_parked(const hop_args &a, int group)
{
    return a.park + blockIdx.x * (MK_PARK_BYTES / 16) + group * (FIT_GROUP_BYTES / 16) + threadIdx.x % 128;
}

__device__ __forceinline__ void fit_park(const fit_chunk &h, const hop_args &a, int group)
{
    uint4 *to = fit_parked(a, group);

#pragma unroll
    for (int i = 0; i < 6; i++)
        stg_16(to + 128 * i, make_uint4(h.v[4 * i], h.v[4 * i + 1], h.v[4 * i + 2], h.v[4 * i + 3]));
}

__device__ __forceinline__ void fit_unpark(fit_chunk &h, const hop_args &a, int group)
{
    const uint4 *from = fit_parked(a, group);

#pragma unroll
    for (int i = 0; i < 6; i++) {
        uint4 v = ldg_16(from + 128 * i);
        h.v[4 * i] = v.x;
        h.v[4 * i + 1] = v.y;
        h.v[4 * i + 2] = v.z;
        h.v[4 * i + 3] = v.w;
    }
}

/* Before the first look at sixteen rows: their chunk comes to shared memory when all have done with the one before. */
template <typename G>
__device__ __forceinline__ void fit_turn(fit_drain &d, const hop_args &a, const hop_smem &s, int group, int sixteen)
{
    if (sixteen && sixteen != d.first + d.share / 16)
        return;
    if (sixteen) {
        named_barrier(1 + group, 128);
        if (G::op == HOP_DACT || d.chunk == 0)
            fit_put_chunk(d.wait[0], s, group);
        else
            fit_put_chunk(d.wait[1], s, group);
        if (G::op == HOP_DACT && d.chunk == 0 && sixteen * 16 + d.share < d.n_row)
            fit_unpark(d.wait[0], a, group);
        d.chunk++;
        d.first = sixteen;
    }
    named_barrier(1 + group, 128);
}

/* UP: the activation is taken of the rounded pre-activations, as backward will see them. */
template <typename G>
__device__ __forceinline__ void fit_up_slice(fit_drain &d, const hop_args &a, const hop_smem &s, int group)
{
    int q = d.slice++, row = 16 * q + fit_lane_row(), block = threadIdx.x % 8, column = d.column + 8 * block;
    uint4 g, u;

    d.left--;
    fit_turn<G>(d, a, s, group, q);
    if (G::alternating) {
        uint4 x = fit_get(d, s, group, q, block / 4, block % 4 * 2),
              y = fit_get(d, s, group, q, block / 4, block % 4 * 2 + 1);
        g = make_uint4(low_halves(x.x, x.y), low_halves(x.z, x.w), low_halves(y.x, y.y), low_halves(y.z, y.w));
        u = make_uint4(high_halves(x.x, x.y), high_halves(x.z, x.w), high_halves(y.x, y.y), high_halves(y.z, y.w));
    } else {
        g = fit_get(d, s, group, q, 0, block);
        u = fit_get(d, s, group, q, 1, block);
    }
    if (row >= d.n_row || column >= a.inter)
        return; // guard
    int64_t at = (int64_t)(d.row + row) * a.inter + column;
    if (a.pre) {
        bf16 *pre = a.pre + 2 * at - column;
        stg_16(pre, g);
        stg_16(pre + a.inter, u);
    }
    stg_16(a.out + at, make_uint4(up_pair<G>(g.x, u.x, a.act), up_pair<G>(g.y, u.y, a.act), up_pair<G>(g.z, u.z, a.act),
                                  up_pair<G>(g.w, u.w, a.act)));
}

/* Slice q's inputs: of sixteen rows the first 64 columns, then the others. */
__device__ __forceinline__ void fit_dact_load(fit_drain &d, const hop_args &a, int q)
{
    int row = q / 2 * 16 + fit_lane_row(), column = d.column + q % 2 * 64 + threadIdx.x % 8 * 8;
    bool live = row < d.n_row && column < a.inter;
    const bf16 *pre = a.pre + (int64_t)(d.row + row) * 2 * a.inter + column;

    d.g = live ? __ldcs((const uint4 *)pre) : make_uint4(0, 0, 0, 0);
    d.u = live ? __ldcs((const uint4 *)(pre + a.inter)) : make_uint4(0, 0, 0, 0);
    if (q % 2 == 0)
        d.score = row < d.n_row ? a.route.row_score[d.row + row] : 0.f;
}

/* Eight columns of gate's and up's gradients, to a row's halves or by turns. at: of gate's. */
template <typename G>
__device__ __forceinline__ void fit_put_dpre(const hop_args &a, int64_t at, int column, uint4 g, uint4 u)
{
    bf16 *to = a.out + at;

    if (G::alternating) {
        to += column; // twice as far along the row
        stg_16(to, make_uint4(low_halves(g.x, u.x), high_halves(g.x, u.x), low_halves(g.y, u.y), high_halves(g.y, u.y)));
        stg_16(to + 8, make_uint4(low_halves(g.z, u.z), high_halves(g.z, u.z), low_halves(g.w, u.w), high_halves(g.w, u.w)));
        return;
    }
    stg_16(to, g);
    stg_16(to + a.inter, u);
}

/* Eight columns of a row; every second slice, the eight lanes that share the row add up dscore over 128 columns. */
template <typename G>
__device__ __forceinline__ void fit_dact_slice(fit_drain &d, const hop_args &a, const hop_smem &s, int group)
{
    int q = d.slice++, p = q % 2, row = q / 2 * 16 + fit_lane_row(), block = threadIdx.x % 8,
        column = d.column + 64 * p + 8 * block;
    bool live = row < d.n_row && column < a.inter;

    d.left--;
    if (!p)
        fit_turn<G>(d, a, s, group, q / 2);
    uint4 v = fit_get(d, s, group, q / 2, p, block), g = d.g, u = d.u, act;
    float score = d.score;
    fit_dact_load(d, a, q + 1);
    float sum = dact_pair<G>(&g.x, &u.x, &act.x, v.x, score, a.act) + dact_pair<G>(&g.y, &u.y, &act.y, v.y, score, a.act);
    sum += dact_pair<G>(&g.z, &u.z, &act.z, v.z, score, a.act) + dact_pair<G>(&g.w, &u.w, &act.w, v.w, score, a.act);
    int64_t at = (int64_t)(d.row + row) * a.inter + column;
    if (live) {
        fit_put_dpre<G>(a, 2 * at - column, column, g, u);
        stg_16(a.scaled_act + at, act);
    }
    d.dscore = (p ? d.dscore : 0.f) + (live ? sum : 0.f);
    if (p) {
        sum = d.dscore + __shfl_xor_sync(~0u, d.dscore, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        sum += __shfl_xor_sync(~0u, sum, 4);
        if (block == 0 && row < d.n_row)
            a.dscore_part[(int64_t)(d.row + row) * a.n_dscore_part + d.column / MK_DSCORE_TILE] = sum;
    }
}

/* What slices need, before a tile's first chunk lies where that of the tile before did. */
template <typename G> __device__ __forceinline__ void fit_begin(fit_drain &d, const hop_args &a, int group)
{
    d.chunk = d.first = 0;
    if (G::op == HOP_DACT)
        fit_dact_load(d, a, 0);
    named_barrier(1 + group, 128);
}
