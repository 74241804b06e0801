/* The comparison for programs: report/schema/compare.schema.json. Base units, null for unknown. */
#include "report/compare.h"

#if HAVE_JANSSON
#include <jansson.h>
#include <math.h>

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

static json_t *steady_object(const struct rp_steady *s)
{
    return json_pack("{so so so so so}", "is_steady",
                     s->is_known ? json_boolean(s->is_steady) : json_null(), "change_ratio",
                     known(s->change, s->is_known), "drift_ratio", known(s->drift, s->is_known),
                     "drift_p", known(s->drift_p, s->is_known), "lag1", value(s->lag1));
}

static json_t *side_object(const struct rp_side *s)
{
    const struct rp_report *r = s->report;
    json_t *all = json_array();
    bool has = s->n > 0;

    for (size_t i = 0; i < s->n; i++)
        json_array_append_new(all, json_real(s->seconds[i]));
    return json_pack("{so so so so so sI so so so so so so so so}", "file", text(r->run.file),
                     "gpu", text(r->run.gpu), "command", text(r->run.command), "experts_backend",
                     text(r->spec.text.backend), "convention", text(r->mfu.convention), "steps",
                     (json_int_t)s->n, "mfu", value(r->mfu.mfu), "step_seconds",
                     known(s->step.median, has), "step_seconds_q1", known(s->step.q1, has),
                     "step_seconds_q3", known(s->step.q3, has), "step_seconds_min",
                     known(s->step.min, has), "step_seconds_max", known(s->step.max, has), "steady",
                     steady_object(&s->steady), "seconds", all);
}

static json_t *figures_object(const struct rp_figure *f, size_t n)
{
    json_t *all = json_object();

    for (size_t i = 0; i < n; i++)
        json_object_set_new(all, f[i].key,
                            json_pack("{so so so}", "before", value(f[i].v[0]), "after",
                                      value(f[i].v[1]), "change_ratio",
                                      value(rp_figure_change(&f[i], 0, 1))));
    return all;
}

static json_t *differences_array(const struct rp_compare *c)
{
    json_t *all = json_array();

    for (size_t i = 0; i < c->n_difference; i++)
        json_array_append_new(all, json_pack("{ss sb so so}", "name", c->difference[i].name,
                                             "is_grave", c->difference[i].is_grave, "before",
                                             text(c->difference[i].side[0]), "after",
                                             text(c->difference[i].side[1])));
    return all;
}

static json_t *speedup_object(const struct rp_compare *c)
{
    return json_pack(
        "{so so so ss ss ss so so}", "value", known(c->speedup.value, c->is_known), "low",
        known(c->speedup.low, c->is_known), "high", known(c->speedup.high, c->is_known), "verdict",
        rp_verdict_name(c->verdict), "why", c->why, "unit", rp_work_name(c->unit), "mann_whitney_p",
        known(c->test.p, c->is_known), "step_seconds_shift", known(c->shift_s, c->is_known));
}

int rp_render_compare_json(FILE *f, const struct rp_compare *c, struct mp_err *err)
{
    json_t *worse = json_array(), *notes = json_array(), *all;
    int rc;

    for (size_t i = 0; i < c->n_worse; i++)
        json_array_append_new(worse, json_string(c->worse[i].key));
    for (size_t i = 0; i < c->n_note; i++)
        json_array_append_new(notes, text(c->note[i]));
    all = json_pack("{si sb ss so so so so so so so so}", "schema_version", RP_COMPARE_SCHEMA,
                    "is_paired", 0, "caveat", RP_UNPAIRED, "before", side_object(&c->side[0]),
                    "after", side_object(&c->side[1]), "speedup", speedup_object(c), "differences",
                    differences_array(c), "figures", figures_object(c->figure, c->n_figure),
                    "phases", figures_object(c->phase, c->n_phase), "worse", worse, "notes", notes);
    if (!all)
        return mp_fail(err, MP_ENOMEM, "no memory for the comparison");
    rc = json_dumpf(all, f, JSON_INDENT(1) | JSON_REAL_PRECISION(12) | JSON_ENSURE_ASCII);
    json_decref(all);
    return rc || fputc('\n', f) == EOF ? mp_fail(err, MP_EIO, "cannot write the comparison")
                                       : MP_OK;
}

#else

int rp_render_compare_json(FILE *f, const struct rp_compare *c, struct mp_err *err)
{
    (void)f, (void)c;
    return mp_fail(
        err, MP_ENOTSUP,
        "this moeprof was built without jansson: install libjansson-dev and run make again");
}

#endif
