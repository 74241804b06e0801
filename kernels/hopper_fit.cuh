/* hopper_fit.cuh: products over rows, UP, DOWN, DACT and DX, with tiles that fit them: tiles and TMA's loads. Part of hopper_gemm.cuh.
 *
 * The operands change places: columns of the weights are M of the product, the rows are N, so that a tile has as many as there are,
 * in eights. With rows as M they come by 64 a consumer, and an expert of 257 rows pays for another pair tile, whose weights come
 * from L2 once more. The two blocks of a pair share a tile of up to 288 rows and 256 columns (UP: 128 of gate and of up) in one of
 * two ways:
 *
 *   DOWN, DX: up to 256 rows   each block has all rows and 128 columns, a consumer 64; a block loads half of the rows, for both
 *   more, and UP and DACT      each block has half of the rows and all columns, a consumer 128; a block loads half of the weights,
 *                              for both
 *
 * The second reads more shared memory: a product has at most 256 rows, and twice as many products read the weights. But what is
 * gathered, a block can load for itself alone. */

/* ---- tiles ---- */

/* What memory says of tile i: an entry of the tile list, one of the expert's. A place that depends on the thread, by a zero,
 * keeps it out of uniform registers, where the load would be waited for at once. */
__device__ inline int4 peek_tile(const hop_args &a, int i, int n_tile)
{
    const int4 *tile = (const int4 *)a.route.fit_tile;
    return i < n_tile ? tile[i / a.n_n_tile + threadIdx.x / N_LOAD_THREAD] : make_int4(0, 0, 0, 0);
}

/* A row tile of an expert and a column tile. */
struct row_column {
    int row, column;
};

/* Tile i of an expert's with n_row_tile rows of tiles: ROW_GROUP of them at most, in shares as equal as can be, with all their
 * columns before the next are begun. No group spans two experts: it would read the weights of both. 66 pairs that take as many
 * rows as columns read least from memory at once; more rows read weights fewer times, but what is in use outgrows L2 (Mixtral,
 * T = 32768: up 1.04 with 17, 1.01 with 11 and 4). */
__device__ inline row_column order(const hop_args &a, int i, int n_row_tile)
{
    int n_group = (n_row_tile + ROW_GROUP - 1) / ROW_GROUP, share = (n_row_tile + n_group - 1) / n_group;
    int first = i / (share * a.n_n_tile) * share, n_row = min(share, n_row_tile - first);

    i -= first * a.n_n_tile;
    return { first + i % n_row, i / n_row };
}

/* K steps of the weights; the adapter's follow. */
template <typename G> __device__ inline int weight_steps(const hop_args &a)
{
    return G::op == HOP_DX ? a.n_half * steps(a.inter) : steps(G::op == HOP_DOWN ? a.inter : a.hidden);
}

/* Tile i of the list whose tiles share an expert's rows: as evenly as can be, by sixteens. */
template <typename G>
__device__ __forceinline__ hop_tile find_fit_tile(const hop_args &a, int i, int n_tile, const hop_smem &s, int4 seen)
{
    hop_tile t = {};

    if (i >= n_tile)
        return t;
    if (G::gather) { // by whole warps: what the copies do not need stays out of their registers
        seen.x = uniform(seen.x);
        seen.y = uniform(seen.y);
        seen.z = uniform(seen.z);
    }
    int all = seen.z - seen.y, n_row_tile = (all + MK_FIT_M - 1) / MK_FIT_M,
        share = ((all + n_row_tile - 1) / n_row_tile + 15) & ~15;
    row_column at = order(a, i - (i / a.n_n_tile - seen.w) * a.n_n_tile, n_row_tile);
    if (G::gather) {
        at.row = uniform(at.row);
        at.column = uniform(at.column);
    }
    int row = seen.y + at.row * share, n_row = min(share, seen.z - row), half = (n_row + 1) / 2;
    t.expert = seen.x;
    t.m = G::gather || n_row > FIT_SHARED;
    t.row = row + (t.m ? s.rank * half : 0);
    t.n_row = !t.m ? n_row : s.rank ? n_row - half : half;
    t.n = at.column * (G::op == HOP_UP ? TILE_N / 2 : TILE_N) +
          (t.m ? 0 : s.rank * (TILE_N / 2)); // UP: half are gate's, half up's
    t.n_step = weight_steps<G>(a) + steps(a.low);
    return t;
}

