/* combine.cu: a token gathers its rows and sums them, weighted in forward, plain in backward (gradient of x).
 * Memory-bound: each thread holds 8 columns of one token and has up to 8 rows in flight. Sums in fp32 in the order of k. */
#include "kernels/common.cuh"
#include "kernels/cuda_paths.h"

#define COLUMN 8 /* columns a thread: 16 bytes */
#define IN_FLIGHT 8

template <typename T> __device__ static void add_row(float *sum, uint4 v, float weight)
{
    const uint32_t word[4] = { v.x, v.y, v.z, v.w };

#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 f = unpack2<T>(word[i]);
        sum[2 * i] += weight * f.x;
        sum[2 * i + 1] += weight * f.y;
    }
}

template <typename T> __device__ static void add_rows(float *sum, const mk_combine_args &a, int64_t choice, int n, int column)
{
    uint4 v[IN_FLIGHT];
    float weight[IN_FLIGHT];
    int row[IN_FLIGHT];

#pragma unroll
    for (int j = 0; j < IN_FLIGHT; j++)
        row[j] = j < n ? a.choice_row[choice + j] : -1;
#pragma unroll
    for (int j = 0; j < IN_FLIGHT; j++) {
        if (row[j] < 0)
            continue;
        v[j] = __ldcs((const uint4 *)((const T *)a.row_value + (int64_t)row[j] * a.hidden + column)); // read once
        weight[j] = a.row_score ? a.row_score[row[j]] : 1.f;
    }
#pragma unroll
    for (int j = 0; j < IN_FLIGHT; j++)
        if (row[j] >= 0)
            add_row<T>(sum, v[j], weight[j]);
}

template <typename T> __global__ static void __launch_bounds__(256) combine_v1(mk_combine_args a)
{
    int n_group = a.hidden / COLUMN;
    int64_t id = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int64_t t = id / n_group;
    int column = (int)(id % n_group) * COLUMN;
    float sum[COLUMN] = {};

    if (t >= a.n_token)
        return; // guard
    for (int k = 0; k < a.top_k; k += IN_FLIGHT)
        add_rows<T>(sum, a, t * a.top_k + k, min(IN_FLIGHT, a.top_k - k), column);
    uint4 v = { pack2<T>(sum[0], sum[1]), pack2<T>(sum[2], sum[3]), pack2<T>(sum[4], sum[5]), pack2<T>(sum[6], sum[7]) };
    *(uint4 *)((T *)a.out + t * a.out_stride + column) = v;
}

/* ---- launcher ---- */

int mk_combine_v1(const mk_combine_args *a, mk_stream stream)
{
    int64_t n = (int64_t)a->n_token * (a->hidden / COLUMN), n_block = (n + 255) / 256;

    if (!n)
        return MK_OK;
    if (a->dtype == MK_BF16)
        combine_v1<bf16><<<(unsigned)n_block, 256, 0, stream>>>(*a);
    else
        combine_v1<half><<<(unsigned)n_block, 256, 0, stream>>>(*a);
    MK_LAUNCHED();
    return MK_OK;
}
