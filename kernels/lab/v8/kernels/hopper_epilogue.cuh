/* hopper_epilogue.cuh, version 8: from accumulators to memory. Part of hopper_gemm.cuh.
 * The consumers leave a finished tile in shared memory as bf16; the storing warps take it from there, 16 rows of a
 * group's 64 at a time, each lane 8 neighbouring columns, so that global accesses are whole 128-byte rows.
 * The finished tile lies in four pieces of 128 rows x 64 columns, swizzled as TMA would; where a weight gradient is stored
 * transposed, in two (one a group) of 256 columns x 64 rows. */

#define PIECE_BYTES (HOP_M * 128)

/* ---- the consumers' side ---- */

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

template <int OP> __device__ inline void add_biases(float *acc, const hop_args &a, const hop_info &f, int lane)
{
#pragma unroll
    for (int p = 0; p < 4; p++) {
        if (OP == HOP_UP)
            add_bias(acc + 32 * p, p < 2 ? a.bias[0] : a.bias[1], f.expert, f.n + p % 2 * 64, a.inter, lane);
        if (OP == HOP_DOWN)
            add_bias(acc + 32 * p, a.bias[0], f.expert, f.n + p * 64, a.hidden, lane);
    }
}

__device__ inline void leave_rows(const float *acc, uint32_t to, int lane)
{
#pragma unroll
    for (int p = 0; p < 4; p++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float *f = acc + 32 * p + 8 * j;
            stmatrix_x4(matrix_at(to + p * PIECE_BYTES, lane, j), pack2<bf16>(f[0], f[1]), pack2<bf16>(f[2], f[3]), pack2<bf16>(f[4], f[5]), pack2<bf16>(f[6], f[7]));
        }
}

__device__ inline void leave_columns(const float *acc, uint32_t to, int warp, int lane)
{
#pragma unroll
    for (int j = 0; j < 16; j++) {
        const float *f = acc + 8 * j;
        int column = 16 * j + (lane & 7) + (lane >> 4) * 8, block = 2 * warp + (lane >> 3 & 1);
        stmatrix_x4_trans(to + column * 128 + ((block ^ (column & 7)) << 4), pack2<bf16>(f[0], f[1]), pack2<bf16>(f[2], f[3]), pack2<bf16>(f[4], f[5]), pack2<bf16>(f[6], f[7]));
    }
}

/* Is a weight gradient written by the consumers themselves, element by element, in fp32 or onto what is there? */
__device__ inline bool dw_by_element(const hop_args &a)
{
    return a.dw_dtype != MK_BF16 || a.accumulate;
}

__device__ inline bool dw_transposed(const hop_args &a)
{
    return a.dw[0].stride_col != 1;
}

/* Where element (row, column) of a 16 x 64 fp32 piece lies; rows are turned so that a warp's writes spread over banks. */
__device__ inline uint32_t float_at(uint32_t piece, int row, int column)
{
    return piece + row * 256 + ((column + 8 * row) & 63) * 4;
}

/* Stores 16 x 64 fp32 values from a piece; neighbouring lanes along whichever dimension is contiguous in memory. */
__device__ inline void store_elements(const hop_args &a, const mk_matrix &m, int64_t base, uint32_t piece, int lane, int n_row, int n_column)
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

/* A consumer warp's 16 x 256 values of a weight gradient, through its own part of the finished tile's place. */
__device__ inline void dw_elements(float *acc, const hop_args &a, const hop_smem &s, const hop_info &f, int group, int warp, int lane)
{
    int n_half = a.n_n_tile / a.n_half * TILE_N, half = f.n >= n_half, n = f.n - (half ? n_half : 0), row = 64 * group + 16 * warp;
    const mk_matrix &m = half ? a.dw[1] : a.dw[0];
    int64_t base = expert_offset(m, f.expert) + (int64_t)(a.hidden - f.n_row + row) * m.stride_row;
    uint32_t piece = s.out + (4 * group + warp) * 4096;

#pragma unroll
    for (int c = 0; c < 4; c++) {
#pragma unroll
        for (int i = 0; i < 32; i += 2)
            sts_float2(float_at(piece, lane / 4 + (i & 2) * 4, i / 4 * 8 + lane % 4 * 2), acc[32 * c + i], acc[32 * c + i + 1]);
        __syncwarp();
        store_elements(a, m, base + (n + 64 * c) * m.stride_col, piece, lane, min(16, f.n_row - row), a.inter - n - 64 * c);
        __syncwarp();
    }
}

