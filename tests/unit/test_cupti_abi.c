/* injector/cupti_abi.h against NVIDIA's own headers, where those are installed, and our decoder against
 * NVIDIA's own parser, where libcupti is: it walks a made-up buffer without a driver. */
#include "injector/cupti_abi.h"

#include "injector/decode.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#if defined(__has_include)
#if __has_include(<cupti.h>)
#define HAVE_CUPTI 1
#endif
#endif

#ifdef HAVE_CUPTI
/* our names, before theirs come */
enum {
    our_memcpy = ACT_MEMCPY,
    our_memset = ACT_MEMSET,
    our_kernel = ACT_KERNEL,
    our_concurrent = ACT_CONCURRENT_KERNEL,
    our_overhead = ACT_OVERHEAD,
    our_p2p = ACT_MEMCPY_P2P,
};

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wundef"
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#include <cupti.h>
#pragma GCC diagnostic pop

#define AT(type, field, ours) assert_int_equal(offsetof(type, field), ours)
#define KERNEL(type)                                                                               \
    AT(type, kind, 0);                                                                             \
    AT(type, start, KERNEL_START);                                                                 \
    AT(type, end, KERNEL_END);                                                                     \
    AT(type, streamId, KERNEL_STREAM);                                                             \
    AT(type, correlationId, KERNEL_CORR);                                                          \
    AT(type, name, KERNEL_NAME);                                                                   \
    AT(type, graphNodeId, KERNEL_GRAPH_NODE)
#define COPY(type, corr)                                                                           \
    AT(type, copyKind, COPY_KIND);                                                                 \
    AT(type, bytes, COPY_BYTES);                                                                   \
    AT(type, start, COPY_START);                                                                   \
    AT(type, end, COPY_END);                                                                       \
    AT(type, streamId, COPY_STREAM);                                                               \
    AT(type, correlationId, corr)
#define SET(type)                                                                                  \
    AT(type, bytes, SET_BYTES);                                                                    \
    AT(type, start, SET_START);                                                                    \
    AT(type, end, SET_END);                                                                        \
    AT(type, streamId, SET_STREAM);                                                                \
    AT(type, correlationId, SET_CORR)

static void test_kernels(void **state)
{
    (void)state;
    KERNEL(CUpti_ActivityKernel5);
    KERNEL(CUpti_ActivityKernel6);
    KERNEL(CUpti_ActivityKernel7);
    KERNEL(CUpti_ActivityKernel8);
    KERNEL(CUpti_ActivityKernel9);
#if CUPTI_API_VERSION >= 130000
    KERNEL(CUpti_ActivityKernel10);
    assert_int_equal(sizeof(CUpti_ActivityKernel10), 216);
#endif
    assert_int_equal(sizeof(CUpti_ActivityKernel9), 208);
}

static void test_copies_and_sets(void **state)
{
    (void)state;
    COPY(CUpti_ActivityMemcpy4, COPY_CORR);
    COPY(CUpti_ActivityMemcpy5, COPY_CORR);
    COPY(CUpti_ActivityMemcpyPtoP3, P2P_CORR);
    COPY(CUpti_ActivityMemcpyPtoP4, P2P_CORR);
    SET(CUpti_ActivityMemset3);
    SET(CUpti_ActivityMemset4);
    AT(CUpti_ActivityOverhead, start, OVERHEAD_START);
    AT(CUpti_ActivityOverhead, end, OVERHEAD_END);
}

static void test_numbers(void **state)
{
    (void)state;
    assert_int_equal(CUPTI_SUCCESS, CUPTI_OK);
    assert_int_equal(CUPTI_ERROR_MAX_LIMIT_REACHED, CUPTI_NO_MORE);
    assert_int_equal(CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED, CUPTI_MULTIPLE_SUBSCRIBERS);
    assert_int_equal(CUPTI_ACTIVITY_KIND_MEMCPY, our_memcpy);
    assert_int_equal(CUPTI_ACTIVITY_KIND_MEMSET, our_memset);
    assert_int_equal(CUPTI_ACTIVITY_KIND_KERNEL, our_kernel);
    assert_int_equal(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, our_concurrent);
    assert_int_equal(CUPTI_ACTIVITY_KIND_OVERHEAD, our_overhead);
    assert_int_equal(CUPTI_ACTIVITY_KIND_MEMCPY2, our_p2p);
    assert_int_equal(CUPTI_CB_DOMAIN_DRIVER_API, DOMAIN_DRIVER);
    assert_int_equal(CUPTI_API_ENTER, SITE_ENTER);
    assert_int_equal(CUPTI_API_EXIT, SITE_EXIT);
    assert_int_equal(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED, FLUSH_FORCED);
    assert_int_equal(CUPTI_ACTIVITY_ATTR_ZEROED_OUT_ACTIVITY_BUFFER, ATTR_ZEROED_OUT_BUFFER);
    assert_int_equal(CUPTI_ACTIVITY_MEMCPY_KIND_HTOD, COPY_HTOD);
    assert_int_equal(CUPTI_ACTIVITY_MEMCPY_KIND_DTOH, COPY_DTOH);
    assert_int_equal(CUPTI_ACTIVITY_MEMCPY_KIND_DTOD, COPY_DTOD);
}

