/* portable_feed.cuh: the tiles of a product, and the copies that bring their operands to shared memory. Part of
 * portable_gemm.cuh.
 * A block feeds its stages across the borders of runs and of tiles: while it multiplies a tile's last steps and writes it
 * out, the next tile's first are on their way. Every thread holds the addresses of its own next pieces. */

/* ---- tiles ---- */

#define POR_AHEAD 16 /* tiles that are looked for at once */

__device__ inline int por_tiles_of(const por_args &a, int e)
{
    return e < a.n_expert ? (a.route.offset[e + 1] - a.route.offset[e] + POR_M - 1) / POR_M : 0;
}

/* first[i]: row tiles of the experts before 2 i; then all. By one warp, a lane a range. */
__device__ inline void por_count_tiles(const por_args &a, int *first)
{
    int n = (a.n_expert + 1) / 2, per_lane = (n + 31) / 32, lane = threadIdx.x % 32, sum = 0;
    int begin = min(lane * per_lane, n), end = min(begin + per_lane, n);

    for (int i = begin; i < end; i++)
        sum += por_tiles_of(a, 2 * i) + por_tiles_of(a, 2 * i + 1);
    int at = sum;
    for (int d = 1; d < 32; d *= 2) {
        int below = __shfl_up_sync(~0u, at, d);
        at += lane >= d ? below : 0;
    }
    at -= sum;
    for (int i = begin; i < end; i++) {
        first[i] = at;
        at += por_tiles_of(a, 2 * i) + por_tiles_of(a, 2 * i + 1);
    }
    if (lane == 31)
        first[n] = at;
}

/* The last i below n with first[i] <= m. */
__device__ inline int por_search(const int *first, int n, int m)
{
    int low = 0;

    while (n - low > 1) {
        int mid = (low + n) / 2;
        if (first[mid] <= m)
            low = mid;
        else
            n = mid;
    }
    return low;
}

/* Row tile m: its expert and rows. */
__device__ inline void por_find_rows(const por_args &a, const int *first, int m, por_tile &t)
{
    int i = por_search(first, (a.n_expert + 1) / 2, m), n = por_tiles_of(a, 2 * i);

    m -= first[i];
    t.expert = 2 * i + (m >= n);
    t.row = a.route.offset[t.expert] + (m >= n ? m - n : m) * POR_M;
    t.n_row = min(POR_M, a.route.offset[t.expert + 1] - t.row);
}

/* Neighbouring tiles run at once: they share an expert's weights, or rows. */
template <int OP> __device__ inline por_tile por_find(const por_args &a, const por_block &b, int i)
{
    por_tile t = {};

    if (OP == POR_DW) {
        int per_expert = a.n_m_tile * a.n_n_tile, n = i % per_expert / a.n_m_tile, n_per_half = a.n_n_tile / a.n_half;
        t.expert = i / per_expert;
        t.m = i % a.n_m_tile * POR_M;
        t.half = n / n_per_half;
        t.n = n % n_per_half * POR_N;
        t.row = a.route.offset[t.expert];
        t.n_row = a.route.offset[t.expert + 1] - t.row;
        return t;
    }
    int group = i / (POR_GROUP_M * a.n_n_tile) * POR_GROUP_M, rest = i % (POR_GROUP_M * a.n_n_tile);
    int in_group = min(POR_GROUP_M, b.first[(a.n_expert + 1) / 2] - group);
    por_find_rows(a, b.first, group + rest % in_group, t);
    t.n = rest / in_group * POR_N;
    return t;
}

template <int OP> __device__ inline int por_tiles(const por_args &a, const int *first)
{
    return OP == POR_DW ? a.n_expert * a.n_m_tile * a.n_n_tile : first[(a.n_expert + 1) / 2] * a.n_n_tile;
}

/* ---- where pieces of 16 bytes lie ---- */

/* Piece c of a row, swizzled so that neither ldmatrix nor the copies meet a bank conflict. K-major: a row is POR_K wide;
 * MN-major: a row is one k. */
template <int ROW_BYTES> __device__ inline uint32_t por_piece(uint32_t tile, int row, int c)
{
    return tile + row * ROW_BYTES + ((c ^ (ROW_BYTES == 64 ? row >> 1 & 3 : row & 7)) << 4);
}

/* A thread copies piece c of rows row, row + STEP, ...: an operand of WIDTH elements a row. */
template <int WIDTH> struct por_share {
    enum { PER_ROW = WIDTH / 8, STEP = POR_THREAD / PER_ROW, STEP_BYTES = STEP * WIDTH * 2 };
    int row, c;

    __device__ inline por_share() : row(threadIdx.x / PER_ROW), c(threadIdx.x % PER_ROW)
    {
    }
    __device__ inline uint32_t at(uint32_t tile) const
    {
        return por_piece<WIDTH * 2>(tile, row, c);
    }
};

