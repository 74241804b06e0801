/* hopper_dw.cuh: gradients of the weights. Part of hopper_gemm.cuh.
 * K runs over an expert's rows: those of x or dout are gathered, 64 a step, those of dpre or the scaled activation come by TMA.
 * Some pairs of blocks first sum dx's rows: hopper_sum.cuh. */

/* First row of expert e. */
__device__ inline int first_row(const hop_args &a, const hop_smem &s, int e)
{
    return e <= N_OFFSET ? lds_int(s.offset + 4 * e) : a.route.offset[e];
}

__device__ inline hop_tile find_dw_tile(const hop_args &a, const dw_place &p, const hop_smem &s)
{
    hop_tile t = {};
    int n_per_half = a.n_half == 1 ? a.n_n_tile : a.n_n_tile / 2;

    if (p.expert >= a.n_expert)
        return t;
    t.expert = p.expert;
    t.m = (p.m * 2 + s.rank) * HOP_M;
    t.half = p.n >= n_per_half;
    t.n = (p.n - (t.half ? n_per_half : 0)) * TILE_N;
    t.row = first_row(a, s, t.expert);
    t.n_row = first_row(a, s, t.expert + 1) - t.row;
    t.n_step = max(1, steps(t.n_row)); // without rows one step of zeros
    return t;
}

/* Has this tile 128 columns or fewer? Then only the first half of B is loaded and multiplied. */
__device__ inline bool is_narrow(const hop_args &a, const hop_tile &t)
{
    return a.inter - t.n <= TILE_N / 2;
}

/* ---- loads ---- */

/* Warps take turns in what one thread does for a step. */
__device__ inline bool is_turn(int step)
{
    return threadIdx.x == step % (N_LOAD_THREAD / 32) * 32;
}

/* K gather: warp w copies rows of a step that are 2w or 2w + 1 modulo 8, two at a time, 16 lanes each: their places differ by
 * multiples of 1024 bytes, so a lane's swizzle stays the same. Token numbers are loaded for four steps, four steps ahead, and
 * go through shared memory to the lanes that use them. */
struct k_tokens {
    int of[2];
};

__device__ inline k_tokens find_k_tokens(const hop_args &a, const hop_tile &t, int block)
{
    int lane = threadIdx.x % 32,
        row = (block * K_BLOCK + lane / 16) * TILE_K + lane % 8 * 8 + threadIdx.x / 32 * 2 + lane % 16 / 8;
    k_tokens k;

#pragma unroll
    for (int i = 0; i < 2; i++) // past the end: any row of the expert, multiplied with nothing
        k.of[i] = a.route.row_token[t.n_row > 0 ? t.row + min(row + 2 * i * TILE_K, t.n_row - 1) : 0];
    return k;
}

/* A warp's own place for the tokens of four steps: 8 of each lane's half in a row. */
__device__ inline uint32_t token_at(const hop_smem &s, int step)
{
    return s.token + threadIdx.x / 32 * (K_TOKEN_BYTES / 4) + step % K_BLOCK * 64;
}

__device__ inline void put_k_tokens(int even, int odd, const hop_smem &s)
{
    __syncwarp(); // all have read what was there
    sts_int(token_at(s, 0) + threadIdx.x % 32 * 4, even);
    sts_int(token_at(s, 2) + threadIdx.x % 32 * 4, odd);
    __syncwarp();
}

/* n_row: rows of the step that exist. */
template <bool TAIL>
__device__ inline void gather_k(const hop_args &a, const hop_smem &s, int m, int stage, int step, int n_row)
{
    int half = threadIdx.x % 32 / 16, row = threadIdx.x / 32 * 2 + half, piece = threadIdx.x % 16, column = m + piece * 8;
    uint32_t at = s.a(stage) + piece / 8 * 8192 + row * 128 + ((piece % 8 ^ row) << 4);
    uint4 low = lds_16(token_at(s, step) + half * 32), high = lds_16(token_at(s, step) + half * 32 + 16);
    const uint32_t token[8] = { low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w };
    int left = column < a.hidden ? TAIL ? n_row - row : TILE_K : 0;
    const bf16 *from = a.gather + column;

#pragma unroll
    for (int i = 0; i < 8; i++)
        cp_async_16(at + i * 1024, at_token(a, from, token[i]), (TAIL ? 8 * i : 0) < left ? 16 : 0);
}

