/* Stand-in for libcuda.so.1. Device memory is host memory; the guest's two counting kernels run here in
 * plain C, written from what they are to compute, so that their results can be checked; launches of
 * other kernels do nothing. Each launch is reported to the stand-in libcupti when that is mapped. */
#include "tests/mock/mock.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
enum { INVALID = 1, NO_MEMORY = 2, NOT_READY = 600, ILLEGAL = 700, CAPTURE_UNSAFE = 900 };
enum { RELAXED = 2 };
enum { BLOCKS = 256 };

static struct mock_cuda m = {.param_bytes = 128};
static struct {
    char *base;
    size_t bytes;
} block[BLOCKS];
static unsigned n_block;
static const char *const kernel_name[] = {"moeprof_route", "moeprof_mask"};

#define CALL(name, ...)                                                                            \
    int name(__VA_ARGS__);                                                                         \
    EXPORT int name(__VA_ARGS__)

struct mock_cuda *mock_cuda(void);
EXPORT struct mock_cuda *mock_cuda(void)
{
    return &m;
}

/* ---- facts --------------------------------------------------------------------------------------- */

CALL(cuInit, unsigned flags)
{
    (void)flags;
    return 0;
}

CALL(cuFuncGetParamInfo, void *func, size_t index, size_t *offset, size_t *bytes)
{
    (void)func;
    m.n_query_param++;
    if (index || !m.param_bytes)
        return INVALID;
    *offset = 0;
    *bytes = m.param_bytes;
    return 0;
}

CALL(cuKernelGetParamInfo, void *kernel, size_t index, size_t *offset, size_t *bytes)
{
    (void)kernel;
    (void)index;
    (void)offset;
    (void)bytes;
    return INVALID; /* handles here are CUfunctions: the guest has to ask both */
}

CALL(cuCtxGetCurrent, void **ctx)
{
    *ctx = &m;
    return 0;
}
CALL(cuCtxSetCurrent, void *ctx)
{
    (void)ctx;
    return 0;
}
CALL(cuCtxSynchronize, void)
{
    return 0;
}
CALL(cuCtxGetDevice, int *device)
{
    *device = 0;
    return 0;
}
CALL(cuDeviceGetName, char *name, int bytes, int device)
{
    (void)device;
    snprintf(name, (size_t)bytes, "NVIDIA H100 80GB HBM3");
    return 0;
}
CALL(cuDeviceGetAttribute, int *value, int attribute, int device)
{
    (void)device;
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 16 ? 132 : 1980000;
    return 0;
}
CALL(cuDeviceTotalMem_v2, size_t *bytes, int device)
{
    (void)device;
    *bytes = (size_t)80 << 30;
    return 0;
}
CALL(cuDeviceGetUuid, void *uuid16, int device)
{
    (void)device;
    memset(uuid16, 0xab, 16);
    return 0;
}
CALL(cuDriverGetVersion, int *version)
{
    *version = 13000;
    return 0;
}

/* ---- memory, events, streams ----------------------------------------------------------------------- */

static _Thread_local int capture_mode; /* 0 GLOBAL */

CALL(cuThreadExchangeStreamCaptureMode, int *mode)
{
    int before = capture_mode;

    capture_mode = *mode;
    *mode = before;
    return 0;
}

/* A call that CUDA calls potentially unsafe: while any stream is captured, as torch does it, it ends the capture, whichever
 * thread makes it, unless that thread has said that it knows. */
static bool spoils(void)
{
    bool bad = m.capturing && capture_mode != RELAXED;

    m.n_spoiled += bad;
    return bad;
}

static void *allot(size_t bytes)
{
    char *p = m.fail_alloc || n_block == BLOCKS ? NULL : malloc(bytes);

    if (p) {
        memset(p, 0xa5, bytes); /* what nobody cleared */
        block[n_block].base = p;
        block[n_block++].bytes = bytes;
        m.n_alloc++;
    }
    return p;
}

static bool mine(const void *p, size_t bytes)
{
    for (unsigned i = 0; i < n_block; i++)
        if ((const char *)p >= block[i].base &&
            (const char *)p + bytes <= block[i].base + block[i].bytes)
            return true;
    m.n_illegal++;
    return false;
}

CALL(cuMemAlloc_v2, uint64_t *ptr, size_t bytes)
{
    if (spoils())
        return CAPTURE_UNSAFE;
    *ptr = (uint64_t)(uintptr_t)allot(bytes);
    return *ptr ? 0 : NO_MEMORY;
}
CALL(cuMemHostAlloc, void **ptr, size_t bytes, unsigned flags)
{
    (void)flags;
    if (spoils())
        return CAPTURE_UNSAFE;
    *ptr = allot(bytes);
    return *ptr ? 0 : NO_MEMORY;
}
CALL(cuMemsetD32Async, uint64_t ptr, unsigned value, size_t n, void *stream)
{
    (void)stream;
    if (!mine((void *)(uintptr_t)ptr, n * 4))
        return ILLEGAL;
    for (size_t i = 0; i < n; i++)
        ((unsigned *)(uintptr_t)ptr)[i] = value;
    return 0;
}
CALL(cuMemcpyDtoHAsync_v2, void *host, uint64_t ptr, size_t bytes, void *stream)
{
    (void)stream;
    m.n_taken += m.capturing;
    if (m.fail_copy)
        return INVALID;
    if (!mine((void *)(uintptr_t)ptr, bytes))
        return ILLEGAL;
    memcpy(host, (void *)(uintptr_t)ptr, bytes);
    return 0;
}
CALL(cuEventCreate, void **event, unsigned flags)
{
    (void)flags;
    *event = &m;
    return 0;
}
CALL(cuEventRecord, void *event, void *stream)
{
    (void)stream;
    m.n_taken += m.capturing;
    return event ? 0 : INVALID;
}
CALL(cuEventQuery, void *event)
{
    if (!event)
        return INVALID;
    if (spoils())
        return CAPTURE_UNSAFE;
    return m.busy > 0 && m.busy-- ? NOT_READY : 0;
}
CALL(cuStreamIsCapturing, void *stream, int *status)
{
    (void)stream;
    *status = m.capturing;
    return 0;
}