/* The step at which the next tile is looked at, having been loaded in the first: loads return in order behind the gather's,
 * which take long. The last step but one at the latest, which asks for the next tile's first rows. */
__device__ inline int look_step(int n_step)
{
    return max(0, min(8, n_step - 2));
}

/* The tile after the current one. */
template <typename G> struct hop_next {
    int i, n_tile;
    hop_draw draws;
    int4 seen;
    hop_tile tile;

    __device__ bool look(const hop_args &a, const hop_smem &s, int step, int n_step)
    {
        int last = look_step(n_step);

        draws.draw<G>(a, s, step, last, 1);
        if (step == min(4, last))
            seen = peek_tile(a, i = draws.take(s).x, n_tile);
        if (step != last)
            return false;
        tile = find_fit_tile<G>(a, i, n_tile, s, seen);
        return true;
    }
};

template <typename G> __device__ inline hop_next<G> first_tile(const hop_args &a, const hop_smem &s)
{
    hop_next<G> n;

    n.i = blockIdx.x / 2;
    n.draws = {};
    n.n_tile = a.route.n_tile[1] * a.n_n_tile;
    n.seen = peek_tile(a, n.i, n.n_tile);
    n.tile = find_fit_tile<G>(a, n.i, n.n_tile, s, n.seen);
    return n;
}

/* Coordinates of a tile's weights, found once a tile. */
struct hop_coordinate {
    int y[2], low; // low: of the packed adapter
};

template <typename G> __device__ inline hop_coordinate find_coordinates(const hop_args &a, const hop_tile &t, int rank)
{
    hop_coordinate c;

    c.low = a.low ? expert_coordinate(a, G::op == HOP_UP ? 2 + rank : 2, t.expert) : 0;
    if (G::op == HOP_UP && !G::alternating) { // one block loads gate rows, the other up rows
        c.y[0] = c.y[1] = expert_coordinate(a, rank, t.expert);
    } else {
        c.y[0] = expert_coordinate(a, 0, t.expert);
        c.y[1] = G::op == HOP_DX ? expert_coordinate(a, 1, t.expert) : 0;
    }
    return c;
}

/* First row of this block's half of B: half of the tile's, but where gate and up each have half of it. */
template <typename G> __device__ inline int first_b(const hop_tile &t, int rank)
{
    if (G::op == HOP_UP && !G::alternating)
        return t.n;
    return (G::op == HOP_UP ? 2 * t.n : t.n) + rank * (TILE_N / 2);
}

/* Half of B, this block's by its rank: columns k of the rows that y says, in map which. */
template <typename G>
__device__ inline void load_b(const CUtensorMap *map, const hop_tile &t, uint32_t to, uint32_t bar, int k, int y, int rank,
                              bool alone)
{
    int n = first_b<G>(t, rank);

    to += rank * (B_BYTES / 2);
    if (!G::b_mn) {
        load_box(alone, to, map, k, y, n, bar);
    } else {
#pragma unroll
        for (int i = 0; i < 2; i++)
            load_box(alone, to + i * 8192, map, n + i * 64, y, k, bar);
    }
}

/* ---- loads ---- */

__device__ __forceinline__ uint32_t fit_stage(const hop_smem &s, int stage)
{
    return s.stage + stage * FIT_STAGE_BYTES;
}

/* Rows of a tile that a block loads for both, the first block's first. */
__device__ __forceinline__ int fit_shared_half(int n_row)
{
    return (n_row / 2 + 15) / 16 * 16;
}