template <int OP> __device__ inline void leave_tile(float *acc, const hop_args &a, const hop_smem &s, const hop_info &f, int group, uint32_t turn)
{
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;

    if (OP == HOP_UP || OP == HOP_DOWN)
        add_biases<OP>(acc, a, f, lane);
    if (OP == HOP_DW && dw_by_element(a))
        return dw_elements(acc, a, s, f, group, warp, lane);
    mbar_wait(s.free(group), turn ^ 1);
    if (OP == HOP_DW && dw_transposed(a))
        leave_columns(acc, s.out + group * 2 * PIECE_BYTES, warp, lane);
    else
        leave_rows(acc, s.out + (64 * group + 16 * warp) * 128, lane);
    __syncwarp();
    if (lane == 0)
        mbar_arrive(s.ready(group));
}

/* ---- the storing warps' side ---- */

/* A lane's place in a group's half of a tile: piece and row are added by lane_16. */
struct hop_lane {
    int block, row;  // 8-column block; first of its rows, 4 apart, in the group's 64
    int n_row;       // rows of the group that exist
    uint32_t smem;   // the group's rows in piece 0
};

__device__ inline uint4 lane_16(const hop_lane &l, int piece, int i)
{
    int row = l.row + 4 * i;
    return lds_16(l.smem + piece * PIECE_BYTES + row * 128 + ((l.block ^ (row & 7)) << 4));
}

/* DOWN, DX, DW along columns: as it is. to: element (0, 0) of the group's half. */
__device__ inline void store_rows(const hop_lane &l, bf16 *to, int64_t stride, int n_column)
{
#pragma unroll
    for (int p = 0; p < 4; p++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = l.row + 4 * i, column = 64 * p + 8 * l.block;
            uint4 v = lane_16(l, p, i);
            if (row < l.n_row && column < n_column)
                stg_16(to + row * stride + column, v);
        }
}

/* DW transposed: 64 columns of the tile, each 64 contiguous rows. */
__device__ inline void store_columns(const hop_lane &l, uint32_t smem, bf16 *to, int64_t stride, int quarter, int lane, int n_column)
{
#pragma unroll 4
    for (int i = 0; i < 16; i++) {
        int column = 64 * quarter + 4 * i + lane / 8;
        uint4 v = lds_16(smem + column * 128 + ((l.block ^ (column & 7)) << 4));
        if (column < n_column && l.block * 8 < l.n_row)
            stg_16(to + column * stride + l.block * 8, v);
    }
}

__device__ inline void store_dw(const hop_lane &l, const hop_args &a, const hop_smem &s, const hop_tile &t, int group, int quarter, int lane)
{
    const mk_matrix &m = t.half ? a.dw[1] : a.dw[0];
    bf16 *to = (bf16 *)m.base + expert_offset(m, t.expert) + (t.m + 64 * group) * m.stride_row + t.n * m.stride_col;

    if (dw_transposed(a))
        store_columns(l, s.out + group * 2 * PIECE_BYTES, to, m.stride_col, quarter, lane, a.inter - t.n);
    else
        store_rows(l, to, m.stride_row, a.inter - t.n);
}

template <int ACT> __device__ inline uint32_t up_pair(uint32_t g, uint32_t u, const mk_act_param &p)
{
    float2 gv = unpack2<bf16>(g), uv = unpack2<bf16>(u);
    float dg, du;
    return pack2<bf16>(activate<ACT>(gv.x, uv.x, &dg, &du, p), activate<ACT>(gv.y, uv.y, &dg, &du, p));
}

