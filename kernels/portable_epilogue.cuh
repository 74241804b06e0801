/* portable_epilogue.cuh: from registers to memory, per operation. Part of portable_gemm.cuh.
 * acc[i][j][0..1]: row 64 wm + 16 i + lane/4, columns 32 wn + 8 j + 2 (lane%4) and the next; [2..3]: 8 rows below. */

/* Two neighbouring elements. */
template <typename T> __device__ inline void por_put2(void *base, int64_t at, float x, float y)
{
    *(uint32_t *)((T *)base + at) = pack2<T>(x, y);
}

__device__ inline float por_bias(const mk_vector &b, uint32_t dtype, int expert, int column)
{
    return b.base ? load_any(b.base, dtype, expert * b.stride_expert + column * b.stride) : 0.f;
}

template <typename T> __device__ inline uint32_t por_dtype(void)
{
    return sizeof(T) == 2 && pack2<T>(1.f, 1.f) == 0x3f803f80u ? MK_BF16 : MK_FP16;
}

/* Two columns of one row of UP. */
template <typename T, bool GATED> __device__ inline void por_up_pair(const por_args &a, int64_t row, int expert, int column, const float *g, const float *u)
{
    float dg, du, gv[2] = {}, uv[2], v[2];

#pragma unroll
    for (int i = 0; i < 2; i++) {
        gv[i] = GATED ? g[i] + por_bias(a.bias[0], por_dtype<T>(), expert, column + i) : 0.f;
        uv[i] = u[i] + por_bias(a.bias[1], por_dtype<T>(), expert, column + i);
        v[i] = activate<-1>(gv[i], uv[i], &dg, &du, a.act);
    }
    if (a.pre && GATED)
        por_put2<T>(a.pre, row * 2 * a.inter + column, gv[0], gv[1]);
    if (a.pre)
        por_put2<T>(a.pre, (row * a.n_half + a.n_half - 1) * a.inter + column, uv[0], uv[1]);
    por_put2<T>(a.out, row * a.inter + column, v[0], v[1]);
}

template <typename T, bool GATED> __device__ inline void por_finish_up(float acc[4][4][4], const por_args &a, const por_tile &t, int wm, int wn)
{
    int lane = threadIdx.x % 32;

#pragma unroll
    for (int i = 0; i < 8; i++) {
        int r = 64 * wm + 8 * i + lane / 4;
        if (r >= t.n_row)
            continue;
#pragma unroll
        for (int j = 0; j < (GATED ? 2 : 4); j++) {
            int column = (GATED ? t.n / 2 + 16 * wn : t.n + 32 * wn) + 8 * j + 2 * (lane % 4);
            const float *g = &acc[i / 2][j][i % 2 * 2], *u = &acc[i / 2][GATED ? j + 2 : j][i % 2 * 2];
            if (column < a.inter)
                por_up_pair<T, GATED>(a, t.row + r, t.expert, column, g, u);
        }
    }
}

template <typename T> __device__ inline void por_finish_rows(float acc[4][4][4], const por_args &a, const por_tile &t, int wm, int wn, bool bias)
{
    int lane = threadIdx.x % 32;

#pragma unroll
    for (int i = 0; i < 8; i++) {
        int r = 64 * wm + 8 * i + lane / 4;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int column = t.n + 32 * wn + 8 * j + 2 * (lane % 4);
            const float *v = &acc[i / 2][j][i % 2 * 2];
            if (r >= t.n_row || column >= a.hidden)
                continue;
            float x = bias ? por_bias(a.bias[0], por_dtype<T>(), t.expert, column) : 0.f;
            float y = bias ? por_bias(a.bias[0], por_dtype<T>(), t.expert, column + 1) : 0.f;
            por_put2<T>(a.out, (int64_t)(t.row + r) * a.hidden + column, v[0] + x, v[1] + y);
        }
    }
}

