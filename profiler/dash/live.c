/* One source a guest: reader → raw records to the job → steps → figures → job. What the guest publishes
 * is bytes from outside; texts go through core/shm's functions. */
#include "profiler/dash/live.h"

#include "profiler/dash/eval.h"
#include "profiler/dash/fmt.h"
#include "report/profile_file.h"
#include "report/profile_link.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH       4096u
#define EAGER_OPS   64u /* of the next step, before a step is taken as ended */
#define BATCHES_MAX 80u /* a drain: somewhat more than a whole ring */

struct source {
    struct mp_reader reader;
    struct mp_steps *steps;
    struct dash_job *job; /* the model's */
    struct dash_model *m;
    struct dash_eval eval;
    uint64_t cpu_ns, cpu_at_ns; /* agent's CPU time, and when it was read */
    int pid;
};

struct dash_live {
    char dir[4096];
    const int *pid;
    size_t n_pid;
    struct dash_model *m; /* during a scan */
    struct source *source[DASH_JOB_MAX];
    int n_source, n_asleep;
    union mp_record record[BATCH];
    char spec[MP_SPEC_CAP + 1];
};

struct dash_live *dash_live_new(const char *dir, const int *pid, size_t n_pid)
{
    struct dash_live *live = calloc(1, sizeof *live);

    if (!live)
        return NULL;
    snprintf(live->dir, sizeof live->dir, "%s", dir);
    live->pid = pid;
    live->n_pid = n_pid;
    return live;
}

static void close_source(struct source *s)
{
    mp_reader_close(&s->reader);
    mp_steps_free(s->steps);
    dash_eval_release(&s->eval);
    free(s);
}

void dash_live_free(struct dash_live *live)
{
    for (int i = 0; live && i < live->n_source; i++)
        close_source(live->source[i]);
    free(live);
}

/* ---- slow side: once a second --------------------------------------------------------------- */

static struct mp_val gauge(uint32_t valid, int bit, double v)
{
    return (struct mp_val){v, valid & 1u << bit ? MP_MEASURED : MP_UNKNOWN};
}

static void take_gauges(struct source *s, uint64_t now_ns)
{
    const struct mp_shm *shm = s->reader.shm;
    uint32_t valid = atomic_load(&shm->gauges_valid);
    struct dash_gauges g = {
        .time_ns = now_ns,
        .sm_clock_mhz = gauge(valid, 0, atomic_load(&shm->sm_clock_mhz)),
        .mem_clock_mhz = gauge(valid, 1, atomic_load(&shm->mem_clock_mhz)),
        .power_w = gauge(valid, 2, atomic_load(&shm->power_mw) / 1000.0),
        .temp_c = gauge(valid, 3, atomic_load(&shm->temp_c)),
        .throttle_bits = atomic_load(&shm->throttle_bits),
        .throttle_known = valid & 1u << 4,
        .mem_bytes = gauge(valid, 5, (double)atomic_load(&shm->mem_used_bytes)),
    };

    dash_job_gauges(s->job, &g);
}

static void take_counters(struct source *s, uint64_t now_ns)
{
    const struct mp_shm *shm = s->reader.shm;
    struct dash_counters *c = &s->job->counters;
    uint64_t cpu = atomic_load(&shm->agent_cpu_ns);

    c->n_launch = atomic_load(&shm->n_launch);
    c->n_record = atomic_load(&shm->n_record);
    c->n_dropped = atomic_load(&shm->n_dropped);
    c->n_lost = atomic_load(&shm->n_lost);
    c->n_unmatched = atomic_load(&shm->n_unmatched);
    c->agent_cpu_ns = cpu;
    if (s->cpu_at_ns && now_ns > s->cpu_at_ns && cpu > 0 && cpu >= s->cpu_ns)
        c->agent_frac = dash_measured((double)(cpu - s->cpu_ns) / (double)(now_ns - s->cpu_at_ns));
    s->cpu_ns = cpu;
    s->cpu_at_ns = now_ns;
}

static void take_log(struct source *s)
{
    uint64_t n = atomic_load(&s->reader.shm->n_log);
    uint64_t i = n < MP_LOG_CAP ? 0 : n - MP_LOG_CAP + 1;
    struct dash_job *job = s->job;

    job->n_log = 0;
    for (; i < n && job->n_log < MP_LOG_CAP; i++)
        job->n_log += mp_reader_log(&s->reader, i, &job->log[job->n_log]);
}

