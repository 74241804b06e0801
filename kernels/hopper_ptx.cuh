/* hopper_ptx.cuh: the Hopper instructions that the GEMM uses, one function each. sm_90a only.
 * Shared-memory addresses are the 32-bit ones of the shared window. */
#ifndef KERNELS_HOPPER_PTX_CUH
#define KERNELS_HOPPER_PTX_CUH

#include <cuda.h>
#include <stdint.h>

__device__ inline uint32_t smem_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* ---- mbarriers ---- */

__device__ inline void mbar_init(uint32_t bar, int n_arrival)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(n_arrival));
}

__device__ inline void mbar_arrive(uint32_t bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}

/* The same barrier's address in another block of the cluster. */
__device__ inline uint32_t in_block(uint32_t address, uint32_t rank)
{
    uint32_t there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}

/* Without `.release.cluster`: that orders nothing we need (the reads it follows are the tensor cores', already awaited)
 * and costs a membar of the whole GPU, 0.3 us a stage (v2). */
__device__ inline void mbar_arrive_cluster(uint32_t bar)
{
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(bar) : "memory");
}

__device__ inline uint32_t cluster_rank(void)
{
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

__device__ inline void cluster_sync(void)
{
    __syncwarp();
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

__device__ inline void mbar_expect(uint32_t bar, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}

/* 16 bytes to this block's shared memory, which the barrier counts among those it was told to expect. */
__device__ inline void st_async_16(uint32_t to, uint4 v, uint32_t bar)
{
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
                 "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w), "r"(bar)
                 : "memory");
}

/* Arrives once this thread's earlier cp.async have landed; the arrival counts as one of the expected ones. */
__device__ inline void mbar_arrive_cp_async(uint32_t bar)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(bar) : "memory");
}

__device__ inline void mbar_wait(uint32_t bar, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra.uni out;\n"
                 "bra.uni again;\n"
                 "out:\n"
                 "}" ::"r"(bar),
                 "r"(parity)
                 : "memory");
}

__device__ inline void fence_mbar_init(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/* ---- copies ---- */

__device__ inline void tma_load_3d(uint32_t to, const CUtensorMap *map, int x, int y, int z, uint32_t bar)
{
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::
            "r"(to),
        "l"(map), "r"(x), "r"(y), "r"(z), "r"(bar)
        : "memory");
}

/* To the same place, and the same barrier, in both blocks of the pair. */
__device__ inline void tma_load_pair(uint32_t to, const CUtensorMap *map, int x, int y, int z, uint32_t bar)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster"
                 " [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
                 "l"(map), "r"(x), "r"(y), "r"(z), "r"(bar), "h"((uint16_t)3)
                 : "memory");
}

/* Bytes, a multiple of 16, to this block alone; both addresses are multiples of 16. */
__device__ inline void bulk_load(uint32_t to, const void *from, uint32_t bytes, uint32_t bar)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
                 "r"(bytes), "r"(bar)
                 : "memory");
}

/* From shared memory, which must have been fenced for the copy. Part of a group, as all of the thread's until it commits. */
__device__ inline void tma_store_3d(const CUtensorMap *map, uint32_t from, int x, int y, int z)
{
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map),
                 "r"(from), "r"(x), "r"(y), "r"(z)
                 : "memory");
}

__device__ inline void tma_store_commit(void)
{
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/* Until what this thread's stores read from shared memory may be overwritten. */
__device__ inline void tma_store_wait(void)
{
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

/* Makes this thread's writes to shared memory visible to TMA. */
__device__ inline void fence_for_tma(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ inline void tma_load_pair_4d(uint32_t to, const CUtensorMap *map, int x, int y, int z, int w, uint32_t bar)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster"
                 " [%0], [%1, {%2, %3, %4, %5}], [%6], %7;" ::"r"(to),
                 "l"(map), "r"(x), "r"(y), "r"(z), "r"(w), "r"(bar), "h"((uint16_t)3)
                 : "memory");
}

/* base + row * stride_bytes in one instruction, which stays where it is written. */
__device__ inline const void *row_address(const void *base, uint32_t row, uint32_t stride_bytes)
{
    const void *at;
    asm volatile("mad.wide.u32 %0, %1, %2, %3;" : "=l"(at) : "r"(row), "r"(stride_bytes), "l"(base));
    return at;
}

/* 16 bytes, or 16 zero bytes where bytes is 0. Past L1: the data is used once from shared memory. */
__device__ inline void cp_async_16(uint32_t to, const void *from, uint32_t bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

__device__ inline void stmatrix_x4(uint32_t to, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(a), "r"(b), "r"(c), "r"(d)
                 : "memory");
}

__device__ inline void stmatrix_x4_trans(uint32_t to, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(a), "r"(b), "r"(c),
                 "r"(d)
                 : "memory");
}

__device__ inline uint4 lds_16(uint32_t from)
{
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(from)
                 : "memory");
    return v;
}

__device__ inline void sts_16(uint32_t to, uint4 v)
{
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

/* The compiler splits such a store where it has built the four words apart. Not marked as used once: a kernel alone gains
 * by that, but the next one finds less in L2 (v10). */
__device__ inline void stg_16(void *to, uint4 v)
{
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

__device__ inline uint4 ldg_16(const void *from)
{
    uint4 v;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from) : "memory");
    return v;
}

__device__ inline int lds_int(uint32_t from)
{
    int v;
    asm volatile("ld.shared.s32 %0, [%1];" : "=r"(v) : "r"(from) : "memory");
    return v;
}

__device__ inline void sts_int(uint32_t to, int v)
{
    asm volatile("st.shared.s32 [%0], %1;" ::"r"(to), "r"(v) : "memory");
}

__device__ inline float lds_float(uint32_t from)
{
    float v;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(from) : "memory");
    return v;
}

__device__ inline void sts_float2(uint32_t to, float x, float y)
{
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(x), "f"(y) : "memory");
}

/* ---- warpgroups ---- */

template <int N> __device__ inline void registers_grow(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N> __device__ inline void registers_shrink(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

__device__ inline void named_barrier(int id, int n_thread)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(n_thread) : "memory");
}

/* Counts this warp at a barrier that others wait at. */
__device__ inline void named_arrive(int id, int n_thread)
{
    __syncwarp();
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(n_thread) : "memory");
}

__device__ inline void wgmma_fence(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ inline void wgmma_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int LEFT> __device__ inline void wgmma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

/* Shared-memory operand descriptor with the 128-byte swizzle, in two words, so that walking through an operand adds to one.
 * Offsets in bytes, multiples of 16; the start is 1024-aligned up to the advance along K; of a block's
 * place in its cluster, which an address tells too, the operand must not know. K-major: stride = between groups of
 * 8 rows. MN-major: stride = between groups of 8 k, leading = between pieces of 64 rows. */
__device__ inline uint32_t operand_start(uint32_t start, uint32_t leading)
{
    return (start & 0x3ffff) >> 4 | leading >> 4 << 16;
}

__device__ inline uint64_t operand(uint32_t start, uint32_t stride)
{
    return start | (uint64_t)(stride >> 4 | 1 << 30) << 32;
}

#endif
