/* hopper_epilogue.cuh: from accumulators to memory. Part of hopper_gemm.cuh.
 * leave_tile rounds a warp's 16 x 256 to bf16 and leaves half of it in the warp's own 4 KB, two pieces of 16 rows x 64
 * columns, swizzled as TMA would, and half in registers; drain_slice later takes 16 bytes a lane to memory, whole 128-byte
 * rows at a time, and puts the second half where the first was.
 * Weight gradients, which need no more arithmetic, go by TMA, a half at a time: sixteen slices of a load and a store were a third of a
 * consumer's time for a tile of DOWN (v15), whose tiles hopper_fit.cuh has now.
 * Weight gradients stored transposed: a group's warps share 128 columns x 64 rows a half. */

#define PIECE_BYTES 2048

/* ---- leaving a tile ---- */

/* Address within a 16 x 64 piece for the matrix instructions: 8-column block pair j of 4. */
__device__ inline uint32_t matrix_at(uint32_t piece, int lane, int j)
{
    int row = (lane & 7) + (lane & 8), block = 2 * j + (lane >> 4);
    return piece + row * 128 + ((block ^ (row & 7)) << 4);
}

__device__ inline float bias_at(const mk_vector &b, int expert, int column, int n_column)
{
    if (column >= n_column)
        return 0.f;
    return __bfloat162float(((const bf16 *)b.base)[expert * b.stride_expert + column * b.stride]);
}

/* Adds a bias to 64 columns of accumulators, the first being column. */
__device__ inline void add_bias(float *acc, const mk_vector &b, int expert, int column, int n_column, int lane)
{
    if (!b.base)
        return;
#pragma unroll
    for (int i = 0; i < 32; i += 4) {
        int at = column + 2 * i + lane % 4 * 2;
        float x = bias_at(b, expert, at, n_column), y = bias_at(b, expert, at + 1, n_column);
        acc[i] += x;
        acc[i + 1] += y;
        acc[i + 2] += x;
        acc[i + 3] += y;
    }
}

/* The same of gate and up, whose columns alternate in the accumulators, the first being column. */
__device__ inline void add_alternating_bias(float *acc, const hop_args &a, int expert, int column, int lane)
{
    if (!a.bias[0].base)
        return;
#pragma unroll
    for (int i = 0; i < 128; i += 4) {
        int at = column + i + lane % 4;
        float g = bias_at(a.bias[0], expert, at, a.inter), u = bias_at(a.bias[1], expert, at, a.inter);
        acc[i] += g;
        acc[i + 1] += u;
        acc[i + 2] += g;
        acc[i + 3] += u;
    }
}

template <typename G> __device__ inline void add_biases(float *acc, const hop_args &a, const hop_tile &t, int lane)
{
    if constexpr (G::alternating)
        add_alternating_bias(acc, a, t.expert, t.n, lane);
    else
#pragma unroll
        for (int p = 0; p < 4; p++)
            add_bias(acc + 32 * p, p < 2 ? a.bias[0] : a.bias[1], t.expert, t.n + p % 2 * 64, a.inter, lane);
}

/* Half of a warp's tile: 16 x 64 twice, bf16, as the accumulators lie. */
struct hop_half {
    uint32_t v[32];
};

/* 64 columns of accumulators, piece p of the tile, become piece which of a half. */
__device__ inline void round_piece(hop_half &h, int which, const float *acc, int p)
{
#pragma unroll
    for (int i = 0; i < 16; i++)
        h.v[16 * which + i] = pack2<bf16>(acc[32 * p + 2 * i], acc[32 * p + 2 * i + 1]);
}

/* Of two registers, the first elements or the second ones. */
__device__ inline uint32_t low_halves(uint32_t x, uint32_t y)
{
    return (x & 0xffff) | y << 16;
}

__device__ inline uint32_t high_halves(uint32_t x, uint32_t y)
{
    return x >> 16 | (y & 0xffff0000u);
}

