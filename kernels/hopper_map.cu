/* hopper_map.cu: tensor maps. The driver's encoder is found at run time, so that the library needs no libcuda to load. */
#include "kernels/hopper_host.h"

typedef CUresult (*encode_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *,
                              const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                              CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* The address stays the same as long as the process lives, and every thread finds the same: kept, since a call asks 8 times. */
static encode_fn find_encode(void)
{
    static void *kept;
    void *fn = __atomic_load_n(&kept, __ATOMIC_RELAXED);
    cudaDriverEntryPointQueryResult result;

    if (fn)
        return (encode_fn)fn;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &fn, 12000, cudaEnableDefault, &result))
        return NULL;
    __atomic_store_n(&kept, fn, __ATOMIC_RELAXED);
    return (encode_fn)fn;
}

static int encode(CUtensorMap *out, void *base, int n_dim, const cuuint64_t *size, const cuuint64_t *stride_bytes, int n_box)
{
    const cuuint32_t box[4] = { TILE_K, 1, (cuuint32_t)n_box, 1 }, one[4] = { 1, 1, 1, 1 };
    encode_fn fn = find_encode();

    if (!fn)
        return MK_ECUDA;
    return fn(out, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, n_dim, base, size, stride_bytes, box, one,
              CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
              CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
               ? MK_ECUDA
               : MK_OK;
}

int hop_map_weight(CUtensorMap *out, const mk_matrix *m, int n_expert, int n_contiguous, int64_t stride, int n_other,
                   int n_box)
{
    int64_t span = m->expert_offset ? m->span : (n_expert - 1) * m->stride_expert;
    const cuuint64_t size[3] = { (cuuint64_t)n_contiguous, (cuuint64_t)(span / 8 + 1), (cuuint64_t)n_other };
    const cuuint64_t stride_bytes[2] = { 16, (cuuint64_t)stride * 2 };

    return encode(out, m->base, 3, size, stride_bytes, n_box);
}

int hop_map_rows(CUtensorMap *out, const void *base, int n_column, int n_half, int64_t n_row, int n_box)
{
    const cuuint64_t size[3] = { (cuuint64_t)n_column, (cuuint64_t)n_half, (cuuint64_t)n_row };
    const cuuint64_t stride_bytes[2] = { (cuuint64_t)n_column * 2, (cuuint64_t)n_column * n_half * 2 };

    return encode(out, (void *)base, 3, size, stride_bytes, n_box);
}

int hop_map_k_rows(CUtensorMap *out, const void *base, int n_column, int n_half, int64_t n_row)
{
    const cuuint64_t row = (cuuint64_t)n_column * n_half * 2;
    const cuuint64_t size[4] = { (cuuint64_t)n_column, (cuuint64_t)n_half, TILE_K,
                                 n_row > TILE_K ? (cuuint64_t)n_row - TILE_K + 1 : 1 };
    const cuuint64_t stride_bytes[3] = { (cuuint64_t)n_column * 2, row, row };

    return encode(out, (void *)base, 4, size, stride_bytes, TILE_K);
}
