/* portable_grad.cu: dout times down with the activation's derivative, and the gradients of the weights. */
#include "kernels/portable_host.h"

int por_launch_dact(por_args *a, uint32_t dtype, int64_t max_tile, mk_stream stream)
{
    a->n_n_tile = por_ceil(a->inter, POR_N);
    if (a->n_half == 2)
        return por_pick<POR_DACT, true>(a, dtype, por_blocks(a, max_tile), stream);
    return por_pick<POR_DACT, false>(a, dtype, por_blocks(a, max_tile), stream);
}

int por_launch_dw(por_args *a, uint32_t dtype, mk_stream stream)
{
    a->n_n_tile = por_ceil(a->inter, POR_N) * a->n_half;
    a->n_m_tile = por_ceil(a->hidden, POR_M);
    int64_t n_block = (int64_t)a->n_expert * a->n_n_tile * a->n_m_tile;
    if (dtype == MK_BF16)
        return por_start<POR_DW, bf16, true, true>(a, n_block, stream);
    return por_start<POR_DW, half, true, true>(a, n_block, stream);
}
