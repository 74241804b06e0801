/* A before/after for programs: report/schema/ab.schema.json. Base units, null for unknown. */
#include "report/json_part.h"

#if HAVE_JANSSON
#include <stdlib.h>
#include <string.h>

/* The rows of one arm: key to figure. */
static json_t *rows(const struct rp_figure *f, size_t n, unsigned arm)
{
    json_t *all = json_object();

    for (size_t i = 0; i < n; i++)
        json_object_set_new(all, f[i].key, rp_json_value(f[i].v[arm]));
    return all;
}

static json_t *layers(const struct rp_ab *ab, unsigned arm)
{
    json_t *all = json_array();

    for (size_t i = 0; i < ab->n_layer; i++)
        json_array_append_new(all, json_pack("{si so}", "layer", atoi(ab->layer_name[i] + 6),
                                             "seconds", rp_json_value(ab->layer[i].v[arm])));
    return all;
}

static json_t *contrast_object(const struct rp_ab *ab, unsigned arm)
{
    const struct rp_contrast *c = &ab->contrast[arm];
    bool k = c->is_known;

    if (arm == 0)
        return json_null();
    return json_pack("{so so so ss ss so si si so so so so ss}", "value",
                     rp_json_known(c->speedup.value, k), "low", rp_json_known(c->speedup.low, k),
                     "high", rp_json_known(c->speedup.high, k), "verdict",
                     rp_verdict_name(c->verdict), "why", c->why, "floor", rp_json_value(c->floor),
                     "pairs", c->n_pair, "pairs_cut", c->n_cut, "detectable",
                     rp_json_value(c->detectable), "wilcoxon_p", rp_json_known(c->wilcoxon.p, k),
                     "hodges_lehmann", rp_json_known(c->hodges_lehmann, k), "ratio_of_sums",
                     rp_json_known(c->ratio_of_sums, k), "unit", rp_work_name(ab->unit));
}

/* What torch's allocator says, else what the device had in use. */
static struct mp_val peak_memory(const struct rp_ab_arm *a)
{
    struct mp_val v = a->memory[RP_ALLOCATED_PEAK];

    return v.basis != MP_UNKNOWN ? v : rp_gauge_max(&a->gauge, RP_MEM_USED_BYTES);
}

static json_t *arm_object(const struct rp_ab *ab, unsigned i)
{
    const struct rp_ab_arm *a = &ab->arm[i];
    const struct rp_arm *r = &ab->record.arm[i];
    const char *source = a->memory[RP_ALLOCATED_PEAK].basis != MP_UNKNOWN ? "allocated"
                         : peak_memory(a).basis != MP_UNKNOWN             ? "device"
                                                                          : "";

    return json_pack("{ss so so so so so ss so so so so so so so so}", "name", r->name, "mfu",
                     rp_json_value(a->mfu), "step_seconds",
                     rp_json_known(a->step.median, a->n_step > 0), "peak_memory_bytes",
                     rp_json_value(peak_memory(a)), "peak_memory_source", rp_json_text(source),
                     "implementation",
                     rp_json_text(strcmp(r->name, "original") == 0 ? ab->record.own : r->name),
                     "status", rp_arm_status_name(r->status), "why", rp_json_text(r->why),
                     "speedup", contrast_object(ab, i), "figures",
                     rows(ab->figure, ab->n_figure, i), "phases", rows(ab->phase, ab->n_phase, i),
                     "layers", layers(ab, i), "steady", rp_json_steady(&a->steady), "tracing_ratio",
                     rp_json_value(a->tracing), "seconds", rp_json_series(a->seconds, a->n_step));
}

static json_t *arms_array(const struct rp_ab *ab)
{
    json_t *all = json_array();

    for (unsigned i = 0; i < ab->record.n_arm; i++)
        json_array_append_new(all, arm_object(ab, i));
    return all;
}

static json_t *is_on(int64_t v)
{
    return v >= 0 ? json_boolean(v > 0) : json_null();
}

