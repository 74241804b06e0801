/* hopper_gather.cuh: UP's and DACT's loads: rows of x or dout by their token, weights by TMA. Part of hopper_gemm.cuh. */

/* By one thread, for UP and DACT: tells the consumers of a new tile, arms the stage's barrier, loads what TMA loads. */
template <typename G>
__device__ inline void issue_tma(const hop_args &a, const hop_tile &t, const hop_coordinate &c, const hop_smem &s, int stage,
                                 int step)
{
    uint32_t bar = s.full(stage);

    mbar_expect(bar, B_BYTES + (step ? 0 : INFO_BYTES));
    if (step == 0)
        put_tile(s, stage, t);
    load_b<G>(&a.b[G::op == HOP_UP && !G::alternating ? s.rank : 0], t, fit_stage(s, stage), bar, step * TILE_K, c.y[0],
              s.rank, false);
}

/* The same for step of an adapter's, whose rows are dense. */
template <typename G>
__device__ inline void issue_low(const hop_args &a, const hop_tile &t, const hop_coordinate &c, const hop_smem &s, int stage,
                                 int step)
{
    uint32_t bar = s.full(stage);

    mbar_expect(bar, B_BYTES + fit_bytes(t.n_row));
    load_fit_low(a, t, fit_stage(s, stage) + B_BYTES, bar, step * TILE_K, 0, t.n_row);
    load_b<G>(&a.b[G::op == HOP_UP ? 2 + s.rank : 2], t, fit_stage(s, stage), bar, step * TILE_K, c.low, s.rank, false);
}

/* The steps of an adapter, which follow the weight's: a loop of their own, so that the weight's do not pay for them. */
template <typename G>
__device__ inline void produce_low(const hop_args &a, const hop_tile &t, const hop_coordinate &c, const hop_smem &s,
                                   hop_ring &ring)
{
    for (int step = 0; step < steps(a.low); step++, ring.next()) {
        mbar_wait(s.empty(ring.stage), ring.phase ^ 1);
        if (threadIdx.x == 0)
            issue_low<G>(a, t, c, s, ring.stage, step);
        mbar_arrive(s.full(ring.stage));
    }
}

#define ROW_PER_THREAD (FIT_SPLIT * 8 / N_LOAD_THREAD)

/* Gathered rows: thread i copies piece i%8 (16 bytes) of rows i/8, i/8 + 16, ... of the tile. Of a warp's 36 tokens, the first 32, one
 * of each lane, wait in shared memory: eight registers less, which the addresses need. */
struct row_tokens {
    int early, last; // of one of the first 128 rows; of the ninth row that this thread copies
};

__device__ inline row_tokens find_tokens(const hop_args &a, const hop_tile &t)
{
    int lane = threadIdx.x % 32, first = threadIdx.x / 8, row = first + N_LOAD_THREAD / 8 * (lane % 8);
    const int32_t *token = a.route.row_token + (t.n_row > 0 ? t.row : 0);

    // past the end: any row of the expert, never stored
    return { token[max(0, min(row, t.n_row - 1))], token[max(0, min(first + 128, t.n_row - 1))] };
}

__device__ inline void put_token(int token, const hop_smem &s)
{
    __syncwarp(); // all have read what was there
    sts_int(s.token + threadIdx.x * 4, token);
    __syncwarp();
}

/* All addresses before the first copy: an address built in another's registers waits until that copy has read them. */
__device__ inline void gather_rows(const hop_args &a, const hop_smem &s, const hop_tile &t, uint32_t to, int step,
                                   int last_token)
{
    int row = threadIdx.x / 8, piece = threadIdx.x % 8, column = step * TILE_K + piece * 8;
    uint32_t at = to + row * 128 + ((piece ^ (row & 7)) << 4), bytes = column < a.hidden ? 16 : 0;
    uint4 low = lds_16(s.token + row * 32), high = lds_16(s.token + row * 32 + 16);
    const uint32_t token[ROW_PER_THREAD] = {
        low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w, (uint32_t)last_token
    };
    const void *from[ROW_PER_THREAD];

#pragma unroll
    for (int i = 0; i < ROW_PER_THREAD; i++)
        from[i] = at_token(a, a.gather + column, token[i]);
#pragma unroll
    for (int i = 0; i < ROW_PER_THREAD; i++) // sixteens of rows that do not exist are not copied
        if (i * (N_LOAD_THREAD / 8) < t.n_row)
            cp_async_16(at + i * (N_LOAD_THREAD / 8 * 128), from[i], bytes);
}

template <typename G> __device__ inline void produce_rows(const hop_args &a, const hop_smem &s)
{
    hop_ring ring;
    hop_next<G> next = first_tile<G>(a, s);
    row_tokens ahead = find_tokens(a, next.tile);

    while (next.tile.n_step) {
        hop_tile t = next.tile;
        hop_coordinate c = find_coordinates<G>(a, t, s.rank);
        int n_step = weight_steps<G>(a), last_token = ahead.last;
        put_token(ahead.early, s);
        for (int step = 0; step < n_step; step++, ring.next()) {
            mbar_wait(s.empty(ring.stage), ring.phase ^ 1);
            if (threadIdx.x == 0)
                issue_tma<G>(a, t, c, s, ring.stage, step);
            gather_rows(a, s, t, fit_stage(s, ring.stage) + B_BYTES, step, last_token);
            mbar_arrive_cp_async(s.full(ring.stage));
            if (next.look(a, s, step, n_step))
                ahead = find_tokens(a, next.tile);
        }
        produce_low<G>(a, t, c, s, ring);
    }
    announce_end(s, ring, true);
}
