/* hopper_wgmma.cuh: one warpgroup multiplies: d (64, N) += a (64, 16) * b (16, N), bf16 in, fp32 out, both in shared memory.
 * Thread t of the warpgroup holds rows 16 * (t/32) + t%32/4 (and 8 below), columns 8j + 2 (t%4) and the next:
 * d[4j], d[4j+1] of the upper row, d[4j+2], d[4j+3] of the lower. MN: the operand's rows, not its k, are contiguous. */
#ifndef KERNELS_HOPPER_WGMMA_CUH
#define KERNELS_HOPPER_WGMMA_CUH

#include <stdint.h>

/* Accumulators from the i-th on, as operands of asm. */
#define ACC_4(i)  "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define ACC_8(i)  ACC_4(i), ACC_4((i) + 4)
#define ACC_16(i) ACC_8(i), ACC_8((i) + 8)

/* The first 16 accumulators, the first 32, and so on. */
#define ACCS_16 ACC_16(0)
#define ACCS_32 ACCS_16, ACC_16(16)
#define ACCS_48 ACCS_32, ACC_16(32)
#define ACCS_64 ACCS_48, ACC_16(48)
#define ACCS_80 ACCS_64, ACC_16(64)
#define ACCS_96 ACCS_80, ACC_16(80)
#define ACCS_112 ACCS_96, ACC_16(96)
#define ACCS_128 ACCS_112, ACC_16(112)

/* Names of the first 8 accumulators, of 16, and so on. */
#define NAMES_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define NAMES_16 NAMES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define NAMES_24 NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define NAMES_32 NAMES_24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_40 NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define NAMES_48 NAMES_40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define NAMES_56 NAMES_48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define NAMES_64 NAMES_56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define NAMES_72 NAMES_64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define NAMES_80 NAMES_72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define NAMES_88 NAMES_80 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define NAMES_96 NAMES_88 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define NAMES_104 NAMES_96 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define NAMES_112 NAMES_104 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define NAMES_120 NAMES_112 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define NAMES_128 NAMES_120 ", %120, %121, %122, %123, %124, %125, %126, %127"

/* N columns: N / 2 accumulators, behind which come the operands a, b, keep, and how these lie. */
template <int N> struct wgmma_of;
#define WGMMA_OF(N, NAMES, A, B, KEEP, LIE, ...) \
    template <> struct wgmma_of<N> { \
        template <int A_MN, int B_MN> __device__ static inline void run(float *d, uint64_t a, uint64_t b, int keep) \
        { \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " KEEP ", 0;\n" \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" NAMES "}, " A ", " B ", p, 1, 1, " LIE ";\n}\n" \
                         : __VA_ARGS__ \
                         : "l"(a), "l"(b), "r"(keep), "n"(A_MN), "n"(B_MN)); \
        } \
    }
WGMMA_OF(16, NAMES_8, "%8", "%9", "%10", "%11, %12", ACC_8(0));
WGMMA_OF(32, NAMES_16, "%16", "%17", "%18", "%19, %20", ACCS_16);
WGMMA_OF(48, NAMES_24, "%24", "%25", "%26", "%27, %28", ACCS_16, ACC_8(16));
WGMMA_OF(64, NAMES_32, "%32", "%33", "%34", "%35, %36", ACCS_32);
WGMMA_OF(80, NAMES_40, "%40", "%41", "%42", "%43, %44", ACCS_32, ACC_8(32));
WGMMA_OF(96, NAMES_48, "%48", "%49", "%50", "%51, %52", ACCS_48);
WGMMA_OF(104, NAMES_48 ", %48, %49, %50, %51", "%52", "%53", "%54", "%55, %56", ACCS_48, ACC_4(48));
WGMMA_OF(112, NAMES_56, "%56", "%57", "%58", "%59, %60", ACCS_48, ACC_8(48));
WGMMA_OF(120, NAMES_56 ", %56, %57, %58, %59", "%60", "%61", "%62", "%63, %64", ACCS_48, ACC_8(48), ACC_4(56));
WGMMA_OF(128, NAMES_64, "%64", "%65", "%66", "%67, %68", ACCS_64);
WGMMA_OF(136, NAMES_64 ", %64, %65, %66, %67", "%68", "%69", "%70", "%71, %72", ACCS_64, ACC_4(64));
WGMMA_OF(144, NAMES_72, "%72", "%73", "%74", "%75, %76", ACCS_64, ACC_8(64));
WGMMA_OF(152, NAMES_72 ", %72, %73, %74, %75", "%76", "%77", "%78", "%79, %80", ACCS_64, ACC_8(64), ACC_4(72));
WGMMA_OF(160, NAMES_80, "%80", "%81", "%82", "%83, %84", ACCS_80);
WGMMA_OF(168, NAMES_80 ", %80, %81, %82, %83", "%84", "%85", "%86", "%87, %88", ACCS_80, ACC_4(80));
WGMMA_OF(176, NAMES_88, "%88", "%89", "%90", "%91, %92", ACCS_80, ACC_8(80));
WGMMA_OF(184, NAMES_88 ", %88, %89, %90, %91", "%92", "%93", "%94", "%95, %96", ACCS_80, ACC_8(80), ACC_4(88));
WGMMA_OF(192, NAMES_96, "%96", "%97", "%98", "%99, %100", ACCS_96);
WGMMA_OF(200, NAMES_96 ", %96, %97, %98, %99", "%100", "%101", "%102", "%103, %104", ACCS_96, ACC_4(96));
WGMMA_OF(208, NAMES_104, "%104", "%105", "%106", "%107, %108", ACCS_96, ACC_8(96));
WGMMA_OF(216, NAMES_104 ", %104, %105, %106, %107", "%108", "%109", "%110", "%111, %112", ACCS_96, ACC_8(96), ACC_4(104));
WGMMA_OF(224, NAMES_112, "%112", "%113", "%114", "%115, %116", ACCS_112);
WGMMA_OF(232, NAMES_112 ", %112, %113, %114, %115", "%116", "%117", "%118", "%119, %120", ACCS_112, ACC_4(112));
WGMMA_OF(240, NAMES_120, "%120", "%121", "%122", "%123, %124", ACCS_112, ACC_8(112));
WGMMA_OF(248, NAMES_120 ", %120, %121, %122, %123", "%124", "%125", "%126", "%127, %128", ACCS_112, ACC_8(112), ACC_4(120));
WGMMA_OF(256, NAMES_128, "%128", "%129", "%130", "%131, %132", ACCS_128);

template <int N, int A_MN, int B_MN> __device__ inline void wgmma(float *d, uint64_t a, uint64_t b, int keep)
{
    wgmma_of<N>::template run<A_MN, B_MN>(d, a, b, keep);
}

#undef ACC_4
#undef ACC_8
#undef ACC_16
#undef WGMMA_OF

#endif
