/* The comparison for programs: report/schema/compare.schema.json. Base units, null for unknown. */
#include "report/compare_part.h"
#include "report/json_part.h"

#if HAVE_JANSSON

static json_t *side_object(const struct rp_side *s)
{
    const struct rp_report *r = s->report;
    bool has = s->n > 0;

    return json_pack(
        "{so so so so so sI so so so so so so so so so so}", "file", rp_json_text(r->run.file),
        "gpu", rp_json_text(r->run.gpu), "command", rp_json_text(r->run.command), "experts_backend",
        rp_json_text(r->spec.text.backend), "convention", rp_json_text(r->mfu.convention), "steps",
        (json_int_t)s->n, "mfu", rp_json_value(r->mfu.mfu), "step_seconds",
        rp_json_known(s->step.median, has), "step_seconds_q1", rp_json_known(s->step.q1, has),
        "step_seconds_q3", rp_json_known(s->step.q3, has), "step_seconds_min",
        rp_json_known(s->step.min, has), "step_seconds_max", rp_json_known(s->step.max, has),
        "tracing_ratio", rp_json_value(rp_compare_tracing(r)), "agent_cpu_ratio",
        rp_json_value(r->coverage.agent_ratio), "steady", rp_json_steady(&s->steady), "seconds",
        rp_json_series(s->seconds, s->n));
}

static json_t *figures_object(const struct rp_figure *f, size_t n)
{
    json_t *all = json_object();

    for (size_t i = 0; i < n; i++)
        json_object_set_new(all, f[i].key,
                            json_pack("{so so so}", "before", rp_json_value(f[i].v[0]), "after",
                                      rp_json_value(f[i].v[1]), "change_ratio",
                                      rp_json_value(rp_figure_change(&f[i], 0, 1))));
    return all;
}

static json_t *differences_array(const struct rp_compare *c)
{
    json_t *all = json_array();

    for (size_t i = 0; i < c->n_difference; i++)
        json_array_append_new(all, json_pack("{ss sb so so}", "name", c->difference[i].name,
                                             "is_grave", c->difference[i].is_grave, "before",
                                             rp_json_text(c->difference[i].side[0]), "after",
                                             rp_json_text(c->difference[i].side[1])));
    return all;
}

static json_t *data_object(const struct rp_same_data *d)
{
    bool known = d->moved.basis != MP_UNKNOWN;

    return json_pack("{sI sI so so so so}", "common_steps", (json_int_t)d->n_common, "same_steps",
                     (json_int_t)d->n_same, "varies",
                     d->n_common ? json_boolean(d->varies) : json_null(), "moved_ratio",
                     rp_json_value(d->moved), "moved_step",
                     known ? json_integer(d->moved_step) : json_null(), "moved_layer",
                     known ? json_integer(d->moved_layer) : json_null());
}

static json_t *speedup_object(const struct rp_compare *c)
{
    return json_pack("{so so so ss ss ss so so}", "value",
                     rp_json_known(c->speedup.value, c->is_known), "low",
                     rp_json_known(c->speedup.low, c->is_known), "high",
                     rp_json_known(c->speedup.high, c->is_known), "verdict",
                     rp_verdict_name(c->verdict), "why", c->why, "unit", rp_work_name(c->unit),
                     "mann_whitney_p", rp_json_known(c->test.p, c->is_known), "step_seconds_shift",
                     rp_json_known(c->shift_s, c->is_known));
}

int rp_render_compare_json(FILE *f, const struct rp_compare *c, struct mp_err *err)
{
    json_t *worse = json_array();

    for (size_t i = 0; i < c->n_worse; i++)
        json_array_append_new(worse, json_string(c->worse[i].key));
    return rp_json_write(
        f,
        json_pack("{si sb ss so so so so so so so so so}", "schema_version", RP_COMPARE_SCHEMA,
                  "is_paired", 0, "caveat", RP_UNPAIRED, "before", side_object(&c->side[0]),
                  "after", side_object(&c->side[1]), "speedup", speedup_object(c), "differences",
                  differences_array(c), "data", data_object(&c->data), "figures",
                  figures_object(c->figure, c->n_figure), "phases",
                  figures_object(c->phase, c->n_phase), "worse", worse, "notes",
                  rp_json_notes(c->note[0], sizeof c->note[0], c->n_note)),
        "the comparison", err);
}

#else

int rp_render_compare_json(FILE *f, const struct rp_compare *c, struct mp_err *err)
{
    (void)f, (void)c;
    return rp_json_missing(err);
}

#endif
