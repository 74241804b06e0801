/* portable_up.cu: gathered x times gate and up, with the activation. */
#include "kernels/portable_host.h"

int por_launch_up(por_args *a, uint32_t dtype, int64_t max_tile, mk_stream stream)
{
    a->n_n_tile = por_ceil(a->inter * a->n_half, POR_N);
    if (a->n_half == 2)
        return por_pick<POR_UP, true>(a, dtype, por_row_tiles(a, max_tile), stream);
    return por_pick<POR_UP, false>(a, dtype, por_row_tiles(a, max_tile), stream);
}