/* Why a job is not recording: the first feature that failed, else the last warning. */
static void take_why(struct dash_job *job)
{
    bool unwatched = job->feature[MP_FEATURE_CUPTI].state == MP_FEATURE_FAILED;

    job->why[0] = 0;
    if ((job->state == MP_GUEST_RECORDING && !unwatched) || job->state == MP_GUEST_ENDED)
        return;
    for (int i = 0; i < MP_FEATURE_COUNT && (job->state == MP_GUEST_OFF || unwatched); i++)
        if (job->feature[i].state == MP_FEATURE_FAILED) {
            snprintf(job->why, sizeof job->why, "%s", job->feature[i].why);
            return;
        }
    for (uint32_t i = job->n_log; i-- > 0;)
        if (job->log[i].level > 0) {
            snprintf(job->why, sizeof job->why, "%s", job->log[i].text);
            return;
        }
}

static void take_facts(struct source *s, char *spec)
{
    const struct mp_shm *shm = s->reader.shm;
    struct dash_job *job = s->job;
    int n = mp_reader_spec(&s->reader, spec, MP_SPEC_CAP + 1);
    char session[sizeof shm->session];

    mp_shm_text(session, sizeof session, shm->session, sizeof shm->session);
    if (sscanf(session, "run-%d-", &job->recorder) != 1)
        job->recorder = 0;
    job->rank = shm->rank;
    job->world = shm->world;
    job->gpu_mem_bytes = shm->gpu_mem_bytes;
    mp_shm_text(job->title, sizeof job->title, shm->comm, sizeof shm->comm);
    mp_shm_text(job->gpu_name, sizeof job->gpu_name, shm->gpu_name, sizeof shm->gpu_name);
    dash_eval_gpu(&s->eval, job->gpu_name, shm->gpu_cc, shm->gpu_sm_count);
    for (int i = 0; i < MP_FEATURE_COUNT; i++)
        job->feature[i].state = mp_reader_feature(&s->reader, (enum mp_feature)i,
                                                  job->feature[i].why, sizeof job->feature[i].why);
    if (n > 0)
        dash_eval_describe(&s->eval, job, spec, (size_t)n);
}

static void take_state(struct source *s)
{
    uint32_t state = atomic_load(&s->reader.shm->state);

    s->job->state = state <= MP_GUEST_ENDED ? (enum mp_guest_state)state : MP_GUEST_OFF;
    s->job->running_step = atomic_load(&s->reader.shm->step);
    s->job->alive = mp_reader_alive(&s->reader);
}

/* A before/after is in the profile. What is known of a file stays when its recorder has ended. */
static void take_profile(struct dash_live *live, struct source *s)
{
    struct rp_profile *p;
    char path[PATH_MAX];

    if (rp_link_get(path, sizeof path, live->dir, s->pid))
        memcpy(s->job->profile, path, sizeof path);
    else if (!s->job->ab.is_known || s->job->ab.is_settled)
        return;
    if (rp_profile_open(&p, s->job->profile, NULL) != MP_OK)
        return;
    dash_ab_read(&s->job->ab, p, &s->eval, live->m->now_ns);
    rp_profile_close(p, NULL);
}

static void refresh(struct dash_live *live, struct source *s)
{
    take_state(s);
    take_facts(s, live->spec);
    take_log(s);
    take_why(s->job);
    take_counters(s, live->m->now_ns);
    take_profile(live, s);
    if (s->job->alive)
        take_gauges(s, live->m->now_ns);
}

/* ---- jobs that come and go ------------------------------------------------------------------ */

static void on_step(void *arg, const struct mp_step *step)
{
    struct source *s = arg;
    struct dash_figures figures;

    dash_eval_step(&s->eval, step, &figures);
    dash_job_step(s->job, step, &figures, s->m->now_ns);
}

static bool is_wanted(const struct dash_live *live, int pid)
{
    for (size_t i = 0; i < live->n_pid; i++)
        if (live->pid[i] == pid)
            return true;
    return live->n_pid == 0;
}

static bool is_known(const struct dash_live *live, const struct mp_shm *shm)
{
    for (int i = 0; i < live->n_source; i++) {
        const struct mp_shm *own = live->source[i]->reader.shm;

        if (own->pid == shm->pid && own->start_time == shm->start_time)
            return true;
    }
    return false;
}