/* By all threads: the last, partial step of an expert that ends within the first 64 rows of all. */
__device__ inline void copy_k_tail(const hop_args &a, const hop_tile &t, uint32_t to, int step)
{
    int piece = threadIdx.x % 32, column = t.n + piece * 8;
    const bf16 *from = a.k_rows + ((int64_t)t.row * a.n_half + t.half) * a.inter + column;

#pragma unroll 4
    for (int k = threadIdx.x / 32; k < TILE_K; k += N_LOAD_THREAD / 32) {
        int row = step * TILE_K + k;
        bool live = row < t.n_row && column < a.inter;
        cp_async_16(to + piece / 8 * 8192 + k * 128 + ((piece % 8 ^ (k & 7)) << 4),
                    live ? from + (int64_t)row * a.n_half * a.inter : a.k_rows, live ? 16 : 0);
    }
}

/* B: rows past the expert's end must be zero, and the next expert's follow. The map shows each row 64 times, as row z from
 * row w on, z below 64: with w 64 rows before the end, what follows is outside the map. */
__device__ inline void issue_k(const hop_args &a, const hop_tile &t, const hop_smem &s, int stage, int step)
{
    int row = t.row + step * TILE_K, w = min(row, t.row + t.n_row - TILE_K), n = t.n + s.rank * (TILE_N / 2);
    uint32_t bar = s.full(stage), to = s.b(stage) + s.rank * (B_BYTES / 2);
    bool narrow = is_narrow(a, t);

    mbar_expect(bar, (narrow ? B_BYTES / 2 : B_BYTES) + (step ? 0 : INFO_BYTES));
    if (narrow && s.rank)
        return;
#pragma unroll
    for (int i = 0; i < 2; i++)
        tma_load_pair_4d(to + i * 8192, &a.b[0], n + i * 64, t.half, row - w, w, bar);
}

__device__ inline void fill_k_stage(const hop_args &a, const hop_tile &t, const hop_smem &s, int stage, int step)
{
    int left = t.n_row - step * TILE_K;
    bool tail = left < TILE_K, copied = tail && t.row + t.n_row < TILE_K;

    if (is_turn(step)) {
        if (copied)
            mbar_expect(s.full(stage), step ? 0 : INFO_BYTES);
        else
            issue_k(a, t, s, stage, step);
        if (step == 0)
            put_tile(s, stage, t);
    }
    if (copied)
        copy_k_tail(a, t, s.b(stage), step);
    if (tail)
        gather_k<true>(a, s, t.m, stage, step, left);
    else
        gather_k<false>(a, s, t.m, stage, step, left);
    mbar_arrive_cp_async(s.full(stage));
}

__device__ inline void produce_k(const hop_args &a, const hop_smem &s)
{
    hop_ring ring;
    int n_pair = gridDim.x / 2, pair = n_pair - 1 - blockIdx.x / 2; // those that sum come last, where tiles are few
    hop_tile next = find_dw_tile(a, dw_place_of(a, pair), s);
    dw_place after = dw_place_of(a, n_pair + pair); // the tile after it; those that follow are drawn
    hop_draw draws = {};
    k_tokens soon, first = find_k_tokens(a, next, 0); // of the next four steps; of the next tile's first

    while (next.n_step) {
        hop_tile t = next;
        int last = (t.n_step - 1) / K_BLOCK;
        next = find_dw_tile(a, after, s);
        for (int step = 0; step < t.n_step; step++, ring.next()) {
            if (step % K_BLOCK == 0)
                put_k_tokens(step ? soon.of[0] : first.of[0], step ? soon.of[1] : first.of[1], s);
            mbar_wait(s.empty(ring.stage), ring.phase ^ 1);
            fill_k_stage(a, t, s, ring.stage, step);
            draws.draw<hop_gemm<HOP_DW>>(a, s, step, t.n_step - 1, 2);
            if (step == 0)
                first = find_k_tokens(a, next, 0);
            if (step % K_BLOCK == 0 && step / K_BLOCK < last)
                soon = find_k_tokens(a, t, step / K_BLOCK + 1);
        }
        uint4 drawn = draws.take(s);
        after = { (int)drawn.y, (int)drawn.z, (int)drawn.w };
    }
    announce_end(s, ring, true);
}