/* Of 8 columns, lane q of four has q in the low half and q + 4 in the high one; it gets 2q and 2q + 1. */
__device__ inline uint32_t neighbours(uint32_t apart, int lane)
{
    uint32_t x = __shfl_sync(~0u, apart, (lane & ~3) | (2 * lane & 3)),
             y = __shfl_sync(~0u, apart, (lane & ~3) | (2 * lane & 3) | 1);
    return lane & 2 ? high_halves(x, y) : low_halves(x, y);
}

/* 128 columns of gate and up that alternate become pieces 0 and 1 of a half. */
__device__ inline void round_alternating(hop_half &h, const float *acc)
{
    int lane = threadIdx.x % 32;

#pragma unroll
    for (int i = 0; i < 16; i++)
#pragma unroll
        for (int which = 0; which < 2; which++) {
            const float *v = acc + i / 2 * 8 + i % 2 * 2 + which;
            h.v[16 * which + i] = neighbours(pack2<bf16>(v[0], v[4]), lane);
        }
}

/* UP drains gate and up of the same columns together: pieces 0 and 2, then 1 and 3. */
template <typename G> __device__ inline hop_half round_half(const float *acc, int half)
{
    hop_half h;

    if (G::alternating && G::op == HOP_UP) {
        round_alternating(h, acc + 64 * half);
        return h;
    }
    round_piece(h, 0, acc, G::op == HOP_UP ? half : 2 * half);
    round_piece(h, 1, acc, G::op == HOP_UP ? half + 2 : 2 * half + 1);
    return h;
}

__device__ inline void leave_rows(const hop_half &h, uint32_t to, int lane)
{
#pragma unroll
    for (int i = 0; i < 8; i++)
        stmatrix_x4(matrix_at(to + i / 4 * PIECE_BYTES, lane, i % 4), h.v[4 * i], h.v[4 * i + 1], h.v[4 * i + 2],
                    h.v[4 * i + 3]);
}

__device__ inline void leave_columns(const hop_half &h, uint32_t to, int warp, int lane)
{
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int column = 16 * i + (lane & 7) + (lane >> 4) * 8, block = 2 * warp + (lane >> 3 & 1);
        stmatrix_x4_trans(to + column * 128 + ((block ^ (column & 7)) << 4), h.v[4 * i], h.v[4 * i + 1], h.v[4 * i + 2],
                          h.v[4 * i + 3]);
    }
}

/* Where element (row, column) of a 16 x 64 fp32 piece lies; rows are turned so that a warp's writes spread over banks. */
__device__ inline uint32_t float_at(uint32_t piece, int row, int column)
{
    return piece + row * 256 + ((column + 8 * row) & 63) * 4;
}

/* Stores 16 x 64 fp32 values from a piece; neighbouring lanes along whichever dimension is contiguous in memory. */
__device__ inline void store_elements(const hop_args &a, const mk_matrix &m, int64_t base, uint32_t piece, int lane,
                                      int n_row, int n_column)
{
    bool along_row = m.stride_row == 1;

#pragma unroll 1
    for (int i = lane; i < 1024; i += 32) {
        int row = along_row ? i % 16 : i / 64, column = along_row ? i / 16 : i % 64;
        if (row >= n_row || column >= n_column)
            continue;
        int64_t at = base + row * m.stride_row + column * m.stride_col;
        float v = lds_float(float_at(piece, row, column));
        store_any(m.base, a.dw_dtype, at, v + (a.accumulate ? load_any(m.base, a.dw_dtype, at) : 0.f));
    }
}

__device__ inline int64_t expert_offset(const mk_matrix &m, int expert)
{
    return m.expert_offset ? m.expert_offset[expert] : expert * m.stride_expert;
}

