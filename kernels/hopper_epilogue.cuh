/* hopper_epilogue.cuh: from accumulators to memory, per operation. Part of hopper_gemm.cuh.
 * A warp turns its 16 rows through its own piece of shared memory (16 x 64 elements, swizzled), so that global
 * accesses are whole 128-byte rows; no other warp is waited for, except by the transposing weight gradient. */

struct hop_warp {
    int warp, group, lane; // of 4; of 2; of 32
    int n_row;             // rows of the group's 64 that exist
    uint32_t smem;
};

/* Rows of a warp's tile that exist, of 16. */
__device__ inline int warp_rows(const hop_warp &w)
{
    return min(16, w.n_row - 16 * w.warp);
}

/* Address within a 16 x 64 piece for the matrix instructions: 8-column block pair j of 4. */
__device__ inline uint32_t matrix_at(uint32_t piece, int lane, int j)
{
    int row = (lane & 7) + (lane & 8), block = 2 * j + (lane >> 4);
    return piece + row * 128 + ((block ^ (row & 7)) << 4);
}

/* 16 x 64 values in fragment order into a piece; v[4 b + ...] as in hopper_wgmma.cuh, b = block of 8 columns. */
__device__ inline void stage_piece(uint32_t piece, int lane, const uint32_t *v)
{
#pragma unroll
    for (int j = 0; j < 4; j++)
        stmatrix_x4(matrix_at(piece, lane, j), v[4 * j], v[4 * j + 1], v[4 * j + 2], v[4 * j + 3]);
}

/* Two floats to one register, for the 64 columns that begin at acc. */
__device__ inline void pack_piece(uint32_t *v, const float *acc)
{
#pragma unroll
    for (int i = 0; i < 16; i++)
        v[i] = pack2<bf16>(acc[2 * i], acc[2 * i + 1]);
}

/* Piece to memory: rows that exist, columns below n_column. to: element (0, 0) of the piece. */
__device__ inline void store_piece(bf16 *to, int64_t stride, uint32_t piece, int lane, int n_row, int n_column)
{
    int block = lane % 8;

#pragma unroll
    for (int i = 0; i < 4; i++) {
        int row = i * 4 + lane / 8;
        uint4 v = lds_16(piece + row * 128 + ((block ^ (row & 7)) << 4));
        if (row < n_row && block * 8 < n_column)
            *(uint4 *)(to + row * stride + block * 8) = v;
    }
}

__device__ inline float bias_at(const mk_vector &b, int expert, int column, int n_column)
{
    if (!b.base || column >= n_column)
        return 0.f;
    return __bfloat162float(((const bf16 *)b.base)[expert * b.stride_expert + column * b.stride]);
}

/* Adds a bias to 64 columns of accumulators, the first being column. */
__device__ inline void add_bias(float *acc, const mk_vector &b, int expert, int column, int n_column, int lane)
{
    if (!b.base)
        return;
#pragma unroll
    for (int i = 0; i < 32; i++)
        acc[i] += bias_at(b, expert, column + i / 4 * 8 + lane % 4 * 2 + (i & 1), n_column);
}

/* ---- UP: activation; stores pre-activations and act ---- */

template <int ACT> __device__ inline void up_piece(float *g, float *u, const hop_args &a, const hop_tile &t, const hop_warp &w, int column)
{
    int64_t row = t.row + 64 * w.group + 16 * w.warp;
    int n_row = warp_rows(w), n_column = a.inter - column;
    uint32_t v[16];
    float dg, du;

    add_bias(g, a.bias[0], t.expert, column, a.inter, w.lane);
    add_bias(u, a.bias[1], t.expert, column, a.inter, w.lane);
    if (a.pre) {
        bf16 *pre = a.pre + row * 2 * a.inter + column;
        pack_piece(v, g);
        stage_piece(w.smem, w.lane, v);
        pack_piece(v, u);
        stage_piece(w.smem + 2048, w.lane, v);
        __syncwarp();
        store_piece(pre, 2 * a.inter, w.smem, w.lane, n_row, n_column);
        store_piece(pre + a.inter, 2 * a.inter, w.smem + 2048, w.lane, n_row, n_column);
        __syncwarp();
    }
#pragma unroll
    for (int i = 0; i < 16; i++)
        v[i] = pack2<bf16>(activate<ACT>(g[2 * i], u[2 * i], &dg, &du, a.act),
                           activate<ACT>(g[2 * i + 1], u[2 * i + 1], &dg, &du, a.act));
    stage_piece(w.smem, w.lane, v);
    __syncwarp();
    store_piece(a.out + row * a.inter + column, a.inter, w.smem, w.lane, n_row, n_column);
    __syncwarp();
}

