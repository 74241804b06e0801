/* hopper_producer.cuh: fills the stages. Part of hopper_gemm.cuh.
 * B comes by TMA from one thread, half from each block of the pair. A comes by TMA too, or is gathered by all 128 threads with cp.async, 16 bytes each,
 * into the layout that TMA's 128-byte swizzle would give. A stage is full once the copies have landed: their arrival on
 * the barrier follows the write to shared memory, from which the tensor cores read. A proxy fence between the two is
 * left out as in NVIDIA's own cp.async main loops: it comes with a membar that waits for every copy in flight, which
 * made each step as long as a trip to L2 (v4). */

/* First coordinate of an expert's weights: the map counts experts in steps of 16 bytes, so any address will do. */
__device__ inline int expert_coordinate(const hop_args &a, int which, int expert)
{
    return (int)((a.b_offset[which] ? a.b_offset[which][expert] : expert * a.b_stride[which]) / 8);
}

/* This block's half of B, to both blocks. */
template <int OP> __device__ inline void load_b(const hop_args &a, const hop_tile &t, uint32_t to, uint32_t bar, int step, int rank)
{
    int seg = 0, k = step * TILE_K;

    to += rank * (B_BYTES / 2);
    if (OP == HOP_DX) {
        seg = step / steps(a.inter);
        k = step % steps(a.inter) * TILE_K;
    }
    if (OP == HOP_UP) { // one loads gate rows, the other up rows
        tma_load_pair(to, rank ? &a.b[1] : &a.b[0], k, expert_coordinate(a, rank, t.expert), t.n, bar);
    } else if (OP == HOP_DOWN) {
        tma_load_pair(to, &a.b[0], k, expert_coordinate(a, 0, t.expert), t.n + rank * (TILE_N / 2), bar);
    } else {
        int y = OP == HOP_DW ? t.half : expert_coordinate(a, seg, t.expert), n = t.n + rank * (TILE_N / 2);
#pragma unroll
        for (int i = 0; i < TILE_N / 128; i++)
            tma_load_pair(to + i * 8192, seg ? &a.b[1] : &a.b[0], n + i * 64, y, k + (OP == HOP_DW ? t.row : 0), bar);
    }
}

/* A by TMA, 64 rows a load, only those that exist. */
template <int OP> __device__ inline void load_a(const hop_args &a, const hop_tile &t, uint32_t to, uint32_t bar, int step)
{
    int per_seg = steps(a.inter), seg = step / per_seg, k = step % per_seg * TILE_K;

    if (t.n_row > 0)
        tma_load_3d(to, &a.a, k, seg, t.row, bar);
    if (t.n_row > 64)
        tma_load_3d(to + 8192, &a.a, k, seg, t.row + 64, bar);
}

/* M gather: thread i copies piece i%8 (16 bytes) of rows i/8, i/8 + 16, ... of the tile. */
struct row_gather {
    const bf16 *row[8];
};

__device__ inline row_gather begin_rows(const hop_args &a, const hop_tile &t)
{
    row_gather g;

#pragma unroll
    for (int i = 0; i < 8; i++) {
        int row = t.row + min((int)threadIdx.x / 8 + 16 * i, t.n_row - 1); // past the end: any row of the expert, never stored
        g.row[i] = a.gather + a.route.row_token[row] * a.gather_stride + threadIdx.x % 8 * 8;
    }
    return g;
}

__device__ inline void gather_rows(const row_gather &g, const hop_args &a, const hop_tile &t, uint32_t to, int step)
{
    int row = threadIdx.x / 8, piece = threadIdx.x % 8;
    uint32_t at = to + row * 128 + ((piece ^ (row & 7)) << 4), bytes = step * TILE_K + piece * 8 < a.hidden ? 16 : 0;
    int half = t.n_row > 64 ? 8 : t.n_row > 0 ? 4 : 0;

#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < half)
            cp_async_16(at + i * 2048, g.row[i] + step * TILE_K, bytes);
}

/* K gather: thread i copies piece i%16 (of 128 columns) of rows i/16, i/16 + 8, ... of the step. */
struct k_gather {
    int token[8];
};

__device__ inline k_gather next_tokens(const hop_args &a, const hop_tile &t, int step)
{
    k_gather g;

#pragma unroll
    for (int i = 0; i < 8; i++) {
        int row = step * TILE_K + (int)threadIdx.x / 16 + 8 * i;
        g.token[i] = row < t.n_row ? a.route.row_token[t.row + row] : -1;
    }
    return g;
}

__device__ inline void gather_k(const k_gather &g, const hop_args &a, const hop_tile &t, uint32_t to)
{
    int k = threadIdx.x / 16, piece = threadIdx.x % 16, column = t.m + piece * 8;
    uint32_t at = to + piece / 8 * 8192 + k * 128 + ((piece % 8 ^ (k & 7)) << 4);

#pragma unroll
    for (int i = 0; i < 8; i++) {
        bool live = g.token[i] >= 0 && column < a.hidden;
        cp_async_16(at + i * 1024, a.gather + (live ? g.token[i] * a.gather_stride + column : 0), live ? 16 : 0);
    }
}

