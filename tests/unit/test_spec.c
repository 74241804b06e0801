/* The model description: read whole, then mutilated. */
#include "report/spec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char good[] =
    "{\"schema\": 1,"
    " \"env\": {\"python\": \"3.12.3\", \"torch\": \"2.11.0\", \"transformers\": \"5.17.0\", "
    "\"peft\": null,"
    "  \"argv\": [\"python\", \"train.py\", \"--x\"], \"hostname\": \"h\"},"
    " \"model\": {\"class\": \"Qwen3MoeForCausalLM\", \"family\": \"qwen3_moe\", \"n_layers\": 2, "
    "\"hidden\": 64,"
    "  \"vocab\": 1000, \"params_total\": 123456789012, \"params_active\": 5, "
    "\"params_trainable\": 4,"
    "  \"tied_embeddings\": true, \"dtype\": \"bfloat16\", \"autocast\": null, \"checkpointing\": "
    "\"reentrant\","
    "  \"compiled\": false, \"attention\": \"eager\", \"is_moe\": true},"
    " \"experts\": {\"backend\": \"grouped_mm\", \"backend_basis\": \"declared\", \"class\": "
    "\"Experts\","
    "  \"layout\": \"stacked\", \"n\": 8, \"top_k\": 2},"
    " \"lora\": {\"r\": 16, \"targets\": [\"q_proj\", \"v_proj\"]},"
    " \"layers\": [{\"index\": 0, \"kind\": \"moe\", \"experts\": 8, \"top_k\": 2, \"shared\": 0,"
    "   \"attention\": {\"heads\": 4, \"d_qk\": 24, \"d_v\": 16, \"window\": 128, \"causal\": "
    "true, \"dgrad\": false}},"
    "  {\"index\": 1, \"kind\": \"dense\", \"experts\": 0, \"top_k\": 0, \"attention\": null}],"
    " \"ops\": [{\"layer\": 0, \"phase\": \"attention\", \"name\": \"q_proj\", \"in\": 64, "
    "\"out\": 96, \"per\": \"token\","
    "   \"count\": 1, \"dgrad\": true, \"wgrad\": false, \"lora\": false},"
    "  {\"layer\": 0, \"phase\": \"expert\", \"name\": \"up\", \"in\": 64, \"out\": 32.0, \"per\": "
    "\"assignment\"},"
    "  {\"layer\": -1, \"phase\": \"lm_head\", \"name\": \"h\", \"in\": 64, \"out\": 1000, "
    "\"per\": \"head_row\", \"lora\": true}],"
    " \"optimizer\": {\"class\": \"AdamW\", \"fused\": true},"
    " \"train\": {\"world_size\": 8, \"rank\": 3, \"grad_accum\": null, \"trainer\": "
    "\"SFTTrainer\", \"seed\": 0, \"data_seed\": null, \"torch_seed\": \"18446744073709551615\","
    "  \"micro_batch\": 4, \"packing\": true, \"deterministic\": false},"
    " \"notes\": [\"a sentence\", 5, \"esc\\u001b[2J\"]}";

static void test_whole(void **state)
{
    struct rp_spec s;
    struct mp_err err = {0};

    (void)state;
    if (rp_spec_parse(&s, good, sizeof good - 1, &err) != 0)
        fail_msg("%s", err.msg);
    assert_int_equal(s.schema, 1);
    assert_string_equal(s.text.class, "Qwen3MoeForCausalLM");
    assert_string_equal(s.text.torch, "2.11.0");
    assert_string_equal(s.text.peft, "");
    assert_string_equal(s.text.backend, "grouped_mm");
    assert_string_equal(s.text.argv, "python train.py --x");
    assert_string_equal(s.text.optimizer, "AdamW");
    assert_string_equal(s.text.lora_targets, "q_proj,v_proj");
    assert_string_equal(s.text.seed, "0"); /* a seed, not unknown */
    assert_string_equal(s.text.data_seed, "");
    assert_string_equal(s.text.torch_seed, "18446744073709551615");
    assert_string_equal(s.text.micro_batch, "4");
    assert_string_equal(s.text.packing, "yes");
    assert_string_equal(s.text.deterministic, "no");
    assert_true(s.model.params_total == 123456789012u);
    assert_true(s.model.tied && s.model.checkpointing && s.model.full_scores && s.has_lora &&
                s.is_moe);
    assert_int_equal(s.lora_r, 16);
    assert_int_equal(s.grad_accum, -1);
    assert_int_equal(s.rank, 3);
    assert_int_equal(s.model.n_op, 3);
    assert_int_equal(s.model.op[0].phase, MP_PHASE_ATTENTION);
    assert_false(s.model.op[0].wgrad);
    assert_int_equal(s.model.op[1].out, 32);
    assert_int_equal(s.model.op[1].per, MP_PER_ASSIGNMENT);
    assert_int_equal(s.model.op[2].layer, -1);
    assert_true(s.model.op[2].lora);
    assert_int_equal(s.model.n_layer, 2);
    assert_int_equal(s.model.layer[0].top_k, 2);
    assert_int_equal(s.model.n_attn, 1);
    assert_int_equal(s.model.attn[0].window, 128);
    assert_false(s.model.attn[0].dgrad);
    assert_int_equal(s.n_note, 2);
    assert_string_equal(s.note[1], "esc?[2J");
    assert_int_equal(s.n_skipped, 0);
    rp_spec_release(&s);
}

