/* portable_mma.cuh, emulated: takes the place of kernels/portable_mma.cuh when the portable kernels run on a CPU. */
#ifndef KERNELS_PORTABLE_MMA_CUH
#define KERNELS_PORTABLE_MMA_CUH

#include "kernels/common.cuh"

/* Shared memory is addressed from its beginning. */
inline uint32_t por_smem(const void *p)
{
    return (uint32_t)((const uint8_t *)p - emu_smem());
}

inline void por_keep(uint32_t &) {}

inline void por_copy(uint32_t to, const void *from, bool live)
{
    emu_copy(to, from, live);
}

inline void por_commit(void)
{
    emu_commit();
}

template <int N> inline void por_wait(void)
{
    emu_wait(N);
}

template <bool MN> inline uint32_t por_at(uint32_t tile, int row, int c)
{
    return MN ? tile + row * 256 + ((c ^ (row & 7)) << 4) : tile + row * 64 + ((c ^ (row >> 1 & 3)) << 4);
}

/* Lane 8 i + r brings the address of row r of matrix i; each lane gets two neighbours of row lane/4, or of the transposed. */
inline void por_ldmatrix(uint32_t *v, uint32_t from, bool trans)
{
    const uint32_t *row = emu_exchange(&from, 1);
    int lane = threadIdx.x % 32;

    for (int i = 0; i < 4; i++) {
        uint16_t half[2];
        for (int j = 0; j < 2; j++) {
            int r = trans ? 2 * (lane % 4) + j : lane / 4, c = trans ? lane / 4 : 2 * (lane % 4) + j;
            memcpy(&half[j], emu_smem() + row[(8 * i + r) * 8] + 2 * c, 2);
        }
        v[i] = half[0] | (uint32_t)half[1] << 16;
    }
}

/* d (16 x 8) += a (16 x 16) b (16 x 8). A register holds two neighbours in k. */
template <typename T> inline void por_mma(float *d, const uint32_t *a, const uint32_t *b)
{
    uint32_t mine[6] = { a[0], a[1], a[2], a[3], b[0], b[1] };
    const uint32_t *all = emu_exchange(mine, 6);
    int lane = threadIdx.x % 32;

    for (int i = 0; i < 4; i++) {
        int row = lane / 4, column = 2 * (lane % 4) + i % 2;
        for (int k = 0; k < 16; k += 2) {
            float2 x = unpack2<T>(all[(4 * row + k % 8 / 2) * 8 + i / 2 + k / 8 * 2]);
            float2 y = unpack2<T>(all[(4 * column + k % 8 / 2) * 8 + 4 + k / 8]);
            d[i] += x.x * y.x + x.y * y.y;
        }
    }
}

#endif