static void test_callback_data(void **state)
{
    (void)state;
    AT(CUpti_CallbackData, callbackSite, offsetof(struct cupti_callback, site));
    AT(CUpti_CallbackData, functionName, offsetof(struct cupti_callback, function_name));
    AT(CUpti_CallbackData, functionParams, offsetof(struct cupti_callback, params));
    AT(CUpti_CallbackData, symbolName, offsetof(struct cupti_callback, symbol_name));
    AT(CUpti_CallbackData, context, offsetof(struct cupti_callback, context));
    AT(CUpti_CallbackData, correlationData, offsetof(struct cupti_callback, correlation_data));
    AT(CUpti_CallbackData, correlationId, offsetof(struct cupti_callback, correlation));
}

static void test_launch_blocks(void **state)
{
    (void)state;
    AT(cuLaunchKernel_params, f, offsetof(struct launch_params, f));
    AT(cuLaunchKernel_params, gridDimX, offsetof(struct launch_params, grid));
    AT(cuLaunchKernel_params, blockDimX, offsetof(struct launch_params, block));
    AT(cuLaunchKernel_params, hStream, offsetof(struct launch_params, stream));
    AT(cuLaunchKernel_params, kernelParams, offsetof(struct launch_params, kernel_params));
    AT(cuLaunchKernel_params, extra, offsetof(struct launch_params, extra));
    AT(cuLaunchCooperativeKernel_params, f, offsetof(struct launch_params, f));
    AT(cuLaunchCooperativeKernel_params, kernelParams,
       offsetof(struct launch_params, kernel_params));
    AT(cuLaunchKernelEx_params, f, offsetof(struct launch_ex_params, f));
    AT(cuLaunchKernelEx_params, kernelParams, offsetof(struct launch_ex_params, kernel_params));
    AT(cuLaunchKernelEx_params, extra, offsetof(struct launch_ex_params, extra));
    assert_int_equal((uintptr_t)CU_LAUNCH_PARAM_END, EXTRA_END);
    assert_int_equal((uintptr_t)CU_LAUNCH_PARAM_BUFFER_POINTER, EXTRA_POINTER);
    assert_int_equal((uintptr_t)CU_LAUNCH_PARAM_BUFFER_SIZE, EXTRA_SIZE);
}

static void test_cbids(void **state)
{
#define ID(name)                                                                                   \
    {                                                                                              \
        (int)CUPTI_DRIVER_TRACE_CBID_##name, (int)CB_##name, #name                                 \
    }
    static const struct {
        int theirs, ours;
        const char *name;
    } id[] = {
        ID(cuMemcpy3DAsync),
        ID(cuMemsetD8Async),
        ID(cuMemsetD16Async),
        ID(cuMemsetD32Async),
        ID(cuMemcpyHtoD_v2),
        ID(cuMemcpyHtoDAsync_v2),
        ID(cuMemcpyDtoH_v2),
        ID(cuMemcpyDtoHAsync_v2),
        ID(cuMemcpyDtoD_v2),
        ID(cuMemcpyDtoDAsync_v2),
        ID(cuMemcpy2DAsync_v2),
        ID(cuMemcpy3DAsync_v2),
        ID(cuMemcpyAsync),
        ID(cuLaunchKernel),
        ID(cuMemcpyHtoD_v2_ptds),
        ID(cuMemcpyDtoH_v2_ptds),
        ID(cuMemcpyDtoD_v2_ptds),
        ID(cuMemcpyAsync_ptsz),
        ID(cuMemcpyHtoDAsync_v2_ptsz),
        ID(cuMemcpyDtoHAsync_v2_ptsz),
        ID(cuMemcpyDtoDAsync_v2_ptsz),
        ID(cuMemcpy2DAsync_v2_ptsz),
        ID(cuMemcpy3DAsync_v2_ptsz),
        ID(cuMemsetD8Async_ptsz),
        ID(cuMemsetD16Async_ptsz),
        ID(cuMemsetD32Async_ptsz),
        ID(cuLaunchKernel_ptsz),
        ID(cuLaunchCooperativeKernel),
        ID(cuLaunchCooperativeKernel_ptsz),
        ID(cuGraphLaunch),
        ID(cuGraphLaunch_ptsz),
        ID(cuLaunchKernelEx),
        ID(cuLaunchKernelEx_ptsz),
    };
#undef ID

    (void)state;
    for (size_t i = 0; i < sizeof id / sizeof id[0]; i++) {
        if (id[i].theirs != id[i].ours)
            fail_msg("%s is %d, not %d", id[i].name, id[i].theirs, id[i].ours);
    }
    assert_true((int)CUPTI_DRIVER_TRACE_CBID_SIZE <= (int)CB_MAX);
}

