/* plan.h: pure arithmetic of a problem: is it well formed, and where each part of the caller's buffers lies.
 * Both targets use one layout, so a test can compare buffers part by part. Touches no device. */
#ifndef KERNELS_PLAN_H
#define KERNELS_PLAN_H

#include <stdbool.h>

#include "kernels/moe_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MK_ROUTE_CHUNK    256 /* a routing block's choices are a multiple of it */
#define MK_ROUTE_BLOCK    128 /* routing blocks at most: each reads what all have counted, and they may wait for each other */
#define MK_TILE_M         256 /* rows of an entry of the first tile list, which never spans two experts */
#define MK_FIT_M          288 /* the same of the second list, whose tiles share an expert's rows as evenly as can be */
#define MK_MAX_BLOCK      256 /* blocks of a product at most, one a multiprocessor */
#define MK_PARK_BYTES     24576 /* a block's, in which a part of DACT's finished tile waits */
#define MK_FORWARD_COUNT  2
#define MK_BACKWARD_COUNT 4
#define MK_DSCORE_TILE    128 /* columns of I that share one partial sum of dscore */
#define MK_MAX_EXPERT     1024
#define MK_MAX_RANK       128

/* A tile of rows of one expert, as the GEMM kernels read it. In the second list row_begin is the expert's too. */
struct mk_tile {
    int32_t expert, row_begin, row_end; /* row_end: of the expert */
    int32_t n_before;                   /* tiles of the expert before this one */
};

/* Byte offsets of the parts of the saved buffer. R = T*K rows at most, sorted by expert, stable in (t, k). */
struct mk_saved_layout {
    size_t pre;        /* (R, 2, I) dtype: gate and up pre-activations; absent for inference */
    size_t offset;     /* (E+1) int32: first row of each expert; [E] = number of rows kept */
    size_t row_token;  /* (R) int32: token of a row */
    size_t row_choice; /* (R) int32: t*K + k of a row */
    size_t choice_row; /* (T*K) int32: row of a choice, -1 where dropped */
    size_t row_score;  /* (R) float */
    size_t low_up;     /* (R, low_up) dtype: A x of the adapters on gate and up */
    size_t low_down;   /* (R, low_down) dtype: A act */
    size_t tile;       /* (max_tile) struct mk_tile */
    size_t fit_tile;   /* the same in tiles of MK_FIT_M */
    size_t n_tile;     /* (2) int32: of either list */
    size_t bytes;
};

/* Adapters packed for the products: dtype, an expert after the other, the scale in B, zeros where a rank was rounded up or
 * gate and up do not share an A. */
struct mk_lora_layout {
    size_t up_a;   /* (E, low_up, H) */
    size_t up_b;   /* forward (E, n_half, I, low_up); backward (E, low_up, n_half, I) */
    size_t down_a; /* (E, low_down, I) */
    size_t down_b; /* forward (E, H, low_down); backward (E, low_down, H) */
};

struct mk_forward_layout {
    size_t count;      /* (n_chunk, E) int32: choices of each chunk for each expert */
    size_t next_tile;  /* (MK_FORWARD_COUNT) int32: tiles that blocks of UP and of DOWN have drawn; zeroed by routing */
    size_t act;        /* (R, I) dtype */
    size_t expert_out; /* (R, H) dtype */
    struct mk_lora_layout lora;
    size_t bytes;
};

struct mk_backward_layout {
    size_t scaled_act;  /* (R, I) dtype: score * act, the operand of the down gradient */
    size_t dpre;        /* (R, 2, I) dtype */
    size_t dscore_part; /* (R, n_dscore_part) float */
    size_t park;        /* (blocks of DACT, MK_PARK_BYTES): what a block of the Hopper path has no room for while it waits */
    size_t next_tile;   /* (MK_BACKWARD_COUNT) int32: tiles drawn for DACT, DX, the gradients of down, of gate and up */
    struct mk_lora_layout lora;
    size_t dlow_up;    /* (R, low_up) dtype: scale * B^T times the gradient of gate and up */
    size_t dlow_down;  /* (R, low_down) dtype: scale * B^T dout */
    size_t scaled_low; /* (R, low_down) dtype: score * low_down of the saved buffer */
    size_t dx_row;     /* (R, H) dtype; the last, which the caller may have elsewhere: then modulo 2^64 */
    size_t bytes;      /* without dx_row where the caller has it elsewhere */
};

struct mk_plan {
    int64_t n_row;          /* T*K */
    int32_t chunk, n_chunk; /* choices of one routing block, and how many such */
    int32_t max_tile, n_dscore_part;
    bool has_gate;
    int32_t n_half; /* 2 with a gate, 1 without: halves of a pre-activation row */
    int32_t low_up,
        low_down; /* rows of A on gate and up (twice the rank where apart), and on down; multiples of 8; 0: none */
    struct mk_saved_layout saved, saved_inference;
    struct mk_forward_layout forward;
    struct mk_backward_layout backward;
};

/* Bytes of one element; 0 for an unknown type. */
size_t mk_dtype_bytes(uint32_t dtype);

/* Checks the problem's shape and types and fills the plan. Looks at no pointer. */
int mk_plan(struct mk_plan *out, const struct mk_problem *p);

/* Where the caller has dx_row elsewhere: its place from the workspace on, and the workspace without it. */
void mk_plan_apart(struct mk_plan *plan, const struct mk_backward *b);

/* Checks that needed pointers of the problem are there. */
int mk_check_pointers(const struct mk_problem *p);

/* Checks the types of a backward's gradients. */
int mk_check_gradients(const struct mk_backward *a);

#ifdef __cplusplus
}
#endif
#endif
