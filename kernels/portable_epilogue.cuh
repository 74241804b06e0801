/* portable_epilogue.cuh: from registers to memory, per operation. Part of portable_gemm.cuh.
 * acc[i][j][0..1]: row 16 i + lane/4 of a warp's 64, columns 8 j + 2 (lane%4) and the next; [2..3]: 8 rows below.
 * A warp turns a few rows at a time through shared memory of its own, so that a lane holds 8 neighbouring columns of a row:
 * 16 bytes of every array that it reads or writes. Rounded already, where nothing is computed from them. */

#define POR_SLICE_BYTES 2304 /* 8 rows of 64 floats, or 16 of half the size, and what keeps rows apart in the banks */

/* ---- through shared memory ---- */

/* Where columns 8 j and on go: gate and up, which alternate by 8 columns, become 32 columns of either. */
template <bool PAIR> __device__ inline int por_column(int j)
{
    return PAIR ? j % 2 * 32 + j / 2 * 8 : j * 8;
}

/* Piece p of 16 bytes of a row of floats. */
__device__ inline float *por_float_at(uint8_t *slice, int row, int p)
{
    return (float *)(slice + row * 288 + ((p ^ (p >> 3)) << 4));
}

/* Rows 8 q to 8 q + 7 of the warp's tile. */
__device__ inline void por_leave_floats(const float acc[4][8][4], int q, uint8_t *slice)
{
    int lane = threadIdx.x % 32;

    __syncwarp(); // guard: the slice before has been read
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (i != q)
            continue;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const float *v = &acc[i / 2][j][i % 2 * 2];
            *(float2 *)(por_float_at(slice, lane / 4, 2 * j + lane % 4 / 2) + lane % 2 * 2) = make_float2(v[0], v[1]);
        }
    }
    __syncwarp();
}

/* Columns 8 c to 8 c + 7. */
__device__ inline void por_take_floats(float *v, uint8_t *slice, int row, int c)
{
    *(float4 *)v = *(const float4 *)por_float_at(slice, row, 2 * c);
    *(float4 *)(v + 4) = *(const float4 *)por_float_at(slice, row, 2 * c + 1);
}

/* Piece c of 16 bytes of a row of elements. */
__device__ inline uint4 *por_rounded_at(uint8_t *slice, int row, int c)
{
    return (uint4 *)(slice + row * 144 + c * 16);
}

/* Rows 16 q to 16 q + 15 of the warp's tile. */
template <typename T, bool PAIR> __device__ inline void por_leave_rounded(const float acc[4][8][4], int q, uint8_t *slice)
{
    int lane = threadIdx.x % 32;

    __syncwarp(); // guard: the slice before has been read
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (i != q)
            continue;
#pragma unroll
        for (int j = 0; j < 16; j++) {
            const float *v = &acc[i][j / 2][j % 2 * 2];
            *((uint32_t *)por_rounded_at(slice, lane / 4 + j % 2 * 8, por_column<PAIR>(j / 2) / 8) + lane % 4) =
                pack2<T>(v[0], v[1]);
        }
    }
    __syncwarp();
}

/* ---- eight neighbouring elements ---- */

template <typename T> __device__ inline void por_unpack8(float *v, uint4 from)
{
    const uint32_t word[4] = { from.x, from.y, from.z, from.w };

#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 f = unpack2<T>(word[i]);
        v[2 * i] = f.x;
        v[2 * i + 1] = f.y;
    }
}

template <typename T> __device__ inline void por_put8(void *base, int64_t at, const float *v)
{
    *(uint4 *)((T *)base + at) =
        make_uint4(pack2<T>(v[0], v[1]), pack2<T>(v[2], v[3]), pack2<T>(v[4], v[5]), pack2<T>(v[6], v[7]));
}

template <typename T> __device__ inline uint32_t por_dtype(void)
{
    return sizeof(T) == 2 && pack2<T>(1.f, 1.f) == 0x3f803f80u ? MK_BF16 : MK_FP16;
}

/* ---- biases ---- */

template <typename T> __device__ inline float por_bias(const mk_vector &b, int expert, int column, int limit)
{
    return b.base && column < limit ? load_any(b.base, por_dtype<T>(), expert * b.stride_expert + column * b.stride) : 0.f;
}

