/* Kernel names as torch's kernels bear them, names that are none, and bytes at random. */
#include "report/demangle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "profiler/core/base.h"

static const struct {
    const char *name, *shown;
} row[] = {
    {"_ZN2at6native29vectorized_elementwise_kernelILi8ENS0_15CUDAFunctor_"
     "addIN3c108BFloat16EEESt5arrayI"
     "PcLm3EEEEviT0_T1_",
     "vectorized_elementwise_kernel<8, CUDAFunctor_add<BFloat16>>"},
    {"_ZN2at6native27unrolled_elementwise_kernelIZZZNS0_23direct_copy_kernel_cudaERNS_"
     "18TensorIteratorBaseEENKUlvE1_clEvENKUlvE2_clEvEUllE_"
     "St5arrayIPcLm2EELi4E23TrivialOffsetCalculator"
     "ILi1EjESB_NS0_6memory12LoadWithCastILi1EEENSC_13StoreWithCastILi1EEEEEviT_T0_T2_T3_T4_T5_",
     "unrolled_elementwise_kernel<direct_copy_kernel_cuda, 4>"},
    {"_ZN2at6native18elementwise_kernelILi128ELi4EZNS0_22gpu_kernel_impl_nocastIZZZNS0_62_GLOBAL__"
     "N__"
     "7d4ed096_23_ActivationSiluKernel_cu_751192d7_1559511silu_kernelERNS_"
     "18TensorIteratorBaseEENKUlvE_"
     "clEvENKUlvE4_clEvEUlN3c108BFloat16EE_EEvS5_RKT_EUliE_EEviT1_",
     "elementwise_kernel<128, 4, silu_kernel>"},
    {"_ZN43_GLOBAL__N__b6de9c8c_10_SoftMax_cu_9f978f6320softmax_warp_forwardIfffLi7ELb0ELb0EEEvPT0_"
     "PKT_"
     "iiiPKbib",
     "softmax_warp_forward<float, float, float, 7, false, false>"},
    {"_ZN7cutlass7Kernel2I42cutlass_80_simt_sgemm_128x32_8x5_nn_align1EEvNT_6ParamsE",
     "Kernel2<cutlass_80_simt_sgemm_128x32_8x5_nn_align1>"},
    {"_ZN5cudnn6fusion16fmha_reduce_headILb1EEEvPKvPvjjjjjjjjjjjPKfS6_S6_PfS4_bS4_b",
     "fmha_reduce_head<true>"},
    {"_ZN2at6native20bitonicSortKVInPlaceILi2ELin1ELi16ELi16EflNS0_4GTOpIfLb1EEEjEEvNS_4cuda6detail"
     "10TensorInfoIT3_T6_EES8_S8_S8_NS6_IT4_S8_EES8_T5_",
     "bitonicSortKVInPlace<2, -1, 16, 16, float, long, GTOp<float, true>, uint>"},
    /* recorded only in part */
    {"_ZN7cutlass13device_kernelIN2at4cuda6detail25enable_3x_kernel_for_sm9xINS_"
     "4gemm6kernel13GemmUniver",
     "GemmUniver…"},
    /* demangled already */
    {"void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::BFloat16> "
     ">(int, "
     "at::native::Foo)",
     "vectorized_elementwise_kernel<4, CUDAFunctor_add<BFloat16> >"},
    {"void (anonymous namespace)::softmax_warp_forward<float, 7>(float*, float const*)",
     "softmax_warp_forward<float, 7>"},
    {"void "
     "at::native::k<at::native::direct_copy_kernel_cuda(at::TensorIteratorBase&)::{lambda()#1}::"
     "operator()() const::{lambda(float)#2}>(int)",
     "k<direct_copy_kernel_cuda>"},
    /* no C++ */
    {"nvjet_sm90_tst_64x32_64x16_1x2_h_bz_NTT", "nvjet_sm90_tst_64x32_64x16_1x2_h_bz_NTT"},
    {"triton_poi_fused_mul_silu_3", "triton_poi_fused_mul_silu_3"},
    {"sm80_xmma_gemm_f32f32_tn_n", "sm80_xmma_gemm_f32f32_tn_n"},
    {"?", "?"},
    {"", ""},
    /* not what it says */
    {"_Z", "_Z"},
    {"_Zq", "_Zq"},
    {"_ZN", "_ZN"},
    {"_ZNS_E", "_ZNS_E"},
    {"(((((", "((((("},
};

static void names(void **state)
{
    char out[RP_KERNEL_NAME];

    (void)state;
    for (size_t i = 0; i < countof(row); i++)
        assert_string_equal(rp_kernel_name(out, sizeof out, row[i].name), row[i].shown);
}

static void cuts(void **state)
{
    char out[16];

    (void)state;
    assert_string_equal(rp_kernel_name(out, sizeof out, "nvjet_sm90_tst_64"), "nvjet_sm90_t…");
    assert_string_equal(rp_kernel_name(out, sizeof out, "_Z20a_function_of_bytes_v"),
                        "a_function_o…");
    assert_string_equal(rp_kernel_name(out, sizeof out, "_Z15ooooooooooooooov"), "ooooooooooooooo");
}

/* Deep nesting ends; so does what would grow by doubling. */
static void bombs(void **state)
{
    static char deep[20000];
    char out[RP_KERNEL_NAME];

    (void)state;
    strcpy(deep, "_Z1f");
    for (int i = 0; i < 3000; i++)
        strcat(deep, "I1a");
    assert_true(strlen(rp_kernel_name(out, sizeof out, deep)) < sizeof out);
    strcpy(deep, "_ZN1aI1b");
    for (int i = 0; i < 60; i++)
        strcat(deep, "N1cIS_S_S0_S1_S2_EE");
    assert_true(strlen(rp_kernel_name(out, sizeof out, deep)) < sizeof out);
    memset(deep, 'P', sizeof deep - 1);
    memcpy(deep, "_Z1fI", 5);
    assert_true(strlen(rp_kernel_name(out, sizeof out, deep)) < sizeof out);
}

static bool is_utf8(const char *s)
{
    for (; *s; s++) {
        int more = (unsigned char)*s >= 0xe0 ? 2 : (unsigned char)*s >= 0xc0 ? 1 : 0;

        while (more--)
            if (((unsigned char)*++s & 0xc0) != 0x80)
                return false;
    }
    return true;
}

/* Mutations of real names and pure noise: always an end, always a 0, always within `out`. */
static void noise(void **state)
{
    static const char letter[] = "NEISTZLKPRXJFDMAUuClt0123456789_abcdfijlmnvyx";
    uint64_t rng = 1;
    char name[400], out[64];

    (void)state;
    for (int i = 0; i < 200000; i++) {
        size_t n = strlen(row[i % 8].name);

        memcpy(name, row[i % 8].name, n + 1);
        for (int k = i % 5; k >= 0; k--) {
            rng = rng * 6364136223846793005ull + 1442695040888963407ull;
            name[2 + (rng >> 33) % (n - 2)] = letter[(rng >> 20) % (sizeof letter - 1)];
        }
        memset(out, 'x', sizeof out);
        assert_ptr_equal(rp_kernel_name(out, sizeof out - 1, name), out);
        assert_true(strnlen(out, sizeof out) < sizeof out - 1 && out[sizeof out - 1] == 'x');
        assert_true(is_utf8(out));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names), cmocka_unit_test(cuts),
                                       cmocka_unit_test(bombs), cmocka_unit_test(noise)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
