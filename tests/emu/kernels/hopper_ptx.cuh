/* hopper_ptx.cuh, emulated: takes the place of kernels/hopper_ptx.cuh when the Hopper kernels run on a CPU (cuda_emu.h).
 * A shared address is a place in a block's memory, with the block's rank in its cluster from bit 24 on. */
#ifndef KERNELS_HOPPER_PTX_CUH
#define KERNELS_HOPPER_PTX_CUH

#include <cstring>
#include <cuda.h>

enum { EMU_RANK = 24, EMU_AT = (1 << EMU_RANK) - 1 };

inline uint8_t *emu_at(uint32_t address, uint32_t n)
{
    if (address % n)
        emu_die("a misaligned address of shared memory");
    return emu_smem_of(address >> EMU_RANK, address & EMU_AT, n);
}

inline uint32_t smem_address(const void *p)
{
    return (uint32_t)((const uint8_t *)p - emu_smem()) | emu_rank() << EMU_RANK;
}

/* ---- mbarriers: hopper_emu.cpp ---- */

void mbar_init(uint32_t bar, int n_arrival);
void mbar_arrive(uint32_t bar);
void mbar_expect(uint32_t bar, uint32_t bytes);
void mbar_wait(uint32_t bar, uint32_t parity);
void st_async_16(uint32_t to, uint4 v, uint32_t bar);

inline uint32_t in_block(uint32_t address, uint32_t rank)
{
    return (address & EMU_AT) | rank << EMU_RANK;
}

inline void mbar_arrive_cluster(uint32_t bar)
{
    mbar_arrive(bar);
}

inline uint32_t cluster_rank(void)
{
    return emu_rank();
}

void cluster_sync(void);
void named_barrier(int id, int n_thread);
void named_arrive(int id, int n_thread);

inline void mbar_arrive_cp_async(uint32_t bar)
{
    emu_copies_then([=] { mbar_arrive(bar); });
}

inline void fence_mbar_init(void) {}

/* ---- copies ---- */

/* ranks: a bit a block that gets the data, and the sign, at the same place. */
struct emu_place {
    int at[4];
};
void emu_tma_load(uint32_t to, const CUtensorMap *map, const emu_place &first, uint32_t bar, uint32_t ranks);
void tma_store_3d(const CUtensorMap *map, uint32_t from, int x, int y, int z);
void tma_store_commit(void);
void tma_store_wait(void);

inline void tma_load_3d(uint32_t to, const CUtensorMap *map, int x, int y, int z, uint32_t bar)
{
    emu_tma_load(to, map, { x, y, z }, bar, 1u << emu_rank());
}

inline void tma_load_pair(uint32_t to, const CUtensorMap *map, int x, int y, int z, uint32_t bar)
{
    emu_tma_load(to, map, { x, y, z }, bar, 3);
}

inline void tma_load_pair_4d(uint32_t to, const CUtensorMap *map, int x, int y, int z, int w, uint32_t bar)
{
    emu_tma_load(to, map, { x, y, z, w }, bar, 3);
}

void bulk_load(uint32_t to, const void *from, uint32_t bytes, uint32_t bar);

inline void fence_for_tma(void) {}

inline const void *row_address(const void *base, uint32_t row, uint32_t stride_bytes)
{
    return (const char *)base + (uint64_t)row * stride_bytes;
}

inline void cp_async_16(uint32_t to, const void *from, uint32_t bytes)
{
    emu_copy(to & EMU_AT, from, bytes != 0);
}

/* Lane 8 i + r brings the address of row r of matrix i. */
inline void stmatrix_x4(uint32_t to, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    const uint32_t *row = emu_exchange(&to, 1), v[4] = { a, b, c, d };
    int lane = threadIdx.x % 32;

    for (int i = 0; i < 4; i++)
        memcpy(emu_at(row[(8 * i + lane / 4) * 8], 16) + lane % 4 * 4, &v[i], 4);
}

inline void stmatrix_x4_trans(uint32_t to, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    const uint32_t *row = emu_exchange(&to, 1), v[4] = { a, b, c, d };
    int lane = threadIdx.x % 32;

    for (int i = 0; i < 8; i++) {
        uint16_t half = (uint16_t)(v[i / 2] >> 16 * (i % 2));
        memcpy(emu_at(row[(i / 2 * 8 + lane % 4 * 2 + i % 2) * 8], 16) + lane / 4 * 2, &half, 2);
    }
}

template <typename T> inline T emu_lds(uint32_t from)
{
    T v;
    memcpy(&v, emu_at(from, sizeof v), sizeof v);
    return v;
}

template <typename T> inline void emu_sts(uint32_t to, T v)
{
    memcpy(emu_at(to, sizeof v), &v, sizeof v);
}

inline uint4 lds_16(uint32_t from) { return emu_lds<uint4>(from); }
inline int lds_int(uint32_t from) { return emu_lds<int>(from); }
inline float lds_float(uint32_t from) { return emu_lds<float>(from); }
inline void sts_16(uint32_t to, uint4 v) { emu_sts(to, v); }
inline void sts_int(uint32_t to, int v) { emu_sts(to, v); }
inline void sts_float2(uint32_t to, float x, float y) { emu_sts(to, make_float2(x, y)); }

inline void stg_16(void *to, uint4 v)
{
    if ((uintptr_t)to % 16)
        emu_die("a store to a misaligned address");
    memcpy(to, &v, 16);
}

inline uint4 ldg_16(const void *from)
{
    uint4 v;
    if ((uintptr_t)from % 16)
        emu_die("a load from a misaligned address");
    memcpy(&v, from, 16);
    return v;
}

/* ---- warpgroups ---- */

template <int N> inline void registers_grow(void) {}
template <int N> inline void registers_shrink(void) {}
inline void wgmma_fence(void)
{
    __syncwarp();
}

void wgmma_commit(void);
void emu_wgmma_wait(int n_left);

template <int LEFT> inline void wgmma_wait(void)
{
    emu_wgmma_wait(LEFT);
}

inline uint32_t operand_start(uint32_t start, uint32_t leading)
{
    return (start & 0x3ffff) >> 4 | leading >> 4 << 16;
}

inline uint64_t operand(uint32_t start, uint32_t stride)
{
    return start | (uint64_t)(stride >> 4 | 1 << 30) << 32;
}

#endif
