/* A synthetic job for the dashboard's tests: the same at every run, through the real step code.
 * Durations are made up. No figure of it may be shown as a measurement.
 */
#ifndef DASH_FIXTURE_H
#define DASH_FIXTURE_H

#include "profiler/dash/fmt.h"
#include "profiler/dash/keys.h"
#include "profiler/dash/view.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FX_KEY 4711u

struct fx_shape {
    int layers, experts, steps;
    bool grouped, no_routing;
};

struct fx {
    struct dash_model *m;
    struct dash_job *job;
    struct mp_steps *steps;
    struct fx_shape shape;
    uint64_t now_ns;
    uint32_t rng, step;
};

static inline uint32_t fx_rnd(struct fx *f, uint32_t below)
{
    f->rng = f->rng * 1664525u + 1013904223u;
    return (f->rng >> 8) % below;
}

static inline void fx_put(struct fx *f, const union mp_record *r)
{
    dash_job_records(f->job, r, 1);
    assert_int_equal(mp_steps_feed(f->steps, r, 1), MP_OK);
}

static inline void fx_kernel(struct fx *f, int name, int layer, int expert, int phase, int pass,
                             uint32_t us)
{
    union mp_record r = {.event = {.start_ns = f->now_ns,
                                   .dur_ns = us * 1000 + fx_rnd(f, 200),
                                   .name = (uint32_t)name,
                                   .step = f->step,
                                   .layer = (int16_t)layer,
                                   .expert = (int16_t)expert,
                                   .kind = MP_KERNEL,
                                   .phase = (uint8_t)phase,
                                   .pass = (uint8_t)pass,
                                   .basis = MP_MEASURED}};

    fx_put(f, &r);
    f->now_ns += r.event.dur_ns + (phase == MP_PHASE_EXPERT ? 4000 : 1000);
}

/* Expert x of a layer gets more the lower x is; the last one of layer 0 gets nothing. */
static inline uint32_t fx_tokens(const struct fx *f, int layer, int x)
{
    if (layer == 0 && x == f->shape.experts - 1)
        return 0;
    return 20u + (uint32_t)((x * 37 + layer * 11) % 29) + (x % 16 == layer % 16 ? 90u : 0u);
}

static inline void fx_routing(struct fx *f, int layer)
{
    for (int x = 0; x < f->shape.experts && !f->shape.no_routing; x += 4) {
        union mp_record r = {.routing = {.step = f->step,
                                         .layer = (int16_t)layer,
                                         .expert0 = (int16_t)x,
                                         .kind = MP_ROUTING,
                                         .basis = MP_MEASURED}};

        for (; r.routing.n < 4 && x + r.routing.n < f->shape.experts; r.routing.n++)
            r.routing.count[r.routing.n] = fx_tokens(f, layer, x + r.routing.n);
        fx_put(f, &r);
    }
}

static inline void fx_layer(struct fx *f, int layer, int pass)
{
    fx_kernel(f, 1, layer, -1, MP_PHASE_NORM, pass, 8);
    fx_kernel(f, 2, layer, -1, MP_PHASE_ATTENTION, pass, 120);
    fx_kernel(f, 3, layer, -1, MP_PHASE_ROUTER, pass, 6);
    fx_kernel(f, 4, layer, -1, MP_PHASE_DISPATCH, pass, 30);
    if (f->shape.grouped)
        fx_kernel(f, 5, layer, -1, MP_PHASE_EXPERT, pass, 300);
    for (int x = 0; !f->shape.grouped && x < f->shape.experts; x++)
        fx_kernel(f, 6, layer, x, MP_PHASE_EXPERT, pass, 3 + fx_tokens(f, layer, x) / 10);
    fx_kernel(f, 7, layer, -1, MP_PHASE_COMBINE, pass, 25);
}