template <int ACT> __device__ inline void finish_up(float *acc, const hop_args &a, const hop_tile &t, const hop_warp &w)
{
#pragma unroll
    for (int c = 0; c < 2; c++)
        up_piece<ACT>(acc + 32 * c, acc + 64 + 32 * c, a, t, w, t.n + 64 * c);
}

/* ---- DOWN, DX: stores rows ---- */

__device__ inline void finish_rows(float *acc, const hop_args &a, const hop_tile &t, const hop_warp &w, bool bias)
{
    int64_t row = t.row + 64 * w.group + 16 * w.warp;

#pragma unroll
    for (int c = 0; c < 4; c++) {
        uint32_t v[16], piece = w.smem + (c & 1) * 2048;
        int column = t.n + 64 * c;
        if (bias)
            add_bias(acc + 32 * c, a.bias[0], t.expert, column, a.hidden, w.lane);
        pack_piece(v, acc + 32 * c);
        stage_piece(piece, w.lane, v);
        __syncwarp(); // also: the other piece's readers are done before it is written again
        store_piece(a.out + row * a.hidden + column, a.hidden, piece, w.lane, warp_rows(w), a.hidden - column);
    }
    __syncwarp();
}

/* ---- DACT: the derivative of the activation ----
 * A warp takes four chunks of 16 rows x 64 columns: accumulators go to shared memory as they are (fp32), then every lane
 * works on 8 neighbouring columns of four rows, read and written as whole 128-byte rows. The loop over chunks stays
 * rolled: unrolled over all accumulators, fetching the code took longer than running it (v1). */

/* Brings the tile's pre-activations to L2 while the products run. */
__device__ inline void dact_prefetch(const hop_args &a, const hop_tile &t, const hop_warp &w)
{
    int row = 16 * w.warp + w.lane / 2, half = w.lane % 2;

    if (row >= w.n_row)
        return;
    const bf16 *pre = a.pre + ((int64_t)(t.row + 64 * w.group + row) * 2 + half) * a.inter + t.n;
    for (int column = 0; column < 256 && t.n + column < a.inter; column += 64)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(pre + column));
}

/* 16-byte unit of a row's 64 floats: block b of 8 columns, half h of the block. */
__device__ inline uint32_t dact_unit(uint32_t chunk, int row, int b, int h)
{
    return chunk + row * 256 + h * 128 + ((b ^ (row & 7)) << 4);
}

/* Fragments of a chunk to shared memory. */
__device__ inline void dact_spread(const float *acc, uint32_t chunk, int lane)
{
    int row = lane / 4, h = lane / 2 % 2, low = lane % 2 * 8;

#pragma unroll
    for (int b = 0; b < 8; b++) {
        sts_float2(dact_unit(chunk, row, b, h) + low, acc[4 * b], acc[4 * b + 1]);
        sts_float2(dact_unit(chunk, row + 8, b, h) + low, acc[4 * b + 2], acc[4 * b + 3]);
    }
}

/* Two neighbouring elements: gate and up become their gradients, act comes out scaled; returns what they add to dscore. */
template <int ACT> __device__ inline float dact_pair(uint32_t *g, uint32_t *u, uint32_t *act, float d0, float d1, float score, const mk_act_param &p)
{
    float2 gv = unpack2<bf16>(*g), uv = unpack2<bf16>(*u);
    float dg0, dg1, du0, du1;
    float v0 = activate<ACT>(gv.x, uv.x, &dg0, &du0, p), v1 = activate<ACT>(gv.y, uv.y, &dg1, &du1, p);
    float sum = d0 * v0 + d1 * v1;

    d0 *= score;
    d1 *= score;
    *g = pack2<bf16>(d0 * dg0, d1 * dg1);
    *u = pack2<bf16>(d0 * du0, d1 * du1);
    *act = pack2<bf16>(score * v0, score * v1);
    return sum;
}