/* Two columns of one row of DACT; returns what they add to dscore. */
template <typename T, bool GATED> __device__ inline float por_dact_pair(const por_args &a, int64_t row, int column, const float *d, float score)
{
    int64_t at = row * a.n_half * a.inter + column, at_up = at + (a.n_half - 1) * (int64_t)a.inter;
    float2 g = GATED ? unpack2<T>(*(const uint32_t *)((const T *)a.pre + at)) : make_float2(0.f, 0.f);
    float2 u = unpack2<T>(*(const uint32_t *)((const T *)a.pre + at_up));
    float dg0, dg1, du0, du1, v0 = activate<-1>(g.x, u.x, &dg0, &du0, a.act), v1 = activate<-1>(g.y, u.y, &dg1, &du1, a.act);
    float d0 = d[0] * score, d1 = d[1] * score;

    if (GATED)
        por_put2<T>(a.out, at, d0 * dg0, d1 * dg1);
    por_put2<T>(a.out, at_up, d0 * du0, d1 * du1);
    por_put2<T>(a.scaled_act, row * a.inter + column, score * v0, score * v1);
    return d[0] * v0 + d[1] * v1;
}

/* part: (4, POR_M) floats of shared memory. */
template <typename T, bool GATED> __device__ inline void por_finish_dact(float acc[4][4][4], const por_args &a, const por_tile &t, int wm, int wn, float *part)
{
    int lane = threadIdx.x % 32;

#pragma unroll
    for (int i = 0; i < 8; i++) {
        int r = 64 * wm + 8 * i + lane / 4;
        float sum = 0.f, score = r < t.n_row ? a.route.row_score[t.row + r] : 0.f;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int column = t.n + 32 * wn + 8 * j + 2 * (lane % 4);
            if (r < t.n_row && column < a.inter)
                sum += por_dact_pair<T, GATED>(a, t.row + r, column, &acc[i / 2][j][i % 2 * 2], score);
        }
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (lane % 4 == 0)
            part[wn * POR_M + r] = sum;
    }
    __syncthreads();
    int r = threadIdx.x;
    if (r < t.n_row && r < POR_M)
        a.dscore_part[(int64_t)(t.row + r) * a.n_dscore_part + t.n / MK_DSCORE_TILE] =
            part[r] + part[POR_M + r] + part[2 * POR_M + r] + part[3 * POR_M + r];
}

__device__ inline void por_finish_dw(float acc[4][4][4], const por_args &a, const por_tile &t, int wm, int wn)
{
    const mk_matrix &m = a.dw[t.half];
    int lane = threadIdx.x % 32;
    int64_t base = m.expert_offset ? m.expert_offset[t.expert] : t.expert * m.stride_expert;

#pragma unroll
    for (int i = 0; i < 64; i++) {
        int row = t.m + 64 * wm + 8 * (i / 8) + lane / 4, column = t.n + 32 * wn + 8 * (i / 2 % 4) + 2 * (lane % 4) + i % 2;
        if (row >= a.hidden || column >= a.inter)
            continue;
        int64_t at = base + row * m.stride_row + column * m.stride_col;
        float v = acc[i / 16][i / 2 % 4][i / 8 % 2 * 2 + i % 2];
        store_any(m.base, a.dw_dtype, at, v + (a.accumulate ? load_any(m.base, a.dw_dtype, at) : 0.f));
    }
}

template <int OP, typename T, bool GATED>
__device__ inline void por_finish(float acc[4][4][4], const por_args &a, const por_tile &t, int wm, int wn, float *smem)
{
    if (OP == POR_UP)
        por_finish_up<T, GATED>(acc, a, t, wm, wn);
    else if (OP == POR_DACT)
        por_finish_dact<T, GATED>(acc, a, t, wm, wn, smem);
    else if (OP == POR_DW)
        por_finish_dw(acc, a, t, wm, wn);
    else
        por_finish_rows<T>(acc, a, t, wm, wn, OP == POR_DOWN);
}