/* column: the warp's first. PAIR: of gate and of up. */
template <typename T, bool PAIR>
__device__ inline void por_add_bias(float acc[4][8][4], const mk_vector &b0, const mk_vector &b1, int expert, int column,
                                    int limit)
{
    if (!b0.base && !b1.base)
        return; // guard
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
        for (int c = 0; c < 2; c++) {
            int at = column + por_column<PAIR>(j) % (PAIR ? 32 : 64) + threadIdx.x % 4 * 2 + c;
            float v = por_bias<T>(PAIR && j % 2 ? b1 : b0, expert, at, limit);
#pragma unroll
            for (int i = 0; i < 8; i++)
                acc[i / 2][j][i % 2 * 2 + c] += v;
        }
}

/* ---- what each operation does with them ---- */

/* g and u become their derivatives, v the activation. Which one is asked once, so that the eight overlap. */
template <int ACT> __device__ inline void por_activate_as(float *g, float *u, float *v, const mk_act_param &p)
{
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float dg, du;
        v[i] = activate<ACT>(g[i], u[i], &dg, &du, p);
        g[i] = dg;
        u[i] = du;
    }
}

template <bool GATED> __device__ inline void por_activate(float *g, float *u, float *v, const mk_act_param &p)
{
    if (GATED && p.act == MK_ACT_SWIGLU)
        por_activate_as<MK_ACT_SWIGLU>(g, u, v, p);
    else
        por_activate_as<-1>(g, u, v, p);
}

/* The activation is taken of the rounded pre-activations, as backward will see them. */
template <typename T> __device__ inline void por_put_pair(const por_args &a, int64_t row, int column, uint4 gate, uint4 up)
{
    float g[8], u[8], v[8];

    por_unpack8<T>(g, gate);
    por_unpack8<T>(u, up);
    por_activate<true>(g, u, v, a.act);
    if (a.pre) {
        *(uint4 *)((T *)a.pre + row * 2 * a.inter + column) = gate;
        *(uint4 *)((T *)a.pre + (row * 2 + 1) * a.inter + column) = up;
    }
    por_put8<T>(a.out, row * a.inter + column, v);
}

/* UP with a gate: a lane has 8 columns of either. Rows 0 and 4, 1 and 5 ... go together, so that 8 lanes meet all banks. */
template <typename T>
__device__ inline void por_finish_pair(float acc[4][8][4], const por_args &a, const por_tile &t, int wm, int wn,
                                       uint8_t *slice)
{
    int lane = threadIdx.x % 32, c = lane % 4, first = t.n / 2 + 32 * wn, column = first + 8 * c;

    por_add_bias<T, true>(acc, a.bias[0], a.bias[1], t.expert, first, a.inter);
#pragma unroll 1
    for (int q = 0; q < 4; q++) {
        por_leave_rounded<T, true>(acc, q, slice);
#pragma unroll
        for (int i = 0; i < 16; i += 8) {
            int r = lane / 8 + lane / 4 % 2 * 4 + i, row = 64 * wm + 16 * q + r;
            if (row < t.n_row && column < a.inter)
                por_put_pair<T>(a, t.row + row, column, *por_rounded_at(slice, r, c), *por_rounded_at(slice, r, 4 + c));
        }
    }
}

/* UP without: the square of a rounded number would be off twice as far. */
template <typename T>
__device__ inline void por_finish_alone(float acc[4][8][4], const por_args &a, const por_tile &t, int wm, int wn,
                                        uint8_t *slice)
{
    int lane = threadIdx.x % 32, first = t.n + 64 * wn, column = first + lane % 8 * 8;

    por_add_bias<T, false>(acc, a.bias[1], a.bias[1], t.expert, first, a.inter);
#pragma unroll 1
    for (int q = 0; q < 8; q++) {
        por_leave_floats(acc, q, slice);
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
            float g[8] = {}, u[8], v[8];
            int64_t row = 64 * wm + 8 * q + lane / 8 + i, at = (t.row + row) * a.inter + column;
            por_take_floats(u, slice, lane / 8 + i, lane % 8);
            if (row >= t.n_row || column >= a.inter)
                continue;
            if (a.pre)
                por_put8<T>(a.pre, at, u);
            por_activate<false>(g, u, v, a.act);
            por_put8<T>(a.out, at, v);
        }
    }
}

