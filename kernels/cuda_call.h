/* cuda_call.h: the order of launches of a call, the same for every CUDA path. A path brings its five products; routing,
 * sums, small reductions and adapters are common. For the CUDA files only. */
#ifndef KERNELS_CUDA_CALL_H
#define KERNELS_CUDA_CALL_H

#include <cuda_runtime.h>

#include "kernels/cuda_paths.h"

/* What a gradient of the weights does beside its own. A path without sums finds none. */
struct mk_beside {
    bool early;                         // begins before the launch ahead has ended, which is DX or another gradient,
    bool led_on;                        // and another gradient so behind it
    const struct mk_combine_args *rows; // sums among its products, or NULL: of DX's rows,
    const struct mk_dscore_args *score; // and of the gradients of scores
    bool checked;                       // MK_FLAG_CHECKED
};

struct mk_path {
    int (*up)(const mk_forward *f, const struct mk_plan *plan, const mk_saved_layout *at, mk_stream stream);
    int (*down)(const mk_forward *f, const struct mk_plan *plan, const mk_saved_layout *at, mk_stream stream);
    int (*dact)(const mk_backward *b, const struct mk_plan *plan, mk_stream stream);
    int (*dx)(const mk_backward *b, const struct mk_plan *plan, mk_stream stream); // rows; their sum a token follows
    int (*dw)(const mk_backward *b, const struct mk_plan *plan, bool up, const struct mk_beside *beside, mk_stream stream);
    bool (*dpre_alternates)(const mk_problem *p); // gate and up by turns, in place of halves; NULL: never
    bool overlaps; // launches of a call begin early, and a gradient of the weights may sum DX's rows
};

int mk_call_forward(const mk_path *path, const mk_forward *f, const struct mk_plan *plan, mk_stream stream);
int mk_call_backward(const mk_path *path, const mk_backward *b, const struct mk_plan *plan, mk_stream stream);

/* ---- what paths check and compute alike ---- */

static inline bool mk_aligned(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

/* Rows of a token-major array can be copied 16 bytes at a time. */
static inline bool mk_rows_aligned(const void *p, int64_t stride)
{
    return mk_aligned(p) && stride % 8 == 0;
}

static inline void *mk_work(const mk_backward *b, size_t at)
{
    return (char *)b->workspace + at;
}

/* What stays the same of a device as long as the process lives. */
struct mk_device {
    int index, sm, n_sm; // sm: compute capability times ten
    int smem_bytes;      // that a block may have
    bool cooperative;    // its blocks may wait for each other
};

/* The current device, or sm 0 where there is none. Each question to the driver takes 50 ns, a quarter microsecond where it has
 * not been asked lately: all but one are asked once. */
struct mk_device mk_device_now(void);

/* Lets a kernel have its shared memory, once a device (a bit of *done): the driver takes a microsecond for it. Any thread
 * may find the bit unset and do it again. */
static inline int mk_allow_smem(const void *kernel, int bytes, uint64_t *done)
{
    int device;

    if (cudaGetDevice(&device))
        return MK_ECUDA;
    uint64_t bit = device < 64 ? (uint64_t)1 << device : 0;
    if (__atomic_load_n(done, __ATOMIC_RELAXED) & bit)
        return MK_OK;
    if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes))
        return MK_ECUDA;
    __atomic_fetch_or(done, bit, __ATOMIC_RELAXED);
    return MK_OK;
}

/* Launches a kernel that has one argument; attribute may be NULL. Costs the host 0.4 us less than <<<>>>. */
template <typename A>
static inline int mk_launch(void (*kernel)(A), dim3 grid, unsigned n_thread, size_t smem_bytes, const A &args,
                            mk_stream stream, cudaLaunchAttribute *attribute = NULL)
{
    void *argv[] = { (void *)&args };
    cudaLaunchConfig_t c = { grid, n_thread, smem_bytes, stream, attribute, attribute != NULL };

    if (cudaLaunchKernelExC(&c, (const void *)kernel, argv) == cudaSuccess)
        return MK_OK;
    cudaGetLastError(); // leave no error behind for the application to find
    return MK_ECUDA;
}

/* Lets a kernel begin where the launch ahead leaves room, once all blocks of that have said so. The kernel must wait for it. */
static inline cudaLaunchAttribute mk_early(void)
{
    cudaLaunchAttribute a = {};

    a.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    a.val.programmaticStreamSerializationAllowed = 1;
    return a;
}

/* A gradient's matrix with the tile's rows (hidden) first. */
static inline mk_matrix mk_flipped(mk_matrix m)
{
    int64_t row = m.stride_row;

    m.stride_row = m.stride_col;
    m.stride_col = row;
    return m;
}

#endif