static inline void fx_step(struct fx *f)
{
    union mp_record micro = {.micro = {.processed = 4096,
                                       .useful = 3900,
                                       .trainable = 3000,
                                       .head_rows = 4096,
                                       .step = f->step,
                                       .n_segment = 4,
                                       .kind = MP_MICRO,
                                       .basis = MP_MEASURED,
                                       .batch = 4}};
    union mp_record mark = {.mark = {.step = f->step, .n_micro = 1, .kind = MP_STEP}};

    fx_put(f, &micro);
    fx_kernel(f, 0, -1, -1, MP_PHASE_EMBED, MP_PASS_FORWARD, 15);
    for (int layer = 0; layer < f->shape.layers; layer++) {
        fx_layer(f, layer, MP_PASS_FORWARD);
        fx_routing(f, layer);
    }
    fx_kernel(f, 8, -1, -1, MP_PHASE_LM_HEAD, MP_PASS_FORWARD, 400);
    for (int layer = f->shape.layers - 1; layer >= 0; layer--)
        fx_layer(f, layer, MP_PASS_BACKWARD);
    fx_kernel(f, 9, -1, -1, MP_PHASE_OPTIMIZER, MP_PASS_UPDATE, 900);
    fx_kernel(f, 10, -1, -1, MP_PHASE_OTHER, MP_PASS_UPDATE, 9);
    f->now_ns += 150000;
    mark.mark.end_ns = f->now_ns;
    fx_put(f, &mark);
    f->step++;
}

static inline void fx_closed(void *arg, const struct mp_step *step)
{
    struct fx *f = arg;
    struct dash_figures fig = {
        .mfu = {{0.179 + 0.002 * (step->step % 7), MP_MEASURED}, {0.294, MP_MEASURED}},
        .hfu = {0.241, MP_MODELLED},
        .step_ns = step->window_ns,
        .model_flop = {1.5e12, MP_MODELLED},
        .peak_flops = {989.4e12, MP_MEASURED},
        .convention = "causal, useful tokens, frozen-aware, dense bf16 989.4 TF, 1 x H100 SXM"};
    struct dash_gauges g = {.sm_clock_mhz = {1700 + step->step % 5 * 10, MP_MEASURED},
                            .power_w = {612, MP_MEASURED},
                            .temp_c = {64, MP_MEASURED},
                            .mem_bytes = {61.25 * (1 << 30), MP_MEASURED},
                            .throttle_bits = 4,
                            .throttle_known = true};

    dash_job_gauges(f->job, &g);
    dash_job_step(f->job, step, &fig, step->begin_ns);
}

static const char *const fx_name[] = {
    "void at::native::vectorized_gather_kernel<16, long>(char*, char*, long*, int, long)",
    "void at::native::rms_norm_kernel<c10::BFloat16, float>(int, float)",
    "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64, "
    "4>>(Flash_fwd_params)",
    "nvjet_tst_64x8_64x16_4x1_v_bz_TNT",
    "void at::native::index_elementwise_kernel<128, 4, gpu_index_kernel>(long)",
    "void "
    "cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<cutlass::gemm::GroupProblemShape>>"
    "(Params)",
    "nvjet_tst_128x64_64x8_1x2_h_bz_TNT",
    "void at::native::indexFuncLargeIndex<c10::BFloat16, long, unsigned int, 2, 2, -2>()",
    "nvjet_tst_256x128_64x4_1x2_h_bz_coopB_TNT",
    "void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>()",
    "unknown_helper",
};

static inline void fx_describe(struct dash_job *job)
{
    job->state = MP_GUEST_RECORDING;
    snprintf(job->title, sizeof job->title, "python train.py --model tiny-moe");
    snprintf(job->gpu_name, sizeof job->gpu_name, "NVIDIA H100 80GB HBM3");
    snprintf(job->model, sizeof job->model, "Qwen3MoeForCausalLM");
    snprintf(job->backend, sizeof job->backend, "eager (declared)");
    job->gpu_mem_bytes = 80ull << 30;
    job->counters = (struct dash_counters){.n_launch = 123456,
                                           .n_record = 123400,
                                           .n_unmatched = 3,
                                           .agent_frac = {0.004, MP_MEASURED}};
    for (int i = 0; i < MP_FEATURE_COUNT; i++)
        job->feature[i].state = MP_FEATURE_ON;
    job->feature[MP_FEATURE_NVML].state = MP_FEATURE_FAILED;
    snprintf(job->feature[MP_FEATURE_NVML].why, sizeof job->feature[0].why,
             "libnvidia-ml.so.1 is not mapped in this process, so clocks and power stay unknown");
    dash_job_fact(job, "model", "Qwen3MoeForCausalLM, 30.5 B parameters, 3.3 B active");
    dash_job_fact(job, "experts", "128, 8 a token, eager (declared)");
    dash_job_fact(job, "torch", "2.9.0");
    job->log[0] = (struct mp_log_row){1000000000u, 1, 0, "recording started at step 3"};
    job->log[1] = (struct mp_log_row){61000000000u, 5, 1, "a launch had no context"};
    job->n_log = 2;
}