/* ---- kernels ------------------------------------------------------------------------------------------ */

CALL(cuModuleLoadData, void **module, const void *image)
{
    if (spoils())
        return CAPTURE_UNSAFE;
    *module = strstr(image, ".entry moeprof_route") ? &m : NULL;
    return *module ? 0 : INVALID;
}
CALL(cuModuleGetFunction, void **func, void *module, const char *name)
{
    *func = NULL;
    for (size_t i = 0; i < countof(kernel_name); i++)
        if (strcmp(kernel_name[i], name) == 0)
            *func = (void *)&kernel_name[i];
    return module && *func ? 0 : INVALID;
}

static int64_t index_at(const void *index, int bytes, size_t i)
{
    return bytes == 8 ? ((const int64_t *)index)[i] : ((const int32_t *)index)[i];
}

static int route(void **p)
{
    const void *index = *(void **)p[0];
    int bytes = *(int *)p[1], n_expert = *(int *)p[3];
    unsigned long long n = *(unsigned long long *)p[2];
    unsigned *count = *(unsigned **)p[4];

    if (!mine(count, (size_t)n_expert * 4))
        return ILLEGAL;
    for (size_t i = 0; i < n; i++) {
        int64_t e = index_at(index, bytes, i);

        if (e >= 0 && e < n_expert)
            count[e]++;
    }
    return 0;
}

struct mask_args {
    const void *mask;
    const int64_t *labels, *position;
    uint64_t *sums;
    unsigned cols, window[4];
    int mask_bytes, mask_float, n_window;
};

static bool on(const struct mask_args *a, size_t i)
{
    if (!a->mask)
        return true;
    if (a->mask_bytes == 4 && a->mask_float)
        return ((const float *)a->mask)[i] != 0;
    return a->mask_bytes == 1 ? ((const uint8_t *)a->mask)[i]
                              : index_at(a->mask, a->mask_bytes, i) != 0;
}

/* One row: a token attends to itself and to what stands before it in its segment. */
static void mask_row(const struct mask_args *a, size_t row)
{
    uint64_t in_segment = 0;

    for (size_t i = row * a->cols; i < (row + 1) * a->cols; i++) {
        a->sums[1] += a->labels && a->labels[i] != -100;
        if (!on(a, i))
            continue;
        a->sums[0]++;
        in_segment = a->position ? (uint64_t)a->position[i] + 1 : in_segment + 1;
        a->sums[2] += in_segment == 1;
        a->sums[3] = in_segment > a->sums[3] ? in_segment : a->sums[3];
        for (int k = 0; k < a->n_window; k++)
            a->sums[4 + k] += a->window[k] && in_segment > a->window[k] ? a->window[k] : in_segment;
    }
}

static int mask(void **p, unsigned rows)
{
    struct mask_args a = {.mask = *(void **)p[0],
                          .mask_bytes = *(int *)p[1],
                          .mask_float = *(int *)p[2],
                          .labels = *(void **)p[3],
                          .position = *(void **)p[4],
                          .cols = *(unsigned *)p[5],
                          .n_window = *(int *)p[10],
                          .sums = *(uint64_t **)p[11]};

    for (int k = 0; k < 4; k++)
        a.window[k] = *(unsigned *)p[6 + k];
    if (!mine(a.sums, 64))
        return ILLEGAL;
    for (unsigned row = 0; row < rows; row++)
        mask_row(&a, row);
    return 0;
}

/* As CUPTI sees a launch: the call, then the kernel. */
static void tell(void *func, const char *name, const void *params)
{
    static _Atomic uint32_t next_corr = 1000000;
    static _Atomic uint64_t clock_ns = 1000000000;
    void *lib = m.silent ? NULL : dlopen("libcupti.so.13", RTLD_NOW | RTLD_NOLOAD);
    void (*call)(uint32_t, const void *, const char *, uint32_t);
    void (*kernel)(uint32_t, const char *, uint64_t, uint64_t);
    uint32_t corr = atomic_fetch_add(&next_corr, 1);
    uint64_t start = atomic_fetch_add(&clock_ns, 1000);

    (void)func;
    if (!lib)
        return;
    *(void **)&call = dlsym(lib, "mock_cupti_call");
    *(void **)&kernel = dlsym(lib, "mock_cupti_kernel");
    if (call && kernel) {
        call(CB_cuLaunchKernel, params, name, corr);
        kernel(corr, name, start, start + 700);
    }
}

CALL(cuLaunchKernel, void *func, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
     unsigned bz, unsigned smem, void *stream, void **params, void **extra)
{
    struct launch_params call = {func, {gx, gy, gz}, {bx, by, bz}, smem, stream, params, extra};
    bool own = func >= (void *)kernel_name && func < (void *)(kernel_name + 2);

    if (m.fail_launch)
        return INVALID;
    m.n_launch++;
    tell(func, own ? *(const char **)func : "job_kernel", &call);
    if (!own)
        return 0;
    return func == (void *)&kernel_name[0] ? route(params) : mask(params, gx);
}
