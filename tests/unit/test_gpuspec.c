/* The GPU table: every name finds its own row, no near miss finds any. */
#include "profiler/core/gpuspec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void test_names(void **state)
{
    static const struct {
        const char *device, *row; /* row "": none */
        int cc, sm;
    } t[] = {
        {"NVIDIA A100-SXM4-40GB", "A100 40GB", 80, 108},
        {"A100-PCIE-40GB", "A100 40GB", 80, 108},
        {"NVIDIA A100-SXM4-80GB", "A100 80GB SXM", 80, 108},
        {"NVIDIA A100 80GB PCIe", "A100 80GB PCIe", 80, 108},
        {"NVIDIA A800-SXM4-80GB", "A800", 80, 108},
        {"NVIDIA H100 80GB HBM3", "H100 SXM", 90, 132},
        {"nvidia h100 80gb hbm3", "H100 SXM", 0, 0},
        {"H100-SXM", "H100 SXM", 0, 0},
        {"NVIDIA H100 PCIe", "H100 PCIe", 90, 114},
        {"NVIDIA H100 NVL", "H100 NVL", 90, 132},
        {"NVIDIA H200", "H200 SXM", 90, 132},
        {"NVIDIA H200 NVL", "H200 NVL", 90, 132},
        {"NVIDIA H20", "H20", 90, 78},
        {"NVIDIA H800", "H800 SXM", 90, 132},
        {"NVIDIA GH200 480GB", "GH200 96GB", 90, 132},
        {"NVIDIA GH200 144G HBM3e", "GH200 144GB", 90, 132},
        {"NVIDIA B200", "B200", 100, 148},
        {"NVIDIA GB200", "GB200", 100, 152},
        {"NVIDIA B300 SXM6 AC", "B300", 103, 148},
        {"NVIDIA B300 SXM6 AC", "B300", 103, 152},
        {"NVIDIA GB300", "GB300", 103, 152},
        {"NVIDIA L4", "L4", 89, 58},
        {"NVIDIA L40", "L40", 89, 142},
        {"NVIDIA L40S", "L40S", 89, 142},
        {"NVIDIA A10", "A10", 86, 72},
        {"NVIDIA A10G", "A10G", 86, 80},
        {"NVIDIA A40", "A40", 86, 84},
        {"NVIDIA RTX A6000", "RTX A6000", 86, 84},
        {"NVIDIA GeForce RTX 3090", "GeForce RTX 3090", 86, 82},
        {"NVIDIA GeForce RTX 4090", "GeForce RTX 4090", 89, 128},
        {"NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada", 89, 142},
        {"NVIDIA GeForce RTX 5090", "GeForce RTX 5090", 120, 170},
        {"NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000 Blackwell", 120, 188},
        /* not those */
        {"NVIDIA H100", "", 90, 132},            /* SXM, NVL? */
        {"NVIDIA H100 80GB HBM2e", "", 90, 114}, /* a cloud's lower-power SXM */
        {"NVIDIA H100 80GB HBM3 MIG 3g.40gb", "", 90, 60},
        {"NVIDIA H100 80GB HBM3", "", 90, 60},
        {"NVIDIA H100 80GB HBM3", "", 100, 132},
        {"NVIDIA H800 PCIe", "", 90, 114},
        {"NVIDIA H20Z", "", 90, 0},
        {"NVIDIA A100-SXM-64GB", "", 80, 124},
        {"NVIDIA A10-24Q", "", 86, 72},
        {"NVIDIA A100X", "", 80, 108},
        {"NVIDIA GeForce RTX 3090 Ti", "", 86, 84},
        {"NVIDIA GeForce RTX 4090 D", "", 89, 114},
        {"NVIDIA GeForce RTX 4090 Laptop GPU", "", 89, 76},
        {"NVIDIA GeForce RTX 5090 D", "", 120, 170},
        {"NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "", 120, 188},
        {"NVIDIA RTX PRO 6000 Blackwell Server Edition", "", 120, 188},
        {"Quadro RTX 6000", "", 75, 72},
        {"Tesla V100-SXM2-32GB", "", 70, 80},
        {"NVIDIA GB10", "", 121, 48},
        {"AMD Instinct MI300X", "", 0, 0},
        {"NVIDIA Graphics Device", "", 90, 132},
        {"", "", 0, 0},
        {"NVIDIA", "", 0, 0},
        {"x x x x x x x x x x x x x x x x x x x x x x x l4", "", 0, 0},
        {"NVIDIA H200verylongverylongverylongverylongverylongword", "", 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < countof(t); i++) {
        const struct mp_gpu *gpu = mp_gpu_find(t[i].device, t[i].cc, t[i].sm);

        if (strcmp(gpu ? gpu->name : "", t[i].row) != 0)
            fail_msg("'%s' found '%s', not '%s'", t[i].device, gpu ? gpu->name : "", t[i].row);
    }
}

static double tflops(const char *name, enum mp_dtype dtype)
{
    const struct mp_gpu *gpu = mp_gpu_find(name, 0, 0);

    assert_non_null(gpu);
    return mp_gpu_peak(gpu, dtype) / 1e12;
}

#define assert_near(a, b) assert_true((a) > (b)-1e-6 && (a) < (b) + 1e-6)

/* The traps of knowledge/mfu.md 1.2: what other tables get wrong. */
static void test_peaks(void **state)
{
    (void)state;
    assert_near(tflops("NVIDIA H100 80GB HBM3", MP_DTYPE_BF16), 989.4); /* not 1979, sparse */
    assert_near(tflops("NVIDIA H100 80GB HBM3", MP_DTYPE_TF32), 494.7);
    assert_near(tflops("NVIDIA H100 80GB HBM3", MP_DTYPE_FP8), 1979);
    assert_near(tflops("NVIDIA H100 PCIe", MP_DTYPE_BF16), 756);
    assert_near(tflops("NVIDIA H100 NVL", MP_DTYPE_BF16), 835.5);
    assert_near(tflops("NVIDIA H20", MP_DTYPE_BF16), 148);
    assert_near(tflops("NVIDIA A10", MP_DTYPE_BF16), 125);
    assert_near(tflops("NVIDIA A10G", MP_DTYPE_BF16), 70);
    assert_near(tflops("NVIDIA L4", MP_DTYPE_BF16), 121);
    assert_near(tflops("NVIDIA L40", MP_DTYPE_BF16), 181);
    assert_near(tflops("NVIDIA L40S", MP_DTYPE_BF16), 362);
    assert_near(tflops("NVIDIA GeForce RTX 4090", MP_DTYPE_FP16), 165.2); /* FP32 accumulate */
    assert_near(tflops("NVIDIA GeForce RTX 5090", MP_DTYPE_BF16), 209.5);
    assert_near(tflops("NVIDIA RTX A6000", MP_DTYPE_BF16), 154.8);
    assert_near(tflops("NVIDIA B200", MP_DTYPE_BF16), 2250);
    assert_near(tflops("NVIDIA GB200", MP_DTYPE_BF16), 2500);
    assert_near(tflops("NVIDIA A100-SXM4-80GB", MP_DTYPE_FP8), 0);
}

static int is_pro_rate(const struct mp_gpu *g)
{
    return !strstr(g->name, "GeForce") && strcmp(g->name, "L40") != 0 &&
           strcmp(g->name, "A10G") != 0;
}

/* Where the spec clock is known, SMs x clock x rate gives the peak within 1 %. */
static void test_peaks_follow_from_silicon(void **state)
{
    const struct mp_gpu *g;
    int checked = 0;

    (void)state;
    for (size_t i = 0; (g = mp_gpu_at(i)); i++) {
        double rate = g->cc == 80 ? 2048 : g->cc == 90 ? 4096 : is_pro_rate(g) ? 1024 : 512;
        double derived = g->sm * 1e6 * g->clock_mhz * rate / 1e12;

        if (g->sm == 0 || g->clock_mhz == 0)
            continue;
        if (derived < 0.97 * g->bf16 || derived > 1.03 * g->bf16)
            fail_msg("%s: %.1f by silicon, %.1f in the table", g->name, derived, g->bf16);
        checked++;
    }
    assert_true(checked > 15);
}

static void test_rows_are_whole(void **state)
{
    const struct mp_gpu *g;

    (void)state;
    for (size_t i = 0; (g = mp_gpu_at(i)); i++) {
        assert_true(g->bf16 > 0 && g->tf32 > 0.49 * g->bf16 && g->tf32 < 0.51 * g->bf16);
        assert_true(g->fp8 == 0 || (g->fp8 > 1.98 * g->bf16 && g->fp8 < 2.03 * g->bf16));
        assert_true(g->fp8 == 0 || g->cc >= 89);
        assert_true(strlen(g->source) > 5 && g->note && g->may);
        assert_ptr_equal(mp_gpu_find(g->name, g->cc, g->sm),
                         g); /* `plan --gpu` takes it as listed */
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(g->name, mp_gpu_at(j)->name);
    }
}

static void test_suggestions(void **state)
{
    const struct mp_gpu *row[8];

    (void)state;
    assert_int_equal(mp_gpu_suggest("h100", row, 8), 3);
    assert_string_equal(row[0]->name, "H100 SXM");
    assert_int_equal(mp_gpu_suggest("h100", row, 2), 2);
    assert_int_equal(mp_gpu_suggest("MI300X", row, 8), 0);
    assert_int_equal(mp_gpu_suggest("", row, 8), 0);
}

static void test_dtypes(void **state)
{
    (void)state;
    assert_int_equal(mp_dtype_parse("bfloat16"), MP_DTYPE_BF16);
    assert_int_equal(mp_dtype_parse("float16"), MP_DTYPE_FP16);
    assert_int_equal(mp_dtype_parse("float8_e4m3fn"), MP_DTYPE_FP8);
    assert_int_equal(mp_dtype_parse("float32"), -1);
    assert_int_equal(mp_dtype_parse(""), -1);
    assert_string_equal(mp_dtype_name(MP_DTYPE_BF16), "bf16");
    assert_string_equal(mp_dtype_name(99), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_peaks),
        cmocka_unit_test(test_peaks_follow_from_silicon),
        cmocka_unit_test(test_rows_are_whole),
        cmocka_unit_test(test_suggestions),
        cmocka_unit_test(test_dtypes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
