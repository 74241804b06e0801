/* hopper_forward.cu: the forward products: up with the activation, down. */
#include "kernels/hopper_host.h"

int hop_launch_up(hop_args *a, int64_t max_tile, mk_stream stream)
{
    a->n_n_tile = hop_ceil(a->inter, 128);
    if (a->act.act == MK_ACT_SWIGLU)
        return hop_launch<HOP_UP, MK_ACT_SWIGLU>(a, max_tile * a->n_n_tile, stream);
    return hop_launch<HOP_UP, -1>(a, max_tile * a->n_n_tile, stream);
}

int hop_launch_down(hop_args *a, int64_t max_tile, mk_stream stream)
{
    a->n_n_tile = hop_ceil(a->hidden, 256);
    return hop_launch<HOP_DOWN, 0>(a, max_tile * a->n_n_tile, stream);
}