/* Whether to open pid's file at all: a known guest whose process runs need not be asked again. */
static bool is_worth_opening(const struct dash_live *live, int pid)
{
    if (!is_wanted(live, pid))
        return false;
    if (kill(pid, 0) != 0 && errno == ESRCH)
        return false;
    for (int i = 0; i < live->n_source; i++)
        if (live->source[i]->pid == pid && live->source[i]->job->alive)
            return false;
    return true;
}

/* Where all places are taken, a job that is gone makes room; false when all of them run. */
static bool make_room(struct dash_live *live)
{
    for (int i = 0; live->n_source == DASH_JOB_MAX && i < live->n_source; i++) {
        struct source *s = live->source[i];

        if (s->job->alive)
            continue;
        dash_model_drop(live->m, s->job->key);
        close_source(s);
        live->source[i] = live->source[--live->n_source];
    }
    return live->n_source < DASH_JOB_MAX;
}

/* Takes over r, which is open. */
static void add_source(struct dash_live *live, const struct mp_reader *r)
{
    struct source *s = calloc(1, sizeof *s);
    uint64_t key = (uint64_t)(uint32_t)r->shm->pid << 32 ^ r->shm->start_time;

    if (!s) {
        mp_reader_close((struct mp_reader *)r);
        return;
    }
    s->reader = *r;
    s->pid = r->shm->pid;
    s->m = live->m;
    s->job = dash_model_open(live->m, key ? key : 1, s->pid);
    s->steps = s->job ? mp_steps_new(on_step, s) : NULL;
    if (!s->steps) {
        if (s->job)
            dash_model_drop(live->m, s->job->key);
        close_source(s);
        return;
    }
    mp_steps_eager(s->steps, EAGER_OPS);
    live->source[live->n_source++] = s;
    refresh(live, s);
}

static int visit(void *arg, int pid)
{
    struct dash_live *live = arg;
    struct mp_reader r;

    if (!is_worth_opening(live, pid) || mp_reader_open(&r, live->dir, pid, true, NULL) != MP_OK)
        return 0;
    if (is_known(live, r.shm) || !mp_reader_alive(&r)) {
        mp_reader_close(&r);
    } else if (atomic_load(&r.shm->state) == MP_GUEST_ASLEEP && live->n_pid == 0) {
        live->n_asleep++;
        mp_reader_close(&r);
    } else if (make_room(live)) {
        add_source(live, &r);
    } else {
        mp_reader_close(&r);
    }
    return 0;
}

void dash_live_scan(struct dash_live *live, struct dash_model *m)
{
    live->m = m;
    live->n_asleep = 0;
    for (int i = 0; i < live->n_source; i++)
        refresh(live, live->source[i]);
    mp_shm_each(live->dir, visit, live, NULL);
    dash_model_sort(m);
}

int dash_live_asleep(const struct dash_live *live)
{
    return live->n_asleep;
}

/* ---- fast side: ten times a second ---------------------------------------------------------- */

static void take_names(struct source *s, const union mp_record *record, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t id = record[i].event.name;

        if (record[i].head.kind == MP_KERNEL && dash_kernels_wants_name(&s->job->kernels, id)) {
            const char *name = mp_reader_name(&s->reader, id);

            if (strcmp(name, "?") != 0)
                dash_kernels_set_name(&s->job->kernels, id, name);
        }
    }
}

static size_t drain(struct dash_live *live, struct source *s)
{
    size_t sum = 0;

    for (unsigned i = 0; i < BATCHES_MAX; i++) {
        uint64_t lost = s->reader.n_lost;
        size_t n = mp_reader_read(&s->reader, live->record, BATCH);

        if (s->reader.n_lost > lost)
            mp_steps_gap(s->steps, s->reader.n_lost - lost);
        take_names(s, live->record, n);
        dash_job_records(s->job, live->record, n);
        mp_steps_feed(s->steps, live->record, n);
        sum += n;
        if (n < BATCH)
            break;
    }
    s->job->counters.n_lapped = s->reader.n_lost;
    return sum;
}

size_t dash_live_drain(struct dash_live *live, struct dash_model *m)
{
    size_t sum = 0;

    live->m = m;
    for (int i = 0; i < live->n_source; i++)
        sum += drain(live, live->source[i]);
    return sum;
}
