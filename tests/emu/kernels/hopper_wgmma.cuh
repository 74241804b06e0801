/* hopper_wgmma.cuh, emulated: takes the place of kernels/hopper_wgmma.cuh when the Hopper kernels run on a CPU. */
#ifndef KERNELS_HOPPER_WGMMA_CUH
#define KERNELS_HOPPER_WGMMA_CUH

#include <cstdint>

/* A thread's share of a product, done when the hardware might: between its commit and the wait for it. */
struct emu_product {
    float *d;
    uint64_t a, b;
    bool keep, a_mn, b_mn;
    int n_column;
};

void emu_wgmma(const emu_product &p);

template <int N, int A_MN, int B_MN> inline void wgmma(float *d, uint64_t a, uint64_t b, int keep)
{
    emu_wgmma({ d, a, b, keep != 0, A_MN != 0, B_MN != 0, N });
}

#endif
