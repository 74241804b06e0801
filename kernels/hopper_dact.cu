/* hopper_dact.cu: dout times down, with the activation's derivative, the scaled activation and dscore in its epilogue. */
#include "kernels/hopper_host.h"

int hop_launch_dact(hop_args *a, hop_weights weights, int64_t max_tile, mk_stream stream)
{
    a->n_n_tile = hop_ceil(a->inter, TILE_N);
    if (weights == HOP_ALTERNATING)
        return hop_launch<hop_gemm<HOP_DACT, -1, HOP_ALTERNATING>>(a, max_tile * a->n_n_tile, stream);
    if (weights == HOP_COLUMNS)
        return hop_launch<hop_gemm<HOP_DACT, -1, HOP_COLUMNS>>(a, max_tile * a->n_n_tile, stream);
    if (a->act.act == MK_ACT_SWIGLU)
        return hop_launch<hop_gemm<HOP_DACT, MK_ACT_SWIGLU>>(a, max_tile * a->n_n_tile, stream);
    return hop_launch<hop_gemm<HOP_DACT>>(a, max_tile * a->n_n_tile, stream);
}
