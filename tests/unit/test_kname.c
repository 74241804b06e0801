/* Kernel names as seen on GPUs → class. A row that shadows another shows here. */
#include "profiler/core/kname.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct {
    const char *name;
    enum mp_kclass kclass;
} seen[] = {
    {"nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT", MP_KC_GEMM},
    {"_ZN7cutlass13device_kernelINS_4gemm6kernel13GemmUniversalINS1_"
     "17GroupProblemShapeIN4cute5tupleIJiii",
     MP_KC_GROUPED},
    {"_ZN2at6native45_GLOBAL__N__prepare_grouped_gemm_dataIN7cutlass10bfloat16_t", MP_KC_GROUPED},
    {"_ZN2at6native13reduce_kernelILi512ELi1ENS0_8ReduceOpI", MP_KC_REDUCE},
    {"_ZN7cublasLt19splitKreduce_kernelILi32ELi16EifffLb0", MP_KC_GEMM},
    {"_ZN8internal5gemvx6kernelIiiS0_S0_S0_fLb0ELb1", MP_KC_GEMM},
    {"_ZN5flash16flash_fwd_kernelI23Flash_fwd_kernel_traitsILi128E", MP_KC_ATTENTION},
    {"cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", MP_KC_ATTENTION},
    {"_ZN2at6native12_GLOBAL__N_125multi_tensor_apply_kernelINS1_"
     "28FusedOptimizerTensorListMetadata",
     MP_KC_FOREACH},
    {"ncclDevKernel_AllReduce_Sum_bf16_RING_LL", MP_KC_COMM},
    {"ncclDevKernel_ReduceScatter_Sum_f32_RING_LL", MP_KC_COMM},
    {"_ZN2at6native24index_elementwise_kernelILi128ELi4EZNS0_16gpu_index_kernelIZZZNS0_21index_put_"
     "kernel_impl",
     MP_KC_SCATTER},
    {"_ZN2at6native24vectorized_gather_kernelILi16ElEEvPcS2_PT0_illllb", MP_KC_GATHER},
    {"_ZN2at6native17indexSelectSmallIndexIN3c108BFloat16EljLi2ELi2ELin2EEE", MP_KC_GATHER},
    {"_ZN2at6native16indexFuncLargeIndexIN3c108BFloat16EljLi2ELi2ELin2ELb1", MP_KC_SCATTER},
    {"_ZN2at6native24index_elementwise_kernelILi128ELi4EZNS0_16gpu_index_kernelIZNS0_17index_"
     "kernel_implINS0",
     MP_KC_GATHER},
    {"_ZN2at6native6sbtopk10gatherTopKIfjLi2ELb0EEEvNS_4cuda6detail10TensorInfoIKT_T0_EE",
     MP_KC_INDEXING},
    {"_ZN3cub17CUB_300001_SM_9006detail10radix_sort29DeviceRadixSortUpsweepKernel", MP_KC_INDEXING},
    {"_ZN2at6native12_GLOBAL__N_120cunn_SoftMaxForwardILi8EN3c108BFloat16Eff", MP_KC_SOFTMAX},
    {"_ZN2at6native18elementwise_kernelILi128ELi4EZNS0_22gpu_kernel_impl_nocastINS0_"
     "13BinaryFunctorI",
     MP_KC_ELEMENTWISE},
    {"_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_11FillFunctorIN3c108BFloat16EEE",
     MP_KC_FILL},
    {"_ZN2at6native29vectorized_elementwise_kernelILi8EZZZNS0_16direct_copy_kernel_cudaERNS_"
     "18TensorIteratorBase",
     MP_KC_COPY},
    {"_ZN2at6native12_GLOBAL__N_130CatArrayBatchedCopy_vectorized", MP_KC_COPY},
    {"triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_0", MP_KC_UNKNOWN},
    {"triton_poi_fused__to_copy_add_floor_divide_index_select_mul_view_8", MP_KC_GATHER},
    {"triton_per_fused_add_index_select_sum_view_4", MP_KC_SCATTER},
    {"triton_poi_fused__grouped_mm_add_cat_mul_silu_silu_backward_3", MP_KC_GROUPED},
    {"_combine_fwd_kernel", MP_KC_REDUCE},
    {"_route_scatter_kernel", MP_KC_INDEXING},
    {"_some_kernel_of_yours", MP_KC_UNKNOWN},
    {"", MP_KC_UNKNOWN},
    {NULL, MP_KC_UNKNOWN},
};

static void test_seen(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof seen / sizeof seen[0]; i++) {
        if (mp_kname_class(seen[i].name) != seen[i].kclass)
            fail_msg("%s: class %d, not %d", seen[i].name, mp_kname_class(seen[i].name),
                     seen[i].kclass);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_seen)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
