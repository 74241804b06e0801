/* problem.h: a small problem with everything it can have, as the kernels' header describes one. */
#ifndef TESTS_EMU_PROBLEM_H
#define TESTS_EMU_PROBLEM_H

#include "tests/emu/array.h"

#include "kernels/moe_kernels.h"

/* By turns: transposed, rows of gate and up alternate. */
enum layout { CONCAT, INTERLEAVED, TRANSPOSED, BY_TURNS, STRIDED };
enum adapter { NONE, SHARED, APART, UP_ONLY, DOWN_ONLY };

/* How B lies: the expert fastest, or one matrix an expert. */
enum sharing { PEFT, DENSE };

struct shape {
    const char *name;
    int t, h, i, e, k;
    uint32_t act, dtype, lora_dtype;
    layout weights;
    adapter lora;
    sharing b_lies;
    int up_rank, down_rank;
    bool trained, accumulate, one_expert;
    float limit;     /* of the clamped activation; 0: 7 */
    float tolerance; /* relative RMS error; 0: 1e-2 */
    bool apart;      /* by steps, each called for itself */
    unsigned lacks;  /* biases that are not there: 1 gate's, 2 up's */
};

/* What is computed, outputs and gradients, once for each implementation: NaNs, or numbers by lot to add to. */
struct results {
    shape s;
    int n_half; // of the first product: 2 with a gate
    array out, dx, dscore, dgate_up, ddown, dbias, dgate_a, dup_a, dup_b, ddown_a, ddown_b;

    explicit results(const shape &s);
};

/* What is given. describe() fills p, which points into the arrays on the side of on_device. */
struct inputs {
    array x, score, dout, gate_up, down, bias, gate_a, up_a, up_b, down_a, down_b, index;
    mk_lora lora;
    mk_problem p;

    inputs(const shape &s, int n_half);
    void describe(const shape &s, int n_half);
};

/* The two calls, with r's arrays to write; saved buffer and workspace are the caller's to give. */
mk_forward describe_forward(results &r, inputs &in);
mk_backward describe_backward(results &r, inputs &in);

/* For mk_backward::dlora. */
mk_lora_grad describe_lora_gradients(results &r);

#endif
