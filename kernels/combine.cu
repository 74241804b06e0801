/* combine.cu: a token gathers its rows and sums them, weighted in forward, plain in backward (gradient of x).
 * Memory-bound: each thread holds 8 columns of one token and has up to 8 rows in flight. Sums in fp32 in the order of k.
 * v2: in backward further blocks of the same launch sum the gradients of the scores. */
#include "kernels/cuda_call.h"
#include "kernels/sums.cuh"

#define N_THREAD 256
#define COLUMN 8 /* columns a thread: 16 bytes */
#define IN_FLIGHT 8

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
            add_eight<T>(sum, v[j], weight[j]);
}

template <typename T> __device__ static void combine(const mk_combine_args &a, int block)
{
    int n_group = a.hidden / COLUMN;
    int64_t id = (int64_t)block * N_THREAD + threadIdx.x;
    int64_t t = id / n_group;
    int column = (int)(id % n_group) * COLUMN;
    float sum[COLUMN] = {};

    if (t >= a.n_token)
        return; // guard
    for (int k = 0; k < a.top_k; k += IN_FLIGHT)
        add_rows<T>(sum, a, t * a.top_k + k, min(IN_FLIGHT, a.top_k - k), column);
    *(uint4 *)((T *)a.out + t * a.out_stride + column) = round_eight<T>(sum);
}

/* ---- gradients of the scores ---- */

__device__ static int row_expert(const int32_t *offset, int n_expert, int row)
{
    int low = 0, high = n_expert;

    while (high - low > 1) {
        int mid = (low + high) / 2;
        if (offset[mid] <= row)
            low = mid;
        else
            high = mid;
    }
    return low;
}

/* <dout[t], bias of the expert>: what the down bias adds to dscore. By one warp. */
__device__ static float bias_dot(const mk_dscore_args &a, int64_t t, int row)
{
    int e = row_expert(a.offset, a.n_expert, row);
    float sum = 0;

    for (int h = threadIdx.x & 31; h < a.hidden; h += 32)
        sum += load_any(a.dout, a.dtype, t * a.dout_stride + h) *
               load_any(a.down_bias.base, a.dtype, e * a.down_bias.stride_expert + h * a.down_bias.stride);
    for (int d = 16; d; d /= 2)
        sum += __shfl_xor_sync(~0u, sum, d);
    return sum;
}

/* A choice has one thread, with a bias a warp. */
__device__ static void dscore(const mk_dscore_args &a, int block)
{
    bool biased = a.down_bias.base;
    int choice = biased ? block * (N_THREAD / 32) + threadIdx.x / 32 : block * N_THREAD + threadIdx.x;

    if (choice >= a.n_choice)
        return; // guard
    int64_t t = choice / a.top_k, row = a.choice_row[choice];
    float sum = biased && row >= 0 ? bias_dot(a, t, (int)row) : 0.f;
    sum = add_parts(a, row, sum);
    if (!biased || threadIdx.x % 32 == 0)
        store_any(a.dscore, a.score_dtype, t * a.dscore_stride + choice % a.top_k, sum);
}

/* ---- both in one launch ---- */

struct combine_args {
    mk_combine_args rows;
    mk_dscore_args score;
    int n_row_block;
};

template <typename T> __global__ static void __launch_bounds__(N_THREAD) combine_v2(const __grid_constant__ combine_args a)
{
    int block = blockIdx.x;

    if (block < a.n_row_block)
        combine<T>(a.rows, block);
    else
        dscore(a.score, block - a.n_row_block);
}

static int64_t blocks(int64_t n_thread)
{
    return (n_thread + N_THREAD - 1) / N_THREAD;
}

int mk_combine_v2(const mk_combine_args *rows, const mk_dscore_args *score, mk_stream stream)
{
    combine_args a = {};

    if (rows)
        a.rows = *rows;
    if (score)
        a.score = *score;
    int64_t n_row = blocks((int64_t)a.rows.n_token * (a.rows.hidden / COLUMN));
    int64_t n = n_row + blocks((int64_t)a.score.n_choice * (a.score.down_bias.base ? 32 : 1));
    a.n_row_block = (int)n_row;
    if (!n)
        return MK_OK;
    if (n > INT32_MAX)
        return MK_ESHAPE;
    bool is_bf16 = (rows ? rows->dtype : score->dtype) == MK_BF16;
    return mk_launch(is_bf16 ? combine_v2<bf16> : combine_v2<half>, (unsigned)n, N_THREAD, 0, a, stream);
}
