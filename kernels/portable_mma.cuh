/* portable_mma.cuh: what products on sm_80 and later are made of: 16-byte copies, shared memory without bank conflicts,
 * ldmatrix, mma.sync. */
#ifndef KERNELS_PORTABLE_MMA_CUH
#define KERNELS_PORTABLE_MMA_CUH

#include "kernels/common.cuh"

__device__ inline uint32_t por_smem(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Keeps a value in a register: otherwise the compiler makes it anew from threadIdx in every step. */
__device__ inline void por_keep(uint32_t &v)
{
    asm volatile("" : "+r"(v));
}

__device__ inline void por_copy(uint32_t to, const void *from, bool live)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(live ? 16 : 0) : "memory");
}

/* Closes a group of copies; waits until at most N groups of this thread are still on their way. */
__device__ inline void por_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int N> __device__ inline void por_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* Where 16-byte piece c of a row lies. K-major: rows of 64 bytes; MN-major: rows (k) of 256 bytes. No bank conflicts. */
template <bool MN> __device__ inline uint32_t por_at(uint32_t tile, int row, int c)
{
    return MN ? tile + row * 256 + ((c ^ (row & 7)) << 4) : tile + row * 64 + ((c ^ (row >> 1 & 3)) << 4);
}

__device__ inline void por_ldmatrix(uint32_t *v, uint32_t from, bool trans)
{
    if (trans)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                     : "r"(from)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                     : "r"(from)
                     : "memory");
}

template <typename T> __device__ inline void por_mma(float *d, const uint32_t *a, const uint32_t *b);
template <> __device__ inline void por_mma<bf16>(float *d, const uint32_t *a, const uint32_t *b)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <> __device__ inline void por_mma<half>(float *d, const uint32_t *a, const uint32_t *b)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif
