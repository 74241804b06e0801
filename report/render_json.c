/* The report for programs: report/schema/report.schema.json. Base units, null for unknown. Built whole
 * in memory and written by jansson, so that what comes out is always JSON. */
#include "report/render.h"

#include "report/json_part.h"

#if HAVE_JANSSON
#include <math.h>

static json_t *count(struct mp_val v)
{
    return v.basis == MP_UNKNOWN ? json_null() : json_integer((json_int_t)v.v);
}

static json_t *number(uint64_t v)
{
    return v ? json_integer((json_int_t)v) : json_null();
}

static void set(json_t *object, const char *key, json_t *v)
{
    json_object_set_new(object, key, v);
}

static void set_place(json_t *o, const struct rp_run *r)
{
    set(o, "file", rp_json_text(r->file));
    set(o, "gpu", rp_json_text(r->gpu));
    set(o, "gpu_uuid", rp_json_text(r->gpu_uuid));
    set(o, "hostname", rp_json_text(r->hostname));
    set(o, "command", rp_json_text(r->command));
    set(o, "moeprof", rp_json_text(r->moeprof));
    set(o, "rank", r->rank >= 0 ? json_integer(r->rank) : json_null());
    set(o, "world_size", json_integer(r->world));
    set(o, "began_ns", number(r->began_ns));
    set(o, "ended_ns", number(r->ended_ns));
    set(o, "is_complete", json_boolean(r->is_complete));
    set(o, "end", rp_json_text(r->end));
}

static void set_model(json_t *o, const struct rp_spec *s, bool has_spec)
{
    const struct rp_spec_text *t = &s->text;
    const struct {
        const char *key, *value;
    } fact[] = {
        {"experts_backend", t->backend},
        {"experts_backend_basis", t->backend_basis},
        {"experts_class", t->experts_class},
        {"experts_layout", t->layout},
        {"model", t->class},
        {"family", t->family},
        {"dtype", t->dtype},
        {"autocast", t->autocast},
        {"attention", t->attention},
        {"checkpointing", t->checkpointing},
        {"optimizer", t->optimizer},
        {"trainer", t->trainer},
        {"argv", t->argv},
        {"python", t->python},
        {"torch", t->torch},
        {"cuda", t->cuda},
        {"transformers", t->transformers},
        {"peft", t->peft},
        {"trl", t->trl},
        {"accelerate", t->accelerate},
        {"unsloth", t->unsloth},
        {"axolotl", t->axolotl},
    };

    for (size_t i = 0; i < countof(fact); i++)
        set(o, fact[i].key, rp_json_text(fact[i].value));
    set(o, "is_moe", has_spec ? json_boolean(s->is_moe) : json_null());
    set(o, "n_layers", number(s->n_layers));
    set(o, "n_experts", number(s->n_experts));
    set(o, "top_k", number(s->top_k));
    set(o, "lora_r", number(s->lora_r));
    set(o, "params_total", number(s->model.params_total));
    set(o, "params_active", number(s->params_active));
    set(o, "params_trainable", number(s->params_trainable));
}

static json_t *mfu_object(const struct rp_mfu *m)
{
    return json_pack("{so so so ss so so so}", "value", rp_json_value(m->mfu), "convention",
                     rp_json_text(m->convention), "converted", rp_json_text(m->converted), "basis",
                     mp_basis_name(m->mfu.basis), "why_not", rp_json_text(m->why_not), "model_flop",
                     rp_json_value(m->model_flop), "peak_flops", rp_json_value(m->peak_flops));
}

static json_t *hfu_object(const struct rp_mfu *m)
{
    return json_pack("{so ss so}", "value", rp_json_value(m->hfu), "basis",
                     mp_basis_name(m->hfu.basis), "executed_flop", rp_json_value(m->executed_flop));
}

static json_t *step_object(const struct rp_report *r)
{
    const struct rp_step_stat *s = &r->timed;
    json_t *all = json_array();

    for (uint32_t i = 0; i < s->count; i++)
        json_array_append_new(all, json_real(s->seconds[i]));
    return json_pack(
        "{si si si si so so so so sf so si so}", "count", s->count, "recorded", s->recorded,
        "first", s->first, "last", s->last, "median_seconds", rp_json_value(s->median_s),
        "min_seconds", rp_json_value(s->min_s), "max_seconds", rp_json_value(s->max_s),
        "mean_seconds", rp_json_value(s->mean_s), "window_seconds", s->window_s, "seconds", all,
        "untraced_count", r->n_untraced, "untraced_median_seconds", rp_json_value(r->untraced_s));
}

static json_t *traced_object(const struct rp_step_stat *s)
{
    return json_pack("{si si si si so so sf}", "count", s->count, "first", s->first, "last",
                     s->last, "incomplete", s->incomplete, "median_seconds",
                     rp_json_value(s->median_s), "mean_seconds", rp_json_value(s->mean_s),
                     "window_seconds", s->window_s);
}

static json_t *tokens_object(const struct rp_tokens *t)
{
    return json_pack("{so so so so so so ss}", "useful", count(t->useful), "processed",
                     count(t->processed), "trainable", count(t->trainable), "useful_per_second",
                     rp_json_value(t->useful_s), "processed_per_second",
                     rp_json_value(t->processed_s), "trainable_per_second",
                     rp_json_value(t->trainable_s), "basis", mp_basis_name(t->useful.basis));
}

