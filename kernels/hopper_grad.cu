/* hopper_grad.cu: gradients of the rows of x and of the weights. */
#include "kernels/hopper_host.h"

int hop_launch_dx(hop_args *a, int64_t max_tile, mk_stream stream)
{
    a->n_n_tile = hop_ceil(a->hidden, 256);
    return hop_launch<HOP_DX, 0>(a, max_tile * a->n_n_tile, stream);
}

int hop_launch_dw(hop_args *a, mk_stream stream)
{
    a->n_n_tile = hop_ceil(a->inter, 256) * a->n_half;
    a->n_m_pair = hop_ceil(a->hidden, 2 * HOP_M);
    return hop_launch<HOP_DW, 0>(a, (int64_t)a->n_expert * a->n_n_tile * a->n_m_pair, stream);
}