template <typename T, bool BIAS>
__device__ inline void por_finish_rows(float acc[4][8][4], const por_args &a, const por_tile &t, int wm, int wn,
                                       uint8_t *slice)
{
    int lane = threadIdx.x % 32, column = t.n + 64 * wn + lane % 8 * 8;

    if (BIAS)
        por_add_bias<T, false>(acc, a.bias[0], a.bias[0], t.expert, t.n + 64 * wn, a.hidden);
#pragma unroll 1
    for (int q = 0; q < 4; q++) {
        por_leave_rounded<T, false>(acc, q, slice);
#pragma unroll
        for (int i = 0; i < 16; i += 4) {
            int r = lane / 8 + i, row = 64 * wm + 16 * q + r;
            if (row < t.n_row && column < a.hidden)
                *(uint4 *)((T *)a.out + (int64_t)(t.row + row) * a.hidden + column) = *por_rounded_at(slice, r, lane % 8);
        }
    }
}

/* The pre-activations of eight columns of a row, read a row before they are needed. */
struct por_pre {
    uint4 g, u;
    float score;
};

template <typename T, bool GATED>
__device__ inline void por_read_pre(por_pre &p, const por_args &a, const por_tile &t, int row, int column)
{
    const T *at = (const T *)a.pre + (int64_t)(t.row + row) * a.n_half * a.inter + column;

    if (row >= t.n_row || column >= a.inter)
        return; // guard
    if (GATED)
        p.g = *(const uint4 *)at;
    p.u = *(const uint4 *)(at + (a.n_half - 1) * a.inter);
    p.score = a.route.row_score[t.row + row];
}

/* Returns what the columns add to dscore. */
template <typename T, bool GATED>
__device__ inline float por_put_dact(const por_args &a, int64_t row, int column, const float *d, const por_pre &pre)
{
    float g[8] = {}, u[8], v[8], sum = 0.f;
    int64_t at = row * a.n_half * a.inter + column;

    if (GATED)
        por_unpack8<T>(g, pre.g);
    por_unpack8<T>(u, pre.u);
    por_activate<GATED>(g, u, v, a.act);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        sum += d[i] * v[i];
        g[i] *= d[i] * pre.score;
        u[i] *= d[i] * pre.score;
        v[i] *= pre.score;
    }
    if (GATED)
        por_put8<T>(a.out, at, g);
    por_put8<T>(a.out, at + (a.n_half - 1) * a.inter, u);
    por_put8<T>(a.scaled_act, row * a.inter + column, v);
    return sum;
}

/* part: (POR_WARP_N, POR_M) sums over a warp's 64 columns. */
__device__ inline void por_put_dscore(const por_args &a, const por_tile &t, const float *part)
{
    enum { PER_TILE = POR_N / MK_DSCORE_TILE };

    __syncthreads();
    for (int i = threadIdx.x; i < t.n_row * PER_TILE; i += POR_THREAD) {
        int row = i / PER_TILE, p = i % PER_TILE;
        if (t.n + p * MK_DSCORE_TILE < a.inter)
            a.dscore_part[(int64_t)(t.row + row) * a.n_dscore_part + t.n / MK_DSCORE_TILE + p] =
                part[2 * p * POR_M + row] + part[(2 * p + 1) * POR_M + row];
    }
}

template <typename T, bool GATED>
__device__ inline void por_finish_dact(const float acc[4][8][4], const por_args &a, const por_tile &t, int wm, int wn,
                                       uint8_t *slice, float *part)
{
    int lane = threadIdx.x % 32, column = t.n + 64 * wn + lane % 8 * 8, first = 64 * wm + lane / 8;
    por_pre next = {};

    por_read_pre<T, GATED>(next, a, t, first, column);
#pragma unroll 1
    for (int i = 0; i < 16; i++) {
        por_pre now = next;
        int row = first + 4 * i;
        float d[8], sum = 0.f;
        if (i % 2 == 0)
            por_leave_floats(acc, i / 2, slice);
        por_read_pre<T, GATED>(next, a, t, row + 4, column); // beyond the warp's last: another warp's, of no use
        por_take_floats(d, slice, lane / 8 + i % 2 * 4, lane % 8);
        if (row < t.n_row && column < a.inter)
            sum = por_put_dact<T, GATED>(a, t.row + row, column, d, now);
        for (int m = 1; m < 8; m *= 2)
            sum += __shfl_xor_sync(~0u, sum, m);
        if (lane % 8 == 0)
            part[wn * POR_M + row] = sum;
    }
    por_put_dscore(a, t, part);
}

