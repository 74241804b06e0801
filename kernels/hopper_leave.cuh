/* hopper_leave.cuh: how a tile of a weight gradient leaves. Part of hopper_gemm.cuh.
 *
 * A finished tile leaves by TMA, in two halves of 128 columns: one waits in shared memory, the other in registers. A warp leaves its
 * 16 x 128 in its own 4 KB, two pieces of 16 rows x 64 columns, swizzled as TMA would; stored transposed, a group's warps share 128
 * columns x 64 rows. In fp32, or onto what is there, it leaves at once, element by element. */
#define PIECE_BYTES 2048

/* Address within a 16 x 64 piece for the matrix instructions: 8-column block pair j of 4. */
__device__ inline uint32_t matrix_at(uint32_t piece, int lane, int j)
{
    int row = (lane & 7) + (lane & 8), block = 2 * j + (lane >> 4);
    return piece + row * 128 + ((block ^ (row & 7)) << 4);
}

/* Half of a warp's tile: 16 x 64 twice, bf16, as the accumulators lie. */
struct hop_half {
    uint32_t v[32];
};

__device__ inline hop_half round_half(const float *acc, int half)
{
    hop_half h;

#pragma unroll
    for (int i = 0; i < 32; i++)
        h.v[i] = pack2<bf16>(acc[64 * half + 2 * i], acc[64 * half + 2 * i + 1]);
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

__device__ inline bool is_transposed(const hop_args &a)
{
    return a.dw[0].stride_col != 1;
}

/* A half to shared memory, once what was sent from there is gone. */
__device__ inline void leave_half(const hop_half &h, const hop_args &a, const hop_smem &s)
{
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    bool transposed = is_transposed(a);

    if (lane == 0)
        tma_store_wait();
    sync_half(transposed);
    if (transposed)
        leave_columns(h, half_at(s, true), warp, lane);
    else
        leave_rows(h, half_at(s, false), lane);
    __syncwarp();
}

/* What a warp must know of the tile whose halves it sends: a slice each. */
struct hop_drain {
    int slice, left;     // next, of both; how many are left
    hop_half second;     // until the first is sent
    int x, y, z, matrix; // the warp's place in which map
};

/* A half from shared memory to where it belongs. */
__device__ inline void send_half(const hop_drain &d, const hop_args &a, const hop_smem &s, int half)
{
    const CUtensorMap *map = &a.out_map[d.matrix];
    bool transposed = is_transposed(a);
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

__device__ inline void send_slice(hop_drain &d, const hop_args &a, const hop_smem &s)
{
    int half = d.slice++;

    d.left--;
    if (half)
        leave_half(d.second, a, s);
    send_half(d, a, s, half);
}

__device__ inline void send_rest(hop_drain &d, const hop_args &a, const hop_smem &s)
{
    while (d.left > 0)
        send_slice(d, a, s);
}

/* A warp's part of a half is 64 rows x 32 columns where transposed, else 16 rows x 128 columns. */
__device__ inline void begin_drain(hop_drain &d, const hop_args &a, const hop_tile &t, int group, int warp)
{
    bool transposed = is_transposed(a);
    int row = t.m + 64 * group + (transposed ? 0 : 16 * warp), column = t.n + (transposed ? 32 * warp : 0);

    d.slice = 0;
    d.left = 2;
    d.matrix = t.half;
    d.x = transposed ? row : column;
    d.y = (int)(expert_offset(t.half ? a.dw[1] : a.dw[0], t.expert) / 8);
    d.z = transposed ? column : row;
}

/* The accumulators to where they wait, and what sending them needs to d. The tile before is sent. */
__device__ inline void leave_tile(float *acc, const hop_args &a, const hop_smem &s, const hop_tile &t, int group,
                                  hop_drain &d)
{
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;

    if (hop_dw_by_element(&a)) {
        __syncwarp();
        dw_elements(acc, a, half_at(s, false), t, 64 * group + 16 * warp, lane);
        return;
    }
    d.second = round_half(acc, 1);
    leave_half(round_half(acc, 0), a, s);
    begin_drain(d, a, t, group, warp);
}
