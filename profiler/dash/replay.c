/* Raw records go through the same path as live ones. A profile that kept none still has its steps. */
#include "profiler/dash/replay.h"

#include "profiler/dash/eval.h"
#include "profiler/dash/fmt.h"
#include "report/features.h"
#include "report/profile_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STOPPED 1    /* the user left; not an error */
#define SLICE   256u /* records between looks at the clock */

struct dash_replay {
    struct rp_profile *p;
    struct dash_model *m;
    struct dash_job *job;
    struct mp_steps *steps;
    struct dash_eval eval;
    struct rp_gauge *gauge; /* (n_gauge), by time */
    size_t n_gauge, next_gauge;
    double speed;
    uint64_t first_ns, wall_ns; /* the same moment in the profile and on the clock */
    dash_tick_fn tick;
    void *arg;
    bool fed, at_end;
};

static uint64_t wall_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- what the profile says about the job ---------------------------------------------------- */

static int take_gauge(void *arg, const struct rp_gauge *g)
{
    struct dash_replay *r = arg;

    if ((r->n_gauge & (r->n_gauge - 1)) == 0) { /* a power of two: full */
        struct rp_gauge *more = realloc(r->gauge, (r->n_gauge ? r->n_gauge * 2 : 1) * sizeof *more);

        if (!more)
            return MP_ENOMEM;
        r->gauge = more;
    }
    r->gauge[r->n_gauge++] = *g;
    return 0;
}

static int take_log(void *arg, const struct rp_log *log)
{
    struct dash_job *job = ((struct dash_replay *)arg)->job;
    struct mp_log_row *row;

    if (job->n_log == MP_LOG_CAP) {
        memmove(job->log, job->log + 1, (MP_LOG_CAP - 1) * sizeof *job->log);
        job->n_log--;
    }
    row = &job->log[job->n_log++];
    *row = (struct mp_log_row){.time_ns = log->time_ns, .count = log->count, .level = log->level};
    snprintf(row->text, sizeof row->text, "%s", log->text ? log->text : "");
    return 0;
}

static void take_counters(struct dash_replay *r)
{
    struct dash_counters *c = &r->job->counters;
    int64_t from = rp_get_meta_int(r->p, "created_ns", 0),
            to = rp_get_meta_int(r->p, "updated_ns", 0);
    int64_t life = from >= 0 && to > from ? to - from : 0; /* a file may claim anything */

    c->n_launch = (uint64_t)rp_get_meta_int(r->p, "n_launch", 0);
    c->n_record = (uint64_t)rp_get_meta_int(r->p, "n_record", 0);
    c->n_dropped = (uint64_t)rp_get_meta_int(r->p, "n_dropped", 0);
    c->n_lost = (uint64_t)rp_get_meta_int(r->p, "n_lost", 0);
    c->n_unmatched = (uint64_t)rp_get_meta_int(r->p, "n_unmatched", 0);
    c->agent_cpu_ns = (uint64_t)rp_get_meta_int(r->p, "agent_cpu_ns", 0);
    if (life > 0 && c->agent_cpu_ns > 0)
        c->agent_frac = dash_measured((double)c->agent_cpu_ns / (double)life);
}

static void take_job(struct dash_replay *r, const char *path)
{
    struct dash_job *job = r->job;
    const char *slash = strrchr(path, '/');

    if (!realpath(path, job->profile))
        job->profile[0] = 0;
    job->replay = true;
    job->alive = false;
    job->state = MP_GUEST_ENDED;
    job->pid = (int)rp_get_meta_int(r->p, "pid", 0);
    job->rank = (int)rp_get_meta_int(r->p, "rank", -1);
    job->world = (int)rp_get_meta_int(r->p, "world", 1);
    job->gpu_mem_bytes = (uint64_t)rp_get_meta_int(r->p, "gpu_mem_bytes", 0);
    rp_get_meta(r->p, "gpu_name", job->gpu_name, sizeof job->gpu_name);
    snprintf(job->title, sizeof job->title, "%.90s", slash ? slash + 1 : path);
    dash_eval_gpu(&r->eval, job->gpu_name, (int)rp_get_meta_int(r->p, "gpu_cc", 0),
                  (int)rp_get_meta_int(r->p, "gpu_sm_count", 0));
    take_counters(r);
    for (int i = 0; i < MP_FEATURE_COUNT; i++)
        job->feature[i].state = rp_feature_get(r->p, (enum mp_feature)i, job->feature[i].why,
                                               sizeof job->feature[i].why);
}

static int take_all(struct dash_replay *r, const char *path, struct mp_err *err)
{
    char *spec = NULL;
    int rc;

    take_job(r, path);
    if ((rc = rp_get_spec(r->p, &spec, err)) < 0)
        return rc;
    if (spec)
        dash_eval_describe(&r->eval, r->job, spec, strlen(spec));
    free(spec);
    dash_ab_read(&r->job->ab, r->p, &r->eval, UINT64_MAX);
    if ((rc = rp_each_log(r->p, take_log, r, err)) < 0)
        return rc;
    return rp_each_gauge(r->p, take_gauge, r, err);
}

static void on_step(void *arg, const struct mp_step *step)
{
    struct dash_replay *r = arg;
    struct dash_figures figures;
    struct mp_step s = *step;

    /* an untraced step that nothing follows ended with its process, while the GPU still worked on it */
    if (r->at_end && s.window_ns == 0)
        s.flags |= MP_STEP_PARTIAL;
    dash_eval_step(&r->eval, &s, &figures);
    dash_job_step(r->job, &s, &figures, r->m->now_ns);
}

