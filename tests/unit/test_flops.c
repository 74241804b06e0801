/* FLOPs of a step: published figures of one known model, then each rule of MFU.md by itself. */
#include "profiler/core/flops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define OPS    1024
#define LAYERS 64

struct bench_model {
    struct mp_op op[OPS];
    struct mp_attn attn[LAYERS];
    struct mp_layer layer[LAYERS];
    struct mp_model m;
};

static struct bench_model qwen;

static void add_op(struct bench_model *b, int layer, unsigned phase, uint64_t in, uint64_t out,
                   unsigned per)
{
    assert_true(b->m.n_op < OPS);
    b->op[b->m.n_op++] = (struct mp_op){.in = in,
                                        .out = out,
                                        .count = 1,
                                        .layer = (int16_t)layer,
                                        .phase = (uint8_t)phase,
                                        .per = (uint8_t)per,
                                        .dgrad = true,
                                        .wgrad = true};
}

/* Qwen3-30B-A3B: h2048 L48 H32 KV4 d128 E128 k8 f768 V151936, untied. */
static void make_qwen(void)
{
    struct bench_model *b = &qwen;

    memset(b, 0, sizeof *b);
    b->m = (struct mp_model){
        .op = b->op, .attn = b->attn, .layer = b->layer, .hidden = 2048, .vocab = 151936};
    for (int l = 0; l < 48; l++) {
        add_op(b, l, MP_PHASE_ATTENTION, 2048, 4096, MP_PER_TOKEN);
        add_op(b, l, MP_PHASE_ATTENTION, 2048, 512, MP_PER_TOKEN);
        add_op(b, l, MP_PHASE_ATTENTION, 2048, 512, MP_PER_TOKEN);
        add_op(b, l, MP_PHASE_ATTENTION, 4096, 2048, MP_PER_TOKEN);
        add_op(b, l, MP_PHASE_ROUTER, 2048, 128, MP_PER_TOKEN);
        add_op(b, l, MP_PHASE_EXPERT, 2048, 1536, MP_PER_ASSIGNMENT);
        add_op(b, l, MP_PHASE_EXPERT, 768, 2048, MP_PER_ASSIGNMENT);
        b->attn[b->m.n_attn++] = (struct mp_attn){.heads = 32,
                                                  .d_qk = 128,
                                                  .d_v = 128,
                                                  .layer = (int16_t)l,
                                                  .causal = true,
                                                  .dgrad = true};
        b->layer[b->m.n_layer++] =
            (struct mp_layer){.layer = (int16_t)l, .experts = 128, .top_k = 8};
    }
    add_op(b, -1, MP_PHASE_LM_HEAD, 2048, 151936, MP_PER_HEAD_ROW);
    /* 48 x (attention 20.97 M with norms, router, 128 experts) + embedding + head + last norm */
    b->m.params_total = 48ull * (2048 * (4096 + 512 + 512) + 4096 * 2048 + 2 * 128 + 2 * 2048 +
                                 2048 * 128 + 128ull * 3 * 2048 * 768) +
                        2ull * 151936 * 2048 + 2048;
}

static struct mp_step one_sequence(uint64_t length)
{
    return (struct mp_step){
        .processed = length,
        .useful = length,
        .trainable = length,
        .head_rows = length,
        .useful_basis = MP_MEASURED,
        .n_segment = 1,
        .n_pairs = 1,
        .pairs = {{.max_len = (uint32_t)length,
                   .useful = length * (length + 1) / 2,
                   .processed = length * (length + 1) / 2,
                   .basis = MP_MEASURED}},
    };
}

static double giga_a_token(struct mp_flop f, uint64_t tokens)
{
    assert_int_not_equal(f.basis, MP_UNKNOWN);
    return (double)f.flop / (double)tokens / 1e9;
}

#define assert_near(a, b, eps) assert_true((a) > (b) - (eps) && (a) < (b) + (eps))