static json_t *parity_rows(const struct rp_ab *ab)
{
    json_t *all = json_array();

    for (size_t i = 0; i < ab->record.n_parity; i++) {
        const struct rp_parity *p = &ab->record.parity[i];

        json_array_append_new(
            all,
            json_pack("{si si so sb so so so so so so so so so so so so}", "arm", p->arm, "layer",
                      p->layer, "quantity", rp_json_text(p->quantity), "passed", p->passed, "error",
                      rp_json_known(p->error, true), "own_error", rp_json_known(p->own_error, true),
                      "ratio", rp_json_known(p->ratio, true), "tokens",
                      rp_json_known(p->tokens, true), "why", rp_json_text(p->why), "output_cosine",
                      rp_json_known(p->out_cosine[0], true), "own_output_cosine",
                      rp_json_known(p->out_cosine[1], true), "gradient", rp_json_text(p->gradient),
                      "gradient_cosine", rp_json_known(p->cosine[0], true), "own_gradient_cosine",
                      rp_json_known(p->cosine[1], true), "repeats", is_on(p->repeats[0]),
                      "own_repeats", is_on(p->repeats[1])));
    }
    return all;
}

static json_t *loss_object(const struct rp_loss *l)
{
    bool k = l->is_known;

    return json_pack("{ss so so so so so si}", "status", rp_loss_name(l->status), "base",
                     rp_json_known(l->base, k), "arm", rp_json_known(l->arm, k), "difference",
                     rp_json_interval(&l->difference, k), "floor", rp_json_value(l->floor),
                     "detectable", rp_json_value(l->detectable), "pairs", l->n_pair);
}

static json_t *cosine_object(const struct rp_cosine *c)
{
    if (c->layer < 0)
        return json_null();
    return json_pack("{so so si so}", "value", rp_json_known(c->value, true), "own",
                     rp_json_known(c->own, true), "layer", c->layer, "quantity",
                     rp_json_text(c->quantity));
}

static json_t *parity_object(const struct rp_ab *ab)
{
    const struct rp_parity *w = ab->worst;
    struct rp_cosine out, gradient;

    rp_ab_cosines(&out, &gradient, ab);
    return json_pack("{ss so so so so so so so}", "status", rp_ab_parity_status(ab), "worst_layer",
                     w ? json_integer(w->layer) : json_null(), "worst_ratio",
                     w ? rp_json_known(w->ratio, true) : json_null(), "worst_quantity",
                     w ? rp_json_text(w->quantity) : json_null(), "output_cosine",
                     cosine_object(&out), "gradient_cosine", cosine_object(&gradient), "rows",
                     parity_rows(ab), "loss", loss_object(&ab->loss[ab->main_arm]));
}

static json_t *blocks_array(const struct rp_ab *ab)
{
    json_t *all = json_array();

    for (size_t i = 0; i < ab->record.n_block; i++) {
        const struct rp_ab_block *b = &ab->record.block[i];
        bool ok = !b->is_cut;

        json_array_append_new(
            all,
            json_pack("{si si si si si si so so sb so so so so}", "arm", b->arm, "pair", b->pair,
                      "from_step", b->from_step, "first_step", b->first_step, "last_step",
                      b->last_step, "steps", b->n_step, "seconds", rp_json_known(b->seconds, ok),
                      "work", rp_json_known(b->work, ok), "is_cut", b->is_cut,
                      "allocated_peak_bytes", rp_json_known(b->memory[RP_ALLOCATED_PEAK], true),
                      "reserved_bytes", rp_json_known(b->memory[RP_RESERVED], true),
                      "saved_activations_bytes", rp_json_known(b->memory[RP_SAVED], true), "loss",
                      rp_json_known(b->loss, true)));
    }
    return all;
}

static json_t *method_object(const struct rp_ab *ab)
{
    const struct rp_ab_record *r = &ab->record;

    return json_pack("{sI si si si si sb so so}", "seed", (json_int_t)(r->seed & INT64_MAX),
                     "steps_per_block", r->n_step, "dropped_steps", r->n_drop, "traced_steps",
                     r->n_traced, "blocks_planned", r->n_planned, "is_untraced", r->is_untraced,
                     "agent_cpu_ratio", rp_json_value(ab->report->coverage.agent_ratio),
                     "ended_early", rp_json_text(r->end));
}

static json_t *fact(int64_t v, double scale)
{
    return v >= 0 ? json_real((double)v * scale) : json_null();
}