/* Operands are K-major, or MN-major: then A is POR_M wide, B POR_N. */
template <int OP> using por_share_a = por_share<OP == POR_DW ? POR_M : POR_K>;
template <bool B_MN> using por_share_b = por_share<B_MN ? POR_N : POR_K>;

/* ---- the feed ---- */

template <typename T> struct por_feed {
    int tile, n_tile, run, left; // tile's number, and how many were before; run of K, steps of it to come
    int k, k_end;                // of the next step; of the run
    por_tile t;
    uint32_t to_a, to_b; // where this thread's first pieces go in a stage
    const T *a[POR_A_COPY],
        *b;                  // this thread's next pieces; B's are evenly spaced. DW: *b of the operand that is not gathered
    int64_t b_apart, b_step; // elements from piece to piece, from a step's last to the next step's first
    int n_live;              // how many of B's exist
    bool any;                // B comes element by element
    int token[POR_A_COPY > POR_B_COPY ? POR_A_COPY : POR_B_COPY]; // DW: of the gathered operand's next rows
};

/* Row n of the B tile in terms of the weights: which one, and which of its rows. UP with a gate: 8 rows of gate, the same 8
 * of up, in turn, so that a thread's products hold both of a column. */
template <int OP, bool GATED> __device__ inline int por_b_row(const por_tile &t, int n, int *which)
{
    bool both = OP == POR_UP && GATED;

    *which = both ? n / 8 % 2 : 0;
    return both ? t.n / 2 + n / 16 * 8 + n % 8 : t.n + n;
}

template <int OP> __device__ inline int por_n_limit(const por_args &a)
{
    return OP == POR_DOWN || OP == POR_DX ? a.hidden : a.inter;
}

__device__ inline int64_t por_expert(const por_weight &w, int expert)
{
    return w.offset ? w.offset[expert] : expert * w.stride_expert;
}

template <int OP, typename T, bool B_MN, bool GATED>
__device__ inline void por_open_b(const por_args &a, const por_run &r, por_feed<T> &f)
{
    por_share_b<B_MN> s;
    int which, row = por_b_row<OP, GATED>(f.t, B_MN ? s.c * 8 : s.row, &which), n_limit = por_n_limit<OP>(a);
    int apart = B_MN ? 0 : OP == POR_UP && GATED ? s.STEP / 2 : s.STEP; // rows of the weight between a thread's pieces
    const por_weight &w = r.w[which];

    f.any = (B_MN ? w.stride_n : w.stride_k) != 1;
    f.b = (const T *)w.base + por_expert(w, f.t.expert) + row * w.stride_n + (B_MN ? s.row : s.c * 8) * w.stride_k;
    f.b_apart = B_MN ? s.STEP * w.stride_k : apart * w.stride_n;
    f.b_step = POR_K * w.stride_k - POR_B_COPY * f.b_apart;
    f.n_live = row >= n_limit ? 0 : B_MN ? POR_B_COPY : (n_limit - row + apart - 1) / apart;
}

/* Rows of A beyond the tile's last are copies of it: their results go nowhere. */
template <int OP, typename T, bool B_MN, bool GATED> __device__ inline void por_open_run(const por_args &a, por_feed<T> &f)
{
    const por_run &r = a.run[f.run];
    por_share_a<OP> s;

#pragma unroll
    for (int i = 0; i < POR_A_COPY; i++) {
        int at = f.t.row + min(s.row + i * s.STEP, f.t.n_row - 1);
        f.a[i] = (const T *)r.rows + (r.gathered ? a.route.row_token[at] : at) * r.rows_stride + s.c * 8;
    }
    por_open_b<OP, T, B_MN, GATED>(a, r, f);
    f.k_end = r.k;
}

/* DW: the tokens of this thread's rows of the gathered operand, a step before they are needed. */
template <typename T, bool A_GATHERED> __device__ inline void por_read_tokens(const por_args &a, por_feed<T> &f)
{
    por_share<A_GATHERED ? POR_M : POR_N> s;

#pragma unroll
    for (int i = 0; i < (A_GATHERED ? POR_A_COPY : POR_B_COPY); i++)
        f.token[i] = a.route.row_token[f.t.row + min(f.k + s.row + i * s.STEP, f.t.n_row - 1)];
}

