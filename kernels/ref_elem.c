/* ref_elem.c: elements of any type as double, for the CPU reference. */
#include <math.h>
#include <string.h>

#include "kernels/ref_moe.h"

static double bf16_get(uint16_t bits)
{
    uint32_t word = (uint32_t)bits << 16;
    float f;

    memcpy(&f, &word, sizeof f);
    return f;
}

static uint16_t bf16_put(double v)
{
    float f = (float)v;
    uint32_t word;

    memcpy(&word, &f, sizeof word);
    if (isnan(f))
        return 0x7fff;
    return (uint16_t)((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

static double fp16_get(uint16_t bits)
{
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    double v = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);

    if (exponent == 31)
        v = mantissa ? NAN : INFINITY;
    return bits & 0x8000 ? -v : v;
}

static uint16_t fp16_put(double v)
{
    uint16_t sign = signbit(v) ? 0x8000 : 0;
    double a = fabs(v);
    int exponent;

    if (isnan(v))
        return 0x7fff;
    if (a >= 65520) /* halfway between the largest fp16 and the next power */
        return sign | 0x7c00;
    frexp(a, &exponent);
    if (a == 0 || exponent < -13) /* subnormal: multiples of 2^-24 */
        return sign | (uint16_t)lrint(ldexp(a, 24));
    long m = lrint(ldexp(a, 11 - exponent)); /* 1024 .. 2048; 2048 carries into the exponent by itself */
    return sign | (uint16_t)(((exponent + 14) << 10) + (m - 1024));
}

double mk_ref_get(const void *base, uint32_t dtype, int64_t at)
{
    switch (dtype) {
    case MK_BF16: return bf16_get(((const uint16_t *)base)[at]);
    case MK_FP16: return fp16_get(((const uint16_t *)base)[at]);
    case MK_FP32: return ((const float *)base)[at];
    case MK_FP64: return ((const double *)base)[at];
    case MK_INT32: return ((const int32_t *)base)[at];
    default: return (double)((const int64_t *)base)[at];
    }
}

void mk_ref_put(void *base, uint32_t dtype, int64_t at, double v)
{
    switch (dtype) {
    case MK_BF16: ((uint16_t *)base)[at] = bf16_put(v); break;
    case MK_FP16: ((uint16_t *)base)[at] = fp16_put(v); break;
    case MK_FP32: ((float *)base)[at] = (float)v; break;
    case MK_FP64: ((double *)base)[at] = v; break;
    case MK_INT32: ((int32_t *)base)[at] = (int32_t)v; break;
    default: ((int64_t *)base)[at] = (int64_t)v; break;
    }
}