/* Loads of up to 144 rows fit them by sixteens. */
__device__ __forceinline__ int fit_bytes(int n_row)
{
    return (n_row + 15) / 16 * (16 * TILE_K * 2);
}

/* Rows from to end of a tile by one TMA. */
__device__ __forceinline__ void load_fit_rows(const CUtensorMap *maps, const hop_tile &t, uint32_t to, uint32_t bar, int k,
                                              int half, int from, int end)
{
    if (from < end)
        load_box(t.m, to + from * 128, maps + (end - from - 1) / 16, k, half, t.row + from, bar);
}

/* The same of an adapter's, 64 a load and the last by 16. */
__device__ __forceinline__ void load_fit_low(const hop_args &a, const hop_tile &t, uint32_t to, uint32_t bar, int k,
                                             int from, int end)
{
    for (; from < end; from += from + 48 < end ? 64 : 16)
        load_box(t.m, to + from * 128, from + 48 < end ? &a.low_a : &a.low_few, k, 0, t.row + from, bar);
}

/* What comes to this block in a step: rows, and weights. */
__device__ __forceinline__ int fit_step_bytes(const hop_args &a, const hop_tile &t)
{
    if (t.m)
        return fit_bytes(t.n_row) + (a.hidden - t.n > TILE_N / 2 ? B_BYTES : B_BYTES / 2);
    return fit_bytes(t.n_row) + (a.hidden > t.n ? B_BYTES / 2 : 0);
}

/* By one thread: tells the consumers of a new tile, arms the stage's barrier, loads. low: a step of the adapter's. */
template <typename G>
__device__ __forceinline__ void issue_fit(const hop_args &a, const hop_tile &t, const hop_coordinate &c, const hop_smem &s,
                                          int stage, int step, bool low)
{
    uint32_t bar = s.full(stage), weights = fit_stage(s, stage), rows = weights + (t.m ? B_BYTES : B_BYTES / 2);
    int second = G::op == HOP_DX && !low && step >= steps(a.inter), k = (step - (second ? steps(a.inter) : 0)) * TILE_K;
    int y = low ? c.low : second ? c.y[1] : c.y[0], half = fit_shared_half(t.n_row);
    bool begins = step == 0 && !low;
    const CUtensorMap *map = &a.b[low ? 2 : second];

    mbar_expect(bar, fit_step_bytes(a, t) + (begins ? INFO_BYTES : 0));
    if (begins)
        put_tile(s, stage, t);
    int from = !t.m && s.rank ? half : 0, end = t.m || s.rank ? t.n_row : min(half, t.n_row);
    if (low)
        load_fit_low(a, t, rows, bar, k, from, end);
    else
        load_fit_rows(a.rows, t, rows, bar, k, second, from, end);
    if (t.m) {
        if (!(a.hidden - t.n <= TILE_N / 2 && s.rank))
            load_b<G>(map, t, weights, bar, k, y, s.rank, false);
    } else if (a.hidden > t.n) {
        load_b<G>(map, t, weights, bar, k, y, 0, true);
    }
}

template <typename G> __device__ __forceinline__ void fit_produce(const hop_args &a, const hop_smem &s)
{
    hop_ring ring;
    hop_next<G> next = first_tile<G>(a, s);

    while (next.tile.n_step) {
        hop_tile t = next.tile;
        hop_coordinate c = find_coordinates<G>(a, t, s.rank);
        int n_step = weight_steps<G>(a);
        for (int step = 0; step < n_step; step++, ring.next()) {
            mbar_wait(s.empty(ring.stage), ring.phase ^ 1);
            issue_fit<G>(a, t, c, s, ring.stage, step, false);
            next.look(a, s, step, n_step);
        }
        for (int step = 0; step < steps(a.low); step++, ring.next()) {
            mbar_wait(s.empty(ring.stage), ring.phase ^ 1);
            issue_fit<G>(a, t, c, s, ring.stage, step, true);
        }
    }
    announce_end(s, ring, false);
}