template <typename T, bool A_GATHERED> __device__ inline void por_open_dw(const por_args &a, por_feed<T> &f)
{
    por_share<POR_M> sa;
    por_share<POR_N> sb;
    const por_side &dense = a.side[A_GATHERED];
    int row = f.t.row + (A_GATHERED ? sb.row : sa.row), column = A_GATHERED ? f.t.n + sb.c * 8 : f.t.m + sa.c * 8;

    f.k_end = f.t.n_row;
    f.b = (const T *)dense.rows + row * dense.stride + f.t.half * dense.half + column;
    if (f.t.n_row)
        por_read_tokens<T, A_GATHERED>(a, f);
}

/* The feed's tile. Of products over rows by looking for several at once, a lane each: one alone would take longer than a
 * step. Those that are being multiplied are among those before. */
template <int OP, typename T> __device__ inline por_tile por_next_tile(const por_args &a, const por_block &b, por_feed<T> &f)
{
    int at = f.n_tile++ % (2 * POR_AHEAD), i = f.tile + threadIdx.x * gridDim.x;

    if (OP == POR_DW)
        return por_find<OP>(a, b, f.tile);
    if (at % POR_AHEAD == 0) {
        if (threadIdx.x < POR_AHEAD && i < b.n_tile)
            b.tile[at + threadIdx.x] = por_find<OP>(a, b, i);
        __syncthreads();
    }
    return b.tile[at];
}

/* The block's n-th tile, number i. */
template <int OP> __device__ inline por_tile por_tile_of(const por_args &a, const por_block &b, int i, int n)
{
    return OP == POR_DW ? por_find<OP>(a, b, i) : b.tile[n % (2 * POR_AHEAD)];
}

__device__ inline int por_dw_steps(const por_args &a, const por_block &b, int i)
{
    return (por_find<POR_DW>(a, b, i).n_row + POR_K - 1) / POR_K;
}

/* To the next run that has steps, of this tile or a later one; after the last, to none. */
template <int OP, typename T, bool B_MN, bool GATED>
__device__ inline void por_open_next(const por_args &a, const por_block &b, por_feed<T> &f)
{
    while (!f.left && f.tile < b.n_tile) {
        if (++f.run >= a.n_run) {
            f.run = 0;
            f.tile += gridDim.x;
            if (f.tile >= b.n_tile) {
                f.any = false;
                f.k = f.k_end; // nothing is read any more
                return;
            }
            f.t = por_next_tile<OP, T>(a, b, f);
        }
        f.k = 0;
        if (OP == POR_DW)
            por_open_dw<T, GATED>(a, f);
        else
            por_open_run<OP, T, B_MN, GATED>(a, f);
        f.left = (f.k_end + POR_K - 1) / POR_K;
    }
}

/* Before the first run. */
template <int OP, typename T, bool B_MN> __device__ inline void por_begin(const por_args &a, por_feed<T> &f)
{
    f.tile = (int)blockIdx.x - (int)gridDim.x;
    f.run = a.n_run;
    f.n_tile = f.left = f.k = f.k_end = 0;
    f.any = false;
    f.to_a = por_share_a<OP>().at(0);
    f.to_b = por_share_b<B_MN>().at(POR_A_BYTES);
    por_keep(f.to_a);
    por_keep(f.to_b);
}

/* Element by element, from any strides. */
template <int OP, typename T, bool B_MN, bool GATED>
__device__ inline void por_load_b_any(const por_args &a, const por_feed<T> &f, uint8_t *tile)
{
    const por_run &r = a.run[f.run];

#pragma unroll 1
    for (int i = threadIdx.x; i < POR_N * POR_K; i += POR_THREAD) {
        int n = i / POR_K, kr = i % POR_K, k = f.k + kr, which, row = por_b_row<OP, GATED>(f.t, n, &which);
        const por_weight &w = r.w[which];
        bool live = row < por_n_limit<OP>(a) && k < r.k;
        uint32_t at =
            B_MN ? por_piece<POR_N * 2>(0, kr, n / 8) + n % 8 * 2 : por_piece<POR_K * 2>(0, n, kr / 8) + kr % 8 * 2;
        *(T *)(tile + at) =
            live ? ((const T *)w.base)[por_expert(w, f.t.expert) + row * w.stride_n + k * w.stride_k] : from_float<T>(0.f);
    }
}

/* A step's copies come in POR_PART parts, which the products are put between: A's, and B's in two. */
#define POR_PART 3

template <int OP, typename T> __device__ inline void por_load_a(por_feed<T> &f, uint32_t stage)
{
    por_share_a<OP> s;

#pragma unroll
    for (int i = 0; i < POR_A_COPY; i++)
        por_copy(stage + f.to_a + i * s.STEP_BYTES, f.a[i], f.k + s.c * 8 < f.k_end);
}