/* A made-up before/after in its 9th of 20 blocks: one arm faster, one refused, one whose numbers disagree. */
static inline void fx_ab(struct dash_ab *ab)
{
    static const unsigned order[] = {0, 1, 1, 0, 1, 0, 0, 1, 1};
    struct dash_ab_arm *a = ab->arm;

    *ab = (struct dash_ab){.is_known = true,
                           .is_running = true,
                           .n_arm = 4,
                           .n_left = 2,
                           .n_planned = 20,
                           .n_begun = countof(order),
                           .n_block = countof(order)};
    for (size_t i = 0; i < countof(order); i++)
        ab->block[i] =
            (struct dash_ab_block){order[i], order[i] ? 1.2 + 0.01 * (double)i : 0.81, false};
    ab->block[countof(order) - 1].rate = NAN;
    ab->block[countof(order) - 1].is_cut = true;
    snprintf(a[0].name, sizeof a[0].name, "original (grouped_mm)");
    a[0].n_block = 4;
    a[0].step_ns = dash_measured(43.0e6);
    a[0].mfu = (struct mp_val){0.184, MP_MODELLED};
    a[1] = a[0];
    snprintf(a[1].name, sizeof a[1].name, "moeprof");
    a[1].step_ns = dash_measured(30.6e6);
    a[1].mfu.v = 0.262;
    a[1].n_pair = 4;
    a[1].ratio = dash_measured(1.431);
    a[1].low = 1.405;
    a[1].high = 1.458;
    a[1].verdict = RP_FASTER;
    snprintf(
        a[1].sentence, sizeof a[1].sentence,
        "moeprof is faster than original (grouped_mm): 1.431 times the model FLOPs a second (95 %% "
        "interval 1.405 to 1.458, 4 pairs of blocks); the interval lies outside of ±1.0 %%");
    a[1].n_layer = 24;
    a[1].worst = (struct rp_parity){.arm = 1,
                                    .layer = 7,
                                    .quantity = "dgate_up",
                                    .error = 0.0021,
                                    .own_error = 0.0019,
                                    .ratio = 1.1,
                                    .tokens = 4096,
                                    .passed = true};
    snprintf(a[2].name, sizeof a[2].name, "deepgemm");
    a[2].status = RP_ARM_REFUSED;
    snprintf(a[2].why, sizeof a[2].why, "layer 0: needs 'deep_gemm', which is not installed");
    snprintf(a[3].name, sizeof a[3].name, "batched_mm");
    a[3].status = RP_ARM_PARITY_FAILED;
    snprintf(a[3].why, sizeof a[3].why, "layer 3: dx is 9.5 times as far off as the job's own");
    a[3].n_layer = 24;
    a[3].n_failed = 1;
    a[3].worst = (struct rp_parity){.arm = 3,
                                    .layer = 3,
                                    .quantity = "dx",
                                    .error = 0.02,
                                    .own_error = 0.0021,
                                    .ratio = 9.5,
                                    .tokens = 4096,
                                    .why = "not rounding any more"};
}

/* A model with one job that has run shape.steps steps. */
static inline struct dash_model *fx_model(struct fx_shape shape)
{
    struct dash_model *m = malloc(sizeof *m);
    struct fx f = {.m = m, .shape = shape, .now_ns = 1700000000ull * 1000000000, .rng = 7};

    assert_non_null(m);
    dash_model_init(m);
    f.job = dash_model_open(m, FX_KEY, 4711);
    assert_non_null(f.job);
    fx_describe(f.job);
    for (uint32_t i = 0; i < countof(fx_name); i++)
        dash_kernels_set_name(&f.job->kernels, i, fx_name[i]);
    f.steps = mp_steps_new(fx_closed, &f);
    assert_non_null(f.steps);
    for (int i = 0; i <= shape.steps; i++) /* a step closes when the next one begins */
        fx_step(&f);
    mp_steps_finish(f.steps); /* the last one is partial */
    mp_steps_free(f.steps);
    return m;
}

static inline void fx_free(struct dash_model *m)
{
    dash_model_release(m);
    free(m);
}

static inline void fx_keys(struct dash_model *m, const char *keys)
{
    for (; *keys; keys++)
        dash_key_press(m, (unsigned char)*keys);
}

#endif
