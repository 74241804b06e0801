/* portable_grad.cu: dout times down with the activation's derivative, and the gradients of the weights. */
#include "kernels/portable_host.h"

int por_launch_dact(por_args *a, uint32_t dtype, int64_t max_tile, mk_stream stream)
{
    a->n_n_tile = por_ceil(a->inter, POR_N);
    if (a->n_half == 2)
        return por_pick<POR_DACT, true>(a, dtype, por_row_tiles(a, max_tile), stream);
    return por_pick<POR_DACT, false>(a, dtype, por_row_tiles(a, max_tile), stream);
}

template <bool A_GATHERED> static int start_dw(por_args *a, uint32_t dtype, mk_stream stream)
{
    int64_t n_tile = (int64_t)a->n_expert * a->n_m_tile * a->n_n_tile;

    if (dtype == MK_BF16)
        return por_start<POR_DW, bf16, true, A_GATHERED>(a, n_tile, stream);
    return por_start<POR_DW, half, true, A_GATHERED>(a, n_tile, stream);
}

int por_launch_dw(por_args *a, bool a_gathered, uint32_t dtype, mk_stream stream)
{
    a->n_run = 1;
    a->n_m_tile = por_ceil(a->side[0].width, POR_M);
    a->n_n_tile = por_ceil(a->side[1].width, POR_N) * a->n_half;
    return a_gathered ? start_dw<true>(a, dtype, stream) : start_dw<false>(a, dtype, stream);
}
