/* Feeding: each function takes what arrived and brings every history up to date at once. */
#include "profiler/dash/job.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/core/mfu.h"

struct dash_job *dash_job_new(uint64_t key, int pid)
{
    struct dash_job *job = calloc(1, sizeof *job);

    if (!job)
        return NULL;
    job->key = key;
    job->pid = pid;
    job->rank = -1;
    job->alive = true;
    return job;
}

void dash_job_free(struct dash_job *job)
{
    if (!job)
        return;
    dash_experts_release(&job->experts);
    dash_kernels_release(&job->kernels);
    dash_timeline_release(&job->timeline);
    free(job);
}

struct dash_job *dash_job_dup(const struct dash_job *job)
{
    struct dash_job *copy = malloc(sizeof *copy);
    int rc;

    if (!copy)
        return NULL;
    *copy = *job;
    rc = dash_experts_copy(&copy->experts, &job->experts);
    rc = dash_kernels_copy(&copy->kernels, &job->kernels) != MP_OK ? MP_ENOMEM : rc;
    dash_timeline_copy(&copy->timeline, &job->timeline);
    if (rc == MP_OK)
        return copy;
    dash_job_free(copy);
    return NULL;
}

/* Kernels are counted when their step closes, so that a figure a step is one; until the first has
 * closed there is only what was seen so far. */
void dash_job_records(struct dash_job *job, const union mp_record *record, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct mp_event *e = &record[i].event;
        uint8_t phase = e->phase < MP_PHASE_COUNT ? e->phase : MP_PHASE_OTHER;

        if (e->kind < MP_KERNEL || e->kind > MP_GRAPH || (e->flags & MP_FLAG_OWN))
            continue;
        if ((!dash_timeline_add(&job->timeline, e) || job->kernels.n_step == 0) &&
            e->kind == MP_KERNEL)
            dash_kernels_add(&job->kernels, e->name, e->layer, phase, e->dur_ns);
    }
}

static void count_kernels(struct dash_job *job, uint32_t step)
{
    uint32_t n;
    const struct dash_op *op = dash_timeline_ops(&job->timeline, step, &n);

    if (job->kernels.n_step == 0)
        dash_kernels_clear(&job->kernels);
    for (uint32_t i = 0; i < n; i++)
        if (op[i].name != DASH_NO_NAME)
            dash_kernels_add(&job->kernels, op[i].name, op[i].layer, op[i].phase, op[i].dur_ns);
    job->kernels.n_step++;
}

/* ---- a step closed -------------------------------------------------------------------------- */

static void keep_step(struct dash_step *s, const struct mp_step *step)
{
    memset(s, 0, sizeof *s);
    s->known = true;
    s->step = step->step;
    s->flags = step->flags;
    s->n_micro = step->n_micro;
    s->launches = step->launches;
    s->records = step->records;
    s->dropped = step->dropped;
    s->n_kernel = step->n_kernel;
    s->window_ns = step->window_ns;
    s->idle_ns = step->idle_ns;
    s->own_ns = step->own_ns;
    s->processed = step->processed;
    s->useful = step->useful;
    for (uint32_t i = 0; i < step->n_cell; i++) {
        const struct mp_cell *c = &step->cell[i];

        if (c->phase < MP_PHASE_COUNT && c->pass < MP_PASS_COUNT)
            s->booked_ns[c->phase][c->pass] += c->booked_ns;
    }
}

static double per_second(uint64_t tokens, uint64_t window_ns)
{
    return tokens == UINT64_MAX || window_ns == 0 ? NAN : (double)tokens * 1e9 / (double)window_ns;
}

static double coverage(const struct dash_step *s)
{
    uint64_t busy = 0;

    for (int p = 0; p < MP_PHASE_COUNT; p++)
        busy += dash_step_phase_ns(s, (enum mp_phase)p);
    return busy ? 1 - (double)dash_step_phase_ns(s, MP_PHASE_OTHER) / (double)busy : NAN;
}

static double or_nan(struct mp_val v)
{
    return v.basis == MP_UNKNOWN ? NAN : v.v;
}

/* Of every step. */
static void push_rates(struct dash_job *job, const struct mp_step *step)
{
    struct dash_ring *ring = job->ring;
    uint64_t ns = job->figures.step_ns;

    dash_ring_push(&ring[DASH_M_STEP_NS], ns ? (double)ns : NAN);
    for (int i = 0; i < DASH_CONVENTION_COUNT; i++)
        dash_ring_push(&ring[DASH_M_MFU + i], or_nan(job->figures.mfu[i]));
    dash_ring_push(&ring[DASH_M_HFU], or_nan(job->figures.hfu));
    dash_ring_push(&ring[DASH_M_USEFUL_S], per_second(step->useful, ns));
    dash_ring_push(&ring[DASH_M_PROCESSED_S], per_second(step->processed, ns));
    job->n_step++;
}

/* Of steps that were watched. */
static void push_parts(struct dash_job *job)
{
    const struct dash_step *s = &job->last;
    struct dash_ring *ring = job->ring;

    dash_ring_push(&ring[DASH_M_COVERAGE], coverage(s));
    dash_ring_push(&ring[DASH_M_IDLE], s->window_ns ? (double)s->idle_ns : NAN);
    for (int p = 0; p < MP_PHASE_COUNT; p++)
        dash_ring_push(&ring[DASH_M_PHASE + p], (double)dash_step_phase_ns(s, (enum mp_phase)p));
}

