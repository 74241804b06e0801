/* One object for all jobs. A tool reads this: names are full words, units stand in them, unknown is
 * null and never 0, and an apportioned or modelled figure says so in its basis. */
#include "profiler/cli/top_json.h"

#if HAVE_JANSSON

#include <jansson.h>
#include <math.h>
#include <string.h>

/* Text from outside may hold bytes that are not UTF-8; JSON may not. */
static json_t *text(const char *s)
{
    json_t *t;
    char clean[256];
    size_t n = 0;

    if (!s[0])
        return json_null();
    t = json_string(s);
    if (t)
        return t;
    for (; s[n] && n + 1 < sizeof clean; n++)
        clean[n] = (unsigned char)s[n] < 0x80 ? s[n] : '?';
    clean[n] = 0;
    return json_string(clean);
}

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *value(struct mp_val v)
{
    return v.basis == MP_UNKNOWN ? json_null() : number(v.v);
}

static json_t *integer(uint64_t v)
{
    return v > INT64_MAX ? json_null() : json_integer((json_int_t)v); /* UINT64_MAX: unknown */
}

static json_t *with_basis(struct mp_val v)
{
    return json_pack("{s:o, s:s}", "value", value(v), "basis", mp_basis_name(v.basis));
}

static json_t *phases(const struct dash_step *s)
{
    json_t *list = json_array();

    for (int phase = 0; phase < MP_PHASE_COUNT; phase++)
        for (int pass = 0; pass < MP_PASS_COUNT; pass++)
            if (s->booked_ns[phase][pass])
                json_array_append_new(list, json_pack("{s:s, s:s, s:f}", "phase",
                                                      mp_phase_name((enum mp_phase)phase), "pass",
                                                      mp_pass_name((enum mp_pass)pass), "seconds",
                                                      (double)s->booked_ns[phase][pass] / 1e9));
    return list;
}

static json_t *step(const struct dash_job *job)
{
    const struct dash_step *s = &job->last;

    if (!s->known)
        return json_null();
    return json_pack(
        "{s:i, s:b, s:o, s:o, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "step", (int)s->step, "whole",
        !(s->flags & (MP_STEP_PARTIAL | MP_STEP_ASIDE | MP_STEP_INCOMPLETE)), "seconds",
        s->window_ns ? number((double)s->window_ns / 1e9) : json_null(), "idle_seconds",
        s->window_ns ? number((double)s->idle_ns / 1e9) : json_null(), "micro_batches",
        (json_int_t)s->n_micro, "kernels", (json_int_t)s->n_kernel, "useful_tokens",
        integer(s->useful), "processed_tokens", integer(s->processed), "useful_tokens_per_second",
        value(dash_job_value(job, DASH_M_USEFUL_S)), "processed_tokens_per_second",
        value(dash_job_value(job, DASH_M_PROCESSED_S)), "phases", phases(s));
}

static json_t *gpu(const struct dash_job *job)
{
    const struct dash_gauges *g = &job->gauges;
    struct mp_val hz = g->sm_clock_mhz;

    hz.v *= 1e6;
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "name", text(job->gpu_name), "sm_clock_hertz",
        value(hz), "power_watts", value(g->power_w), "temperature_celsius", value(g->temp_c),
        "memory_used_bytes", value(g->mem_bytes), "memory_total_bytes",
        job->gpu_mem_bytes ? integer(job->gpu_mem_bytes) : json_null(), "clock_event_reasons",
        g->throttle_known ? integer(g->throttle_bits) : json_null());
}

