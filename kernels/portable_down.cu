/* portable_down.cu: act times down, and the gradient of the rows of x. */
#include "kernels/portable_host.h"

int por_launch_down(por_args *a, uint32_t dtype, int64_t max_tile, mk_stream stream)
{
    a->n_n_tile = por_ceil(a->hidden, POR_N);
    return por_pick<POR_DOWN, true>(a, dtype, por_row_tiles(a, max_tile), stream);
}

int por_launch_dx(por_args *a, uint32_t dtype, int64_t max_tile, mk_stream stream)
{
    a->n_n_tile = por_ceil(a->hidden, POR_N);
    return por_pick<POR_DX, true>(a, dtype, por_row_tiles(a, max_tile), stream);
}
