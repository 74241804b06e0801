/* A before/after for programs: report/schema/ab.schema.json. Base units, null for unknown. */
#include "report/ab_part.h"

#if HAVE_JANSSON
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *value(struct mp_val v)
{
    return v.basis == MP_UNKNOWN || !isfinite(v.v) ? json_null() : json_real(v.v);
}

static json_t *known(double v, bool is_known)
{
    return is_known && isfinite(v) ? json_real(v) : json_null();
}

static json_t *text(const char *t)
{
    json_t *s = *t ? json_string(t) : json_null();

    return s ? s : json_null(); /* not UTF-8 */
}

/* The rows of one arm: key to figure. */
static json_t *rows(const struct rp_figure *f, size_t n, unsigned arm)
{
    json_t *all = json_object();

    for (size_t i = 0; i < n; i++)
        json_object_set_new(all, f[i].key, value(f[i].v[arm]));
    return all;
}

static json_t *layers(const struct rp_ab *ab, unsigned arm)
{
    json_t *all = json_array();

    for (size_t i = 0; i < ab->n_layer; i++)
        json_array_append_new(all, json_pack("{si so}", "layer", atoi(ab->layer_name[i] + 6),
                                             "seconds", value(ab->layer[i].v[arm])));
    return all;
}

static json_t *contrast_object(const struct rp_ab *ab, unsigned arm)
{
    const struct rp_contrast *c = &ab->contrast[arm];
    bool k = c->is_known;

    if (arm == 0)
        return json_null();
    return json_pack("{so so so ss ss so si si so so so so ss}", "value",
                     known(c->speedup.value, k), "low", known(c->speedup.low, k), "high",
                     known(c->speedup.high, k), "verdict", rp_verdict_name(c->verdict), "why",
                     c->why, "floor", value(c->floor), "pairs", c->n_pair, "pairs_cut", c->n_cut,
                     "detectable", value(c->detectable), "wilcoxon_p", known(c->wilcoxon.p, k),
                     "hodges_lehmann", known(c->hodges_lehmann, k), "ratio_of_sums",
                     known(c->ratio_of_sums, k), "unit", rp_work_name(ab->unit));
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

    return json_pack("{ss so so so so so ss so so so so so so}", "name", r->name, "mfu",
                     value(a->mfu), "step_seconds", known(a->step.median, a->n_step > 0),
                     "peak_memory_bytes", value(peak_memory(a)), "peak_memory_source", text(source),
                     "implementation",
                     text(strcmp(r->name, "original") == 0 ? ab->record.own : r->name), "status",
                     rp_arm_status_name(r->status), "why", text(r->why), "speedup",
                     contrast_object(ab, i), "figures", rows(ab->figure, ab->n_figure, i), "phases",
                     rows(ab->phase, ab->n_phase, i), "layers", layers(ab, i), "is_steady",
                     a->steady.is_known ? json_boolean(a->steady.is_steady) : json_null());
}

static json_t *arms_array(const struct rp_ab *ab)
{
    json_t *all = json_array();

    for (unsigned i = 0; i < ab->record.n_arm; i++)
        json_array_append_new(all, arm_object(ab, i));
    return all;
}

static json_t *parity_rows(const struct rp_ab *ab)
{
    json_t *all = json_array();

    for (size_t i = 0; i < ab->record.n_parity; i++) {
        const struct rp_parity *p = &ab->record.parity[i];

        json_array_append_new(all,
                              json_pack("{si si so sb so so so so so}", "arm", p->arm, "layer",
                                        p->layer, "quantity", text(p->quantity), "passed",
                                        p->passed, "error", known(p->error, true), "own_error",
                                        known(p->own_error, true), "ratio", known(p->ratio, true),
                                        "tokens", known(p->tokens, true), "why", text(p->why)));
    }
    return all;
}

static json_t *parity_object(const struct rp_ab *ab)
{
    const struct rp_parity *w = ab->worst;

    return json_pack("{ss so so so so}", "status", rp_ab_parity_status(ab), "worst_layer",
                     w ? json_integer(w->layer) : json_null(), "worst_ratio",
                     w ? known(w->ratio, true) : json_null(), "worst_quantity",
                     w ? text(w->quantity) : json_null(), "rows", parity_rows(ab));
}

static json_t *blocks_array(const struct rp_ab *ab)
{
    json_t *all = json_array();

    for (size_t i = 0; i < ab->record.n_block; i++) {
        const struct rp_ab_block *b = &ab->record.block[i];
        bool ok = !b->is_cut;

        json_array_append_new(
            all, json_pack("{si si si si si si so so sb so so}", "arm", b->arm, "pair", b->pair,
                           "from_step", b->from_step, "first_step", b->first_step, "last_step",
                           b->last_step, "steps", b->n_step, "seconds", known(b->seconds, ok),
                           "work", known(b->work, ok), "is_cut", b->is_cut, "allocated_peak_bytes",
                           known(b->memory[RP_ALLOCATED_PEAK], true), "reserved_bytes",
                           known(b->memory[RP_RESERVED], true)));
    }
    return all;
}

static json_t *method_object(const struct rp_ab_record *r)
{
    return json_pack("{sI si si si si sb so}", "seed", (json_int_t)(r->seed & INT64_MAX),
                     "steps_per_block", r->n_step, "dropped_steps", r->n_drop, "traced_steps",
                     r->n_traced, "blocks_planned", r->n_planned, "is_untraced", r->is_untraced,
                     "ended_early", text(r->end));
}

static json_t *run_object(const struct rp_report *r)
{
    const struct rp_spec_text *t = &r->spec.text;

    return json_pack("{so so so so so so so so so so so so so}", "file", text(r->run.file), "gpu",
                     text(r->run.gpu), "gpu_uuid", text(r->run.gpu_uuid), "command",
                     text(*t->argv ? t->argv : r->run.command), "model", text(t->class), "dtype",
                     text(t->dtype), "attention", text(t->attention), "checkpointing",
                     text(t->checkpointing), "torch", text(t->torch), "cuda", text(t->cuda),
                     "transformers", text(t->transformers), "peft", text(t->peft), "convention",
                     text(r->mfu.convention));
}

int rp_render_ab_json(FILE *f, const struct rp_ab *ab, struct mp_err *err)
{
    json_t *worse = json_array(), *notes = json_array(), *all;
    int rc;

    for (size_t i = 0; i < ab->n_worse; i++)
        json_array_append_new(worse, json_string(ab->got_worse[i].key));
    for (size_t i = 0; i < ab->n_note; i++)
        json_array_append_new(notes, text(ab->note[i]));
    all = json_pack("{si so so so so so so so so}", "schema_version", RP_AB_SCHEMA, "run",
                    run_object(ab->report), "method", method_object(&ab->record), "arms",
                    arms_array(ab), "speedup", contrast_object(ab, ab->main_arm), "parity",
                    parity_object(ab), "blocks", blocks_array(ab), "worse", worse, "notes", notes);
    if (!all)
        return mp_fail(err, MP_ENOMEM, "no memory for the before/after");
    rc = json_dumpf(all, f, JSON_INDENT(1) | JSON_REAL_PRECISION(12) | JSON_ENSURE_ASCII);
    json_decref(all);
    return rc || fputc('\n', f) == EOF ? mp_fail(err, MP_EIO, "cannot write the before/after")
                                       : MP_OK;
}

#else

int rp_render_ab_json(FILE *f, const struct rp_ab *ab, struct mp_err *err)
{
    (void)f, (void)ab;
    return mp_fail(
        err, MP_ENOTSUP,
        "this moeprof was built without jansson: install libjansson-dev and run make again");
}

#endif
