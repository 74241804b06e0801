/* The part of CUPTI's binary interface that the guest uses, declared by us: the guest is built without
 * a CUDA toolkit and meets whatever libcupti the process has mapped (12.x, 13.x).
 *
 * Activity records of kernels, copies and memsets are append-only from CUPTI 11 to 13 (no field
 * moved), so fields are read at fixed offsets; tests/unit/test_cupti_abi.c checks them against NVIDIA's
 * headers where those are installed.
 */
#ifndef INJ_CUPTI_ABI_H
#define INJ_CUPTI_ABI_H

#include <stddef.h>
#include <stdint.h>

enum { CUPTI_OK = 0, CUPTI_NO_MORE = 12, CUPTI_MULTIPLE_SUBSCRIBERS = 39 };

/* CUpti_ActivityKind */
enum {
    ACT_MEMCPY = 1,
    ACT_MEMSET = 2,
    ACT_KERNEL = 3,
    ACT_CONCURRENT_KERNEL = 10,
    ACT_OVERHEAD = 17,
    ACT_MEMCPY_P2P = 22
};

enum { DOMAIN_DRIVER = 1 };             /* CUpti_CallbackDomain */
enum { SITE_ENTER = 0, SITE_EXIT = 1 }; /* CUpti_ApiCallbackSite */
enum { FLUSH_FORCED = 1 };              /* CUpti_ActivityFlag for FlushAll */
enum { ATTR_ZEROED_OUT_BUFFER = 5 };    /* CUpti_ActivityAttribute */
enum { COPY_HTOD = 1, COPY_DTOH = 2, COPY_DTOD = 8 };

/* CUpti_CallbackData up to what is read; the struct goes on. */
struct cupti_callback {
    int site;
    const char *function_name;
    const void *params;
    void *return_value;
    const char *symbol_name;
    void *context;
    uint32_t context_uid;
    uint64_t *correlation_data;
    uint32_t correlation;
};
_Static_assert(offsetof(struct cupti_callback, symbol_name) == 32, "CUpti_CallbackData");
_Static_assert(offsetof(struct cupti_callback, correlation) == 64, "CUpti_CallbackData");

/* Offsets in activity records: kind is a u32 at 0 in all. */
enum {
    KERNEL_START = 16,
    KERNEL_END = 24,
    KERNEL_STREAM = 48,
    KERNEL_CORR = 92,
    KERNEL_NAME = 104,
    KERNEL_GRAPH_NODE = 144,
    COPY_KIND = 4 /* u8 */,
    COPY_BYTES = 8,
    COPY_START = 16,
    COPY_END = 24,
    COPY_STREAM = 40,
    COPY_CORR = 44,
    P2P_CORR = 60,
    SET_BYTES = 8,
    SET_START = 16,
    SET_END = 24,
    SET_STREAM = 40,
    SET_CORR = 44,
    OVERHEAD_START = 24,
    OVERHEAD_END = 32
};

/* CUDA driver parameter blocks of the launches (generated_cuda_meta.h). */
struct launch_params { /* cuLaunchKernel; the cooperative launch has all but extra */
    void *f;
    unsigned grid[3], block[3], smem;
    void *stream;
    void **kernel_params;
    void **extra;
};
struct launch_ex_params { /* cuLaunchKernelEx */
    const void *config;
    void *f;
    void **kernel_params;
    void **extra;
};
enum { EXTRA_END = 0, EXTRA_POINTER = 1, EXTRA_SIZE = 2 }; /* CU_LAUNCH_PARAM_* */

/* CUpti_driver_api_trace_cbid */
enum {
    CB_cuMemcpy3DAsync = 69,
    CB_cuMemsetD8Async = 216,
    CB_cuMemsetD16Async = 218,
    CB_cuMemsetD32Async = 220,
    CB_cuMemcpyHtoD_v2 = 276,
    CB_cuMemcpyHtoDAsync_v2 = 277,
    CB_cuMemcpyDtoH_v2 = 278,
    CB_cuMemcpyDtoHAsync_v2 = 279,
    CB_cuMemcpyDtoD_v2 = 280,
    CB_cuMemcpyDtoDAsync_v2 = 281,
    CB_cuMemcpy2DAsync_v2 = 289,
    CB_cuMemcpy3DAsync_v2 = 291,
    CB_cuMemcpyAsync = 306,
    CB_cuLaunchKernel = 307,
    CB_cuMemcpyHtoD_v2_ptds = 397,
    CB_cuMemcpyDtoH_v2_ptds = 398,
    CB_cuMemcpyDtoD_v2_ptds = 399,
    CB_cuMemcpyAsync_ptsz = 418,
    CB_cuMemcpyHtoDAsync_v2_ptsz = 421,
    CB_cuMemcpyDtoHAsync_v2_ptsz = 422,
    CB_cuMemcpyDtoDAsync_v2_ptsz = 423,
    CB_cuMemcpy2DAsync_v2_ptsz = 424,
    CB_cuMemcpy3DAsync_v2_ptsz = 425,
    CB_cuMemsetD8Async_ptsz = 428,
    CB_cuMemsetD16Async_ptsz = 429,
    CB_cuMemsetD32Async_ptsz = 430,
    CB_cuLaunchKernel_ptsz = 442,
    CB_cuLaunchCooperativeKernel = 477,
    CB_cuLaunchCooperativeKernel_ptsz = 478,
    CB_cuGraphLaunch = 514,
    CB_cuGraphLaunch_ptsz = 515,
    CB_cuLaunchKernelEx = 652,
    CB_cuLaunchKernelEx_ptsz = 653,
    CB_MAX = 1024
};

#endif
