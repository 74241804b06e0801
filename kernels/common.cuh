/* common.cuh: what the CUDA files share: element types, 16-byte vectors, activations. Device code only. */
#ifndef KERNELS_COMMON_CUH
#define KERNELS_COMMON_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels/plan.h"

typedef __nv_bfloat16 bf16;

/* Returns MK_ECUDA from the calling launcher where the last launch failed. */
#define MK_LAUNCHED() \
    do { \
        if (cudaGetLastError() != cudaSuccess) \
            return MK_ECUDA; \
    } while (0)

/* The next grid, if it was launched to begin early (mk_early), may begin where this one leaves room. */
__device__ inline void let_next_begin(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Until the grid before has ended, and what it wrote is seen; at once in one that did not begin early. */
__device__ inline void wait_for_last(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

template <typename T> struct pair_of;
template <> struct pair_of<bf16> { typedef __nv_bfloat162 type; };
template <> struct pair_of<half> { typedef half2 type; };

__device__ inline float to_float(bf16 v) { return __bfloat162float(v); }
__device__ inline float to_float(half v) { return __half2float(v); }
__device__ inline float to_float(float v) { return v; }

template <typename T> __device__ inline T from_float(float v);
template <> __device__ inline bf16 from_float<bf16>(float v) { return __float2bfloat16_rn(v); }
template <> __device__ inline half from_float<half>(float v) { return __float2half_rn(v); }
template <> __device__ inline float from_float<float>(float v) { return v; }

/* Two neighbouring elements in one register, the first in the low half. */
template <typename T> __device__ inline uint32_t pack2(float lo, float hi);
template <> __device__ inline uint32_t pack2<bf16>(float lo, float hi)
{
    __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
    return *reinterpret_cast<uint32_t *>(&v);
}
template <> __device__ inline uint32_t pack2<half>(float lo, float hi)
{
    half2 v = __floats2half2_rn(lo, hi);
    return *reinterpret_cast<uint32_t *>(&v);
}

template <typename T> __device__ inline float2 unpack2(uint32_t v);
template <> __device__ inline float2 unpack2<bf16>(uint32_t v)
{
    return make_float2(__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000u));
}
template <> __device__ inline float2 unpack2<half>(uint32_t v)
{
    return __half22float2(*reinterpret_cast<half2 *>(&v));
}

/* An element of a type known at run time only. */
__device__ inline float load_any(const void *base, uint32_t dtype, int64_t at)
{
    if (dtype == MK_BF16)
        return __bfloat162float(((const bf16 *)base)[at]);
    if (dtype == MK_FP16)
        return __half2float(((const half *)base)[at]);
    return ((const float *)base)[at];
}

__device__ inline void store_any(void *base, uint32_t dtype, int64_t at, float v)
{
    if (dtype == MK_BF16)
        ((bf16 *)base)[at] = __float2bfloat16_rn(v);
    else if (dtype == MK_FP16)
        ((half *)base)[at] = __float2half_rn(v);
    else
        ((float *)base)[at] = v;
}

/* Exact to 2 ulp of float; infinities end at 0 and 1. Flushing denormals saves six instructions that rescale. */
__device__ inline float sigmoid(float v)
{
    float e, s;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(v * -1.4426950409f)); // exp(-v)
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(s) : "f"(1.f + e));
    return s;
}

/* What an activation needs beside its inputs. */
struct mk_act_param {
    uint32_t act;
    float alpha, limit;
};

__device__ inline float gelu(float g, float *d, bool exact)
{
    if (exact) {
        float cdf = normcdff(g);
        *d = cdf + g * 0.3989422804f * __expf(-.5f * g * g);
        return g * cdf;
    }
    float inner = 0.7978845608f * (g + 0.044715f * g * g * g), t = 1.f - 2.f * sigmoid(-2.f * inner);
    *d = .5f * (1.f + t) + .5f * g * (1.f - t * t) * 0.7978845608f * (1.f + 3.f * 0.044715f * g * g);
    return .5f * g * (1.f + t);
}

/* act(g, u) and its derivatives. ACT: an enum mk_act known at compile time, or -1 to look at p. */
template <int ACT> __device__ inline float activate(float g, float u, float *dg, float *du, const mk_act_param &p)
{
    if (ACT == MK_ACT_SWIGLU || p.act == MK_ACT_SWIGLU) {
        float s = sigmoid(g), silu = g * s;
        *dg = u * fmaf(-silu, s, silu + s); // s + silu (1 - s)
        *du = silu;
        return silu * u;
    }
    if (p.act == MK_ACT_GEGLU_TANH || p.act == MK_ACT_GEGLU_ERF) {
        float d, v = gelu(g, &d, p.act == MK_ACT_GEGLU_ERF);
        *dg = u * d;
        *du = v;
        return v * u;
    }
    if (p.act == MK_ACT_CLAMPED_GLU) {
        float gc = fminf(g, p.limit), uc = fminf(fmaxf(u, -p.limit), p.limit), s = sigmoid(p.alpha * gc);
        *dg = g > p.limit ? 0.f : (uc + 1.f) * s * (1.f + p.alpha * gc * (1.f - s));
        *du = fabsf(u) > p.limit ? 0.f : gc * s;
        return gc * s * (uc + 1.f) + 0.f * (g + u); /* fminf drops NaN: put it back */
    }
    float r = u > 0.f ? u : 0.f * u;
    *dg = 0.f;
    *du = 2.f * r;
    return r * r;
}

/* Where the parts of the saved buffer are on the device. */
struct mk_route_ptr {
    int32_t *offset, *row_token, *row_choice, *choice_row, *n_tile;
    float *row_score;
    mk_tile *tile, *fit_tile;
};

inline mk_route_ptr mk_route_at(const void *saved, const mk_saved_layout *at)
{
    char *s = (char *)saved;
    return { (int32_t *)(s + at->offset), (int32_t *)(s + at->row_token), (int32_t *)(s + at->row_choice),
             (int32_t *)(s + at->choice_row), (int32_t *)(s + at->n_tile), (float *)(s + at->row_score),
             (mk_tile *)(s + at->tile), (mk_tile *)(s + at->fit_tile) };
}

#endif
