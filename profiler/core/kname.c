/* Kernel name → class, by an ordered table of substrings: the more special row stands first.
 * Names seen with torch 2.9 to 2.11, cuBLAS 13, CUTLASS 3/4, cuDNN 9, bitsandbytes, unsloth.
 */
#include "profiler/core/kname.h"

#include <stddef.h>
#include <string.h>

static const struct {
    const char *text;
    enum mp_kclass kclass;
} row[] = {
    {"nccl", MP_KC_COMM},
    {"prepare_grouped_gemm", MP_KC_GROUPED},
    {"GroupProblemShape", MP_KC_GROUPED},
    {"grouped_gemm", MP_KC_GROUPED},
    {"grouped_mm", MP_KC_GROUPED},
    {"GroupedGemm", MP_KC_GROUPED},
    {"scatter2scatter", MP_KC_GROUPED},
    {"fmha", MP_KC_ATTENTION},
    {"flash", MP_KC_ATTENTION},
    {"sdpa", MP_KC_ATTENTION},
    {"attention", MP_KC_ATTENTION},
    {"_combine_", MP_KC_REDUCE},
    {"_route_", MP_KC_INDEXING},
    {"nvjet", MP_KC_GEMM},
    {"gemm", MP_KC_GEMM},
    {"Gemm", MP_KC_GEMM},
    {"gemv", MP_KC_GEMM},
    {"splitKreduce", MP_KC_GEMM},
    {"gemmk1", MP_KC_GEMM},
    {"dot_kernel", MP_KC_GEMM},
    {"multi_tensor_apply", MP_KC_FOREACH},
    {"FusedAdam", MP_KC_FOREACH},
    {"kOptimizer", MP_KC_FOREACH},
    {"lpnorm_cleanup", MP_KC_FOREACH},
    {"index_select_sum", MP_KC_SCATTER}, /* generated: rows added up by gathering them */
    {"index_select", MP_KC_GATHER},
    {"index_put", MP_KC_SCATTER},
    {"indexing_backward", MP_KC_SCATTER},
    {"indexFunc", MP_KC_SCATTER},
    {"index_add", MP_KC_SCATTER},
    {"index_copy", MP_KC_SCATTER},
    {"scatter", MP_KC_SCATTER},
    {"embedding_backward", MP_KC_SCATTER},
    {"compute_grad_weight", MP_KC_SCATTER},
    {"sum_and_scatter", MP_KC_SCATTER},
    {"krn_partial", MP_KC_SCATTER},
    {"gatherTopK", MP_KC_INDEXING},
    {"topk", MP_KC_INDEXING},
    {"TopK", MP_KC_INDEXING},
    {"index_kernel", MP_KC_GATHER},
    {"index_elementwise", MP_KC_GATHER},
    {"indexSelect", MP_KC_GATHER},
    {"gather", MP_KC_GATHER},
    {"Radix", MP_KC_INDEXING},
    {"radix", MP_KC_INDEXING},
    {"Sort", MP_KC_INDEXING},
    {"sort", MP_KC_INDEXING},
    {"DeviceScan", MP_KC_INDEXING},
    {"scan", MP_KC_INDEXING},
    {"istogram", MP_KC_INDEXING},
    {"DeviceSelect", MP_KC_INDEXING},
    {"DeviceCompact", MP_KC_INDEXING},
    {"DeviceReduce", MP_KC_INDEXING},
    {"nonzero", MP_KC_INDEXING},
    {"write_indices", MP_KC_INDEXING},
    {"searchsorted", MP_KC_INDEXING},
    {"arange", MP_KC_INDEXING},
    {"oftmax", MP_KC_SOFTMAX},
    {"SoftMax", MP_KC_SOFTMAX},
    {"nll_loss", MP_KC_SOFTMAX},
    {"cross_entropy", MP_KC_SOFTMAX},
    {"layer_norm", MP_KC_NORM},
    {"rms_norm", MP_KC_NORM},
    {"RMSNorm", MP_KC_NORM},
    {"LayerNorm", MP_KC_NORM},
    {"triton_", MP_KC_UNKNOWN},
    {"reduce", MP_KC_REDUCE},
    {"Fill", MP_KC_FILL},
    {"fill", MP_KC_FILL},
    {"memset", MP_KC_FILL},
    {"copy", MP_KC_COPY},
    {"CatArray", MP_KC_COPY},
    {"elementwise", MP_KC_ELEMENTWISE},
};

enum mp_kclass mp_kname_class(const char *name)
{
    if (!name)
        return MP_KC_UNKNOWN;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
        if (strstr(name, row[i].text))
            return row[i].kclass;
    return MP_KC_UNKNOWN;
}