/* UP: pieces 0, 1 are gate, 2, 3 up. The activation is taken of the rounded pre-activations, as backward will see them. */
template <int ACT> __device__ inline void store_up(const hop_lane &l, const hop_args &a, const hop_tile &t, int group)
{
#pragma unroll 1
    for (int c = 0; c < 2; c++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int r = l.row + 4 * i, column = t.n + 64 * c + 8 * l.block;
            int64_t row = t.row + 64 * group + r;
            uint4 g = lane_16(l, c, i), u = lane_16(l, c + 2, i);
            if (r >= l.n_row || column >= a.inter)
                continue;
            if (a.pre) {
                stg_16(a.pre + row * 2 * a.inter + column, g);
                stg_16(a.pre + (row * 2 + 1) * a.inter + column, u);
            }
            stg_16(a.out + row * a.inter + column, make_uint4(up_pair<ACT>(g.x, u.x, a.act), up_pair<ACT>(g.y, u.y, a.act),
                                                              up_pair<ACT>(g.z, u.z, a.act), up_pair<ACT>(g.w, u.w, a.act)));
        }
}

/* ---- DACT ---- */

/* Brings a group's pre-activations to L2 before they are needed. */
__device__ inline void dact_prefetch(const hop_args &a, const hop_tile &t, int group, int n_row)
{
    int row = threadIdx.x % 64;

    if (row >= n_row)
        return;
    const bf16 *pre = a.pre + (int64_t)(t.row + 64 * group + row) * 2 * a.inter + t.n;
    for (int column = 0; column < 256 && t.n + column < a.inter; column += 64) {
        asm volatile("prefetch.global.L2 [%0];" ::"l"(pre + column));
        asm volatile("prefetch.global.L2 [%0];" ::"l"(pre + column + a.inter));
    }
}

struct dact_lane {
    float score[4], dscore[4];
    uint4 g[4], u[4]; // pre-activations of the next piece
};

__device__ inline void dact_load(dact_lane &d, const hop_lane &l, const hop_args &a, int64_t row, int i, int column)
{
    bool live = l.row + 4 * i < l.n_row && column < a.inter;
    const bf16 *pre = a.pre + (row + 4 * i) * 2 * a.inter + column;

    d.g[i] = live ? *(const uint4 *)pre : make_uint4(0, 0, 0, 0);
    d.u[i] = live ? *(const uint4 *)(pre + a.inter) : make_uint4(0, 0, 0, 0);
}

__device__ inline void dact_begin(dact_lane &d, const hop_lane &l, const hop_args &a, int64_t row, int column)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        d.score[i] = l.row + 4 * i < l.n_row ? a.route.row_score[row + 4 * i] : 0.f;
        d.dscore[i] = 0.f;
        dact_load(d, l, a, row, i, column);
    }
}

/* Two neighbouring elements: gate and up become their gradients, act comes out scaled; returns what they add to dscore. */
template <int ACT> __device__ inline float dact_pair(uint32_t *g, uint32_t *u, uint32_t *act, uint32_t d, float score, const mk_act_param &p)
{
    float2 gv = unpack2<bf16>(*g), uv = unpack2<bf16>(*u), dv = unpack2<bf16>(d);
    float dg0, dg1, du0, du1;
    float v0 = activate<ACT>(gv.x, uv.x, &dg0, &du0, p), v1 = activate<ACT>(gv.y, uv.y, &dg1, &du1, p);
    float d0 = dv.x * score, d1 = dv.y * score;

    *g = pack2<bf16>(d0 * dg0, d1 * dg1);
    *u = pack2<bf16>(d0 * du0, d1 * du1);
    *act = pack2<bf16>(score * v0, score * v1);
    return dv.x * v0 + dv.y * v1;
}

/* Eight columns of one row. */
template <int ACT> __device__ inline void dact_eight(dact_lane &d, const hop_lane &l, const hop_args &a, int64_t row, int i, int column, uint4 v)
{
    uint4 g = d.g[i], u = d.u[i], act;
    float sum = dact_pair<ACT>(&g.x, &u.x, &act.x, v.x, d.score[i], a.act);

    sum += dact_pair<ACT>(&g.y, &u.y, &act.y, v.y, d.score[i], a.act);
    sum += dact_pair<ACT>(&g.z, &u.z, &act.z, v.z, d.score[i], a.act);
    sum += dact_pair<ACT>(&g.w, &u.w, &act.w, v.w, d.score[i], a.act);
    if (l.row + 4 * i >= l.n_row || column >= a.inter)
        return; // guard
    d.dscore[i] += sum;
    bf16 *to = a.out + (row + 4 * i) * 2 * a.inter + column;
    stg_16(to, g);
    stg_16(to + a.inter, u);
    stg_16(a.scaled_act + (row + 4 * i) * a.inter + column, act);
}

