/* A synthetic MoE training as a stream of records, the same at every run: what tests feed to steps,
 * profiles, reports and (through tests/mock/fake_guest.c) to real shared memory.
 *
 * Shapes are Qwen3-30B-A3B's with few layers; durations and gaps are made up, in 32 ns ticks as CUPTI
 * has them. No figure of it may be shown as a measurement.
 */
#ifndef FAKE_JOB_H
#define FAKE_JOB_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/core/event.h"
#include "profiler/core/phase.h"

struct fake_job {
    void (*put)(void *arg, const union mp_record *record);
    void *arg;
    int n_layer, n_expert, top_k, tokens;
    bool grouped;    /* one kernel for all experts of a layer */
    bool checkpoint; /* replay the forward in the backward */
    bool untraced;   /* the GPU is not watched: marks, tokens and counts only */
    uint64_t now_ns; /* end of the last operation on the GPU */
    uint64_t rng;
    uint32_t step, launches;
    int layer, expert; /* where the next kernels belong */
    uint8_t phase, pass, basis, flags;
};

enum fake_name {
    FAKE_EMBED,
    FAKE_NORM,
    FAKE_GEMM_QKV,
    FAKE_FLASH,
    FAKE_GEMM_O,
    FAKE_ROUTER,
    FAKE_TOPK,
    FAKE_INDEX,
    FAKE_GEMM_UP,
    FAKE_SILU,
    FAKE_GEMM_DOWN,
    FAKE_INDEX_ADD,
    FAKE_HEAD,
    FAKE_LOSS,
    FAKE_CLIP,
    FAKE_ADAM,
    FAKE_COUNT,
    FAKE_ODD,
    FAKE_NAME_COUNT
};

static const char *const fake_name[FAKE_NAME_COUNT] = {
    [FAKE_EMBED] =
        "void at::native::vectorized_gather_kernel<16, long>(char*, char*, long*, int, long)",
    [FAKE_NORM] = "void at::native::rms_norm_kernel<c10::BFloat16, float>(int, float, ...)",
    [FAKE_GEMM_QKV] = "nvjet_tst_192x128_64x5_1x2_h_bz_coopB_TNT",
    [FAKE_FLASH] = "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64, "
                   "4>>(Flash_fwd_params)",
    [FAKE_GEMM_O] = "nvjet_tst_128x256_64x4_2x1_v_bz_coopA_TNT",
    [FAKE_ROUTER] = "nvjet_tst_64x8_64x16_4x1_v_bz_TNT",
    [FAKE_TOPK] = "void at::native::sbtopk::gatherTopK<float, unsigned int, 2, false>(...)",
    [FAKE_INDEX] = "void at::native::index_elementwise_kernel<128, 4, gpu_index_kernel>(long, ...)",
    [FAKE_GEMM_UP] = "nvjet_tst_128x64_64x8_1x2_h_bz_TNT",
    [FAKE_SILU] = "void at::native::vectorized_elementwise_kernel<4, silu_kernel>(int, ...)",
    [FAKE_GEMM_DOWN] = "nvjet_tst_64x128_64x8_2x1_v_bz_TNT",
    [FAKE_INDEX_ADD] =
        "void at::native::indexFuncLargeIndex<c10::BFloat16, long, unsigned int, 2, 2, -2>(...)",
    [FAKE_HEAD] = "nvjet_tst_256x128_64x4_1x2_h_bz_coopB_TNT",
    [FAKE_LOSS] = "void cunn_SoftMaxForward<4, c10::BFloat16, float, float>(...)",
    [FAKE_CLIP] = "void at::native::lpnorm_cleanup<float, float>(...)",
    [FAKE_ADAM] = "void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>(...)",
    [FAKE_COUNT] = "moeprof_count",
    [FAKE_ODD] = "void <script>alert(\"a&b\")</script>(int)",
};

static inline uint32_t fake_rnd(struct fake_job *j, uint32_t below)
{
    j->rng = j->rng * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(j->rng >> 33) % below;
}

static inline void fake_init(struct fake_job *j, void (*put)(void *, const union mp_record *),
                             void *arg)
{
    *j = (struct fake_job){.put = put,
                           .arg = arg,
                           .n_layer = 4,
                           .n_expert = 128,
                           .top_k = 8,
                           .tokens = 4096,
                           .now_ns = 1790000000000000000ull,
                           .rng = 1,
                           .layer = -1,
                           .expert = -1};
}

