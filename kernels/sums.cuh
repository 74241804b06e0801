/* sums.cuh: what sums over a token's choices have in common, alone (combine.cu) and beside a gradient (hopper_sum.cuh). Device code. */
#ifndef KERNELS_SUMS_CUH
#define KERNELS_SUMS_CUH

#include "kernels/common.cuh"
#include "kernels/cuda_paths.h"

/* Adds eight elements, times weight. */
template <typename T> __device__ inline void add_eight(float *sum, uint4 v, float weight)
{
    const uint32_t word[4] = { v.x, v.y, v.z, v.w };

#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 f = unpack2<T>(word[i]);
        sum[2 * i] += weight * f.x;
        sum[2 * i + 1] += weight * f.y;
    }
}

template <typename T> __device__ inline uint4 round_eight(const float *sum)
{
    return { pack2<T>(sum[0], sum[1]), pack2<T>(sum[2], sum[3]), pack2<T>(sum[4], sum[5]), pack2<T>(sum[6], sum[7]) };
}

/* A choice's parts, added to sum; row -1: it was dropped and has none. */
__device__ inline float add_parts(const mk_dscore_args &a, int64_t row, float sum)
{
    for (int j = 0; row >= 0 && j < a.n_part; j++)
        sum += a.part[row * a.n_part + j];
    return sum;
}

#endif