int dash_replay_open(struct dash_replay **out, const char *path, struct dash_model *m,
                     struct mp_err *err)
{
    struct dash_replay *r = calloc(1, sizeof *r);
    int rc;

    *out = r;
    if (!r)
        return mp_fail(err, MP_ENOMEM, "out of memory");
    r->m = m;
    rc = rp_profile_open(&r->p, path, err);
    if (rc == MP_OK) {
        r->job = dash_model_open(m, 1, 0);
        r->steps = mp_steps_new(on_step, r);
        rc = r->job && r->steps ? take_all(r, path, err) : mp_fail(err, MP_ENOMEM, "out of memory");
    }
    if (rc < 0) {
        dash_replay_close(r);
        *out = NULL;
    }
    return rc < 0 ? rc : MP_OK;
}

void dash_replay_close(struct dash_replay *r)
{
    if (!r)
        return;
    if (r->p)
        rp_profile_close(r->p, NULL);
    mp_steps_free(r->steps);
    dash_eval_release(&r->eval);
    free(r->gauge);
    free(r);
}

/* ---- playing -------------------------------------------------------------------------------- */

static struct mp_val gauge_value(const struct rp_gauge *g, enum rp_gauge_id id, double unit)
{
    return (struct mp_val){(double)g->value[id] * unit,
                           g->valid & 1u << id ? MP_MEASURED : MP_UNKNOWN};
}

static void feed_gauges(struct dash_replay *r, uint64_t now_ns)
{
    for (; r->next_gauge < r->n_gauge && r->gauge[r->next_gauge].time_ns <= now_ns;
         r->next_gauge++) {
        const struct rp_gauge *g = &r->gauge[r->next_gauge];
        struct dash_gauges out = {
            .time_ns = g->time_ns,
            .sm_clock_mhz = gauge_value(g, RP_SM_CLOCK_MHZ, 1),
            .mem_clock_mhz = gauge_value(g, RP_MEM_CLOCK_MHZ, 1),
            .power_w = gauge_value(g, RP_POWER_MW, 1e-3),
            .temp_c = gauge_value(g, RP_TEMP_C, 1),
            .mem_bytes = gauge_value(g, RP_MEM_USED_BYTES, 1),
            .throttle_bits = (uint32_t)g->value[RP_THROTTLE_BITS],
            .throttle_known = g->valid & 1u << RP_THROTTLE_BITS,
        };

        dash_job_gauges(r->job, &out);
    }
}

/* Waits until the profile's moment has come; true: the user left. */
static bool wait_for(struct dash_replay *r, uint64_t at_ns)
{
    if (r->speed <= 0)
        return false;
    if (!r->first_ns) {
        r->first_ns = at_ns;
        r->wall_ns = wall_now();
    }
    for (;;) {
        uint64_t due =
            r->wall_ns +
            (at_ns > r->first_ns ? (uint64_t)((double)(at_ns - r->first_ns) / r->speed) : 0);
        uint64_t now = wall_now();

        if (now >= due)
            return false;
        if (r->tick(r->arg, due - now > 100000000u ? 100 : (int)((due - now) / 1000000u) + 1))
            return true;
    }
}

static uint64_t time_of(const union mp_record *record)
{
    switch (record->head.kind) {
    case MP_KERNEL:
    case MP_MEMCPY:
    case MP_MEMSET:
    case MP_GRAPH:
        return record->event.start_ns;
    case MP_STEP:
        return record->mark.end_ns;
    default:
        return 0;
    }
}

static void take_names(struct dash_replay *r, const union mp_record *record, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (record[i].head.kind == MP_KERNEL &&
            dash_kernels_wants_name(&r->job->kernels, record[i].event.name))
            dash_kernels_set_name(&r->job->kernels, record[i].event.name,
                                  rp_get_name(r->p, record[i].event.name));
}

static int play_chunk(void *arg, const union mp_record *record, size_t n, uint64_t lost)
{
    struct dash_replay *r = arg;

    if (lost)
        mp_steps_gap(r->steps, lost);
    for (size_t i = 0; i < n; i += SLICE) {
        size_t part = n - i < SLICE ? n - i : SLICE;
        uint64_t at = time_of(&record[i]);

        if (at && wait_for(r, at))
            return STOPPED;
        if (at)
            feed_gauges(r, r->m->now_ns = at);
        take_names(r, record + i, part);
        dash_job_records(r->job, record + i, part);
        mp_steps_feed(r->steps, record + i, part);
    }
    r->fed = true;
    return 0;
}

static int play_step(void *arg, const struct mp_step *step)
{
    struct dash_replay *r = arg;

    if (wait_for(r, step->begin_ns + step->window_ns))
        return STOPPED;
    feed_gauges(r, r->m->now_ns = step->begin_ns + step->window_ns);
    on_step(r, step);
    return 0;
}

int dash_replay_run(struct dash_replay *r, double speed, dash_tick_fn tick, void *arg,
                    struct mp_err *err)
{
    int rc;

    r->speed = tick ? speed : 0;
    r->tick = tick;
    r->arg = arg;
    rc = rp_each_chunk(r->p, play_chunk, r, err);
    r->at_end = r->fed;
    if (rc == 0 && r->fed)
        mp_steps_finish(r->steps);
    else if (rc == 0)
        rc = rp_each_step(r->p, play_step, r, err);
    if (rc == 0)
        feed_gauges(r, UINT64_MAX);
    return rc < 0 ? rc : MP_OK;
}