static inline void fake_event(struct fake_job *j, uint8_t kind, uint32_t name, uint32_t dur_ns)
{
    union mp_record r = {.event = {
                             .start_ns = j->now_ns + 640 + 32 * fake_rnd(j, 60),
                             .dur_ns = (dur_ns + 32 * fake_rnd(j, 1 + dur_ns / 640)) / 32 * 32,
                             .name = name,
                             .step = j->step,
                             .layer = (int16_t)j->layer,
                             .expert = (int16_t)j->expert,
                             .kind = kind,
                             .phase = j->phase,
                             .pass = j->pass,
                             .basis = j->basis,
                             .lag_us = (uint16_t)(30 + fake_rnd(j, 40)),
                             .stream = 7,
                             .flags = j->flags,
                         }};

    j->now_ns = r.event.start_ns + r.event.dur_ns;
    j->launches++;
    if (!j->untraced)
        j->put(j->arg, &r);
}

static inline void fake_at(struct fake_job *j, int layer, enum mp_phase phase)
{
    j->layer = layer;
    j->phase = (uint8_t)phase;
    j->expert = -1;
    j->basis = MP_MEASURED;
    j->flags = 0;
}

static inline void fake_kernel(struct fake_job *j, enum fake_name name, uint32_t dur_ns)
{
    fake_event(j, MP_KERNEL, name, dur_ns);
}

/* Tokens of expert e in this step and layer: uneven, the same for every pass. Sums to tokens * top_k. */
static inline void fake_route(const struct fake_job *j, int layer, uint32_t *count)
{
    struct fake_job r = {.rng = 77 + 1000u * j->step + (unsigned)layer};
    uint32_t total = (uint32_t)(j->tokens * j->top_k), given = 0;

    for (int e = 0; e < j->n_expert; e++) {
        count[e] = total / (uint32_t)j->n_expert / 2 + fake_rnd(&r, total / (uint32_t)j->n_expert);
        count[e] = e == 3 ? 0 : count[e]; /* one dead expert */
        count[e] = given + count[e] > total ? total - given : count[e];
        given += count[e];
    }
    count[0] += total - given;
}

static inline void fake_experts(struct fake_job *j, int layer, uint32_t scale)
{
    uint32_t count[1024];

    fake_route(j, layer, count);
    fake_at(j, layer, MP_PHASE_EXPERT);
    j->flags = MP_FLAG_POINTER;
    if (j->grouped) {
        fake_kernel(j, FAKE_GEMM_UP, 620000 * scale);
        fake_kernel(j, FAKE_SILU, 60000 * scale);
        fake_kernel(j, FAKE_GEMM_DOWN, 310000 * scale);
        return;
    }
    for (int e = 0; e < j->n_expert; e++) {
        if (count[e] == 0)
            continue;
        j->expert = e;
        fake_kernel(j, FAKE_GEMM_UP, (4000 + 16 * count[e]) * scale);
        fake_kernel(j, FAKE_SILU, (1500 + count[e]) * scale);
        fake_kernel(j, FAKE_GEMM_DOWN, (3000 + 8 * count[e]) * scale);
    }
}

static inline void fake_layer(struct fake_job *j, int layer, enum mp_pass pass)
{
    uint32_t scale = pass == MP_PASS_BACKWARD ? 2 : 1;

    j->pass = (uint8_t)pass;
    fake_at(j, layer, MP_PHASE_NORM);
    fake_kernel(j, FAKE_NORM, 14000 * scale);
    fake_at(j, layer, MP_PHASE_ATTENTION);
    fake_kernel(j, FAKE_GEMM_QKV, 160000 * scale);
    fake_kernel(j, FAKE_FLASH, 210000 * scale);
    fake_kernel(j, FAKE_GEMM_O, 120000 * scale);
    fake_at(j, layer, MP_PHASE_ROUTER);
    fake_kernel(j, FAKE_ROUTER, 18000 * scale);
    fake_kernel(j, FAKE_TOPK, 22000 * scale);
    if (pass == MP_PASS_FORWARD) {
        j->flags = MP_FLAG_OWN;
        fake_kernel(j, FAKE_COUNT, 2500);
    }
    fake_at(j, layer, MP_PHASE_DISPATCH);
    fake_kernel(j, FAKE_INDEX, 90000 * scale);
    fake_experts(j, layer, scale);
    fake_at(j, layer, MP_PHASE_COMBINE);
    fake_kernel(j, FAKE_INDEX_ADD, 110000 * scale);
}

