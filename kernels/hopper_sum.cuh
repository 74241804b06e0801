/* hopper_sum.cuh: sums of dx's rows, beside a gradient of the weights. Part of hopper_gemm.cuh.
 * Sums wait for memory, products for the tensor cores; as a launch of their own the sums took all multiprocessors and 1 to 5 % of both
 * passes. So some pairs of DW begin with the sums, while the others draw products, and draw the rest with them. Rows come into the
 * stages by bulk copies, some 100 KB under way in a block, and the consumers add them up, in fp32 and in the order of k, as combine.cu
 * does. By loads to registers they gained nothing.
 *
 * A unit is a token's piece of SUM_COLUMNS columns at most, in steps of as many of its rows as a stage holds. Units behind the last
 * are SUM_CHOICE choices each, whose scores' gradients are summed. */

/* A checker of races does not know that an mbarrier lets a stage be filled again; for it alone (MK_FLAG_CHECKED) a barrier of
 * threads says so too, which costs what the sums win. */
static_assert(N_STAGE == 4, "barriers 3 to 6: 1 and 2 are the consumer groups'");
__device__ inline int sum_read(int stage)
{
    return 3 + stage;
}

/* Steps of this block, as many as of the other in its pair; after them the ring is where it began. */
__device__ inline int sum_steps(const hop_sum &m)
{
    return (int)blockIdx.x < 2 * m.n_pair ? (m.n_round * m.n_unit_step + 2 * N_STAGE - 1) / (2 * N_STAGE) * (2 * N_STAGE) : 0;
}

/* What a step sums. n_column 0: no rows, perhaps scores. */
struct sum_step {
    int unit, token, column, n_column; // the piece
    int k;                             // the first choice of the step
};

__device__ inline sum_step find_sum(const hop_sum &m, int step)
{
    int round = step / m.n_unit_step, unit = round * 2 * m.n_pair + (int)blockIdx.x,
        token = unit / m.n_piece, column = (unit - token * m.n_piece) * m.piece;

    return { unit, token, column, token < m.rows.n_token ? min(m.piece, m.rows.hidden - column) : 0,
             (step - round * m.n_unit_step) * m.n_step_row };
}

/* ---- loads ---- */

/* The row of a lane's choice in a step; -1: none. */
__device__ inline int find_sum_row(const hop_sum &m, int step)
{
    sum_step at = find_sum(m, step);
    int lane = threadIdx.x % 32, k = at.k + lane;

    if (!at.n_column || lane >= m.n_step_row || k >= m.rows.top_k)
        return -1;
    return m.rows.choice_row[(int64_t)at.token * m.rows.top_k + k];
}

/* By a warp: a step's rows, those that were dropped left out, and how many they are. */
__device__ inline void issue_sum(const hop_sum &m, const hop_smem &s, int stage, int step, int row)
{
    sum_step at = find_sum(m, step);
    uint32_t live = __ballot_sync(~0u, row >= 0), bytes = (uint32_t)at.n_column * 2, lane = threadIdx.x % 32;
    hop_tile told = {};

    told.n_row = __popc(live);
    if (lane == 0) {
        mbar_expect(s.full(stage), told.n_row * bytes + INFO_BYTES);
        put_tile(s, stage, told);
    }
    __syncwarp();
    if (row >= 0)
        bulk_load(s.a(stage) + __popc(live & ((1u << lane) - 1)) * bytes,
                  (const bf16 *)m.rows.row_value + (int64_t)row * m.rows.hidden + at.column, bytes, s.full(stage));
}

/* Warps take turns; each asks for its next rows' numbers as it has sent for these. Of a warp that ptxas does not know to be the same
 * in all lanes it concludes that what follows diverges, and takes the gather's copies apart. */
__device__ inline void produce_sums(const hop_args &a, const hop_smem &s)
{
    hop_ring ring;
    int warp = uniform(threadIdx.x / 32), n_warp = N_LOAD_THREAD / 32, n_step = sum_steps(a.sum), row;

    if (!n_step)
        return;
    wait_for_last(); // which makes the rows
    row = find_sum_row(a.sum, warp);
    for (int step = 0; step < n_step; step++, ring.next()) {
        mbar_wait(s.empty(ring.stage), ring.phase ^ 1);
        if (a.sum.checked && step >= N_STAGE)
            named_barrier(sum_read(ring.stage), N_THREAD);
        if (step % n_warp == warp) {
            issue_sum(a.sum, s, ring.stage, step, row);
            row = find_sum_row(a.sum, step + n_warp);
        }
        mbar_arrive(s.full(ring.stage));
    }
}

/* ---- sums ---- */

__device__ inline void add_sum_rows(float *sum, uint32_t from, int n_row, uint32_t row_bytes)
{
#pragma unroll 4
    for (int i = 0; i < n_row; i++, from += row_bytes)
        add_eight<bf16>(sum, lds_16(from), 1.f);
}

__device__ inline void put_sum(const hop_sum &m, const sum_step &at, const float *sum, int column)
{
    stg_16((bf16 *)m.rows.out + at.token * m.rows.out_stride + at.column + column, round_eight<bf16>(sum));
}

__device__ inline void sum_score(const mk_dscore_args &a, int choice)
{
    if (choice >= a.n_choice)
        return; // guard
    float sum = add_parts(a, a.choice_row[choice], 0.f);
    store_any(a.dscore, a.score_dtype, choice / a.top_k * a.dscore_stride + choice % a.top_k, sum);
}

__device__ inline void consume_sums(const hop_args &a, const hop_smem &s)
{
    hop_ring ring;
    int thread = threadIdx.x - N_LOAD_THREAD, column = thread * 8, n_step = sum_steps(a.sum);
    float sum[8] = {};

    for (int step = 0; step < n_step; step++, ring.next()) {
        sum_step at = find_sum(a.sum, step);
        mbar_wait(s.full(ring.stage), ring.phase);
        int n_row = get_tile(s, ring.stage).n_row;
        if (column < at.n_column)
            add_sum_rows(sum, s.a(ring.stage) + column * 2, n_row, (uint32_t)at.n_column * 2);
        if (a.sum.checked && step + N_STAGE < n_step)
            named_arrive(sum_read(ring.stage), N_THREAD);
        __syncwarp();
        release(s, ring.stage);
        if (at.k + a.sum.n_step_row < a.sum.rows.top_k)
            continue;
        if (column < at.n_column)
            put_sum(a.sum, at, sum, column);
        else if (at.unit >= a.sum.n_unit)
            sum_score(a.sum.score, (at.unit - a.sum.n_unit) * SUM_CHOICE + thread);
        for (int i = 0; i < 8; i++)
            sum[i] = 0.f;
    }
}
