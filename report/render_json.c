/* The report for programs: report/schema/report.schema.json. Base units, null for unknown. Built whole
 * in memory and written by jansson, so that what comes out is always JSON. */
#include "report/render.h"

#if HAVE_JANSSON
#include <jansson.h>
#include <math.h>

static json_t *value(struct mp_val v)
{
    return v.basis == MP_UNKNOWN || !isfinite(v.v) ? json_null() : json_real(v.v);
}

static json_t *text(const char *t)
{
    json_t *s = *t ? json_string(t) : json_null();

    return s ? s : json_null(); /* not UTF-8 */
}

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
    set(o, "file", text(r->file));
    set(o, "gpu", text(r->gpu));
    set(o, "gpu_uuid", text(r->gpu_uuid));
    set(o, "hostname", text(r->hostname));
    set(o, "command", text(r->command));
    set(o, "moeprof", text(r->moeprof));
    set(o, "rank", r->rank >= 0 ? json_integer(r->rank) : json_null());
    set(o, "world_size", json_integer(r->world));
    set(o, "began_ns", number(r->began_ns));
    set(o, "ended_ns", number(r->ended_ns));
    set(o, "is_complete", json_boolean(r->is_complete));
    set(o, "end", text(r->end));
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
        set(o, fact[i].key, text(fact[i].value));
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
    return json_pack("{so so so ss so so so}", "value", value(m->mfu), "convention",
                     text(m->convention), "converted", text(m->converted), "basis",
                     mp_basis_name(m->mfu.basis), "why_not", text(m->why_not), "model_flop",
                     value(m->model_flop), "peak_flops", value(m->peak_flops));
}

static json_t *hfu_object(const struct rp_mfu *m)
{
    return json_pack("{so ss so}", "value", value(m->hfu), "basis", mp_basis_name(m->hfu.basis),
                     "executed_flop", value(m->executed_flop));
}

static json_t *step_object(const struct rp_report *r)
{
    const struct rp_step_stat *s = &r->timed;
    json_t *all = json_array();

    for (uint32_t i = 0; i < s->count; i++)
        json_array_append_new(all, json_real(s->seconds[i]));
    return json_pack("{si si si si so so so so sf so si so}", "count", s->count, "recorded",
                     s->recorded, "first", s->first, "last", s->last, "median_seconds",
                     value(s->median_s), "min_seconds", value(s->min_s), "max_seconds",
                     value(s->max_s), "mean_seconds", value(s->mean_s), "window_seconds",
                     s->window_s, "seconds", all, "untraced_count", r->n_untraced,
                     "untraced_median_seconds", value(r->untraced_s));
}

static json_t *traced_object(const struct rp_step_stat *s)
{
    return json_pack("{si si si si so so sf}", "count", s->count, "first", s->first, "last",
                     s->last, "incomplete", s->incomplete, "median_seconds", value(s->median_s),
                     "mean_seconds", value(s->mean_s), "window_seconds", s->window_s);
}

static json_t *tokens_object(const struct rp_tokens *t)
{
    return json_pack("{so so so so so so ss}", "useful", count(t->useful), "processed",
                     count(t->processed), "trainable", count(t->trainable), "useful_per_second",
                     value(t->useful_s), "processed_per_second", value(t->processed_s),
                     "trainable_per_second", value(t->trainable_s), "basis",
                     mp_basis_name(t->useful.basis));
}

/* Where no kernel was seen at all there is no time of kernels either. */
static json_t *seen(double seconds, const struct rp_coverage *c)
{
    return c->kernel_s > 0 ? json_real(seconds) : json_null();
}

static json_t *coverage_object(const struct rp_coverage *c)
{
    return json_pack("{so sI sI so so so}", "attributed_ratio", value(c->attributed),
                     "dropped_records", (json_int_t)c->dropped, "unmatched_records",
                     (json_int_t)c->unmatched, "kernel_seconds", seen(c->kernel_s, c),
                     "own_kernel_seconds", seen(c->own_s, c), "agent_cpu_ratio",
                     value(c->agent_ratio));
}

