/* mock_cudart.c: as much of CUDA's runtime as moe_bench and the kernels' host code call, in place of the real one: a GPU of
 * compute capability 9.0 on which nothing runs and every call takes a millisecond. Addresses are made up, nobody may follow
 * them. For tests of what the bench says, on machines without a GPU. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define MEMORY_BYTES ((size_t)80 << 30)
#define GPU_NAME     "Mock GPU"

struct dim3 {
    unsigned x, y, z;
};

enum { ATTRIBUTE_SM_COUNT = 16, ATTRIBUTE_MAJOR = 75, ATTRIBUTE_MINOR = 76 };

/* Calls that only have to succeed. */
#define SUCCEEDS(name)                                                                             \
    int name(void);                                                                                \
    int name(void)                                                                                 \
    {                                                                                              \
        return 0;                                                                                  \
    }
SUCCEEDS(cudaGetLastError)
SUCCEEDS(cudaFuncSetAttribute)
SUCCEEDS(cudaStreamSynchronize)
SUCCEEDS(cudaStreamBeginCapture)
SUCCEEDS(cudaMemsetAsync)
SUCCEEDS(cudaMemcpy)
SUCCEEDS(cudaFree)
SUCCEEDS(cudaGraphLaunch)
SUCCEEDS(cudaGraphExecDestroy)
SUCCEEDS(cudaGraphDestroy)
SUCCEEDS(cudaEventSynchronize)
SUCCEEDS(cudaEventRecord)
SUCCEEDS(cudaEventDestroy)
SUCCEEDS(cudaDeviceSynchronize)
SUCCEEDS(__cudaUnregisterFatBinary)
SUCCEEDS(__cudaRegisterFatBinaryEnd)
SUCCEEDS(__cudaRegisterFunction)
SUCCEEDS(__cudaPushCallConfiguration)
SUCCEEDS(__cudaLaunchKernel)
SUCCEEDS(cudaLaunchKernelExC)

/* Calls that hand out a handle. */
#define GIVES(name)                                                                                \
    int name(void **out);                                                                          \
    int name(void **out)                                                                           \
    {                                                                                              \
        static char handle[256];                                                                   \
        *out = handle;                                                                             \
        return 0;                                                                                  \
    }
GIVES(cudaStreamCreate)
GIVES(cudaEventCreate)
GIVES(cudaGraphInstantiate)
GIVES(__cudaGetKernel)

int cudaMalloc(void **out, size_t bytes);
int cudaMalloc(void **out, size_t bytes)
{
    static uintptr_t next = (uintptr_t)1 << 40;

    *out = (void *)next; /* NOLINT: made up */
    next += (bytes + 255) / 256 * 256;
    return 0;
}

int cudaMemGetInfo(size_t *free_bytes, size_t *all_bytes);
int cudaMemGetInfo(size_t *free_bytes, size_t *all_bytes)
{
    *free_bytes = *all_bytes = MEMORY_BYTES;
    return 0;
}

int cudaGetDevice(int *device);
int cudaGetDevice(int *device)
{
    *device = 0;
    return 0;
}

int cudaDeviceGetAttribute(int *value, int which, int device);
int cudaDeviceGetAttribute(int *value, int which, int device)
{
    (void)device;
    *value = which == ATTRIBUTE_SM_COUNT ? 132
             : which == ATTRIBUTE_MAJOR  ? 9
             : which == ATTRIBUTE_MINOR  ? 0
                                         : 1 << 16;
    return 0;
}

/* Its first member is the name. */
int cudaGetDeviceProperties(char *name, int device);
int cudaGetDeviceProperties(char *name, int device)
{
    (void)device;
    snprintf(name, 256, GPU_NAME);
    return 0;
}

int cudaEventElapsedTime(float *ms, void *begin, void *end);
int cudaEventElapsedTime(float *ms, void *begin, void *end)
{
    (void)begin, (void)end;
    *ms = 1;
    return 0;
}

int cudaStreamEndCapture(void *stream, void **graph);
int cudaStreamEndCapture(void *stream, void **graph)
{
    return *graph = stream, 0;
}

const char *cudaGetErrorString(int code);
const char *cudaGetErrorString(int code)
{
    return code ? "an error" : "no error";
}

static int encode(void)
{
    return 0;
}

int cudaGetDriverEntryPointByVersion(const char *name, int (**fn)(void));
int cudaGetDriverEntryPointByVersion(const char *name, int (**fn)(void))
{
    (void)name;
    *fn = encode;
    return 0;
}

void **__cudaRegisterFatBinary(void *binary);
void **__cudaRegisterFatBinary(void *binary)
{
    static void *handle;

    (void)binary;
    return &handle;
}

int __cudaPopCallConfiguration(struct dim3 *grid, struct dim3 *block, size_t *bytes, void **stream);
int __cudaPopCallConfiguration(struct dim3 *grid, struct dim3 *block, size_t *bytes, void **stream)
{
    *grid = *block = (struct dim3){1, 1, 1};
    *bytes = 0;
    *stream = NULL;
    return 0;
}
