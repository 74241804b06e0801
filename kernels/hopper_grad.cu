/* hopper_grad.cu: gradients of the rows of x and of the weights. */
#include "kernels/hopper_host.h"

int hop_launch_dx(hop_args *a, hop_weights weights, int64_t max_tile, mk_stream stream)
{
    a->n_n_tile = hop_ceil(a->hidden, 256);
    if (weights != HOP_ROWS)
        return hop_launch<hop_gemm<HOP_DX, -1, HOP_COLUMNS>>(a, max_tile * a->n_n_tile, stream);
    return hop_launch<hop_gemm<HOP_DX>>(a, max_tile * a->n_n_tile, stream);
}

int hop_launch_dw(hop_args *a, mk_stream stream)
{
    a->n_n_tile = hop_ceil(a->inter, 256) * a->n_half;
    a->n_m_pair = hop_ceil(a->hidden, 2 * HOP_M);
    return hop_launch<hop_gemm<HOP_DW>>(a, (int64_t)a->n_expert * a->n_n_tile * a->n_m_pair + a->sum.n_pair, stream);
}