/* A warp's 16 x 256 values of a weight gradient, at once. */
__device__ inline void dw_elements(float *acc, const hop_args &a, uint32_t piece, const hop_tile &t, int row, int lane)
{
    const mk_matrix &m = t.half ? a.dw[1] : a.dw[0];
    int64_t base = expert_offset(m, t.expert) + (int64_t)(t.m + row) * m.stride_row;

#pragma unroll
    for (int c = 0; c < 4; c++) {
#pragma unroll
        for (int i = 0; i < 32; i += 2)
            sts_float2(float_at(piece, lane / 4 + (i & 2) * 4, i / 4 * 8 + lane % 4 * 2), acc[32 * c + i],
                       acc[32 * c + i + 1]);
        __syncwarp();
        store_elements(a, m, base + (t.n + 64 * c) * m.stride_col, piece, lane, min(16, a.hidden - t.m - row),
                       a.inter - t.n - 64 * c);
        __syncwarp();
    }
}

/* ---- draining it ---- */

/* What a lane must know of the tile that it drains. A half has 8 slices (UP: 4): slice q is row group q%4 of piece q/4,
 * except DACT: row group q/2, since dscore sums along a row. Of DW a half is one slice. */
struct hop_drain {
    int slice, left;     // next, of both halves; how many are left
    hop_half second;     // until the first is drained
    int n_row, n_column; // that exist, counted from the lane's first row and first column
    uint32_t smem;       // the lane's row in piece 0 of a half
    int block, row_bits; // its 8-column block; row & 7 of its first row
    bf16 *to;            // where its first element goes: UP of act, DACT of the scaled act
    bf16 *pre;           // its first of the pre-activations: UP, to be kept (or NULL); DACT, as they were
    int row, column;     // UP, DACT: of the lane's first element
    uint4 g, u;          // DACT: the next slice's pre-activations
    float score, dscore; // DACT: the score of row lane % 16; what this lane has of its row's sum
    int x, y, z, matrix; // of what is sent: the warp's place in which map
};

template <typename G> __device__ inline int half_slices(void)
{
    return G::op == HOP_UP ? 4 : G::op == HOP_DACT ? 8 : 1;
}

/* 16 bytes of row 4 i and piece p of a half, counted from the lane's first. */
__device__ inline uint4 drain_16(const hop_drain &d, int p, int i)
{
    return lds_16(d.smem + p * PIECE_BYTES + i * 512 + ((d.block ^ ((d.row_bits + 4 * i) & 7)) << 4));
}

template <typename G> __device__ inline uint32_t up_pair(uint32_t g, uint32_t u, const mk_act_param &p)
{
    float2 gv = unpack2<bf16>(g), uv = unpack2<bf16>(u);
    float dg, du;
    return pack2<bf16>(activate<G::act>(gv.x, uv.x, &dg, &du, p), activate<G::act>(gv.y, uv.y, &dg, &du, p));
}

/* UP: piece 0 of a half is gate, 1 up. The activation is taken of the rounded pre-activations, as backward will see them. */
template <typename G> __device__ inline void drain_up(hop_drain &d, const hop_args &a, unsigned q)
{
    int i = q % 4, c = q / 4;
    uint4 g = drain_16(d, 0, i), u = drain_16(d, 1, i);

    if (4 * i >= d.n_row || 64 * c >= d.n_column)
        return; // guard
    if (d.pre) {
        stg_16(d.pre + (8 * i * a.inter + 64 * c), g);
        stg_16(d.pre + (8 * i * a.inter + 64 * c + a.inter), u);
    }
    stg_16(d.to + (4 * i * a.inter + 64 * c), make_uint4(up_pair<G>(g.x, u.x, a.act), up_pair<G>(g.y, u.y, a.act),
                                                         up_pair<G>(g.z, u.z, a.act), up_pair<G>(g.w, u.w, a.act)));
}

/* DACT: row group and piece of slice q. */
__device__ inline int dact_row(unsigned q)
{
    return q % 8 / 2;
}

__device__ inline int dact_piece(unsigned q)
{
    return q / 8 * 2 + q % 2;
}