/* A step that is not for statistics is shown until there is a whole one: a run of one step has no
 * other. */
static void keep_for_want_of_better(struct dash_job *job, const struct mp_step *step)
{
    job->n_skipped++;
    if (job->n_step > 0 || step->window_ns == 0)
        return;
    keep_step(&job->last, step);
    dash_timeline_close(&job->timeline, step);
    snprintf(job->figures.why_not, sizeof job->figures.why_not, "no MFU: no whole step yet");
}

void dash_job_step(struct dash_job *job, const struct mp_step *step,
                   const struct dash_figures *figures, uint64_t now_ns)
{
    if (step->flags & (MP_STEP_PARTIAL | MP_STEP_ASIDE)) {
        keep_for_want_of_better(job, step);
        return;
    }
    job->last_step_ns = now_ns;
    job->newest_step = step->step;
    job->figures = *figures;
    push_rates(job, step);
    if ((step->flags & MP_STEP_UNTRACED) || step->window_ns == 0)
        return;
    keep_step(&job->last, step);
    count_kernels(job, step->step);
    push_parts(job);
    dash_experts_add(&job->experts, step);
    dash_timeline_close(&job->timeline, step);
}

void dash_job_gauges(struct dash_job *job, const struct dash_gauges *g)
{
    job->gauges = *g;
    dash_ring_push(&job->ring[DASH_M_SM_CLOCK], or_nan(g->sm_clock_mhz));
    dash_ring_push(&job->ring[DASH_M_POWER], or_nan(g->power_w));
    dash_ring_push(&job->ring[DASH_M_TEMP], or_nan(g->temp_c));
    dash_ring_push(&job->ring[DASH_M_MEM], or_nan(g->mem_bytes));
}

void dash_job_fact(struct dash_job *job, const char *label, const char *text)
{
    struct dash_fact *f;

    if (job->n_fact == DASH_FACT_MAX)
        return;
    f = &job->fact[job->n_fact++];
    snprintf(f->label, sizeof f->label, "%s", label);
    snprintf(f->text, sizeof f->text, "%s", text);
}

/* ---- questions ------------------------------------------------------------------------------ */

struct mp_val dash_job_value(const struct dash_job *job, enum dash_metric metric)
{
    double v = dash_ring_last(&job->ring[metric]);

    return (struct mp_val){v, isfinite(v) ? MP_MEASURED : MP_UNKNOWN};
}

struct mp_val dash_job_mean_mfu(const struct dash_job *job, enum dash_convention convention,
                                size_t *n)
{
    double mfu[DASH_RING_CAP], ns[DASH_RING_CAP], work = 0, time = 0;
    size_t have = dash_ring_copy(&job->ring[DASH_M_MFU + convention], mfu, DASH_RING_CAP), i = 0;

    *n = 0;
    dash_ring_copy(&job->ring[DASH_M_STEP_NS], ns, DASH_RING_CAP);
    if (have > MP_MFU_KEEP && job->n_step == have)
        i = MP_MFU_WARMUP;
    for (; i < have; i++) {
        if (!isfinite(mfu[i]) || !isfinite(ns[i]))
            continue;
        work += mfu[i] * ns[i]; /* steps weigh by how long they took */
        time += ns[i];
        ++*n;
    }
    if (time <= 0)
        return (struct mp_val){0, MP_UNKNOWN};
    return (struct mp_val){work / time, job->figures.mfu[convention].basis
                                            ? job->figures.mfu[convention].basis
                                            : MP_MODELLED};
}

uint64_t dash_step_phase_ns(const struct dash_step *s, enum mp_phase phase)
{
    uint64_t sum = 0;

    for (int pass = 0; pass < MP_PASS_COUNT; pass++)
        sum += s->booked_ns[phase][pass];
    return sum;
}

struct mp_val dash_step_own(const struct dash_step *s)
{
    if (!s->known || s->window_ns == 0)
        return (struct mp_val){0, MP_UNKNOWN};
    return (struct mp_val){(double)s->own_ns / (double)s->window_ns, MP_MEASURED};
}

const char *dash_job_state(const struct dash_job *job)
{
    static const char *const name[] = {
        [MP_GUEST_ASLEEP] = "asleep",       [MP_GUEST_RECORDING] = "recording",
        [MP_GUEST_ASIDE] = "stepped aside", [MP_GUEST_OFF] = "off",
        [MP_GUEST_ENDED] = "ended",
    };

    if (job->replay)
        return "replay";
    if (!job->alive && job->state != MP_GUEST_ENDED)
        return "killed";
    return (unsigned)job->state < countof(name) ? name[job->state] : "?";
}

bool dash_job_is_live(const struct dash_job *job)
{
    return job->alive && job->state == MP_GUEST_RECORDING;
}

const char *dash_feature_name(enum mp_feature feature)
{
    static const char *const name[MP_FEATURE_COUNT] = {
        [MP_FEATURE_CUPTI] = "GPU activity",    [MP_FEATURE_LAUNCH] = "launches",
        [MP_FEATURE_PYTHON] = "Python bridge",  [MP_FEATURE_AUTOGRAD] = "backward",
        [MP_FEATURE_ROUTING] = "routing",       [MP_FEATURE_TOKENS] = "tokens",
        [MP_FEATURE_NVML] = "clocks and power",
    };

    return (unsigned)feature < MP_FEATURE_COUNT ? name[feature] : "?";
}