/* ---- products ---- */

/* Of a stage's four products of 16 k each, those from FROM to TO, of N columns. */
template <int N, int FROM, int TO> __device__ inline void multiply_some(float *acc, uint32_t a, uint32_t b, bool first)
{
#pragma unroll
    for (int k = FROM; k < TO; k++)
        wgmma<N, 1, 1>(acc, operand(a + k * k_bytes<1>() / 16, 1024), operand(b + k * k_bytes<1>() / 16, 1024), !first || k);
    wgmma_commit();
}

/* Of the last step's products but the first those that have rows: n of four have. */
template <int N> __device__ inline void multiply_rest(float *acc, uint32_t a, uint32_t b, bool first, int n)
{
    if (n > 1)
        multiply_some<N, 1, 2>(acc, a, b, first);
    if (n > 2)
        multiply_some<N, 2, 3>(acc, a, b, first);
    if (n > 3)
        multiply_some<N, 3, 4>(acc, a, b, first);
}

/* The products of N columns of one tile. The stage before is handed back as soon as the first product of this one is under way.
 * Between the steps the halves of the tile before are sent, the first at once, the second group's a step after the first's. */
template <int N>
__device__ inline void multiply(float *acc, hop_ring &ring, const hop_args &args, const hop_smem &s, int group,
                                const hop_tile &t, hop_drain &d)
{
    int n_step = t.n_step, last = 0, n_slice = d.left, due = n_step - n_slice * (1 + group);
    uint32_t a_0 = stage_start<1>(s.a(0) + group * 8192), b_0 = stage_start<1>(s.b(0));

    for (int i = 0; i < n_step; i++) {
        uint32_t a = a_0 + ring.stage * (STAGE_BYTES / 16), b = b_0 + ring.stage * (STAGE_BYTES / 16);
        mbar_wait(s.full(ring.stage), ring.phase);
        wgmma_fence();
        multiply_some<N, 0, 1>(acc, a, b, i == 0);
        wgmma_wait<1>();
        if (i)
            release(s, last);
        if (i == n_step - 1)
            multiply_rest<N>(acc, a, b, i == 0, (t.n_row - i * TILE_K + 15) / 16);
        else
            multiply_some<N, 1, 4>(acc, a, b, i == 0);
        last = ring.stage;
        ring.next();
        for (due += n_slice; due >= n_step && d.left > 0; due -= n_step)
            send_slice(d, args, s);
    }
    wgmma_wait<0>();
    release(s, last);
}

/* A tile of N columns, until it waits for its slices. Nothing is shared with another N: ptxas would see an accumulator written
 * within the other's products, and put these in order (C7515). */
template <int N>
__device__ inline void make_tile(float *acc, hop_ring &ring, const hop_args &a, const hop_smem &s, const hop_tile &t,
                                 int group, hop_drain &d)
{
    multiply<N>(acc, ring, a, s, group, t, d);
    send_rest(d, a, s);
    for (int i = N / 2; i < TILE_N / 2; i++)
        acc[i] = 0.f;
    leave_tile(acc, a, s, t, group, d);
}

__device__ inline void consume_k(const hop_args &a, const hop_smem &s)
{
    hop_ring ring;
    hop_drain d = {};
    int group = uniform(threadIdx.x / 128 - 1);
    float acc[TILE_N / 2];

    consume_sums(a, s);
    for (;;) {
        mbar_wait(s.full(ring.stage), ring.phase);
        hop_tile t = get_tile(s, ring.stage);
        if (!t.n_step)
            break;
        if (a.hidden - t.m <= 64 * group)
            skip(ring, s, t.n_step);
        else if (is_narrow(a, t))
            make_tile<TILE_N / 2>(acc, ring, a, s, t, group, d);
        else
            make_tile<TILE_N>(acc, ring, a, s, t, group, d);
    }
    send_rest(d, a, s);
    tma_store_wait();
}
