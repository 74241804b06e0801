/* hopper_forward.cu: the forward products: up with the activation, down. */
#include "kernels/hopper_host.h"

int hop_launch_up(hop_args *a, hop_weights weights, int64_t max_tile, mk_stream stream)
{
    a->n_n_tile = hop_ceil(a->inter, 128);
    if (weights == HOP_ALTERNATING)
        return hop_launch<hop_gemm<HOP_UP, -1, HOP_ALTERNATING>>(a, max_tile * a->n_n_tile, stream);
    if (weights == HOP_COLUMNS)
        return hop_launch<hop_gemm<HOP_UP, -1, HOP_COLUMNS>>(a, max_tile * a->n_n_tile, stream);
    if (a->act.act == MK_ACT_SWIGLU)
        return hop_launch<hop_gemm<HOP_UP, MK_ACT_SWIGLU>>(a, max_tile * a->n_n_tile, stream);
    return hop_launch<hop_gemm<HOP_UP>>(a, max_tile * a->n_n_tile, stream);
}

int hop_launch_down(hop_args *a, hop_weights weights, int64_t max_tile, mk_stream stream)
{
    a->n_n_tile = hop_ceil(a->hidden, 256);
    if (weights != HOP_ROWS)
        return hop_launch<hop_gemm<HOP_DOWN, -1, HOP_COLUMNS>>(a, max_tile * a->n_n_tile, stream);
    return hop_launch<hop_gemm<HOP_DOWN>>(a, max_tile * a->n_n_tile, stream);
}