/* Where no kernel was seen at all there is no time of kernels either. */
static json_t *seen(double seconds, const struct rp_coverage *c)
{
    return c->kernel_s > 0 ? json_real(seconds) : json_null();
}

static json_t *coverage_object(const struct rp_coverage *c)
{
    return json_pack("{so sI sI so so so}", "attributed_ratio", rp_json_value(c->attributed),
                     "dropped_records", (json_int_t)c->dropped, "unmatched_records",
                     (json_int_t)c->unmatched, "kernel_seconds", seen(c->kernel_s, c),
                     "own_kernel_seconds", seen(c->own_s, c), "agent_cpu_ratio",
                     rp_json_value(c->agent_ratio));
}

static json_t *phases_array(const struct rp_report *r)
{
    json_t *all = json_array();

    for (size_t i = 0; i < r->n_phase; i++) {
        const struct rp_phase *p = &r->phase[i];

        json_array_append_new(
            all, json_pack("{ss ss so so so ss sI}", "phase", mp_phase_name(p->phase), "pass",
                           mp_pass_name(p->pass), "seconds", rp_json_value(p->seconds),
                           "seconds_per_step", rp_json_value(p->step_s), "ratio",
                           rp_json_value(p->ratio), "basis", mp_basis_name(p->seconds.basis),
                           "operations", (json_int_t)p->n));
    }
    return all;
}

static json_t *layer_phases(const struct rp_layer *l)
{
    json_t *all = json_object();

    for (int p = 0; p < MP_PHASE_COUNT; p++)
        if (l->seconds[p] > 0)
            json_object_set_new(all, mp_phase_name((enum mp_phase)p), json_real(l->seconds[p]));
    return all;
}

static json_t *layers_array(const struct rp_report *r)
{
    json_t *all = json_array();

    for (size_t i = 0; i < r->n_layer; i++) {
        const struct rp_layer *l = &r->layer[i];

        json_array_append_new(all, json_pack("{si so so so so so so}", "layer", l->layer, "seconds",
                                             l->total_s > 0 ? json_real(l->total_s) : json_null(),
                                             "phases", layer_phases(l), "tokens", count(l->tokens),
                                             "max_violation", rp_json_value(l->max_vio),
                                             "max_violation_step", rp_json_value(l->max_vio_step),
                                             "idle_experts",
                                             l->n_expert ? json_integer(l->n_dead) : json_null()));
    }
    return all;
}

static json_t *experts_array(const struct rp_report *r)
{
    json_t *all = json_array();

    for (size_t i = 0; i < r->n_expert; i++) {
        const struct rp_expert *e = &r->expert[i];

        json_array_append_new(all, json_pack("{si si so so ss so ss}", "layer", e->layer, "expert",
                                             e->expert, "tokens", count(e->tokens), "seconds",
                                             rp_json_value(e->seconds), "basis",
                                             mp_basis_name(e->seconds.basis), "shared_seconds",
                                             rp_json_value(e->shared_seconds), "shared_basis",
                                             mp_basis_name(e->shared_seconds.basis)));
    }
    return all;
}

static json_t *kernels_array(const struct rp_report *r)
{
    json_t *all = json_array();

    for (size_t i = 0; i < r->n_kernel; i++) {
        const struct rp_top_kernel *k = &r->kernel[i];

        json_array_append_new(
            all, json_pack("{so ss sI sf sf sf sf sf}", "name", rp_json_text(k->name), "phase",
                           mp_phase_name(k->phase), "count", (json_int_t)k->n, "seconds",
                           k->seconds, "ratio", k->ratio, "mean_seconds", k->mean_s, "min_seconds",
                           k->min_s, "max_seconds", k->max_s));
    }
    return all;
}

static json_t *report_object(const struct rp_report *r, const struct rp_ab *ab)
{
    json_t *notes = json_array(), *run = json_object(), *all;

    for (size_t i = 0; i < r->n_note; i++)
        json_array_append_new(notes, rp_json_text(r->note[i]));
    set_place(run, &r->run);
    set_model(run, &r->spec, r->has_spec);
    all = json_pack("{si so so so so so so so so s{so so} so so so so so}", "schema_version",
                    RP_REPORT_SCHEMA, "run", run, "mfu", mfu_object(&r->mfu), "hfu",
                    hfu_object(&r->mfu), "step", step_object(r), "traced", traced_object(&r->step),
                    "tokens", tokens_object(&r->tokens), "coverage", coverage_object(&r->coverage),
                    "phases", phases_array(r), "idle", "seconds", rp_json_value(r->idle_s), "ratio",
                    rp_json_value(r->idle_ratio), "layers", layers_array(r), "experts",
                    experts_array(r), "kernels", kernels_array(r), "notes", notes, "ab",
                    ab ? rp_json_ab(ab) : json_null());
    return all;
}

int rp_render_json(FILE *out, struct rp_report *const *r, struct rp_ab *const *ab, size_t n,
                   bool is_array, struct mp_err *err)
{
    json_t *all = is_array ? json_array() : report_object(r[0], ab ? ab[0] : NULL);

    for (size_t i = 0; is_array && i < n; i++)
        json_array_append_new(all, report_object(r[i], ab ? ab[i] : NULL));
    return rp_json_write(out, all, "the report", err);
}

#else

int rp_render_json(FILE *out, struct rp_report *const *r, struct rp_ab *const *ab, size_t n,
                   bool is_array, struct mp_err *err)
{
    (void)out, (void)r, (void)ab, (void)n, (void)is_array;
    return rp_json_missing(err);
}

#endif