/* A lane's part of the tile: rows lane/8, + 4, + 8, + 12 of the warp's 16. */
struct dact_lane {
    int64_t row[4];       // in (R, ...)
    bool live[4];         // the row exists
    float score[4], dscore[4];
    uint4 g[4], u[4];     // pre-activations of the next chunk
};

__device__ inline void dact_load(dact_lane &l, const hop_args &a, int i, int column)
{
    bool live = l.live[i] && column < a.inter;
    const bf16 *pre = a.pre + l.row[i] * 2 * a.inter + column;

    l.g[i] = live ? *(const uint4 *)pre : make_uint4(0, 0, 0, 0);
    l.u[i] = live ? *(const uint4 *)(pre + a.inter) : make_uint4(0, 0, 0, 0);
}

__device__ inline void dact_begin(dact_lane &l, const hop_args &a, const hop_tile &t, const hop_warp &w)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int r = 16 * w.warp + 4 * i + w.lane / 8;
        l.row[i] = t.row + 64 * w.group + r;
        l.live[i] = r < w.n_row;
        l.score[i] = l.live[i] ? a.route.row_score[l.row[i]] : 0.f;
        l.dscore[i] = 0.f;
        dact_load(l, a, i, t.n + 8 * (w.lane % 8));
    }
}

/* Eight columns of row i. */
template <int ACT> __device__ inline void dact_eight(dact_lane &l, const hop_args &a, int i, int column, uint4 d_low, uint4 d_high)
{
    uint4 g = l.g[i], u = l.u[i], act;
    float sum, score = l.score[i];

    sum = dact_pair<ACT>(&g.x, &u.x, &act.x, __uint_as_float(d_low.x), __uint_as_float(d_low.y), score, a.act);
    sum += dact_pair<ACT>(&g.y, &u.y, &act.y, __uint_as_float(d_low.z), __uint_as_float(d_low.w), score, a.act);
    sum += dact_pair<ACT>(&g.z, &u.z, &act.z, __uint_as_float(d_high.x), __uint_as_float(d_high.y), score, a.act);
    sum += dact_pair<ACT>(&g.w, &u.w, &act.w, __uint_as_float(d_high.z), __uint_as_float(d_high.w), score, a.act);
    if (!l.live[i] || column >= a.inter)
        return; // guard
    l.dscore[i] += sum;
    bf16 *to = a.out + l.row[i] * 2 * a.inter + column;
    stg_16(to, g);
    stg_16(to + a.inter, u);
    stg_16(a.scaled_act + l.row[i] * a.inter + column, act);
}

/* Partial sums of dscore over 128 columns: eight lanes share a row. */
__device__ inline void dact_dscore(dact_lane &l, const hop_args &a, int column, int lane)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float sum = l.dscore[i];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        sum += __shfl_xor_sync(~0u, sum, 4);
        if (lane % 8 == 0 && l.live[i] && column < a.inter)
            a.dscore_part[l.row[i] * a.n_dscore_part + column / MK_DSCORE_TILE] = sum;
        l.dscore[i] = 0.f;
    }
}

template <int ACT> __device__ inline void finish_dact(float *acc, const hop_args &a, const hop_tile &t, const hop_warp &w)
{
    dact_lane l;
    int b = w.lane % 8;

    dact_begin(l, a, t, w);
#pragma unroll 1
    for (int c = 0; c < 4; c++) {
        switch (c) { // registers have no run-time index
        case 0: dact_spread(acc, w.smem, w.lane); break;
        case 1: dact_spread(acc + 32, w.smem, w.lane); break;
        case 2: dact_spread(acc + 64, w.smem, w.lane); break;
        default: dact_spread(acc + 96, w.smem, w.lane); break;
        }
        __syncwarp();
        int column = t.n + 64 * c + 8 * b;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = 4 * i + w.lane / 8;
            dact_eight<ACT>(l, a, i, column, lds_16(dact_unit(w.smem, row, b, 0)), lds_16(dact_unit(w.smem, row, b, 1)));
            dact_load(l, a, i, c < 3 ? column + 64 : a.inter);
        }
        if (c & 1)
            dact_dscore(l, a, t.n + 64 * (c - 1), w.lane);
        __syncwarp();
    }
}

/* ---- DW: stores a piece of a weight gradient, as it is, transposed, or element by element ---- */