static void test_refuses(void **state)
{
    static const char *const bad[] = {"", "[]", "5", "{", "nonsense", "{\"schema\": 1}}"};
    struct rp_spec s;
    struct mp_err err;

    (void)state;
    for (size_t i = 0; i < countof(bad); i++) {
        assert_int_equal(rp_spec_parse(&s, bad[i], strlen(bad[i]), &err), MP_EFORMAT);
        rp_spec_release(&s);
    }
}

static void test_wrong_members(void **state)
{
    static const char text[] = "{\"schema\": \"x\", \"env\": 5, \"model\": [], \"experts\": null, "
                               "\"lora\": true, \"layers\": {\"index\": 1},"
                               " \"ops\": [null, 5, {}, {\"layer\": 99999999999, \"phase\": "
                               "\"nope\", \"in\": 4, \"out\": 4, \"per\": \"token\"},"
                               "  {\"in\": -4, \"out\": 4, \"per\": \"token\"}, {\"in\": 1e300, "
                               "\"out\": 4, \"per\": \"token\"},"
                               "  {\"in\": 4, \"out\": 4, \"per\": \"sequence\"}], \"notes\": "
                               "\"x\", \"later\": {\"a\": 1}}";
    struct rp_spec s;

    (void)state;
    assert_int_equal(rp_spec_parse(&s, text, sizeof text - 1, NULL), 0);
    assert_int_equal(s.schema, 0);
    assert_int_equal(s.model.n_op, 1);
    assert_int_equal(s.model.op[0].phase, MP_PHASE_OTHER);
    assert_int_equal(s.model.op[0].layer, -1);
    assert_int_equal(s.n_skipped, 6);
    assert_false(s.has_lora);
    rp_spec_release(&s);
    assert_int_equal(rp_spec_parse(&s, "{}", 2, NULL), 0);
    assert_int_equal(s.model.n_op, 0);
    rp_spec_release(&s);
}

static void use(const struct rp_spec *s)
{
    struct mp_step step = {.processed = 128,
                           .useful = 100,
                           .head_rows = 128,
                           .useful_basis = MP_MEASURED,
                           .n_segment = 1};
    struct mp_flops f;

    mp_flops_step(&f, &s->model, &step);
    assert_true(f.model.basis != MP_UNKNOWN || f.model.flop <= UINT64_MAX);
    for (uint32_t i = 0; i < s->model.n_op; i++)
        assert_true(s->model.op[i].phase < MP_PHASE_COUNT && s->model.op[i].layer >= -1);
}

static uint64_t seed = 2463534242u;

static uint32_t random_below(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 33) % n;
}

/* Swaps, deletes, doubles, overwrites: never a crash, and what parses can be counted with. */
static void test_mutations(void **state)
{
    static const char *const token[] = {
        "null", "1e308", "-1",      "99999999999999999999", "\"", "{", "}", "[", "]", ",",
        "true", "0.5",   "\\u0000", "4294967296",           ":"};
    char text[2 * sizeof good];
    int parsed = 0;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        size_t n = sizeof good - 1;
        struct rp_spec s;

        memcpy(text, good, n);
        for (uint32_t k = 1 + random_below(3); k > 0; k--) {
            const char *with = token[random_below(countof(token))];
            size_t len = strlen(with), at = random_below((uint32_t)(n - 30)),
                   cut = random_below(12);

            switch (random_below(4)) {
            case 0:
                text[at] = (char)random_below(256);
                break;
            case 1: /* a value for another, so that much still parses */
                while (at < n - 30 && text[at] != ':')
                    at++;
                at += 2;
                cut = strcspn(text + at, ",}]");
                cut = at + cut < n ? cut : 1;
                /* fall through */
            default:
                memmove(text + at + len, text + at + cut, n - at - cut);
                memcpy(text + at, with, len);
                n = n + len - cut;
            }
        }
        if (rp_spec_parse(&s, text, n, NULL) == 0) {
            parsed++;
            use(&s);
        }
        rp_spec_release(&s);
    }
    assert_true(parsed > 1000);
}

int main(void)
{
    struct rp_spec s;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_wrong_members),
        cmocka_unit_test(test_mutations),
    };

    if (rp_spec_parse(&s, "{}", 2, NULL) == MP_ENOTSUP)
        return 0;
    rp_spec_release(&s);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