/* A warp's part of a weight gradient: rows row and on, columns column and on of those that exist. */
struct por_gradient {
    const mk_matrix *m;
    int64_t at; // of the lane's first element: row lane/8, column lane%8 * 8
    int n_row;  // that exist, from there
    bool live;  // so do its columns
};

/* Rounded and in a row: 16 bytes a lane. */
template <typename T>
__device__ inline void por_put_dw_rounded(const float acc[4][8][4], const por_gradient &g, uint8_t *slice)
{
    int lane = threadIdx.x % 32;

#pragma unroll 1
    for (int q = 0; q < 4; q++) {
        por_leave_rounded<T, false>(acc, q, slice);
#pragma unroll
        for (int i = 0; i < 16; i += 4)
            if (16 * q + i < g.n_row && g.live)
                *(uint4 *)((T *)g.m->base + g.at + (16 * q + i) * g.m->stride_row) =
                    *por_rounded_at(slice, lane / 8 + i, lane % 8);
    }
}

/* In fp32, or onto what is there, or not in a row: element by element. */
template <typename T>
__device__ inline void por_put_dw_floats(const float acc[4][8][4], const por_args &a, const por_gradient &g, uint8_t *slice)
{
    int lane = threadIdx.x % 32;

#pragma unroll 1
    for (int q = 0; q < 8; q++) {
        por_leave_floats(acc, q, slice);
#pragma unroll 1
        for (int i = 0; i < 8; i += 4) {
            float v[8];
            por_take_floats(v, slice, lane / 8 + i, lane % 8);
            int64_t at = g.at + (8 * q + i) * g.m->stride_row;
#pragma unroll
            for (int c = 0; c < 8; c++, at += g.m->stride_col)
                if (8 * q + i < g.n_row && g.live)
                    store_any(g.m->base, a.dw_dtype, at, v[c] + (a.accumulate ? load_any(g.m->base, a.dw_dtype, at) : 0.f));
        }
    }
}

template <typename T>
__device__ inline void por_finish_dw(const float acc[4][8][4], const por_args &a, const por_tile &t, int wm, int wn,
                                     uint8_t *slice)
{
    const mk_matrix &m = a.dw[t.half];
    int lane = threadIdx.x % 32, row = t.m + 64 * wm + lane / 8, column = t.n + 64 * wn + lane % 8 * 8;
    int64_t base = m.expert_offset ? m.expert_offset[t.expert] : t.expert * m.stride_expert;
    por_gradient g = { &m, base + row * m.stride_row + column * m.stride_col, a.side[0].width - row,
                       column < a.side[1].width };
    bool in_row = m.stride_col == 1 && m.stride_row % 8 == 0 && (uintptr_t)((T *)m.base + g.at) % 16 == 0;

    if (a.dw_dtype == por_dtype<T>() && !a.accumulate && in_row)
        por_put_dw_rounded<T>(acc, g, slice);
    else
        por_put_dw_floats<T>(acc, a, g, slice);
}

/* slice: this warp's; part: the block's. */
template <int OP, typename T, bool GATED>
__device__ inline void por_finish(float acc[4][8][4], const por_args &a, const por_tile &t, int wm, int wn, uint8_t *slice,
                                  float *part)
{
    if (OP == POR_UP && GATED)
        por_finish_pair<T>(acc, a, t, wm, wn, slice);
    else if (OP == POR_UP)
        por_finish_alone<T>(acc, a, t, wm, wn, slice);
    else if (OP == POR_DACT)
        por_finish_dact<T, GATED>(acc, a, t, wm, wn, slice, part);
    else if (OP == POR_DW)
        por_finish_dw<T>(acc, a, t, wm, wn, slice);
    else
        por_finish_rows<T, OP == POR_DOWN>(acc, a, t, wm, wn, slice);
}
