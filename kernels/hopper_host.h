/* hopper_host.h: host side of the Hopper path: tensor maps and launchers. For the hopper_*.cu files only. */
#ifndef KERNELS_HOPPER_HOST_H
#define KERNELS_HOPPER_HOST_H

#include "kernels/cuda_call.h"
#include "kernels/hopper_gemm.cuh"

/* A map over one matrix an expert: x along the contiguous dimension, y the expert's offset in steps of 16 bytes, z the
 * other dimension. A box is 64 x 1 x n_box. */
int hop_map_weight(CUtensorMap *out, const mk_matrix *m, int n_expert, int n_contiguous, int64_t stride, int n_other,
                   int n_box);

/* A map over rows (R, n_half, I): x column, y half, z row; a box is 64 x 1 x n_box. */
int hop_map_rows(CUtensorMap *out, const void *base, int n_column, int n_half, int64_t n_row, int n_box);

/* The same rows, z of 64 from row w on, so that a box may end where an expert's rows do: what follows is zero. */
int hop_map_k_rows(CUtensorMap *out, const void *base, int n_column, int n_half, int64_t n_row);

/* Launchers: a is filled but for the counts of tiles. max_tile bounds the tiles the device will find. weights: of the matrix
 * that is read; for DACT alternating says how its result lies, beside a transposed one. */
int hop_launch_up(hop_args *a, hop_weights weights, int64_t max_tile, mk_stream stream);
int hop_launch_down(hop_args *a, hop_weights weights, int64_t max_tile, mk_stream stream);
int hop_launch_dact(hop_args *a, hop_weights weights, int64_t max_tile, mk_stream stream);
int hop_launch_dx(hop_args *a, hop_weights weights, int64_t max_tile, mk_stream stream);
int hop_launch_dw(hop_args *a, mk_stream stream);

static inline int hop_ceil(int a, int b)
{
    return (a + b - 1) / b;
}

/* Blocks: one a multiprocessor, in pairs, no more than there are pair tiles. */
static inline int hop_grid(int *n_block, int64_t n_pair)
{
    int n_sm = mk_device_now().n_sm;

    if (!n_sm)
        return MK_ECUDA;
    n_sm = n_sm < MK_MAX_BLOCK ? n_sm : MK_MAX_BLOCK;
    *n_block = (int)(n_pair < n_sm / 2 ? n_pair : n_sm / 2) * 2;
    return MK_OK;
}

template <typename G> static inline int hop_launch(const hop_args *a, int64_t n_tile, mk_stream stream)
{
    static uint64_t allowed; // a bit a device
    int n_block, rc = hop_grid(&n_block, n_tile), bytes = G::smem_bytes;

    if (rc || !n_block)
        return rc;
    if ((rc = mk_allow_smem((const void *)HOP_KERNEL<G>, bytes, &allowed)))
        return rc;
    cudaLaunchAttribute early = mk_early();
    return mk_launch(HOP_KERNEL<G>, n_block, N_THREAD, bytes, *a, stream, a->early ? &early : NULL);
}

#endif