/* Partial sums of dscore over 128 columns: eight lanes share a row. */
__device__ inline void dact_dscore(dact_lane &d, const hop_lane &l, const hop_args &a, int64_t row, int column)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float sum = d.dscore[i];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        sum += __shfl_xor_sync(~0u, sum, 4);
        if (l.block == 0 && l.row + 4 * i < l.n_row && column < a.inter)
            a.dscore_part[(row + 4 * i) * a.n_dscore_part + column / MK_DSCORE_TILE] = sum;
        d.dscore[i] = 0.f;
    }
}

template <int ACT> __device__ inline void store_dact(dact_lane &d, const hop_lane &l, const hop_args &a, const hop_tile &t, int64_t row)
{
#pragma unroll 1
    for (int p = 0; p < 4; p++) {
        int column = t.n + 64 * p + 8 * l.block;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            dact_eight<ACT>(d, l, a, row, i, column, lane_16(l, p, i));
            dact_load(d, l, a, row, i, p < 3 ? column + 64 : a.inter);
        }
        if (p & 1)
            dact_dscore(d, l, a, row, t.n + 64 * (p - 1));
    }
}

/* ---- the loop over tiles ---- */

/* A quarter of a group's half of a tile: 16 rows, or 64 columns of a transposed gradient. */
template <int OP, int ACT> __device__ inline void store_quarter(const hop_args &a, const hop_smem &s, const hop_tile &t, int group, int n_row, int quarter, uint32_t turn)
{
    int lane = threadIdx.x % 32;
    hop_lane l = { lane % 8, 16 * quarter + lane / 8, n_row, s.out + 64 * group * 128 };
    int64_t row = t.row + 64 * group;
    dact_lane d;

    if (OP == HOP_DACT)
        dact_begin(d, l, a, row + l.row, t.n + 8 * l.block);
    mbar_wait(s.ready(group), turn);
    if (OP == HOP_UP)
        store_up<ACT>(l, a, t, group);
    else if (OP == HOP_DACT)
        store_dact<ACT>(d, l, a, t, row + l.row);
    else if (OP == HOP_DW)
        store_dw(l, a, s, t, group, quarter, lane);
    else
        store_rows(l, a.out + row * a.hidden + t.n, a.hidden, a.hidden - t.n);
}

/* One group's half of a tile, once the consumers have left it. */
template <int OP, int ACT> __device__ inline void store_half(const hop_args &a, const hop_smem &s, const hop_tile &t, int group, int n_row, uint32_t turn)
{
#pragma unroll 1
    for (int quarter = threadIdx.x / 32 % N_STORE_WARP; quarter < 4; quarter += N_STORE_WARP)
        store_quarter<OP, ACT>(a, s, t, group, n_row, quarter, turn);
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        mbar_arrive(s.free(group));
}

template <int OP, int ACT> __device__ inline void store_tiles(const hop_args &a, const hop_smem &s)
{
    int n_tile = count_tiles<OP>(a);
    uint32_t turns = 0; // bit g: of group g's half

    if (OP == HOP_DW && dw_by_element(a))
        return; // the consumers do it
    for (int i = blockIdx.x / 2; i < n_tile; i += gridDim.x / 2) {
        hop_tile t = find_tile<OP>(a, i, n_tile, s.rank, peek_tile<OP>(a, i, n_tile));
        int n_row = tile_rows<OP>(a, t);
#pragma unroll
        for (int group = 0; group < 2; group++)
            if (OP == HOP_DACT && n_row > 64 * group)
                dact_prefetch(a, t, group, min(64, n_row - 64 * group));
#pragma unroll 1
        for (int group = 0; group < 2 && n_row > 64 * group; group++) {
            store_half<OP, ACT>(a, s, t, group, min(64, n_row - 64 * group), turns >> group & 1);
            turns ^= 1u << group;
        }
    }
}
