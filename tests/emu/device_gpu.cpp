/* device_gpu.cpp: see device.h. */
#include "tests/emu/device.h"

#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>

const char *dev_path = "the row that fits";

void *dev_alloc(size_t n)
{
    void *p = NULL;
    if (cudaMalloc(&p, n + !n))
        printf("no GPU memory\n"), exit(1);
    return p;
}

void dev_free(void *p)
{
    cudaFree(p);
}

void dev_put(void *to, const void *from, size_t n)
{
    if (n)
        cudaMemcpy(to, from, n, cudaMemcpyHostToDevice);
}

/* Also the place where a launch that failed comes to light. */
void dev_get(void *to, const void *from, size_t n)
{
    if (cudaMemcpy(to, from, n, cudaMemcpyDeviceToHost))
        printf("%s\n", cudaGetErrorString(cudaGetLastError())), exit(1);
}

int dev_forward(const mk_forward *f, const struct mk_plan *)
{
    return mk_get_api(MK_API_VERSION)->forward(f, NULL);
}

int dev_backward(const mk_backward *b, const struct mk_plan *)
{
    return mk_get_api(MK_API_VERSION)->backward(b, NULL);
}
