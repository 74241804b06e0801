/* cublas.cuh: cuBLAS as the yardstick, found at run time: dense and batched bf16 GEMMs of the same FLOPs. */
#ifndef KERNELS_LAB_CUBLAS_CUH
#define KERNELS_LAB_CUBLAS_CUH

#include <dlfcn.h>

#include "kernels/lab/kit.cuh"

/* From cuBLAS's ABI: CUBLAS_OP_N, CUBLAS_OP_T, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT. */
enum { CUBLAS_N = 0, CUBLAS_T = 1, CUBLAS_BF16 = 14, CUBLAS_FP32 = 68, CUBLAS_DEFAULT = -1 };

typedef int (*cublas_gemm_fn)(void *handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int ta_type, int lda,
                              long long stride_a, const void *b, int tb_type, int ldb, long long stride_b, const void *beta, void *c,
                              int tc_type, int ldc, long long stride_c, int batch, int compute, int algorithm);

struct cublas {
    void *handle;
    cublas_gemm_fn gemm;
    int (*set_stream)(void *handle, cudaStream_t stream);
};

/* Returns false where no cuBLAS is on this machine's library path. */
static inline bool cublas_open(struct cublas *c)
{
    const char *const names[] = { "libcublas.so.13", "libcublas.so.12", "libcublas.so" };
    void *lib = NULL;

    for (int i = 0; i < 3 && !lib; i++)
        lib = dlopen(names[i], RTLD_NOW);
    if (!lib)
        return false;
    int (*create)(void **) = (int (*)(void **))dlsym(lib, "cublasCreate_v2");
    c->gemm = (cublas_gemm_fn)dlsym(lib, "cublasGemmStridedBatchedEx");
    c->set_stream = (int (*)(void *, cudaStream_t))dlsym(lib, "cublasSetStream_v2");
    return create && c->gemm && c->set_stream && create(&c->handle) == 0;
}

/* c (batch, n, m) = a b in row-major terms of the caller's choosing; all dense. */
struct cublas_gemm {
    const struct cublas *lib;
    int m, n, k, batch;
    const void *a, *b;
    void *c;
};

static inline void cublas_run(void *arg, cudaStream_t stream)
{
    const struct cublas_gemm *g = (const struct cublas_gemm *)arg;
    const float one = 1, zero = 0;

    g->lib->set_stream(g->lib->handle, stream);
    int rc = g->lib->gemm(g->lib->handle, CUBLAS_T, CUBLAS_N, g->m, g->n, g->k, &one, g->a, CUBLAS_BF16, g->k, (long long)g->m * g->k, g->b,
                          CUBLAS_BF16, g->k, (long long)g->n * g->k, &zero, g->c, CUBLAS_BF16, g->m, (long long)g->m * g->n, g->batch,
                          CUBLAS_FP32, CUBLAS_DEFAULT);
    if (rc) {
        fprintf(stderr, "cuBLAS refused a GEMM: %d\n", rc);
        exit(1);
    }
}

#endif
