/* cuda_emu.h: runs the kernels' CUDA source on a CPU, for tests on machines without a GPU.
 *
 * Blocks run one after the other, those of a cluster together, threads as fibers that switch at barriers and at warp-wide
 * instructions. What a GPU does in its own time (cp.async, TMA, wgmma: kernels/hopper_ptx.cuh beside this) happens at a time
 * drawn by lot, up to the last that is allowed: the wait for it. Shared memory begins as NaNs. So a wrong index, a stage read
 * or handed back too soon, a missing zero fill and a barrier that counts wrong all show (EMU_SEED draws another lot); with the
 * address sanitizer also a read out of bounds. A missing fence and races of plain loads and stores do not show: those are
 * compute-sanitizer's work (tests/gpu/kernels_sanitize.sh). */
#ifndef TESTS_EMU_CUDA_EMU_H
#define TESTS_EMU_CUDA_EMU_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

using std::max;
using std::min;

#undef __shared__
#define __shared__ static /* static: one block at a time */
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __grid_constant__
#define __grid_constant__
#undef __cluster_dims__
#define __cluster_dims__(...) /* emu_launch_pair */

enum { EMU_N_SM = 5 }; /* few, so that a block takes several tiles */

struct emu_config {
    dim3 grid, block;
    size_t smem_bytes;
    void *stream;
    unsigned n_cluster = 1; // blocks of a cluster
};

/* The running thread's place. */
extern dim3 emu_thread, emu_block, emu_block_dim, emu_grid_dim;
#define threadIdx emu_thread
#define blockIdx  emu_block
#define blockDim  emu_block_dim
#define gridDim   emu_grid_dim

void emu_blocks(const emu_config &config, const std::function<void()> &body);
template <typename A> void emu_run(const emu_config &config, void (*kernel)(A), const A &args)
{
    emu_blocks(config, [&] { kernel(args); });
}

template <typename A>
int emu_launch(void (*kernel)(A), dim3 grid, unsigned n_thread, size_t smem_bytes, const A &args,
               void *stream, cudaLaunchAttribute *attribute = NULL)
{
    emu_blocks({grid, dim3(n_thread), smem_bytes, stream}, [&] { kernel(args); });
    return 0;
}

/* A kernel whose clusters have two blocks. */
template <typename A>
int emu_launch_pair(void (*kernel)(A), dim3 grid, unsigned n_thread, size_t smem_bytes,
                    const A &args, void *stream, cudaLaunchAttribute *attribute = NULL)
{
    emu_blocks({grid, dim3(n_thread), smem_bytes, stream, 2}, [&] { kernel(args); });
    return 0;
}

[[noreturn]] void emu_die(const char *what);

/* Shared memory of the running block; n bytes of that of any block of its cluster. */
uint8_t *emu_smem(void);
uint8_t *emu_smem_of(unsigned rank, uint32_t at, uint32_t n);

/* The running block's, the running thread's place in the cluster. */
unsigned emu_rank(void);
unsigned emu_index(void);

/* By lot: one of two ways that a GPU may go; the others run first; something happens now or at any later time. */
bool emu_coin(void);
void emu_dawdle(void);
void emu_later(const std::function<void()> &event);

/* what and which name it where it never comes. */
void emu_wait_until(const std::function<bool()> &ready, const char *what, uint32_t which);
/* hopper_emu.cpp: a cluster has ended; what its threads left undone is an error. */
void emu_end_of_cluster(void);

void emu_sync_grid(void);
void emu_sync_block(void);

/* Every lane of the warp brings n words (8 at most); returns all lanes' words, 8 apart. */
const uint32_t *emu_exchange(const uint32_t *v, int n);

void emu_copy(uint32_t to, const void *from, bool live);
void emu_commit(void);
void emu_wait(int n_left);

/* event happens once this thread's copies have landed. */
void emu_copies_then(const std::function<void()> &event);

#define __syncthreads emu_sync_block
static inline float __shfl_xor_sync(unsigned, float v, int mask)
{
    uint32_t word;
    memcpy(&word, &v, 4);
    word = emu_exchange(&word, 1)[(emu_thread.x % 32 ^ mask) * 8];
    memcpy(&v, &word, 4);
    return v;
}

template <typename T> static inline T __shfl_sync(unsigned, T v, int lane)
{
    memcpy(&v, &emu_exchange((const uint32_t *)&v, 1)[lane % 32 * 8], 4);
    return v;
}

static inline int __shfl_up_sync(unsigned, int v, int distance)
{
    int lane = (int)(emu_thread.x % 32);
    const uint32_t *all = emu_exchange((const uint32_t *)&v, 1);
    return lane < distance ? v : (int)all[(lane - distance) * 8];
}
static inline unsigned __match_any_sync(unsigned, int v)
{
    const uint32_t *all = emu_exchange((const uint32_t *)&v, 1);
    unsigned same = 0;
    for (int i = 0; i < 32; i++)
        same |= (unsigned)((int)all[i * 8] == v) << i;
    return same;
}
static inline unsigned __ballot_sync(unsigned, int v)
{
    const uint32_t *all = emu_exchange((const uint32_t *)&v, 1);
    unsigned yes = 0;
    for (int i = 0; i < 32; i++)
        yes |= (unsigned)(all[i * 8] != 0) << i;
    return yes;
}
static inline void __syncwarp(void)
{
    uint32_t none = 0;
    emu_exchange(&none, 1);
}
static inline int atomicAdd(int *at, int v) /* fibers switch at barriers only */
{
    int before = *at;
    *at += v;
    return before;
}
#define __popc __builtin_popcount

static inline uint4 __ldcs(const uint4 *p)
{
    return *p;
}
static inline float __uint_as_float_emu(uint32_t v)
{
    float f;
    memcpy(&f, &v, 4);
    return f;
}
#define __uint_as_float __uint_as_float_emu
#define __expf          expf
static inline float emu_normcdff(float v)
{
    return .5f * erfcf(v * -0.70710678f);
}
#define normcdff                             emu_normcdff
#define cudaFuncSetAttribute(...)            0
#define cudaMemsetAsync(to, byte, n, stream) (memset(to, byte, n), cudaSuccess)
#define cudaGetLastError()                   cudaSuccess
#define cudaGetDevice(device)                (*(device) = 0)

/* The driver's encoder of tensor maps, as hopper_ptx.cuh reads them. */
CUresult emu_encode(CUtensorMap *out, CUtensorMapDataType type, cuuint32_t n, void *base,
                    const cuuint64_t *size, const cuuint64_t *stride_bytes, const cuuint32_t *box,
                    const cuuint32_t *step, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                    CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
#define cudaGetDriverEntryPointByVersion(name, fn, version, flags, result)                         \
    (*(fn) = (void *)emu_encode, 0)

/* Shared memory as on Ada, or what EMU_SMEM_BYTES says. */
static inline int emu_attribute(int *v, int attribute)
{
    const char *smem = getenv("EMU_SMEM_BYTES");
    *v = attribute == cudaDevAttrMultiProcessorCount ? EMU_N_SM
         : attribute == cudaDevAttrCooperativeLaunch ? 0
         : smem                                      ? atoi(smem)
                                                     : 101376;
    return 0;
}
#define cudaDeviceGetAttribute(v, attribute, device) emu_attribute(v, attribute)

#endif