static inline void fake_counts(struct fake_job *j)
{
    uint32_t count[1024];

    for (int layer = 0; layer < j->n_layer; layer++) {
        fake_route(j, layer, count);
        for (int e = 0; e < j->n_expert; e += 4) {
            int n = j->n_expert - e < 4 ? j->n_expert - e : 4;
            union mp_record r = {.routing = {.step = j->step,
                                             .layer = (int16_t)layer,
                                             .expert0 = (int16_t)e,
                                             .kind = MP_ROUTING,
                                             .n = (uint8_t)n,
                                             .basis = MP_MEASURED}};

            for (int k = 0; k < n; k++)
                r.routing.count[k] = count[e + k];
            j->put(j->arg, &r);
        }
    }
}

static inline void fake_micro(struct fake_job *j)
{
    uint64_t len = (uint64_t)j->tokens / 2;
    union mp_record micro = {.micro = {.processed = (uint32_t)j->tokens,
                                       .useful = (uint32_t)j->tokens - 200,
                                       .trainable = (uint32_t)j->tokens - 900,
                                       .head_rows = UINT32_MAX,
                                       .step = j->step,
                                       .n_segment = 2,
                                       .kind = MP_MICRO,
                                       .basis = MP_MEASURED,
                                       .batch = 2}};
    union mp_record pairs = {.pairs = {.useful = (len - 100) * (len - 99),
                                       .processed = len * (len + 1),
                                       .step = j->step,
                                       .kind = MP_PAIRS,
                                       .basis = MP_MEASURED,
                                       .max_len = (uint32_t)len - 100}};

    j->put(j->arg, &micro);
    j->put(j->arg, &pairs);
}

static inline void fake_work(struct fake_job *j)
{
    j->now_ns += 400000; /* data loading, logging: idle */
    j->pass = MP_PASS_FORWARD;
    fake_at(j, -1, MP_PHASE_COPY);
    fake_event(j, MP_MEMCPY, 64, 9000);
    fake_micro(j);
    fake_at(j, -1, MP_PHASE_EMBED);
    fake_kernel(j, FAKE_EMBED, 20000);
    for (int layer = 0; layer < j->n_layer; layer++)
        fake_layer(j, layer, MP_PASS_FORWARD);
    fake_at(j, -1, MP_PHASE_LM_HEAD);
    fake_kernel(j, FAKE_HEAD, 3600000);
    fake_at(j, -1, MP_PHASE_LOSS);
    fake_kernel(j, FAKE_LOSS, 900000);
    j->pass = MP_PASS_BACKWARD;
    fake_kernel(j, FAKE_LOSS, 1100000);
    fake_at(j, -1, MP_PHASE_LM_HEAD);
    fake_kernel(j, FAKE_HEAD, 7200000);
    for (int layer = j->n_layer - 1; layer >= 0; layer--) {
        if (j->checkpoint)
            fake_layer(j, layer, MP_PASS_RECOMPUTE);
        fake_layer(j, layer, MP_PASS_BACKWARD);
    }
    j->pass = MP_PASS_UPDATE;
    fake_at(j, -1, MP_PHASE_GRADIENT);
    fake_kernel(j, FAKE_CLIP, 400000);
    fake_at(j, -1, MP_PHASE_OPTIMIZER);
    for (int i = 0; i < 8 * j->n_layer; i++)
        fake_kernel(j, FAKE_ADAM, 350000);
    fake_at(j, -1, MP_PHASE_OTHER);
    j->basis = MP_UNKNOWN;
    fake_kernel(j, FAKE_ODD, 30000);
}

static inline void fake_step(struct fake_job *j)
{
    union mp_record mark = {.mark = {.step = j->step, .n_micro = 1, .kind = MP_STEP}};

    j->launches = 0;
    fake_work(j);
    fake_counts(j);
    mark.mark.flags = j->untraced ? MP_STEP_UNTRACED : 0;
    mark.mark.end_ns = j->now_ns;
    mark.mark.launches = mark.mark.records = j->untraced ? 0 : j->launches;
    j->put(j->arg, &mark);
    j->step++;
}

