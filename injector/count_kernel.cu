// Source of count_kernel.ptx (make ptx): the guest's two counting kernels. Integer adds only, so that the
// result does not depend on their order. One thread block per 4096 indices / per row of the batch.

extern "C" __global__ void moeprof_route(const void *index, int index_bytes, unsigned long long n,
                                         int n_experts, unsigned *count)
{
    extern __shared__ unsigned local[];

    for (int e = threadIdx.x; e < n_experts; e += blockDim.x)
        local[e] = 0;
    __syncthreads();
    unsigned long long end = (blockIdx.x + 1ull) * 4096;
    for (unsigned long long i = blockIdx.x * 4096ull + threadIdx.x; i < n && i < end; i += blockDim.x) {
        long long e = index_bytes == 8 ? ((const long long *)index)[i] : ((const int *)index)[i];
        if (e >= 0 && e < n_experts)
            atomicAdd(&local[e], 1u);
    }
    __syncthreads();
    for (int e = threadIdx.x; e < n_experts; e += blockDim.x)
        if (local[e])
            atomicAdd(&count[e], local[e]);
}

// sums: 0 useful, 1 trainable, 2 segments, 3 longest, 4.. pairs per window
extern "C" __global__ void moeprof_mask(const void *mask, int mask_bytes, int mask_float,
                                        const long long *labels, const long long *position,
                                        unsigned cols, unsigned w0, unsigned w1, unsigned w2,
                                        unsigned w3, int n_window, unsigned long long *sums)
{
    __shared__ unsigned long long part[8];
    const unsigned window[4] = {w0, w1, w2, w3};
    unsigned long long row = (unsigned long long)blockIdx.x * cols;

    if (threadIdx.x < 8)
        part[threadIdx.x] = 0;
    __syncthreads();
    unsigned long long useful = 0, trainable = 0, starts = 0, longest = 0, pairs[4] = {0, 0, 0, 0};
    for (unsigned i = threadIdx.x; i < cols; i += blockDim.x) {
        bool on = true;
        if (mask && mask_bytes == 8)
            on = ((const long long *)mask)[row + i] != 0;
        else if (mask && mask_bytes == 4)
            on = mask_float ? ((const float *)mask)[row + i] != 0.0f : ((const int *)mask)[row + i] != 0;
        else if (mask)
            on = ((const unsigned char *)mask)[row + i] != 0;
        if (labels && labels[row + i] != -100)
            trainable++;
        if (!on)
            continue;
        useful++;
        if (position) { // packed: a token attends to itself and what stands before it in its segment
            unsigned long long seen = (unsigned long long)position[row + i] + 1;
            starts += seen == 1;
            longest = seen > longest ? seen : longest;
            for (int k = 0; k < n_window; k++)
                pairs[k] += window[k] && seen > window[k] ? window[k] : seen;
        }
    }
    atomicAdd(&part[0], useful);
    atomicAdd(&part[1], trainable);
    atomicAdd(&part[2], starts);
    atomicMax(&part[3], longest);
    for (int k = 0; k < n_window; k++)
        atomicAdd(&part[4 + k], pairs[k]);
    __syncthreads();
    if (threadIdx.x)
        return;
    if (!position) { // one segment a row, as long as its mask says
        unsigned long long len = part[0];
        part[2] = len > 0;
        part[3] = len;
        for (int k = 0; k < n_window; k++) {
            unsigned long long w = window[k] && window[k] < len ? window[k] : len;
            part[4 + k] = w * len - w * (w - 1) / 2 * (w > 0);
        }
    }
    for (int k = 0; k < 3; k++)
        atomicAdd(&sums[k], part[k]);
    atomicMax(&sums[3], part[3]);
    for (int k = 0; k < n_window; k++)
        atomicAdd(&sums[4 + k], part[4 + k]);
}
