/* Unknown stays unknown: without a description or a peak there is a sentence in place of a figure. */
#include "profiler/dash/eval.h"

#include "profiler/dash/fmt.h"

#include <stdio.h>
#include <string.h>

void dash_eval_release(struct dash_eval *e)
{
    rp_spec_release(&e->spec);
    memset(e, 0, sizeof *e);
}

static void find_peak(struct dash_eval *e)
{
    const struct rp_spec_text *t = &e->spec.text;

    mp_peak_find(&e->peak, e->gpu_name, e->gpu_cc, e->gpu_sm_count,
                 t->autocast[0] ? t->autocast : t->dtype);
}

void dash_eval_gpu(struct dash_eval *e, const char *name, int cc, int sm_count)
{
    if (strcmp(e->gpu_name, name) == 0 && e->gpu_cc == cc && e->gpu_sm_count == sm_count)
        return;
    snprintf(e->gpu_name, sizeof e->gpu_name, "%s", name);
    e->gpu_cc = cc;
    e->gpu_sm_count = sm_count;
    find_peak(e);
}

/* ---- facts for people ----------------------------------------------------------------------- */

static void fact(struct dash_job *job, const char *label, const char *text)
{
    if (text[0])
        dash_job_fact(job, label, text);
}

static const char *count(char b[DASH_FMT_BYTES], uint64_t n)
{
    return dash_fmt_si(b, (struct mp_val){(double)n, n ? MP_MEASURED : MP_UNKNOWN}, "");
}

static void describe_model(struct dash_job *job, const struct rp_spec *s)
{
    char text[228], a[DASH_FMT_BYTES], b[DASH_FMT_BYTES], c[DASH_FMT_BYTES];

    if (s->text.class[0]) {
        snprintf(text, sizeof text, "%s, %s parameters, %s active, %s trained", s->text.class,
                 count(a, s->model.params_total), count(b, s->params_active),
                 count(c, s->params_trainable));
        fact(job, "model", text);
    }
    if (job->backend[0] && s->n_experts) {
        snprintf(text, sizeof text, "%s; %u, of which %u a token%s%s", job->backend, s->n_experts,
                 s->top_k, s->text.layout[0] ? ", weights " : "", s->text.layout);
        fact(job, "experts", text);
    }
    snprintf(text, sizeof text, "%u", s->n_layers);
    fact(job, "layers", s->n_layers ? text : "");
    fact(job, "attention", s->text.attention);
    fact(job, "dtype", s->text.dtype);
    fact(job, "autocast", s->text.autocast);
    fact(job, "checkpointing", s->text.checkpointing);
    fact(job, "compiled", s->compiled ? "yes" : "");
    snprintf(text, sizeof text, "rank %u", s->lora_r);
    fact(job, "LoRA", s->has_lora ? text : "");
    fact(job, "optimizer", s->text.optimizer);
}

static void describe_software(struct dash_job *job, const struct rp_spec_text *t)
{
    fact(job, "trainer", t->trainer);
    fact(job, "torch", t->torch);
    fact(job, "CUDA", t->cuda);
    fact(job, "Python", t->python);
    fact(job, "transformers", t->transformers);
    fact(job, "peft", t->peft);
    fact(job, "trl", t->trl);
    fact(job, "accelerate", t->accelerate);
    fact(job, "unsloth", t->unsloth);
    fact(job, "axolotl", t->axolotl);
    fact(job, "host", t->hostname);
    fact(job, "arguments", t->argv);
}

void dash_eval_describe(struct dash_eval *e, struct dash_job *job, const char *json, size_t bytes)
{
    struct mp_err err;

    rp_spec_release(&e->spec);
    job->n_fact = 0;
    e->has_spec = rp_spec_parse(&e->spec, json, bytes, &err) == MP_OK;
    if (!e->has_spec) {
        dash_job_fact(job, "model", err.msg);
        return;
    }
    find_peak(e);
    snprintf(job->model, sizeof job->model, "%s", e->spec.text.class);
    job->backend[0] = 0;
    if (e->spec.text.backend[0])
        snprintf(job->backend, sizeof job->backend, "%.40s%s%.16s%s", e->spec.text.backend,
                 e->spec.text.backend_basis[0] ? " (" : "", e->spec.text.backend_basis,
                 e->spec.text.backend_basis[0] ? ")" : "");
    describe_model(job, &e->spec);
    describe_software(job, &e->spec.text);
    for (uint32_t i = 0; i < e->spec.n_note; i++)
        dash_job_fact(job, "note", e->spec.note[i]);
}

/* ---- figures of a step ---------------------------------------------------------------------- */

/* The first of what is missing. */
static const char *why_not(const struct dash_eval *e, const struct mp_flops *flops)
{
    if (!e->has_spec)
        return "no MFU: the model has not been described yet";
    if (flops->model.basis == MP_UNKNOWN)
        return "no MFU: the FLOPs of this step are not known: tokens or shapes are missing";
    return e->peak.why_not;
}

static uint64_t duration_ns(const struct dash_eval *e, const struct mp_step *s)
{
    bool follows =
        e->host_end_ns && s->step == e->step_before + 1 && s->host_end_ns > e->host_end_ns;

    if (s->window_ns && !(s->flags & MP_STEP_UNTRACED))
        return s->window_ns;
    return follows ? s->host_end_ns - e->host_end_ns : 0;
}

static void take_sums(struct dash_figures *out, const struct mp_mfu_sum *sum)
{
    out->mfu[DASH_OURS] = sum->mfu;
    out->mfu[DASH_PALM] = sum->palm_mfu;
    out->mfu[DASH_TRL] = sum->trl_mfu;
    out->mfu[DASH_ADJUSTED] = sum->adjusted_mfu;
    out->mfu[DASH_HF] = sum->hf_mfu;
    out->model_flop = sum->model_flop;
}

void dash_eval_step(struct dash_eval *e, const struct mp_step *step, struct dash_figures *out)
{
    struct mp_flops flops = {.model = {0, MP_UNKNOWN}};
    struct mp_step timed = *step;
    struct mp_mfu_sum sum;

    memset(out, 0, sizeof *out);
    out->step_ns = timed.window_ns = duration_ns(e, step);
    e->host_end_ns = step->host_end_ns;
    e->step_before = step->step;
    if (e->has_spec)
        mp_flops_step(&flops, &e->spec.model, step);
    if (mp_mfu_of_step(&timed, e->has_spec ? &flops : NULL, &e->peak, &sum)) {
        take_sums(out, &sum);
        out->hfu = sum.hfu;
    }
    if (e->peak.flops > 0)
        out->peak_flops = (struct mp_val){e->peak.flops, MP_MEASURED};
    if (out->mfu[DASH_OURS].basis != MP_UNKNOWN)
        mp_mfu_convention(out->convention, sizeof out->convention, &e->spec.model, &e->peak);
    else
        snprintf(out->why_not, sizeof out->why_not, "%s", why_not(e, &flops));
}