static json_t *phases_array(const struct rp_report *r)
{
    json_t *all = json_array();

    for (size_t i = 0; i < r->n_phase; i++) {
        const struct rp_phase *p = &r->phase[i];

        json_array_append_new(
            all, json_pack("{ss ss so so so ss sI}", "phase", mp_phase_name(p->phase), "pass",
                           mp_pass_name(p->pass), "seconds", value(p->seconds), "seconds_per_step",
                           value(p->step_s), "ratio", value(p->ratio), "basis",
                           mp_basis_name(p->seconds.basis), "operations", (json_int_t)p->n));
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

        json_array_append_new(
            all, json_pack("{si so so so so so so}", "layer", l->layer, "seconds",
                           l->total_s > 0 ? json_real(l->total_s) : json_null(), "phases",
                           layer_phases(l), "tokens", count(l->tokens), "max_violation",
                           value(l->max_vio), "max_violation_step", value(l->max_vio_step),
                           "idle_experts", l->n_expert ? json_integer(l->n_dead) : json_null()));
    }
    return all;
}

static json_t *experts_array(const struct rp_report *r)
{
    json_t *all = json_array();

    for (size_t i = 0; i < r->n_expert; i++) {
        const struct rp_expert *e = &r->expert[i];

        json_array_append_new(all,
                              json_pack("{si si so so ss so ss}", "layer", e->layer, "expert",
                                        e->expert, "tokens", count(e->tokens), "seconds",
                                        value(e->seconds), "basis", mp_basis_name(e->seconds.basis),
                                        "shared_seconds", value(e->shared_seconds), "shared_basis",
                                        mp_basis_name(e->shared_seconds.basis)));
    }
    return all;
}

static json_t *kernels_array(const struct rp_report *r)
{
    json_t *all = json_array();

    for (size_t i = 0; i < r->n_kernel; i++) {
        const struct rp_top_kernel *k = &r->kernel[i];

        json_array_append_new(all, json_pack("{so ss sI sf sf sf sf sf}", "name", text(k->name),
                                             "phase", mp_phase_name(k->phase), "count",
                                             (json_int_t)k->n, "seconds", k->seconds, "ratio",
                                             k->ratio, "mean_seconds", k->mean_s, "min_seconds",
                                             k->min_s, "max_seconds", k->max_s));
    }
    return all;
}

static json_t *report_object(const struct rp_report *r)
{
    json_t *notes = json_array(), *run = json_object(), *all;

    for (size_t i = 0; i < r->n_note; i++)
        json_array_append_new(notes, text(r->note[i]));
    set_place(run, &r->run);
    set_model(run, &r->spec, r->has_spec);
    all = json_pack("{si so so so so so so so so s{so so} so so so so}", "schema_version",
                    RP_REPORT_SCHEMA, "run", run, "mfu", mfu_object(&r->mfu), "hfu",
                    hfu_object(&r->mfu), "step", step_object(r), "traced", traced_object(&r->step),
                    "tokens", tokens_object(&r->tokens), "coverage", coverage_object(&r->coverage),
                    "phases", phases_array(r), "idle", "seconds", value(r->idle_s), "ratio",
                    value(r->idle_ratio), "layers", layers_array(r), "experts", experts_array(r),
                    "kernels", kernels_array(r), "notes", notes);
    return all;
}

int rp_render_json(FILE *out, struct rp_report *const *r, size_t n, struct mp_err *err)
{
    json_t *all = n == 1 ? report_object(r[0]) : json_array();
    int rc;

    for (size_t i = 0; n != 1 && i < n; i++)
        json_array_append_new(all, report_object(r[i]));
    if (!all)
        return mp_fail(err, MP_ENOMEM, "no memory for the report");
    rc = json_dumpf(all, out, JSON_INDENT(1) | JSON_REAL_PRECISION(12) | JSON_ENSURE_ASCII);
    json_decref(all);
    if (rc || fputc('\n', out) == EOF)
        return mp_fail(err, MP_EIO, "cannot write the report");
    return MP_OK;
}

#else

int rp_render_json(FILE *out, struct rp_report *const *r, size_t n, struct mp_err *err)
{
    (void)out, (void)r, (void)n;
    return mp_fail(
        err, MP_ENOTSUP,
        "this moeprof was built without jansson: install libjansson-dev and run make again");
}

#endif
