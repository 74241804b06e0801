/* hopper_producer.cuh: filling the stages, what all products have in common. Part of hopper_gemm.cuh.
 * What is dense comes by TMA from one thread, half of what both blocks of a pair need from each. Gathered rows are copied by four warps
 * with cp.async, 16 bytes each, into the layout that TMA's 128-byte swizzle would give. A stage is full once the copies have landed:
 * their arrival on the barrier follows the write to shared memory, from which the tensor cores read. A proxy fence between the two is
 * left out as in NVIDIA's own cp.async main loops: it comes with a membar that waits for every copy in flight, which made each step as
 * long as a trip to L2 (v4).
 * The next tile, and the row numbers that gathering needs, are loaded while the current tile runs. */

/* First coordinate of an expert's weights: the map counts experts in steps of 16 bytes, so any address will do. */
__device__ inline int expert_coordinate(const hop_args &a, int which, int expert)
{
    return (int)((a.b_offset[which] ? a.b_offset[which][expert] : expert * a.b_stride[which]) / 8);
}

/* DW: where among all tiles; m runs fastest. */
struct dw_place {
    int m, n, expert;
};

__device__ inline dw_place dw_place_of(const hop_args &a, int i)
{
    return { i % a.n_m_pair, i / a.n_m_pair % a.n_n_tile, i / a.n_m_pair / a.n_n_tile };
}

/* Whose tile is which. A pair's first is told by its place in the grid; the rest are drawn, since tiles cost unlike (an expert's
 * last rows less) and no pair should be left with the dear ones; nor run ahead of the others, who then find in L2 no longer what
 * both read. The first block's first thread draws as a tile begins and tells both blocks two steps later, for what it drew takes
 * as long as a load. Who has a tile changes nothing in it. */
struct hop_draw {
    int n, mine; // taken so far; drawn by this thread

    /* n_round: rounds of tiles before those that are drawn. What DW draws comes as a place, so that one thread divides for all. */
    template <typename G> __device__ void draw(const hop_args &a, const hop_smem &s, int step, int last, int n_round)
    {
        if (threadIdx.x)
            return;
        if (step == 0)
            mbar_expect(s.drawn_bar(n), 16);
        if (step == 0 && s.rank == 0)
            mine = atomicAdd(a.next_tile, 1);
        if (step == min(2, last) && s.rank == 0) {
            int i = mine + n_round * ((int)gridDim.x / 2);
            dw_place p = G::op == HOP_DW ? dw_place_of(a, i) : dw_place{};
            for (int rank = 0; rank < 2; rank++)
                st_async_16(in_block(s.drawn(n), rank), make_uint4(i, p.m, p.n, p.expert), in_block(s.drawn_bar(n), rank));
        }
    }

    __device__ uint4 take(const hop_smem &s)
    {
        mbar_wait(s.drawn_bar(n), n / N_DRAWN & 1);
        return lds_16(s.drawn(n++));
    }
};

/* A box by TMA, to this block alone or to both. */
__device__ inline void load_box(bool alone, uint32_t to, const CUtensorMap *map, int x, int y, int z, uint32_t bar)
{
    if (alone)
        tma_load_3d(to, map, x, y, z, bar);
    else
        tma_load_pair(to, map, x, y, z, bar);
}

/* The consumers' sign that no tile follows: a stage without data whose tile has no steps. */
__device__ inline void announce_end(const hop_smem &s, hop_ring &ring, bool gather)
{
    mbar_wait(s.empty(ring.stage), ring.phase ^ 1);
    if (threadIdx.x == 0) {
        mbar_expect(s.full(ring.stage), INFO_BYTES);
        put_tile(s, ring.stage, {});
    }
    if (gather)
        mbar_arrive(s.full(ring.stage));
}

/* A token's row, base being the row of token 0. Token numbers are loaded a step or more before: the multiplication would wait
 * for the load, and with it everything behind it in the producer. */
__device__ inline const void *at_token(const hop_args &a, const bf16 *base, int token)
{
    return row_address(base, (uint32_t)token, a.gather_stride_bytes);
}