static json_t *machine_object(const struct rp_gpu_facts *g)
{
    return json_pack(
        "{so so so so so so so}", "driver", rp_json_text(g->driver), "power_limit_watts",
        fact(g->power_limit_mw, 1e-3), "power_limit_default_watts", fact(g->default_limit_mw, 1e-3),
        "max_sm_clock_hertz", fact(g->max_sm_clock_mhz, 1e6), "is_ecc", is_on(g->ecc), "is_mig",
        is_on(g->mig), "processes", g->processes >= 0 ? json_integer(g->processes) : json_null());
}

static json_t *known_count(uint64_t v)
{
    return v ? json_integer((json_int_t)v) : json_null();
}

static json_t *a_step(struct mp_val all, size_t n)
{
    return rp_json_known(n ? all.v / (double)n : 0, n && all.basis != MP_UNKNOWN);
}

static json_t *yes_or_no(const char *text)
{
    return *text ? json_boolean(strcmp(text, "yes") == 0) : json_null();
}

static json_t *training_object(const struct rp_report *r)
{
    const struct rp_spec *s = &r->spec;

    return json_pack("{so so so so so so so so so so so so so si}", "parameters",
                     known_count(s->model.params_total), "parameters_trained",
                     known_count(s->params_trainable), "lora_rank",
                     s->has_lora ? json_integer(s->lora_r) : json_null(), "lora_targets",
                     rp_json_text(s->text.lora_targets), "seed", rp_json_text(s->text.seed),
                     "data_seed", rp_json_text(s->text.data_seed), "torch_seed",
                     rp_json_text(s->text.torch_seed), "is_deterministic",
                     yes_or_no(s->text.deterministic), "is_packed", yes_or_no(s->text.packing),
                     "micro_batches", known_count(s->grad_accum > 0 ? (uint64_t)s->grad_accum : 0),
                     "processed_tokens", a_step(r->tokens.processed, r->timed.count),
                     "useful_tokens", a_step(r->tokens.useful, r->timed.count), "is_compiled",
                     r->has_spec ? json_boolean(s->compiled) : json_null(), "ranks", r->run.world);
}

static json_t *run_object(const struct rp_report *r)
{
    const struct rp_spec_text *t = &r->spec.text;

    return json_pack("{so so so so so so so so so so so so so so so so so so so so so}", "file",
                     rp_json_text(r->run.file), "gpu", rp_json_text(r->run.gpu), "gpu_uuid",
                     rp_json_text(r->run.gpu_uuid), "command",
                     rp_json_text(*t->argv ? t->argv : r->run.command), "model",
                     rp_json_text(t->class), "model_name", rp_json_text(t->name), "config_hash",
                     rp_json_text(t->config_hash), "quantization", rp_json_text(t->quantization),
                     "dtype", rp_json_text(t->dtype), "attention", rp_json_text(t->attention),
                     "checkpointing", rp_json_text(t->checkpointing), "torch",
                     rp_json_text(t->torch), "cuda", rp_json_text(t->cuda), "transformers",
                     rp_json_text(t->transformers), "peft", rp_json_text(t->peft), "trl",
                     rp_json_text(t->trl), "accelerate", rp_json_text(t->accelerate), "unsloth",
                     rp_json_text(t->unsloth), "axolotl", rp_json_text(t->axolotl), "moeprof",
                     rp_json_text(r->run.moeprof), "convention", rp_json_text(r->mfu.convention));
}

json_t *rp_json_ab(const struct rp_ab *ab)
{
    json_t *worse = json_array();

    for (size_t i = 0; i < ab->n_worse; i++)
        json_array_append_new(worse, json_string(ab->got_worse[i].key));
    return json_pack("{si so so so so so so so so so so}", "schema_version", RP_AB_SCHEMA, "run",
                     run_object(ab->report), "machine", machine_object(&ab->record.gpu), "training",
                     training_object(ab->report), "method", method_object(ab), "arms",
                     arms_array(ab), "speedup", contrast_object(ab, ab->main_arm), "parity",
                     parity_object(ab), "blocks", blocks_array(ab), "worse", worse, "notes",
                     rp_json_notes(ab->note[0], sizeof ab->note[0], ab->n_note));
}

int rp_render_ab_json(FILE *f, const struct rp_ab *ab, struct mp_err *err)
{
    return rp_json_write(f, rp_json_ab(ab), "the before/after", err);
}

#else

int rp_render_ab_json(FILE *f, const struct rp_ab *ab, struct mp_err *err)
{
    (void)f, (void)ab;
    return rp_json_missing(err);
}

#endif
