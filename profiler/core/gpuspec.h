/* Published peaks of GPUs: dense (no sparsity), tensor cores, FP32 accumulate. MFU.md says why.
 *
 * A name is matched word by word, and only when every word of it is accounted for: "RTX 4090 Laptop GPU",
 * "H100 80GB HBM3 MIG 3g.40gb" or "A10-24Q" are other devices than their first words say. What does not
 * match has no row, and no row means no peak: never a guess. */
#ifndef MP_GPUSPEC_H
#define MP_GPUSPEC_H

#include "profiler/core/base.h"

enum mp_dtype { MP_DTYPE_BF16 = 0, MP_DTYPE_FP16, MP_DTYPE_TF32, MP_DTYPE_FP8, MP_DTYPE_COUNT };

struct mp_gpu {
    const char *name;       /* for people; unique */
    const char *need;       /* words a name must have; alternatives after '|' */
    const char *may;        /* words the same product is also reported with */
    int cc;                 /* 90: compute capability 9.0 */
    int sm, sm_also;        /* 0: not verified, not compared */
    int clock_mhz;          /* boost clock behind the peak; 0 not published */
    double bf16, tf32, fp8; /* TFLOP/s; 0: not supported or not published */
    double dram_gb_s;       /* GB/s; 0 differs within the row */
    const char *source;
    const char *note; /* "" or what a reader should know: conflicts, kinship */
};

/* Row of the device that calls itself `name`; cc (0) and sm_count (0) unknown, else they must agree.
 * NULL: not in the table. */
const struct mp_gpu *mp_gpu_find(const char *name, int cc, int sm_count);

/* Dense peak in FLOP/s; 0 when the row has none. */
double mp_gpu_peak(const struct mp_gpu *gpu, enum mp_dtype dtype);

/* Rows that share a word with name, for "which of these do you mean": how many, up to n of them in out. */
size_t mp_gpu_suggest(const char *name, const struct mp_gpu **out, size_t n);

/* Row i of the table, NULL behind the last: for lists and tests. */
const struct mp_gpu *mp_gpu_at(size_t i);

/* "bf16", never NULL. */
const char *mp_dtype_name(enum mp_dtype dtype);

/* "bfloat16", "float16", "tf32", "float8_e4m3fn", ..; -1 for what runs on no tensor core or is not known.
 * float32 is -1: whether it runs as TF32 is a setting that the name does not tell. */
int mp_dtype_parse(const char *name);

#endif
