/* portable_host.h: launchers of the portable products, one file each so that they compile apart. */
#ifndef KERNELS_PORTABLE_HOST_H
#define KERNELS_PORTABLE_HOST_H

#include "kernels/cuda_call.h"
#include "kernels/portable_gemm.cuh"

/* max_tile bounds the row tiles of MK_TILE_M that the device will find. */
int por_launch_up(por_args *a, uint32_t dtype, int64_t max_tile, mk_stream stream);
int por_launch_down(por_args *a, uint32_t dtype, int64_t max_tile, mk_stream stream);
int por_launch_dact(por_args *a, uint32_t dtype, int64_t max_tile, mk_stream stream);
int por_launch_dx(por_args *a, uint32_t dtype, int64_t max_tile, mk_stream stream);
int por_launch_dw(por_args *a, bool a_gathered, uint32_t dtype, mk_stream stream);

static inline int por_ceil(int a, int b)
{
    return (a + b - 1) / b;
}

/* Three stages, or two where shared memory is too small: on Ada, whose products take longer than a load. */
static inline int por_count_stages(const mk_device &d)
{
    return d.smem_bytes < POR_SMEM(3) ? 2 : 3;
}

/* Steps of K over all runs. */
static inline int por_count_steps(const por_args *a)
{
    int n = 0;

    for (int i = 0; i < a->n_run; i++)
        n += por_ceil(a->run[i].k, POR_K);
    return n;
}

template <int OP, typename T, bool B_MN, bool GATED>
static inline int por_start(por_args *a, int64_t n_tile, mk_stream stream)
{
    static uint64_t done;
    struct mk_device d = mk_device_now();

    if (!n_tile)
        return MK_OK;
    if (n_tile > INT32_MAX / 2)
        return MK_ESHAPE;
    if (!d.n_sm)
        return MK_ECUDA;
    a->n_stage = por_count_stages(d);
    a->n_step = por_count_steps(a);
    int bytes = POR_SMEM(a->n_stage), rc = mk_allow_smem((const void *)portable_gemm_v3<OP, T, B_MN, GATED>, bytes, &done);
    if (rc)
        return rc;
    return mk_launch(portable_gemm_v3<OP, T, B_MN, GATED>, (unsigned)(n_tile < d.n_sm ? n_tile : d.n_sm), POR_THREAD, bytes,
                     *a, stream);
}

/* By type, and by which dimension of the weights is contiguous; neither: element by element, as K-major. */
template <int OP, bool GATED> static inline int por_pick(por_args *a, uint32_t dtype, int64_t n_tile, mk_stream stream)
{
    const por_weight *w = &a->run[0].w[0];
    bool mn = w->stride_n == 1 && w->stride_k != 1;

    if (dtype == MK_BF16)
        return mn ? por_start<OP, bf16, true, GATED>(a, n_tile, stream)
                  : por_start<OP, bf16, false, GATED>(a, n_tile, stream);
    return mn ? por_start<OP, half, true, GATED>(a, n_tile, stream) : por_start<OP, half, false, GATED>(a, n_tile, stream);
}

/* At most so many tiles of a product over rows. */
static inline int64_t por_row_tiles(const por_args *a, int64_t max_tile)
{
    return max_tile * (MK_TILE_M / POR_M) * a->n_n_tile;
}

#endif
