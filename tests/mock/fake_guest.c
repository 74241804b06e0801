/* Stands in for a training process with the guest in it: publishes a synthetic MoE job through real
 * shared memory, in real time or as fast as it can. Reads MOEPROF="dir=..,session=.." as the guest does.
 *
 * Usage: fake_guest [steps=N] [layers=N] [experts=N] [grouped] [checkpoint] [fast] [rank=R world=W]
 *                   [sleep: stays asleep] [off=WHY: a feature fails] [exit=CODE] [kill=STEP: SIGKILLs itself]
 *                   [quiet: no file at all] [unknown-gpu]
 *                   [burst=FIRST/ON/OFF: steps traced at first, then ON of every ON + OFF]
 */
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "profiler/core/shm.h"
#include "tests/mock/fake_job.h"

struct guest {
    struct mp_shm *shm;
    uint64_t begin_job_ns, begin_ns; /* the same moment on both clocks */
    bool fast;
};

static const char *option(int argc, char **argv, const char *name)
{
    size_t n = strlen(name);

    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], name, n) == 0 && (argv[i][n] == '=' || argv[i][n] == 0))
            return argv[i] + n + (argv[i][n] == '=');
    return NULL;
}

static int number(int argc, char **argv, const char *name, int otherwise)
{
    const char *text = option(argc, argv, name);

    return text ? atoi(text) : otherwise;
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The value of key in MOEPROF="a=..,b=..". */
static void env_value(char *out, size_t n, const char *key)
{
    const char *env = getenv("MOEPROF"), *at = env ? strstr(env, key) : NULL;

    snprintf(out, n, "%.*s", at ? (int)strcspn(at + strlen(key), ",") : 0,
             at ? at + strlen(key) : "");
}

static void put(void *arg, const union mp_record *record)
{
    struct guest *g = arg;

    mp_shm_put(g->shm, record);
    if (record->head.kind <= MP_OVERHEAD)
        atomic_fetch_add_explicit(&g->shm->n_record, 1, memory_order_relaxed);
}

static void wait_until(const struct guest *g, uint64_t job_ns)
{
    uint64_t now = now_ns(), due = g->begin_ns + (job_ns - g->begin_job_ns);

    mp_shm_flush(g->shm);
    atomic_store(&g->shm->heartbeat_ns, now);
    if (!g->fast && due > now)
        nanosleep(&(struct timespec){(time_t)((due - now) / 1000000000u),
                                     (long)((due - now) % 1000000000u)},
                  NULL);
}

static void facts(struct mp_shm *shm, int argc, char **argv)
{
    bool known = !option(argc, argv, "unknown-gpu");

    snprintf(shm->gpu_name, sizeof shm->gpu_name, "%s",
             known ? "NVIDIA H100 80GB HBM3" : "NVIDIA X1 Prototype");
    snprintf(shm->gpu_uuid, sizeof shm->gpu_uuid, "GPU-00000000-fake");
    shm->gpu_index = 0;
    shm->gpu_cc = known ? 90 : 999;
    shm->gpu_sm_count = known ? 132 : 7;
    shm->gpu_clock_mhz = known ? 1980 : 100;
    shm->gpu_mem_bytes = 85520809984;
    shm->cupti_version = 26;
    shm->driver_version = 12080;
    shm->rank = number(argc, argv, "rank", -1);
    shm->world = number(argc, argv, "world", 1);
    for (int i = 0; i < FAKE_NAME_COUNT; i++)
        mp_shm_name_add(shm, fake_name[i]);
    for (int i = 0; i < MP_FEATURE_COUNT; i++)
        mp_shm_feature(shm, (enum mp_feature)i, MP_FEATURE_ON, NULL);
    atomic_store(&shm->sm_clock_mhz, 1755);
    atomic_store(&shm->power_mw, 512000);
    atomic_store(&shm->temp_c, 61);
    atomic_store(&shm->gauges_valid, 1 | 4 | 8);
    mp_shm_log(shm, 0, "fake job: no GPU is involved");
}

static void train(struct guest *g, int argc, char **argv)
{
    int steps = number(argc, argv, "steps", 10), kill_at = number(argc, argv, "kill", -1);
    struct fake_job j;
    int first = steps, on = 1, off = 0;
    char *spec;

    if (option(argc, argv, "burst"))
        sscanf(option(argc, argv, "burst"), "%d/%d/%d", &first, &on, &off);
    fake_init(&j, put, g);
    j.n_layer = number(argc, argv, "layers", 4);
    j.n_expert = number(argc, argv, "experts", 128);
    j.grouped = option(argc, argv, "grouped") != NULL;
    j.checkpoint = option(argc, argv, "checkpoint") != NULL;
    j.now_ns = g->begin_job_ns = g->begin_ns = now_ns();
    spec = fake_spec(&j);
    if (spec)
        mp_shm_spec_set(g->shm, spec, strlen(spec));
    free(spec);
    atomic_store(&g->shm->state, MP_GUEST_RECORDING);
    for (int i = 0; i < steps; i++) {
        atomic_store(&g->shm->step, (uint32_t)i);
        j.untraced = i >= first && (i - first) % (on + off) >= on;
        fake_step(&j);
        wait_until(g, j.now_ns);
        if (i == kill_at)
            raise(SIGKILL);
    }
}

int main(int argc, char **argv)
{
    struct guest g = {.fast = option(argc, argv, "fast") != NULL};
    char wanted[2048], dir[2048], session[40];
    struct mp_err err;

    if (option(argc, argv, "quiet"))
        return number(argc, argv, "exit", 0);
    env_value(wanted, sizeof wanted, "dir=");
    env_value(session, sizeof session, "session=");
    if (mp_shm_dir(dir, sizeof dir, wanted, &err) || mp_shm_create(&g.shm, dir, &err)) {
        fprintf(stderr, "fake_guest: %s\n", err.msg);
        return 99;
    }
    snprintf(g.shm->session, sizeof g.shm->session, "%s", session);
    if (option(argc, argv, "off")) {
        mp_shm_feature(g.shm, MP_FEATURE_CUPTI, MP_FEATURE_FAILED, option(argc, argv, "off"));
        atomic_store(&g.shm->state, MP_GUEST_OFF);
    } else if (!option(argc, argv, "sleep")) {
        facts(g.shm, argc, argv);
        train(&g, argc, argv);
    }
    mp_shm_flush(g.shm);
    if (atomic_load(&g.shm->state) == MP_GUEST_RECORDING)
        atomic_store(&g.shm->state, MP_GUEST_ENDED);
    mp_shm_close(g.shm, dir, false);
    return number(argc, argv, "exit", 0);
}
