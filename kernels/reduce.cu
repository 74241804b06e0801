/* reduce.cu: gradients of the biases: sums over the rows of an expert, in a fixed order, in fp32. */
#include "kernels/common.cuh"
#include "kernels/cuda_call.h"

enum { N_BIAS = 3 };

struct dbias_sum {
    mk_vector out;
    const void *value; // (rows, columns)
    int64_t value_stride, value_step; // elements from row to row, from column to column
    const int32_t *row_token; // rows of value are tokens, or NULL: rows themselves
    const float *row_score;   // weight of a row, or NULL
    int32_t n_column;
};

struct dbias_args {
    dbias_sum sum[N_BIAS];
    const int32_t *offset;
    uint32_t dtype, out_dtype, accumulate;
};

/* A block holds 32 columns of one expert and one bias, 8 threads a column take every eighth row. */
__global__ static void __launch_bounds__(256) dbias_v2(const __grid_constant__ dbias_args a)
{
    __shared__ float part[8][33];
    const dbias_sum &s = a.sum[blockIdx.z];
    int lane = threadIdx.x & 31, slice = threadIdx.x >> 5, column = blockIdx.x * 32 + lane, e = blockIdx.y;
    float sum = 0;

    if (column < s.n_column)
        for (int64_t row = a.offset[e] + slice; row < a.offset[e + 1]; row += 8)
            sum += (s.row_score ? s.row_score[row] : 1.f) *
                   load_any(s.value, a.dtype, (s.row_token ? s.row_token[row] : row) * s.value_stride +
                                                    column * s.value_step);
    part[slice][lane] = sum;
    __syncthreads();
    if (slice || column >= s.n_column)
        return; // guard
    for (int i = 1; i < 8; i++)
        sum += part[i][lane];
    int64_t at = e * s.out.stride_expert + column * s.out.stride;
    store_any(s.out.base, a.out_dtype, at, sum + (a.accumulate ? load_any(s.out.base, a.out_dtype, at) : 0.f));
}

/* ---- launcher ---- */

int mk_dbias_v2(const mk_backward *b, const struct mk_plan *plan, bool alternates, mk_stream stream)
{
    const mk_problem *p = b->problem;
    mk_route_ptr r = mk_route_at(b->saved, &plan->saved);
    const char *dpre = (const char *)b->workspace + plan->backward.dpre;
    size_t half = (size_t)(alternates ? 1 : p->inter) * mk_dtype_bytes(p->dtype);
    int64_t stride = (int64_t)plan->n_half * p->inter, step = alternates ? 2 : 1;
    const dbias_sum all[N_BIAS] = { { plan->has_gate ? b->dgate_bias : mk_vector{}, dpre, stride, step, NULL, NULL, p->inter },
                                    { b->dup_bias, dpre + (plan->n_half - 1) * half, stride, step, NULL, NULL, p->inter },
                                    { b->ddown_bias, b->dout, b->dout_stride, 1, r.row_token, r.row_score, p->hidden } };
    dbias_args a = { {}, r.offset, p->dtype, b->dweight_dtype, b->accumulate };
    int n = 0, n_column = 0;

    for (const dbias_sum &s : all)
        if (s.out.base) {
            a.sum[n++] = s;
            n_column = max(n_column, s.n_column);
        }
    if (!n)
        return MK_OK;
    return mk_launch(dbias_v2, dim3((n_column + 31) / 32, p->n_expert, n), 256, 0, a, stream);
}
