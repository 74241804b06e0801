/* mock_cublas.c: a cuBLAS that finds every GEMM done. */
#define SHOWN __attribute__((visibility("default")))

SHOWN int cublasCreate_v2(void **handle);
int cublasCreate_v2(void **handle)
{
    static char it;

    *handle = &it;
    return 0;
}

SHOWN int cublasSetStream_v2(void);
int cublasSetStream_v2(void)
{
    return 0;
}

SHOWN int cublasGemmStridedBatchedEx(void);
int cublasGemmStridedBatchedEx(void)
{
    return 0;
}