/* The model description that belongs to it (profiler/core/SPEC.md); malloced. */
static inline char *fake_spec(const struct fake_job *j)
{
    static const char *const head =
        "{\"schema\": 1, \"env\": {\"python\": \"3.12.4\", \"torch\": \"2.9.1\", \"cuda\": "
        "\"12.8\", \"transformers\": \"5.17.0\","
        " \"peft\": null, \"argv\": [\"train.py\"], \"hostname\": \"fake\"},"
        " \"model\": {\"class\": \"Qwen3MoeForCausalLM\", \"family\": \"qwen3_moe\", \"name\": "
        "\"Qwen/Qwen3-30B-A3B\", \"config_hash\": \"8d3f0a61c5b27e94\", \"quantization\": null, "
        "\"n_layers\": "
        "%d, \"hidden\": 2048,"
        " \"vocab\": 151936, \"params_total\": 3114000000, \"params_active\": 850000000, "
        "\"params_trainable\": 3114000000,"
        " \"tied_embeddings\": false, \"dtype\": \"bfloat16\", \"autocast\": null, "
        "\"checkpointing\": \"%s\","
        " \"compiled\": false, \"attention\": \"sdpa\", \"is_moe\": true},"
        " \"experts\": {\"backend\": \"%s\", \"backend_basis\": \"declared\", \"class\": "
        "\"Qwen3MoeExperts\","
        " \"module\": \"model.layers.N.mlp.experts\", \"layout\": \"stacked\", \"n\": %d, "
        "\"top_k\": %d},"
        " \"lora\": null, \"layers\": [";
    static const struct {
        const char *phase, *name, *per;
        int in, out;
    } op[] = {
        {"attention", "q_proj", "token", 2048, 4096},
        {"attention", "k_proj", "token", 2048, 512},
        {"attention", "v_proj", "token", 2048, 512},
        {"attention", "o_proj", "token", 4096, 2048},
        {"router", "gate", "token", 2048, 128},
        {"expert", "gate_up_proj", "assignment", 2048, 1536},
        {"expert", "down_proj", "assignment", 768, 2048},
    };
    char *out = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&out, &size);

    if (!f)
        return NULL;
    fprintf(f, head, j->n_layer, j->checkpoint ? "non-reentrant" : "none",
            j->grouped ? "grouped_mm" : "eager", j->n_expert, j->top_k);
    for (int i = 0; i < j->n_layer; i++)
        fprintf(f,
                "%s{\"index\": %d, \"kind\": \"moe\", \"experts\": %d, \"top_k\": %d, \"shared\": "
                "0, \"attention\":"
                " {\"heads\": 32, \"d_qk\": 128, \"d_v\": 128, \"window\": 0, \"causal\": true}}",
                i ? ", " : "", i, j->n_expert, j->top_k);
    fprintf(f, "], \"ops\": [");
    for (int i = 0; i < j->n_layer; i++)
        for (size_t k = 0; k < countof(op); k++)
            fprintf(f,
                    "{\"layer\": %d, \"phase\": \"%s\", \"name\": \"%s\", \"in\": %d, \"out\": %d, "
                    "\"per\": \"%s\","
                    " \"count\": 1, \"dgrad\": true, \"wgrad\": true, \"lora\": false}, ",
                    i, op[k].phase, op[k].name, op[k].in, op[k].out, op[k].per);
    fprintf(f, "{\"layer\": -1, \"phase\": \"lm_head\", \"name\": \"lm_head\", \"in\": 2048, "
               "\"out\": 151936, \"per\":"
               " \"head_row\", \"count\": 1, \"dgrad\": true, \"wgrad\": true, \"lora\": false}],"
               " \"optimizer\": {\"class\": \"AdamW\", \"fused\": true, \"foreach\": null},"
               " \"train\": {\"world_size\": 1, \"rank\": 0, \"grad_accum\": 1, \"trainer\": "
               "\"Trainer\", \"seed\": 42, \"data_seed\": null, \"micro_batch\": 4, \"packing\": "
               "null, \"torch_seed\": \"42\", \"deterministic\": false}, \"notes\": []}");
    fclose(f);
    return out;
}

#endif
