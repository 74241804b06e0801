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

static json_t *time_ns(uint64_t ns)
{
    return ns ? json_integer((json_int_t)ns) : json_null();
}

static json_t *run_object(const struct rp_run *r)
{
    return json_pack(
        "{so so so so so so so so so so so so so so so sb si si so so so si so so so sb so}",
        "file", text(r->file), "gpu", text(r->gpu), "gpu_uuid", text(r->gpu_uuid), "hostname",
        text(r->hostname), "command", text(r->command), "moeprof", text(r->moeprof), "python",
        text(r->python), "torch", text(r->torch), "cuda", text(r->cuda), "transformers",
        text(r->transformers), "model", text(r->model_class), "family", text(r->family), "dtype",
        text(r->dtype), "attention", text(r->attention), "checkpointing", text(r->checkpointing),
        "is_moe", r->is_moe, "n_layers", r->n_layer, "n_experts", r->n_expert, "params_total",
        count(r->params_total), "params_active", count(r->params_active), "params_trainable",
        count(r->params_trainable), "top_k", r->top_k, "lora_r",
        r->lora_r ? json_integer(r->lora_r) : json_null(), "experts_backend",
        text(r->experts_backend), "experts_backend_basis", text(r->backend_basis), "is_complete",
        r->is_complete, "end", text(r->end));
}

static json_t *place_object(const struct rp_run *r)
{
    return json_pack("{so si so so}", "rank", r->rank >= 0 ? json_integer(r->rank) : json_null(),
                     "world_size", r->world, "began_ns", time_ns(r->began_ns), "ended_ns",
                     time_ns(r->ended_ns));
}

static json_t *mfu_object(const struct rp_mfu *m)
{
    return json_pack("{so so ss so so so}", "value", value(m->mfu), "convention",
                     text(m->convention), "basis", mp_basis_name(m->mfu.basis), "why_not",
                     text(m->why_not), "model_flop", value(m->model_flop), "peak_flops",
                     value(m->peak_flops));
}

static json_t *hfu_object(const struct rp_mfu *m)
{
    return json_pack("{so ss so}", "value", value(m->hfu), "basis", mp_basis_name(m->hfu.basis),
                     "executed_flop", value(m->executed_flop));
}

static json_t *step_object(const struct rp_step_stat *s)
{
    json_t *all = json_array();

    for (uint32_t i = 0; i < s->count; i++)
        json_array_append_new(all, json_real(s->seconds[i]));
    return json_pack("{si si si si si so so so so sf so}", "count", s->count, "recorded",
                     s->recorded, "first", s->first, "last", s->last, "incomplete", s->incomplete,
                     "median_seconds", value(s->median_s), "min_seconds", value(s->min_s),
                     "max_seconds", value(s->max_s), "mean_seconds", value(s->mean_s),
                     "window_seconds", s->window_s, "seconds", all);
}

static json_t *tokens_object(const struct rp_tokens *t)
{
    return json_pack("{so so so so so so ss}", "useful", count(t->useful), "processed",
                     count(t->processed), "trainable", count(t->trainable), "useful_per_second",
                     value(t->useful_s), "processed_per_second", value(t->processed_s),
                     "trainable_per_second", value(t->trainable_s), "basis",
                     mp_basis_name(t->useful.basis));
}

static json_t *coverage_object(const struct rp_coverage *c)
{
    return json_pack("{so sI sI sf sf so}", "attributed_ratio", value(c->attributed),
                     "dropped_records", (json_int_t)c->dropped, "unmatched_records",
                     (json_int_t)c->unmatched, "kernel_seconds", c->kernel_s, "own_kernel_seconds",
                     c->own_s, "agent_cpu_ratio", value(c->agent_ratio));
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
            all, json_pack("{si sf so so so so so}", "layer", l->layer, "seconds", l->total_s,
                           "phases", layer_phases(l), "tokens", count(l->tokens), "max_violation",
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
    json_t *notes = json_array(), *run = run_object(&r->run), *all;

    for (size_t i = 0; i < r->n_note; i++)
        json_array_append_new(notes, text(r->note[i]));
    json_object_update_new(run, place_object(&r->run));
    all = json_pack("{si so so so so so so so s{so so} so so so so}", "schema_version",
                    RP_REPORT_SCHEMA, "run", run, "mfu", mfu_object(&r->mfu), "hfu",
                    hfu_object(&r->mfu), "step", step_object(&r->step), "tokens",
                    tokens_object(&r->tokens), "coverage", coverage_object(&r->coverage), "phases",
                    phases_array(r), "idle", "seconds", value(r->idle_s), "ratio",
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