/* Slice q's inputs. */
__device__ inline void dact_load(hop_drain &d, const hop_args &a, unsigned q)
{
    int i = dact_row(q), p = dact_piece(q);
    bool live = 4 * i < d.n_row && 64 * p < d.n_column && q < 16;
    const bf16 *pre = d.pre + (8 * i * a.inter + 64 * p);

    d.g = live ? __ldcs((const uint4 *)pre) : make_uint4(0, 0, 0, 0);
    d.u = live ? __ldcs((const uint4 *)(pre + a.inter)) : make_uint4(0, 0, 0, 0);
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

/* Eight columns of gate's and up's gradients, to a row's halves or by turns. They lie as the pre-activations do. */
template <typename G> __device__ inline void put_dpre(const hop_drain &d, const hop_args &a, int i, int p, uint4 g, uint4 u)
{
    bf16 *to = d.pre + (a.out - a.pre) + (8 * i * a.inter + 64 * p);

    if (G::alternating) {
        to += d.column + 64 * p; // twice as far along the row
        stg_16(to, make_uint4(low_halves(g.x, u.x), high_halves(g.x, u.x), low_halves(g.y, u.y), high_halves(g.y, u.y)));
        stg_16(to + 8, make_uint4(low_halves(g.z, u.z), high_halves(g.z, u.z), low_halves(g.w, u.w), high_halves(g.w, u.w)));
        return;
    }
    stg_16(to, g);
    stg_16(to + a.inter, u);
}

/* Eight columns of one row; every second piece, the eight lanes that share the row add up dscore over 128 columns. */
template <typename G> __device__ inline void drain_dact(hop_drain &d, const hop_args &a, unsigned q)
{
    int i = dact_row(q), p = dact_piece(q);
    uint4 v = drain_16(d, p & 1, i), g = d.g, u = d.u, act;
    float score = __shfl_sync(~0u, d.score, d.row_bits + 4 * i);
    bool live = 4 * i < d.n_row && 64 * p < d.n_column;

    dact_load(d, a, q + 1);
    float sum =
        dact_pair<G>(&g.x, &u.x, &act.x, v.x, score, a.act) + dact_pair<G>(&g.y, &u.y, &act.y, v.y, score, a.act);
    sum += dact_pair<G>(&g.z, &u.z, &act.z, v.z, score, a.act) + dact_pair<G>(&g.w, &u.w, &act.w, v.w, score, a.act);
    if (live) {
        put_dpre<G>(d, a, i, p, g, u);
        stg_16(d.to + (4 * i * a.inter + 64 * p), act);
    }
    d.dscore = (p & 1 ? d.dscore : 0.f) + (live ? sum : 0.f);
    if (p & 1) {
        sum = d.dscore + __shfl_xor_sync(~0u, d.dscore, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        sum += __shfl_xor_sync(~0u, sum, 4);
        if (d.block == 0 && 4 * i < d.n_row && 64 * (p - 1) < d.n_column)
            a.dscore_part[(int64_t)(d.row + 4 * i) * a.n_dscore_part + (d.column + 64 * p) / MK_DSCORE_TILE] = sum;
    }
}

/* Where a half is left: a warp's own place, or its group's. */
__device__ inline uint32_t half_at(const hop_smem &s, bool of_group)
{
    int warp = threadIdx.x / 32 - N_LOAD_THREAD / 32;
    return s.out + (of_group ? warp & ~3 : warp) * WARP_OUT_BYTES;
}

/* Until all have come who write where one reads. */
__device__ inline void sync_half(bool of_group)
{
    if (of_group)
        named_barrier(threadIdx.x / 128, 128);
    else
        __syncwarp();
}

template <typename G> __device__ inline bool is_transposed(const hop_args &a)
{
    return G::op == HOP_DW && a.dw[0].stride_col != 1;
}

/* A half to shared memory, once what was sent from there is gone. */
template <typename G> __device__ inline void leave_half(const hop_half &h, const hop_args &a, const hop_smem &s)
{
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    bool transposed = is_transposed<G>(a);

    if (G::op == HOP_DW && lane == 0)
        tma_store_wait();
    sync_half(transposed);
    if (transposed)
        leave_columns(h, half_at(s, true), warp, lane);
    else
        leave_rows(h, half_at(s, false), lane);
    __syncwarp();
}

/* A half from shared memory to where it belongs. */
template <typename G> __device__ inline void send_half(const hop_drain &d, const hop_args &a, const hop_smem &s, int half)
{
    const CUtensorMap *map = &a.out_map[d.matrix];
    bool transposed = is_transposed<G>(a);
    uint32_t mine = half_at(s, false);

    fence_for_tma();
    sync_half(transposed);
    if (threadIdx.x % 32)
        return;
    if (transposed) {
        tma_store_3d(map, mine, d.x, d.y, d.z + 128 * half);
    } else {
        tma_store_3d(map, mine, d.x + 128 * half, d.y, d.z);
        tma_store_3d(map, mine + PIECE_BYTES, d.x + 128 * half + 64, d.y, d.z);
    }
    tma_store_commit();
}

template <typename G> __device__ inline void drain_slice(hop_drain &d, const hop_args &a, const hop_smem &s)
{
    unsigned q = d.slice++;

    d.left--;
    if (q == half_slices<G>())
        leave_half<G>(d.second, a, s);
    if (G::op == HOP_DW)
        send_half<G>(d, a, s, q);
    else if (G::op == HOP_UP)
        drain_up<G>(d, a, q);
    else
        drain_dact<G>(d, a, q);
}

/* ---- between the two ---- */

template <typename G>
__device__ inline void begin_drain(hop_drain &d, const hop_args &a, const hop_tile &t, uint32_t smem, int first_row,
                                   int lane)
{
    int row = first_row + lane / 8; // in the tile

    d.slice = 0;
    d.left = t.n_row <= first_row ? 0 : 2 * half_slices<G>();
    d.block = lane % 8;
    d.row_bits = lane / 8;
    d.smem = smem + lane / 8 * 128;
    d.n_row = min(16 - lane / 8, t.n_row - row);
    d.row = t.row + row;
    d.column = t.n + 8 * d.block;
    d.n_column = a.inter - d.column;
    d.to = (G::op == HOP_DACT ? a.scaled_act : a.out) + (int64_t)d.row * a.inter + d.column;
    d.pre = a.pre ? a.pre + (int64_t)d.row * 2 * a.inter + d.column : NULL;
    if (G::op == HOP_DACT && d.left) {
        d.score = a.route.row_score[t.row + min(first_row + lane % 16, t.n_row - 1)];
        dact_load(d, a, 0);
    }
}

/* A weight gradient: a warp's part of a half is 64 rows x 32 columns where transposed, else 16 rows x 128 columns. */
template <typename G>
__device__ inline void begin_dw_drain(hop_drain &d, const hop_args &a, const hop_tile &t, int group, int warp)
{
    bool transposed = is_transposed<G>(a);
    int row = t.m + 64 * group + (transposed ? 0 : 16 * warp), column = t.n + (transposed ? 32 * warp : 0);

    d.slice = 0;
    d.left = 2;
    d.matrix = t.half;
    d.x = transposed ? row : column;
    d.y = (int)(expert_offset(t.half ? a.dw[1] : a.dw[0], t.expert) / 8);
    d.z = transposed ? column : row;
}

/* The accumulators to where they wait, and what draining them needs to d. The tile before is drained. */
template <typename G>
__device__ inline void leave_tile(float *acc, const hop_args &a, const hop_smem &s, const hop_tile &t, int group,
                                  hop_drain &d)
{
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, row = 64 * group + 16 * warp;

    if (G::op == HOP_UP)
        add_biases<G>(acc, a, t, lane);
    if (G::op == HOP_DW && hop_dw_by_element(&a)) {
        __syncwarp();
        dw_elements(acc, a, half_at(s, false), t, row, lane);
        return;
    }
    d.second = round_half<G>(acc, 1);
    leave_half<G>(round_half<G>(acc, 0), a, s);
    if (G::op == HOP_DW)
        begin_dw_drain<G>(d, a, t, group, warp);
    else
        begin_drain<G>(d, a, t, half_at(s, false), row, lane);
}