/* The last, partial step of an expert in DW: rows past its end must be zero, and TMA would bring the next expert's. */
__device__ inline void copy_k_tail(const hop_args &a, const hop_tile &t, uint32_t to, int step)
{
    for (int i = threadIdx.x; i < TILE_K * (TILE_N / 8); i += 128) {
        int k = i / (TILE_N / 8), piece = i % (TILE_N / 8), row = step * TILE_K + k, column = t.n + piece * 8;
        bool live = row < t.n_row && column < a.inter;
        const bf16 *from = a.k_rows + (live ? ((int64_t)(t.row + row) * a.n_half + t.half) * a.inter + column : 0);
        cp_async_16(to + piece / 8 * 8192 + k * 128 + ((piece % 8 ^ (k & 7)) << 4), from, live ? 16 : 0);
    }
}

template <int OP> __device__ inline void issue_tma(const hop_args &a, const hop_tile &t, const hop_smem<OP> &s, int stage, int step)
{
    uint32_t bar = s.full + 8 * stage;

    mbar_expect(bar, B_BYTES + (hop_config<OP>::gather || t.n_row <= 0 ? 0 : t.n_row > 64 ? A_BYTES : A_BYTES / 2));
    if (!hop_config<OP>::gather)
        load_a<OP>(a, t, s.a(stage), bar, step);
    load_b<OP>(a, t, s.b(stage), bar, step, s.rank);
}

/* One thread feeds ops without a gather. */
template <int OP> __device__ inline void produce_tma(const hop_args &a, const hop_smem<OP> &s)
{
    hop_ring<hop_config<OP>::n_stage> ring;
    int n_tile = count_tiles<OP>(a);

    for (int i = blockIdx.x / 2; i < n_tile; i += gridDim.x / 2) {
        hop_tile t = find_tile<OP>(a, i, s.rank);
        for (int step = 0; step < t.n_step; step++, ring.next()) {
            mbar_wait(s.empty + 8 * ring.stage, ring.phase ^ 1);
            issue_tma<OP>(a, t, s, ring.stage, step);
        }
    }
}

template <int OP> __device__ inline void produce_rows(const hop_args &a, const hop_smem<OP> &s)
{
    hop_ring<hop_config<OP>::n_stage> ring;
    int n_tile = count_tiles<OP>(a);

    for (int i = blockIdx.x / 2; i < n_tile; i += gridDim.x / 2) {
        hop_tile t = find_tile<OP>(a, i, s.rank);
        row_gather g = begin_rows(a, t);
        for (int step = 0; step < t.n_step; step++, ring.next()) {
            mbar_wait(s.empty + 8 * ring.stage, ring.phase ^ 1);
            if (threadIdx.x == 0)
                issue_tma<OP>(a, t, s, ring.stage, step);
            gather_rows(g, a, t, s.a(ring.stage), step);
            mbar_arrive_cp_async(s.full + 8 * ring.stage);
        }
    }
}

__device__ inline void produce_k(const hop_args &a, const hop_smem<HOP_DW> &s)
{
    hop_ring<hop_config<HOP_DW>::n_stage> ring;
    int n_tile = count_tiles<HOP_DW>(a);

    for (int i = blockIdx.x / 2; i < n_tile; i += gridDim.x / 2) {
        hop_tile t = find_tile<HOP_DW>(a, i, s.rank);
        k_gather g = next_tokens(a, t, 0);
        for (int step = 0; step < t.n_step; step++, ring.next()) {
            bool tail = (step + 1) * TILE_K > t.n_row;
            k_gather ahead = next_tokens(a, t, step + 1);
            mbar_wait(s.empty + 8 * ring.stage, ring.phase ^ 1);
            if (tail)
                copy_k_tail(a, t, s.b(ring.stage), step);
            if (threadIdx.x == 0 && tail)
                mbar_arrive(s.full + 8 * ring.stage);
            if (threadIdx.x == 0 && !tail)
                issue_tma<HOP_DW>(a, t, s, ring.stage, step);
            gather_k(g, a, t, s.a(ring.stage));
            mbar_arrive_cp_async(s.full + 8 * ring.stage);
            g = ahead;
        }
    }
}

template <int OP> __device__ inline void produce(const hop_args &a, const hop_smem<OP> &s)
{
    if constexpr (OP == HOP_DW)
        produce_k(a, s);
    else if constexpr (hop_config<OP>::gather)
        produce_rows<OP>(a, s);
    else if (threadIdx.x == 0)
        produce_tma<OP>(a, s);
}