static json_t *agent(const struct dash_job *job)
{
    const struct dash_counters *n = &job->counters;
    json_t *features = json_object();

    for (int i = 0; i < MP_FEATURE_COUNT; i++) {
        static const char *const state[] = {"waiting", "on", "off"};
        enum mp_feature_state s = job->feature[i].state;
        json_object_set_new(features, dash_feature_name((enum mp_feature)i),
                            json_pack("{s:s, s:o}", "state", state[s > MP_FEATURE_FAILED ? 0 : s],
                                      "why", text(job->feature[i].why)));
    }
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "coverage_ratio",
                     value(dash_job_value(job, DASH_M_COVERAGE)), "cpu_core_ratio",
                     value(n->agent_frac), "gpu_ratio", value(dash_step_own(&job->last)), "records",
                     integer(n->n_record), "records_lost", integer(n->n_lost + n->n_lapped),
                     "records_dropped", integer(n->n_dropped), "records_unmatched",
                     integer(n->n_unmatched), "features", features);
}

static json_t *layers(const struct dash_experts *e)
{
    json_t *list = json_array();

    for (uint32_t row = 0; row < e->n_layer; row++)
        json_array_append_new(
            list,
            json_pack("{s:i, s:i, s:o, s:o, s:I, s:s}", "layer", (int)e->layer[row], "experts",
                      (int)e->width[row], "load_max_violation_ratio",
                      number(dash_experts_maxvio(e, DASH_LOAD, row)), "time_max_violation_ratio",
                      number(dash_experts_maxvio(e, DASH_TIME, row)), "experts_without_tokens",
                      (json_int_t)dash_experts_dead(e, row), "time_basis",
                      mp_basis_name((enum mp_basis)e->basis[row])));
    return list;
}

static json_t *mfu(const struct dash_job *job)
{
    static const char *const name[DASH_CONVENTION_COUNT] = {
        "mfu", "mfu_palm_convention", "mfu_trl_convention", "mfu_trl_adjusted_convention",
        "mfu_total_flos"};
    const struct dash_figures *f = &job->figures;
    size_t n;
    struct mp_val mean = dash_job_mean_mfu(job, DASH_OURS, &n);
    json_t *o = json_pack("{s:o, s:I, s:o, s:o, s:o, s:o, s:o}", "mfu_mean", with_basis(mean),
                          "mfu_mean_steps", (json_int_t)n, "hfu", with_basis(f->hfu),
                          "model_flops_per_step", value(f->model_flop), "peak_flops_per_second",
                          value(f->peak_flops), "convention", text(f->convention), "why_not",
                          text(f->why_not));

    for (int i = 0; i < DASH_CONVENTION_COUNT; i++)
        json_object_set_new(o, name[i], with_basis(f->mfu[i]));
    return o;
}

static json_t *job_object(const struct dash_job *job)
{
    return json_pack("{s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:o}",
                     "pid", job->pid > 0 ? json_integer(job->pid) : json_null(), "rank",
                     job->rank >= 0 ? json_integer(job->rank) : json_null(), "world",
                     job->rank >= 0 ? json_integer(job->world) : json_null(), "state",
                     dash_job_state(job), "why", text(job->why), "command", text(job->title),
                     "model", text(job->model), "experts_backend", text(job->backend),
                     "steps_watched", (json_int_t)job->n_step, "utilisation", mfu(job), "last_step",
                     step(job), "gpu", gpu(job), "agent", agent(job), "expert_layers",
                     layers(&job->experts));
}

int cli_top_json(const struct dash_model *m, FILE *out, struct mp_err *err)
{
    int n;
    struct dash_job *const *job = dash_model_shown(m, &n);
    json_t *jobs = json_array(), *root;
    int rc;

    for (int i = 0; i < n; i++)
        json_array_append_new(jobs, job_object(job[i]));
    root = json_pack("{s:i, s:s, s:o}", "schema_version", CLI_TOP_JSON_SCHEMA, "moeprof",
                     MP_VERSION, "jobs", jobs);
    rc = root ? json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : -1;
    json_decref(root);
    fputc('\n', out);
    return rc == 0 ? MP_OK : mp_fail(err, MP_EIO, "cannot write JSON");
}

#else

int cli_top_json(const struct dash_model *m, FILE *out, struct mp_err *err)
{
    (void)m;
    (void)out;
    return mp_fail(err, MP_ENOTSUP, "built without jansson: --once prints text");
}

#endif
