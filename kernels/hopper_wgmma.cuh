/* hopper_wgmma.cuh: one warpgroup multiplies: d (64, N) += a (64, 16) * b (16, N), bf16 in, fp32 out, both in shared memory.
 * Thread t of the warpgroup holds rows 16 * (t/32) + t%32/4 (and 8 below), columns 8j + 2 (t%4) and the next:
 * d[4j], d[4j+1] of the upper row, d[4j+2], d[4j+3] of the lower. MN: the operand's rows, not its k, are contiguous. */
#ifndef KERNELS_HOPPER_WGMMA_CUH
#define KERNELS_HOPPER_WGMMA_CUH

#include <stdint.h>

/* 16 accumulators, as operands of asm. */
#define ACC_4(i)  "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define ACC_16(i) ACC_4(i), ACC_4((i) + 4), ACC_4((i) + 8), ACC_4((i) + 12)

template <int A_MN, int B_MN> __device__ inline void wgmma_256(float *d, uint64_t a, uint64_t b, int keep)
{
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %130, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
                 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
                 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
                 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
                 "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
                 "}, %128, %129, p, 1, 1, %131, %132;\n"
                 "}\n"
                 : ACC_16(0), ACC_16(16), ACC_16(32), ACC_16(48),
                   ACC_16(64), ACC_16(80), ACC_16(96), ACC_16(112)
                 : "l"(a), "l"(b), "r"(keep), "n"(A_MN), "n"(B_MN));
}

/* The same for 128 columns. */
template <int A_MN, int B_MN> __device__ inline void wgmma_128(float *d, uint64_t a, uint64_t b, int keep)
{
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
                 "}, %64, %65, p, 1, 1, %67, %68;\n"
                 "}\n"
                 : ACC_16(0), ACC_16(16), ACC_16(32), ACC_16(48)
                 : "l"(a), "l"(b), "r"(keep), "n"(A_MN), "n"(B_MN));
}

#undef ACC_4
#undef ACC_16

#endif