/* The figures of knowledge/mfu.md 1.1; 23.10 is also what Megatron-Bridge's published table implies. */
static void test_qwen_conventions(void **state)
{
    struct mp_step s = one_sequence(4096);
    struct mp_flops f;

    (void)state;
    make_qwen();
    mp_flops_step(&f, &qwen.m, &s);
    assert_int_equal(f.model.basis, MP_MODELLED); /* no routing counts */
    assert_near(giga_a_token(f.model, 4096), 23.10, 0.025);
    assert_near(giga_a_token(f.palm, 4096), 27.9, 0.05);
    assert_near(giga_a_token(f.trl, 4096), 29.8, 0.05);
    assert_near(giga_a_token(f.hf, 4096), 181.3, 0.05);
    assert_near(giga_a_token(f.adjusted, 4096), 29.8 - (27.93 - 23.10), 0.05);
    for (uint32_t i = 0; i < qwen.m.n_op; i++)
        qwen.op[i].wgrad = false;
    mp_flops_step(&f, &qwen.m, &s);
    assert_near(giga_a_token(f.model, 4096), 17.0, 0.05);
    assert_near(giga_a_token(f.palm, 4096), 27.9, 0.05); /* does not know of frozen weights */
}

static void test_splits_add_up(void **state)
{
    struct mp_step s = one_sequence(1000);
    struct mp_flops f;
    uint64_t model = 0, executed = 0, layers = 0;

    (void)state;
    make_qwen();
    mp_flops_step(&f, &qwen.m, &s);
    for (int p = 0; p < MP_PHASE_COUNT; p++)
        for (int q = 0; q < MP_PASS_COUNT; q++) {
            model += f.phase[p][q].model;
            executed += f.phase[p][q].executed;
        }
    for (int l = 0; l < MP_FLOPS_LAYERS; l++)
        layers += f.layer[l].model;
    assert_true(model == f.model.flop);
    assert_true(executed == f.executed.flop);
    assert_true(layers + f.phase[MP_PHASE_LM_HEAD][0].model + f.phase[MP_PHASE_LM_HEAD][2].model ==
                f.model.flop);
    assert_true(f.phase[MP_PHASE_EXPERT][MP_PASS_FORWARD].model ==
                48ull * 8 * 1000 * 2 * 3 * 2048 * 768);
    assert_true(f.phase[MP_PHASE_EXPERT][MP_PASS_BACKWARD].model ==
                2 * f.phase[MP_PHASE_EXPERT][MP_PASS_FORWARD].model);
}

/* ---- one matmul at a time ----------------------------------------------------------------- */

static struct mp_op op;
static struct mp_attn attn;
static struct mp_layer layer;
static struct mp_model small;

static void make_small(unsigned per)
{
    op = (struct mp_op){
        .in = 10, .out = 5, .count = 1, .layer = 0, .phase = MP_PHASE_EXPERT, .per = (uint8_t)per};
    layer = (struct mp_layer){.layer = 0, .experts = 4, .top_k = 2};
    small = (struct mp_model){.op = &op, .layer = &layer, .n_op = 1, .n_layer = 1};
}

static uint64_t model_of(const struct mp_step *s, enum mp_basis basis)
{
    struct mp_flops f;

    mp_flops_step(&f, &small, s);
    assert_int_equal(f.model.basis, basis);
    return f.model.flop;
}

static uint64_t executed_of(const struct mp_step *s)
{
    struct mp_flops f;

    mp_flops_step(&f, &small, s);
    assert_int_equal(f.executed.basis, MP_MODELLED);
    return f.executed.flop;
}

static void test_gradients(void **state)
{
    struct mp_step s = one_sequence(7);

    (void)state;
    make_small(MP_PER_TOKEN);
    assert_int_equal(model_of(&s, MP_MEASURED), 2 * 50 * 7);
    op.dgrad = true;
    assert_int_equal(model_of(&s, MP_MEASURED), 2 * 50 * 7 * 2);
    op.wgrad = true;
    assert_int_equal(model_of(&s, MP_MEASURED), 2 * 50 * 7 * 3);
    op.count = 4;
    assert_int_equal(model_of(&s, MP_MEASURED), 2 * 50 * 7 * 3 * 4);
}

static void test_useful_tokens_only(void **state)
{
    struct mp_step s = one_sequence(10);

    (void)state;
    make_small(MP_PER_TOKEN);
    s.useful = 6;
    assert_int_equal(model_of(&s, MP_MEASURED), 100 * 6);
    assert_int_equal(executed_of(&s), 100 * 10);
    s.useful_basis = MP_MODELLED;
    assert_int_equal(model_of(&s, MP_MODELLED), 100 * 6);
    s.useful = UINT64_MAX;
    model_of(&s, MP_UNKNOWN);
    assert_int_equal(executed_of(&s), 100 * 10);
}

