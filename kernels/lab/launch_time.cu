/* launch_time: what the host spends on each thing that a call of the library does: a launch by each of its ways, a tensor map,
 * a question about the device. Medians of batches of 16 on an idle device, so the queue never fills; ns each.
 *
 *   nvcc -O2 -arch=sm_90a -I. -o build/launch_time kernels/lab/launch_time.cu && build/launch_time */
#include <cuda.h>

#include "kernels/lab/kit.cuh"

enum { N_BATCH = 101, BATCH = 16 };

struct small_args {
    void *p[8];
};
struct large_args {
    CUtensorMap map[6];
    void *p[48];
};

__global__ void small_kernel(small_args a)
{
    if (a.p[0])
        *(int *)a.p[0] = 1;
}
__global__ void large_kernel(const __grid_constant__ large_args a)
{
    if (a.p[0])
        *(int *)a.p[0] = 1;
}
__global__ void __cluster_dims__(2, 1, 1) cluster_kernel(const __grid_constant__ large_args a)
{
    if (a.p[0])
        *(int *)a.p[0] = 1;
}

static small_args small;
static large_args large;
static cudaStream_t stream;
static CUresult (*launch_ex)(const CUlaunchConfig *, CUfunction, void **, void **);
static CUresult (*encode)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *,
                          const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                          CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
static CUfunction small_kernel_handle, large_function, cluster_kernel_handle;
static void *device_memory;

static void by_chevrons_small(void)
{
    small_kernel<<<1, 256, 0, stream>>>(small);
}
static void by_chevrons_large(void)
{
    large_kernel<<<1, 256, 0, stream>>>(large);
}
static void by_chevrons_cluster(void)
{
    cluster_kernel<<<2, 256, 0, stream>>>(large);
}

static void by_runtime(const void *fn, void *args, unsigned n_block, bool cooperative)
{
    cudaLaunchAttribute one = {};
    cudaLaunchConfig_t c = {};

    one.id = cudaLaunchAttributeCooperative;
    one.val.cooperative = 1;
    c.gridDim = n_block;
    c.blockDim = 256;
    c.stream = stream;
    c.attrs = &one;
    c.numAttrs = cooperative;
    KIT_CHECK(cudaLaunchKernelExC(&c, fn, &args));
}

static void by_runtime_small(void)
{
    by_runtime((const void *)small_kernel, &small, 1, false);
}
static void by_runtime_cluster(void)
{
    by_runtime((const void *)cluster_kernel, &large, 2, false);
}
static void by_runtime_cooperative(void)
{
    by_runtime((const void *)small_kernel, &small, 1, true);
}

static void by_driver(CUfunction fn, void *args, unsigned n_block, bool overlapping)
{
    CUlaunchAttribute one = {};
    CUlaunchConfig c = {};

    one.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    one.value.programmaticStreamSerializationAllowed = 1;
    c.gridDimX = n_block;
    c.gridDimY = c.gridDimZ = 1;
    c.blockDimX = 256;
    c.blockDimY = c.blockDimZ = 1;
    c.hStream = stream;
    c.attrs = &one;
    c.numAttrs = overlapping;
    if (launch_ex(&c, fn, &args, NULL))
        exit(1);
}

static void by_driver_small(void)
{
    by_driver(small_kernel_handle, &small, 1, false);
}
static void by_driver_large(void)
{
    by_driver(large_function, &large, 1, false);
}
static void by_driver_cluster(void)
{
    by_driver(cluster_kernel_handle, &large, 2, false);
}
static void by_driver_overlapping(void)
{
    by_driver(small_kernel_handle, &small, 1, true);
}
static void set_memory(void)
{
    cudaMemsetAsync(device_memory, 0, 64, stream);
}
static void last_error(void)
{
    cudaGetLastError();
}

static void get_device(void)
{
    int device;
    cudaGetDevice(&device);
}

static void get_attribute(void)
{
    int value;
    cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0);
}

static void make_map(void)
{
    const cuuint64_t size[3] = { 2048, 1 << 20, 768 }, stride_bytes[2] = { 16, 4096 };
    const cuuint32_t box[3] = { 64, 1, 128 }, one[3] = { 1, 1, 1 };

    if (encode(large.map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, device_memory, size, stride_bytes, box, one,
               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
               CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE))
        exit(1);
}

static const struct {
    const char *name;
    void (*fn)(void);
} things[] = {
    { "<<<>>>, 64 bytes", by_chevrons_small },
    { "<<<>>>, 1152 bytes", by_chevrons_large },
    { "<<<>>>, 1152 bytes, cluster", by_chevrons_cluster },
    { "cudaLaunchKernelExC, 64 bytes", by_runtime_small },
    { "cudaLaunchKernelExC, 1152 bytes, cluster", by_runtime_cluster },
    { "cudaLaunchKernelExC, cooperative", by_runtime_cooperative },
    { "cuLaunchKernelEx of a CUkernel, 64 bytes", by_driver_small },
    { "cuLaunchKernelEx of a CUfunction, 1152 bytes", by_driver_large },
    { "cuLaunchKernelEx of a CUkernel, 1152 bytes, cluster", by_driver_cluster },
    { "cuLaunchKernelEx, may overlap", by_driver_overlapping },
    { "cudaMemsetAsync", set_memory },
    { "cuTensorMapEncodeTiled", make_map },
    { "cudaGetDevice", get_device },
    { "cudaDeviceGetAttribute", get_attribute },
    { "cudaGetLastError", last_error },
};

static void time_thing(const char *name, void (*fn)(void))
{
    float ns[N_BATCH];

    for (int i = 0; i < N_BATCH; i++) {
        KIT_CHECK(cudaStreamSynchronize(stream));
        double begin = kit_now_ns();
        for (int j = 0; j < BATCH; j++)
            fn();
        ns[i] = (float)((kit_now_ns() - begin) / BATCH);
    }
    qsort(ns, N_BATCH, sizeof *ns, kit_compare);
    printf("%-52s %6.0f ns (%.0f..%.0f)\n", name, ns[N_BATCH / 2], ns[N_BATCH / 10], ns[N_BATCH * 9 / 10]);
}

static void *entry(const char *name)
{
    void *fn = NULL;
    cudaDriverEntryPointQueryResult found;

    KIT_CHECK(cudaGetDriverEntryPointByVersion(name, &fn, 12000, cudaEnableDefault, &found));
    return fn;
}

int main(void)
{
    cudaKernel_t kernel;
    cudaFunction_t function;

    KIT_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    device_memory = kit_alloc(1 << 20);
    launch_ex = (decltype(launch_ex))entry("cuLaunchKernelEx");
    encode = (decltype(encode))entry("cuTensorMapEncodeTiled");
    KIT_CHECK(cudaGetKernel(&kernel, (const void *)small_kernel));
    small_kernel_handle = (CUfunction)kernel;
    KIT_CHECK(cudaGetKernel(&kernel, (const void *)cluster_kernel));
    cluster_kernel_handle = (CUfunction)kernel;
    KIT_CHECK(cudaGetFuncBySymbol(&function, (const void *)large_kernel));
    large_function = function;
    for (size_t i = 0; i < sizeof things / sizeof *things; i++)
        time_thing(things[i].name, things[i].fn);
    return 0;
}
