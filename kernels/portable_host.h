/* portable_host.h: launchers of the portable products, one file each so that they compile apart. */
#ifndef KERNELS_PORTABLE_HOST_H
#define KERNELS_PORTABLE_HOST_H

#include "kernels/cuda_call.h"
#include "kernels/portable_gemm.cuh"

int por_launch_up(por_args *a, uint32_t dtype, int64_t max_tile, mk_stream stream);
int por_launch_down(por_args *a, uint32_t dtype, int64_t max_tile, mk_stream stream);
int por_launch_dact(por_args *a, uint32_t dtype, int64_t max_tile, mk_stream stream);
int por_launch_dx(por_args *a, uint32_t dtype, int64_t max_tile, mk_stream stream);
int por_launch_dw(por_args *a, uint32_t dtype, mk_stream stream);

static inline int por_ceil(int a, int b)
{
    return (a + b - 1) / b;
}

template <int OP, typename T, bool B_MN, bool GATED> static inline int por_start(const por_args *a, int64_t n_block, mk_stream stream)
{
    if (!n_block)
        return MK_OK;
    if (n_block > INT32_MAX)
        return MK_ESHAPE;
    static uint64_t done;
    int rc = mk_allow_smem((const void *)portable_gemm_v1<OP, T, B_MN, GATED>, POR_SMEM, &done);
    if (rc)
        return rc;
    portable_gemm_v1<OP, T, B_MN, GATED><<<(unsigned)n_block, 256, POR_SMEM, stream>>>(*a);
    MK_LAUNCHED();
    return MK_OK;
}

/* By type, and by which dimension of the weights is contiguous; neither: element by element, as K-major. */
template <int OP, bool GATED> static inline int por_pick(const por_args *a, uint32_t dtype, int64_t n_block, mk_stream stream)
{
    const por_weight *w = &a->main.w[OP == POR_UP];
    bool mn = w->stride_n == 1 && w->stride_k != 1;

    if (dtype == MK_BF16)
        return mn ? por_start<OP, bf16, true, GATED>(a, n_block, stream) : por_start<OP, bf16, false, GATED>(a, n_block, stream);
    return mn ? por_start<OP, half, true, GATED>(a, n_block, stream) : por_start<OP, half, false, GATED>(a, n_block, stream);
}

/* Blocks for products over rows: whole groups of row tiles, as por_find counts them. */
static inline int64_t por_blocks(const por_args *a, int64_t max_tile)
{
    int64_t n_m = max_tile * (MK_TILE_M / POR_M), n_group = (n_m + POR_GROUP_M - 1) / POR_GROUP_M;
    return n_group * POR_GROUP_M * a->n_n_tile;
}

#endif