template <typename T, bool B_MN> __device__ inline void por_load_b(por_feed<T> &f, uint32_t stage, int part)
{
    por_share_b<B_MN> s;

#pragma unroll
    for (int i = (part - 1) * POR_B_COPY / 2; i < part * POR_B_COPY / 2; i++) {
        por_copy(stage + f.to_b + i * s.STEP_BYTES, f.b,
                 i < f.n_live && f.k + (B_MN ? s.row + i * s.STEP : s.c * 8) < f.k_end);
        f.b += f.b_apart;
    }
}

/* DW: pieces from on of N. */
template <typename T, int N, typename SHARE>
__device__ inline void por_load_gathered(const por_side &side, const por_feed<T> &f, const SHARE &s, uint32_t to, int column,
                                         int from)
{
#pragma unroll
    for (int i = from; i < from + N; i++)
        por_copy(to + i * s.STEP_BYTES, (const T *)side.rows + f.token[i] * side.stride + column,
                 column < side.width && f.k + s.row + i * s.STEP < f.k_end);
}

template <typename T, int N, typename SHARE>
__device__ inline void por_load_dense(const por_side &side, por_feed<T> &f, const SHARE &s, uint32_t to, int column,
                                      int from)
{
#pragma unroll
    for (int i = from; i < from + N; i++) {
        por_copy(to + i * s.STEP_BYTES, f.b, column < side.width && f.k + s.row + i * s.STEP < f.k_end);
        f.b += s.STEP * side.stride;
    }
}

template <typename T, bool A_GATHERED>
__device__ inline void por_load_dw(const por_args &a, por_feed<T> &f, uint32_t stage, int part)
{
    por_share<POR_M> sa;
    por_share<POR_N> sb;
    int m = f.t.m + sa.c * 8, n = f.t.n + sb.c * 8, from = (part - 1) * POR_B_COPY / 2;

    if (part == 0 && A_GATHERED)
        por_load_gathered<T, POR_A_COPY>(a.side[0], f, sa, stage + f.to_a, m, 0);
    else if (part == 0)
        por_load_dense<T, POR_A_COPY>(a.side[0], f, sa, stage + f.to_a, m, 0);
    else if (A_GATHERED)
        por_load_dense<T, POR_B_COPY / 2>(a.side[1], f, sb, stage + f.to_b, n, from);
    else
        por_load_gathered<T, POR_B_COPY / 2>(a.side[1], f, sb, stage + f.to_b, n, from);
}

/* A part of a step's copies. No branches but where B comes element by element, so that they go between the products. */
template <int OP, typename T, bool B_MN, bool GATED, bool ANY>
__device__ inline void por_load(const por_args &a, const por_block &b, por_feed<T> &f, uint32_t stage, int part)
{
    uint32_t to = por_smem(b.smem) + stage;

    if (OP == POR_DW)
        por_load_dw<T, GATED>(a, f, to, part);
    else if (part == 0)
        por_load_a<OP>(f, to);
    else if (!ANY)
        por_load_b<T, B_MN>(f, to, part);
    else if (part == 1)
        por_load_b_any<OP, T, B_MN, GATED>(a, f, b.smem + stage + POR_A_BYTES);
}

/* After a step's last part. */
template <int OP, typename T, bool GATED> __device__ inline void por_advance(const por_args &a, por_feed<T> &f)
{
    por_commit();
    f.k += POR_K;
    if (OP == POR_DW) {
        por_read_tokens<T, GATED>(a, f);
        return;
    }
    f.b += f.b_step;
#pragma unroll
    for (int i = 0; i < POR_A_COPY; i++)
        f.a[i] += POR_K;
}

/* A whole step, or an empty group after the last. */
template <int OP, typename T, bool B_MN, bool GATED, bool ANY>
__device__ inline void por_load_step(const por_args &a, const por_block &b, por_feed<T> &f, uint32_t stage)
{
    if (!f.left) {
        por_commit();
        return;
    }
#pragma unroll
    for (int part = 0; part < POR_PART; part++)
        por_load<OP, T, B_MN, GATED, ANY>(a, b, f, stage, part);
    por_advance<OP, T, GATED>(a, f);
    f.left--;
}

/* The stages that are filled before the first step. */
template <int OP, typename T, bool B_MN, bool GATED>
__device__ inline void por_fill(const por_args &a, const por_block &b, por_feed<T> &f)
{
#pragma unroll 1
    for (int s = 0; s < a.n_stage - 1; s++) {
        por_open_next<OP, T, B_MN, GATED>(a, b, f);
        if (f.any)
            por_load_step<OP, T, B_MN, GATED, true>(a, b, f, s * POR_STAGE_BYTES);
        else
            por_load_step<OP, T, B_MN, GATED, false>(a, b, f, s * POR_STAGE_BYTES);
    }
}