__device__ inline int64_t expert_offset(const mk_matrix &m, int expert)
{
    return m.expert_offset ? m.expert_offset[expert] : expert * m.stride_expert;
}

/* Contiguous along the tile's columns (I). */
__device__ inline void dw_rows(float *acc, const hop_args &a, const hop_tile &t, const hop_warp &w, const mk_matrix &m)
{
    bf16 *to = (bf16 *)m.base + expert_offset(m, t.expert) + (t.m + 64 * w.group + 16 * w.warp) * m.stride_row + t.n;

#pragma unroll
    for (int c = 0; c < 4; c++) {
        uint32_t v[16], piece = w.smem + (c & 1) * 2048;
        pack_piece(v, acc + 32 * c);
        stage_piece(piece, w.lane, v);
        __syncwarp();
        store_piece(to + 64 * c, m.stride_row, piece, w.lane, warp_rows(w), a.inter - t.n - 64 * c);
    }
    __syncwarp();
}

/* Contiguous along the tile's rows (H): the group's four warps fill 128 columns x 64 rows, then each stores 32 columns. */
__device__ inline void dw_columns(float *acc, const hop_args &a, const hop_tile &t, const hop_warp &w, const mk_matrix &m)
{
    uint32_t base = w.smem - w.warp * 4096;
    bf16 *to = (bf16 *)m.base + expert_offset(m, t.expert) + t.m + 64 * w.group;
    int lane = w.lane;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        named_barrier(1 + w.group, 128); // earlier readers are done
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const float *f = acc + 64 * half + 8 * j;
            int column = 16 * j + (lane & 7) + (lane >> 4) * 8, block = 2 * w.warp + (lane >> 3 & 1);
            stmatrix_x4_trans(base + column * 128 + ((block ^ (column & 7)) << 4), pack2<bf16>(f[0], f[1]),
                              pack2<bf16>(f[2], f[3]), pack2<bf16>(f[4], f[5]), pack2<bf16>(f[6], f[7]));
        }
        named_barrier(1 + w.group, 128);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int column = 32 * w.warp + 4 * i + lane / 8, block = lane % 8, n = t.n + 128 * half + column;
            uint4 v = lds_16(base + column * 128 + ((block ^ (column & 7)) << 4));
            if (n < a.inter && block * 8 < w.n_row)
                *(uint4 *)(to + n * m.stride_col + block * 8) = v;
        }
    }
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

/* Any strides and type, and accumulation. */
__device__ inline void dw_elements(float *acc, const hop_args &a, const hop_tile &t, const hop_warp &w, const mk_matrix &m)
{
    int64_t base = expert_offset(m, t.expert) + (int64_t)(t.m + 64 * w.group + 16 * w.warp) * m.stride_row;

#pragma unroll
    for (int c = 0; c < 4; c++) {
        int n = t.n + 64 * c;
#pragma unroll
        for (int i = 0; i < 32; i += 2)
            sts_float2(float_at(w.smem, w.lane / 4 + (i & 2) * 4, i / 4 * 8 + w.lane % 4 * 2), acc[32 * c + i], acc[32 * c + i + 1]);
        __syncwarp();
        store_elements(a, m, base + n * m.stride_col, w.smem, w.lane, warp_rows(w), a.inter - n);
        __syncwarp();
    }
}

__device__ inline void finish_dw(float *acc, const hop_args &a, const hop_tile &t, const hop_warp &w)
{
    const mk_matrix &m = t.half ? a.dw[1] : a.dw[0];

    if (a.dw_dtype != MK_BF16 || a.accumulate)
        dw_elements(acc, a, t, w, m);
    else if (m.stride_col == 1)
        dw_rows(acc, a, t, w, m);
    else
        dw_columns(acc, a, t, w, m);
}

template <int OP, int ACT> __device__ inline void finish(float *acc, const hop_args &a, const hop_tile &t, const hop_warp &w)
{
    if (OP == HOP_UP)
        finish_up<ACT>(acc, a, t, w);
    else if (OP == HOP_DACT)
        finish_dact<ACT>(acc, a, t, w);
    else if (OP == HOP_DW)
        finish_dw(acc, a, t, w);
    else
        finish_rows(acc, a, t, w, OP == HOP_DOWN);
}