static void test_routed_assignments(void **state)
{
    struct mp_step s = one_sequence(10);
    uint32_t count[] = {3, 0, 9, 5}; /* 3 of 20 dropped by a capacity limit */
    struct mp_route route = {.layer = 0, .n_expert = 4, .basis = MP_MEASURED, .count = count};

    (void)state;
    make_small(MP_PER_ASSIGNMENT);
    assert_int_equal(model_of(&s, MP_MODELLED), 100 * 20);
    s.route = &route;
    s.n_route = 1;
    assert_int_equal(model_of(&s, MP_MEASURED), 100 * 17);
    s.useful = 5;                                            /* padding is routed too */
    assert_int_equal(model_of(&s, MP_APPORTIONED), 100 * 9); /* 8.5 rounded */
    assert_int_equal(executed_of(&s), 100 * 17);
    route.layer = 1;
    assert_int_equal(model_of(&s, MP_MODELLED), 100 * 10);
    layer.top_k = 0;
    model_of(&s, MP_UNKNOWN);
}

static void test_head_rows(void **state)
{
    struct mp_step s = one_sequence(10);

    (void)state;
    make_small(MP_PER_HEAD_ROW);
    s.useful = 8;
    assert_int_equal(model_of(&s, MP_MEASURED), 100 * 8);
    assert_int_equal(executed_of(&s), 100 * 10);
    s.head_rows = 3; /* logits_to_keep, or a fused loss on labelled rows */
    assert_int_equal(model_of(&s, MP_MEASURED), 100 * 3);
    assert_int_equal(executed_of(&s), 100 * 3);
}

static void make_core(bool causal, uint32_t window)
{
    make_small(MP_PER_TOKEN);
    op.in = 0;
    attn = (struct mp_attn){.heads = 4,
                            .d_qk = 24,
                            .d_v = 16,
                            .window = window,
                            .layer = 0,
                            .causal = causal,
                            .dgrad = true};
    small.attn = &attn;
    small.n_attn = 1;
}

static void test_attention_core(void **state)
{
    struct mp_step s = one_sequence(10);
    uint64_t a_pair = 2 * 4 * (24 + 16); /* MLA: keys wider than values */

    (void)state;
    make_core(true, 0);
    assert_int_equal(model_of(&s, MP_MEASURED), a_pair * 55 * 3);
    assert_int_equal(executed_of(&s), a_pair * 55 * 7 / 2); /* 1 + 2.5 */
    small.full_scores = true;
    assert_int_equal(executed_of(&s), a_pair * 100 * 3);
    attn.dgrad = false;
    assert_int_equal(model_of(&s, MP_MEASURED), a_pair * 55);
    make_core(false, 0);
    assert_int_equal(model_of(&s, MP_MEASURED), a_pair * 100 * 3);
}

static void test_sliding_window(void **state)
{
    struct mp_step s = one_sequence(10);
    uint64_t a_pair = 2 * 4 * (24 + 16);

    (void)state;
    assert_int_equal(mp_causal_pairs(10, 0), 55);
    assert_int_equal(mp_causal_pairs(10, 10), 55);
    assert_int_equal(mp_causal_pairs(10, 3), 27);
    assert_int_equal(mp_causal_pairs(10, 1), 10);
    make_core(true, 3);
    assert_int_equal(model_of(&s, MP_MODELLED), a_pair * 27 * 3); /* from the length alone */
    s.n_pairs = 2;
    s.pairs[1] =
        (struct mp_pairs_sum){.window = 3, .useful = 20, .processed = 27, .basis = MP_MEASURED};
    assert_int_equal(model_of(&s, MP_MEASURED), a_pair * 20 * 3);
    attn.window = 16; /* wider than anything here: the full count will do */
    assert_int_equal(model_of(&s, MP_MEASURED), a_pair * 55 * 3);
}

static void test_packed(void **state)
{
    struct mp_step s = one_sequence(10);
    uint64_t a_pair = 2 * 4 * (24 + 16);

    (void)state;
    make_core(true, 0);
    s.pairs[0].useful = 10 + 21; /* segments of 4 and 6 */
    s.n_segment = 2;
    assert_int_equal(model_of(&s, MP_MEASURED), a_pair * 31 * 3);
    assert_int_equal(executed_of(&s), a_pair * 55 * 7 / 2);
    s.n_pairs = 0;
    assert_int_equal(model_of(&s, MP_MODELLED), a_pair * 2 * 15 * 3); /* two of 5 */
    s.n_segment = 0;
    model_of(&s, MP_UNKNOWN);
}

