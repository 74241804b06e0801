/* reduce.cu: the small sums of backward: gradient of the scores, gradients of the biases. In a fixed order, in fp32. */
#include "kernels/common.cuh"
#include "kernels/cuda_paths.h"

struct dscore_args {
    void *dscore;                // (T, K)
    int64_t dscore_stride, dout_stride;
    const float *part;           // (R, n_part)
    const int32_t *choice_row;   // (T*K)
    const int32_t *row_token;
    const int32_t *offset;       // (E+1)
    const void *dout;            // (T, H)
    mk_vector down_bias;
    uint32_t dtype, score_dtype;
    int32_t n_choice, top_k, n_part, hidden, n_expert;
};

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
__device__ static float bias_dot(const dscore_args &a, int64_t t, int row)
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

/* With a bias: one warp a choice. */
__global__ static void __launch_bounds__(256) dscore_bias_v1(dscore_args a)
{
    int choice = blockIdx.x * 8 + threadIdx.x / 32;

    if (choice >= a.n_choice)
        return; // guard
    int64_t t = choice / a.top_k, row = a.choice_row[choice];
    float sum = row >= 0 ? bias_dot(a, t, (int)row) : 0.f;
    for (int j = 0; row >= 0 && j < a.n_part; j++)
        sum += a.part[row * a.n_part + j];
    if (!(threadIdx.x & 31))
        store_any(a.dscore, a.score_dtype, t * a.dscore_stride + choice % a.top_k, sum);
}

__global__ static void __launch_bounds__(256) dscore_v1(dscore_args a)
{
    int choice = blockIdx.x * 256 + threadIdx.x;

    if (choice >= a.n_choice)
        return; // guard
    int64_t row = a.choice_row[choice];
    float sum = 0;
    for (int j = 0; row >= 0 && j < a.n_part; j++)
        sum += a.part[row * a.n_part + j];
    store_any(a.dscore, a.score_dtype, choice / a.top_k * a.dscore_stride + choice % a.top_k, sum);
}

struct dbias_args {
    mk_vector out;
    const void *value;           // (rows, columns), dense in columns
    int64_t value_stride;
    const int32_t *row_token;    // rows of value are tokens, or NULL: rows themselves
    const float *row_score;      // weight of a row, or NULL
    const int32_t *offset;
    uint32_t dtype, out_dtype, accumulate;
    int32_t n_column;
};

/* Column sums over the rows of one expert: a block holds 32 columns, 8 threads a column take every eighth row. */
__global__ static void __launch_bounds__(256) dbias_v1(dbias_args a)
{
    __shared__ float part[8][33];
    int lane = threadIdx.x & 31, slice = threadIdx.x >> 5, column = blockIdx.x * 32 + lane, e = blockIdx.y;
    float sum = 0;

    if (column < a.n_column)
        for (int64_t row = a.offset[e] + slice; row < a.offset[e + 1]; row += 8)
            sum += (a.row_score ? a.row_score[row] : 1.f) *
                   load_any(a.value, a.dtype, (a.row_token ? a.row_token[row] : row) * a.value_stride + column);
    part[slice][lane] = sum;
    __syncthreads();
    if (slice || column >= a.n_column)
        return; // guard
    for (int i = 1; i < 8; i++)
        sum += part[i][lane];
    int64_t at = e * a.out.stride_expert + column * a.out.stride;
    store_any(a.out.base, a.out_dtype, at, sum + (a.accumulate ? load_any(a.out.base, a.out_dtype, at) : 0.f));
}

/* ---- launchers ---- */

int mk_dscore_v1(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    const mk_problem *p = b->problem;
    mk_route_ptr r = mk_route_at(b->saved, &plan->saved);
    dscore_args a = { b->dscore, b->dscore_stride, b->dout_stride, (const float *)((char *)b->workspace + plan->backward.dscore_part),
                      r.choice_row, r.row_token, r.offset, b->dout, p->down_bias, p->dtype, p->score_dtype,
                      (int32_t)plan->n_row, p->top_k, plan->n_dscore_part, p->hidden, p->n_expert };

    if (!a.n_choice)
        return MK_OK;
    if (p->down_bias.base)
        dscore_bias_v1<<<(a.n_choice + 7) / 8, 256, 0, stream>>>(a);
    else
        dscore_v1<<<(a.n_choice + 255) / 256, 256, 0, stream>>>(a);
    MK_LAUNCHED();
    return MK_OK;
}

static int launch_dbias(const mk_backward *b, const dbias_args *a, mk_stream stream)
{
    if (!a->out.base)
        return MK_OK;
    dbias_v1<<<dim3((a->n_column + 31) / 32, b->problem->n_expert), 256, 0, stream>>>(*a);
    MK_LAUNCHED();
    return MK_OK;
}

int mk_dbias_v1(const mk_backward *b, const struct mk_plan *plan, mk_stream stream)
{
    const mk_problem *p = b->problem;
    mk_route_ptr r = mk_route_at(b->saved, &plan->saved);
    const char *dpre = (const char *)b->workspace + plan->backward.dpre;
    size_t half = (size_t)p->inter * mk_dtype_bytes(p->dtype);
    int64_t stride = (int64_t)plan->n_half * p->inter;
    dbias_args up = { b->dup_bias, dpre + (plan->n_half - 1) * half, stride, NULL, NULL, r.offset, p->dtype,
                      b->dweight_dtype, b->accumulate, p->inter };
    dbias_args gate = up, down = { b->ddown_bias, b->dout, b->dout_stride, r.row_token, r.row_score, r.offset, p->dtype,
                                   b->dweight_dtype, b->accumulate, p->hidden };
    int rc;

    gate.out = b->dgate_bias;
    gate.value = dpre;
    if (plan->has_gate && (rc = launch_dbias(b, &gate, stream)))
        return rc;
    if ((rc = launch_dbias(b, &up, stream)))
        return rc;
    return launch_dbias(b, &down, stream);
}