/* ---- NVIDIA's parser, our decoder ------------------------------------------------------------------------ */

#if CUPTI_API_VERSION >= 130000
typedef CUpti_ActivityKernel10 kernel_record;
#else
typedef CUpti_ActivityKernel9 kernel_record;
#endif

static size_t make_buffer(uint8_t *buffer)
{
    kernel_record k = {.kind = CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
                       .start = 100,
                       .end = 250,
                       .streamId = 7,
                       .correlationId = 11,
                       .name = "some_gemm",
                       .graphNodeId = 3};
    CUpti_ActivityMemset4 s = {.kind = CUPTI_ACTIVITY_KIND_MEMSET,
                               .start = 400,
                               .end = 410,
                               .streamId = 9,
                               .correlationId = 13,
                               .bytes = 64};
    size_t used = 0;

    for (int i = 0; i < 3; i++) {
        k.correlationId++;
        memcpy(buffer + used, &k, sizeof k);
        used += sizeof k;
    }
    memcpy(buffer + used, &s, sizeof s);
    return used + sizeof s;
}

static void test_real_parser(void **state)
{
    int (*next)(uint8_t *, size_t, uint8_t **) = NULL, (*version)(uint32_t *);
    const uint32_t series = CUPTI_API_VERSION >= 130000 ? 100 : 1; /* 13.0 and its updates; 12.8 */
    void *lib = dlopen(series > 1 ? "libcupti.so.13" : "libcupti.so.12", RTLD_NOW | RTLD_LOCAL);
    static _Alignas(8) uint8_t buffer[4096];
    size_t bytes = make_buffer(buffer);
    uint8_t *record = NULL;
    struct inj_activity a;
    uint32_t have = 0;

    (void)state;
    if (lib) {
        *(void **)&version = dlsym(lib, "cuptiGetVersion");
        *(void **)&next = dlsym(lib, "cuptiActivityGetNextRecord");
        version(&have);
    }
    if (have / series != CUPTI_API_VERSION / series) {
        print_message("no libcupti of the headers' version here\n");
        skip();
    }
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(next(buffer, bytes, &record), CUPTI_OK);
        assert_true(inj_decode(&a, record));
        assert_int_equal(a.kind, MP_KERNEL);
        assert_int_equal(a.start_ns, 100);
        assert_int_equal(a.end_ns, 250);
        assert_int_equal(a.corr, 12 + i);
        assert_int_equal(a.stream, 7);
        assert_int_equal(a.flags, MP_FLAG_GRAPH);
        assert_string_equal(a.name, "some_gemm");
    }
    assert_int_equal(next(buffer, bytes, &record), CUPTI_OK);
    assert_true(inj_decode(&a, record));
    assert_int_equal(a.kind, MP_MEMSET);
    assert_int_equal(a.bytes, 64);
    assert_int_equal(a.corr, 13);
    assert_int_equal(next(buffer, bytes, &record), CUPTI_NO_MORE);
}
#endif

static void test_unknown_kinds_are_refused(void **state)
{
    _Alignas(8) uint8_t record[256] = {0};
    struct inj_activity a;

    (void)state;
    for (unsigned kind = 0; kind < 256; kind++) {
        bool known = kind == 1 || kind == 2 || kind == 3 || kind == 10 || kind == 17 || kind == 22;

        record[0] = (uint8_t)kind;
        assert_int_equal(inj_decode(&a, record), known);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_kinds_are_refused),
#ifdef HAVE_CUPTI
        cmocka_unit_test(test_kernels),
        cmocka_unit_test(test_copies_and_sets),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_callback_data),
        cmocka_unit_test(test_launch_blocks),
        cmocka_unit_test(test_cbids),
        cmocka_unit_test(test_real_parser),
#endif
    };

#ifndef HAVE_CUPTI
    print_message("skipped: no cupti.h here, offsets and callback numbers are not checked\n");
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