static void test_recompute(void **state)
{
    struct mp_step s = one_sequence(10);
    struct mp_cell cell[] = {
        {.layer = 0, .expert = -1, .phase = MP_PHASE_EXPERT, .pass = MP_PASS_FORWARD, .n = 1},
        {.layer = 0, .expert = -1, .phase = MP_PHASE_EXPERT, .pass = MP_PASS_RECOMPUTE, .n = 1},
    };

    (void)state;
    make_small(MP_PER_TOKEN);
    op.dgrad = op.wgrad = true;
    assert_int_equal(executed_of(&s), 100 * 10 * 3);
    small.checkpointing = true; /* nothing was watched: believe the settings */
    assert_int_equal(executed_of(&s), 100 * 10 * 4);
    s.n_kernel = 2;
    s.cell = cell;
    s.n_cell = 1; /* watched, and no replay seen */
    assert_int_equal(executed_of(&s), 100 * 10 * 3);
    s.n_cell = 2;
    small.checkpointing = false;
    assert_int_equal(executed_of(&s), 100 * 10 * 4);
    assert_int_equal(model_of(&s, MP_MEASURED), 100 * 10 * 3); /* never in the model's */
    op.phase = MP_PHASE_ROUTER;
    assert_int_equal(executed_of(&s), 100 * 10 * 3);
}

static void test_nothing_known(void **state)
{
    struct mp_step s = {.processed = UINT64_MAX,
                        .useful = UINT64_MAX,
                        .trainable = UINT64_MAX,
                        .head_rows = UINT64_MAX};
    struct mp_model none = {0};
    struct mp_flops f;

    (void)state;
    mp_flops_step(&f, &none, &s);
    assert_int_equal(f.model.basis, MP_UNKNOWN);
    make_qwen();
    mp_flops_step(&f, &qwen.m, &s);
    assert_int_equal(f.model.basis, MP_UNKNOWN);
    assert_int_equal(f.executed.basis, MP_UNKNOWN);
    assert_int_equal(f.palm.basis, MP_UNKNOWN);
    assert_int_equal(f.trl.basis, MP_UNKNOWN);
    assert_int_equal(f.hf.basis, MP_UNKNOWN);
}

static void test_saturates(void **state)
{
    struct mp_step s = one_sequence(1000000);

    (void)state;
    make_small(MP_PER_TOKEN);
    op.in = op.out = UINT64_MAX / 2;
    op.count = UINT32_MAX;
    assert_true(model_of(&s, MP_UNKNOWN) == UINT64_MAX);
}

/* HFU >= MFU whatever the step. */
static void test_executed_at_least_model(void **state)
{
    uint64_t seed = 7;

    (void)state;
    make_qwen();
    for (int round = 0; round < 300; round++) {
        uint32_t count[4];
        struct mp_route route = {.layer = 3, .n_expert = 4, .basis = MP_MEASURED, .count = count};
        struct mp_step s;
        struct mp_flops f;

        seed = seed * 6364136223846793005u + 1442695040888963407u;
        s = one_sequence(1 + (seed >> 40) % 5000);
        s.useful = s.processed * (seed >> 33 & 63) / 64;
        s.head_rows = s.processed * (seed >> 20 & 31) / 31;
        s.pairs[0].useful = s.pairs[0].processed * (seed >> 11 & 7) / 8;
        for (int i = 0; i < 4; i++)
            count[i] = (uint32_t)(seed >> 8 * i & 0xffff);
        s.route = &route;
        s.n_route = 1;
        s.n_pairs = seed >> 60 & 1;
        mp_flops_step(&f, &qwen.m, &s);
        assert_true(f.executed.flop >= f.model.flop);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qwen_conventions),
        cmocka_unit_test(test_splits_add_up),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_useful_tokens_only),
        cmocka_unit_test(test_routed_assignments),
        cmocka_unit_test(test_head_rows),
        cmocka_unit_test(test_attention_core),
        cmocka_unit_test(test_sliding_window),
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_recompute),
        cmocka_unit_test(test_nothing_known),
        cmocka_unit_test(test_saturates),
        cmocka_unit_test(test_executed_at_least_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
