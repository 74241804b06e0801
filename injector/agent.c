/* See agent.h. */
#include "injector/agent.h"

#include "injector/activity.h"
#include "injector/ctl.h"
#include "injector/cuda_api.h"
#include "injector/cupti_api.h"
#include "injector/gauges.h"
#include "injector/join.h"
#include "injector/launch.h"
#include "injector/other.h"
#include "injector/pybridge.h"
#include "injector/sample.h"
#include "injector/trace.h"
#include "injector/tracer.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUND_NS      200000000u /* 5 a second: a record on screen within 250 ms of its delivery */
#define TRACE_NS      20000000u  /* while everything is written down: four notes a launch */
#define DRAIN_NS      60000000u  /* at the end of a burst, while CUPTI is armed for nothing else */
#define FLUSH_NS      1000000000u /* asked for only when nothing was delivered by itself for so long */
#define ASLEEP_NS     100000000u  /* until torch is in the process: looks 10 times a second... */
#define ASLEEP_MAX_NS 5000000000u /* ...then ever more rarely */
#define GAUGE_ROUNDS  2
#define SILENT_NS     2000000000u /* launches without any record for so long: say so */

static pthread_t thread;
static _Atomic bool wake, stop; /* set by other threads, which then kick the wait */
static bool started;
static bool watched; /* CUPTI records; without it there are still steps, tokens, routing and MFU */

/* ---- GPU facts --------------------------------------------------------------------------------- */

static int attribute(int which, int device)
{
    int v = 0;

    return cuda.device_attribute(&v, which, device) ? 0 : v;
}

static void format_uuid(char *out, size_t bytes, const uint8_t *u)
{
    snprintf(out, bytes, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13],
             u[14], u[15]);
}

static void gpu_facts(struct mp_shm *shm)
{
    /* CU_DEVICE_ATTRIBUTE_* */
    enum { CLOCK_KHZ = 13, SM_COUNT = 16, CC_MAJOR = 75, CC_MINOR = 76 };
    uint8_t uuid[16] = {0};
    size_t total = 0;
    int device = inj_py_device();

    cuda.driver_version(&shm->driver_version);
    shm->cupti_version = (int32_t)cupti.version;
    shm->gpu_index = device;
    if (cuda.device_name(shm->gpu_name, sizeof shm->gpu_name, device))
        shm->gpu_name[0] = '\0';
    shm->gpu_cc = attribute(CC_MAJOR, device) * 10 + attribute(CC_MINOR, device);
    shm->gpu_sm_count = attribute(SM_COUNT, device);
    shm->gpu_clock_mhz = attribute(CLOCK_KHZ, device) / 1000;
    if (!cuda.device_total_mem(&total, device))
        shm->gpu_mem_bytes = total;
    if (cuda.device_uuid && !cuda.device_uuid(uuid, device))
        format_uuid(shm->gpu_uuid, sizeof shm->gpu_uuid, uuid);
    if (inj_gauges_start(shm->gpu_uuid) == MP_OK)
        inj_feature_on(MP_FEATURE_NVML);
    else
        inj_feature_off(MP_FEATURE_NVML,
                        "NVML is not to be had: clock, power and temperature are unknown");
}

/* ---- recording ---------------------------------------------------------------------------------- */

/* False: no GPU. One whose CUPTI is another tool's, or refuses, still trains. */
static bool start_cuda(struct mp_shm *shm)
{
    struct mp_err err = {0};

    watched = inj_tracer_start(&err) == MP_OK;
    if (watched) {
        inj_feature_on(MP_FEATURE_CUPTI);
        inj_feature_on(MP_FEATURE_LAUNCH);
    } else {
        inj_feature_off(MP_FEATURE_CUPTI, "%s", err.msg);
        if (inj_cuda_find())
            return false;
    }
    cuda.ctx_set_current(inj_py_context());
    gpu_facts(shm);
    return true;
}

static void listen_for_tools(void)
{
    struct mp_err err = {0};
    struct mp_msg swap = {.kind = MP_WIRE_SWAP, .layer = -1, .flags = MP_WIRE_PARTIAL};

    if (inj_ctl_open(inj.dir, &err))
        inj_log(1, "no tool can talk to this job: %s", err.msg);
    snprintf(swap.name, sizeof swap.name, "%s", inj.opts.swap);
    if (swap.name[0])
        inj_ctl_ask(&swap);
}

/* CUDA and CUPTI take themselves down among the exit handlers, the last made first, and a call of ours
 * at that time or later crashes the process. This one is made when both are up, so it runs before. */
static void end_before_cuda(void)
{
    if (!inj_alive()) /* a forked child */
        return;
    inj_agent_stop();
    atomic_store(&inj.life, INJ_DEAD);
}

static bool start(void)
{
    struct mp_shm *shm = inj_shm();
    uint32_t step = atomic_load(&inj.step);
    struct mp_err err;

    started = true;
    if (!shm)
        return false;
    listen_for_tools(); /* a swap needs no recording */
    if (inj.opts.bad_steps[0])
        inj_log(1,
                "MOEPROF: steps='%s' is neither 'all' nor FIRST/ON/OFF such as 10/4/28: not used",
                inj.opts.bad_steps);
    if (inj_thread_init() || inj_join_init()) {
        inj_feature_off(MP_FEATURE_CUPTI, "no memory for the guest's tables");
        return false;
    }
    if (inj.opts.no_cuda) {
        inj_sample_mode(INJ_SAMPLE_ALWAYS);
    } else if (!start_cuda(shm)) {
        atomic_store(&shm->state, MP_GUEST_OFF);
        return false;
    }
    if (watched)
        atexit(end_before_cuda);
    if (inj_trace_on() && inj_trace_open(inj.opts.trace, cupti.version, &err))
        inj_log(2, "%s", err.msg);
    if (watched || inj.opts.no_cuda)
        inj_sample_start();
    inj_join_mark_steps(shm, step, atomic_load(&inj.step), MP_STEP_PARTIAL);
    atomic_store(&shm->state, MP_GUEST_RECORDING);
    return true;
}

static void follow_other_profiler(struct mp_shm *shm)
{
    static uint32_t since;
    bool was_aside = atomic_load(&shm->state) == MP_GUEST_ASIDE;

    switch (inj_other_poll()) {
    case 1:
        since = inj_other_since();
        atomic_store(&shm->state, MP_GUEST_ASIDE);
        inj_log(0, "torch.profiler records from step %u on: moeprof steps aside until it is done",
                since);
        break;
    case 2:
        atomic_store(&shm->state, MP_GUEST_RECORDING);
        inj_log(0, "torch.profiler is done: moeprof records again from step %u on",
                atomic_load(&inj.step) + 1);
        break;
    default:
        break;
    }
    /* The step in which it ends included. */
    if (was_aside || atomic_load(&shm->state) == MP_GUEST_ASIDE)
        inj_join_mark_steps(shm, since, atomic_load(&inj.step), MP_STEP_ASIDE);
}

/* An empty profiler session before ours has been seen to silence CUPTI: better said than shown as 0. */
static void watch_silence(struct mp_shm *shm)
{
    static uint64_t launches, since;
    uint64_t now = inj_now_ns();

    if (atomic_load(&shm->n_record) || inj_launch_count() < 1000) {
        since = 0;
        return;
    }
    if (!since) {
        since = now;
        launches = inj_launch_count();
    } else if (now - since > SILENT_NS && inj_launch_count() > launches) {
        inj_feature_off(MP_FEATURE_CUPTI,
                        "%llu launches, but CUPTI delivers no records: another tool "
                        "may have shut it down in this process",
                        (unsigned long long)launches);
    }
}

static void publish_gauges(struct mp_shm *shm)
{
    static unsigned round;
    struct timespec cpu;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    atomic_store(&shm->agent_cpu_ns, (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec);
    atomic_store(&shm->heartbeat_ns, inj_now_ns());
    atomic_store(&shm->step, atomic_load(&inj.step));
    atomic_store(&shm->n_launch, inj_launch_count());
    atomic_store(&shm->n_dropped, inj_activity_dropped());
    atomic_store(&shm->n_lost, inj_thread_lost() + inj_activity_starved());
    if (round++ % GAUGE_ROUNDS == 0)
        inj_gauges_read(shm);
}

/* Full buffers come by themselves; the rest of a slow or waiting job must be asked for. */
static void flush_if_quiet(bool last)
{
    static uint64_t delivered, launches, since;
    uint64_t now = inj_now_ns();

    if (inj_activity_delivered() != delivered || inj_launch_count() == launches) {
        delivered = inj_activity_delivered();
        since = now;
    }
    if (!last && !inj_sample_draining() && now - since < FLUSH_NS)
        return;
    launches = inj_launch_count();
    inj_tracer_flush();
    delivered = inj_activity_delivered();
    since = now;
}

static void one_round(struct mp_shm *shm, bool last)
{
    if (watched) {
        follow_other_profiler(shm);
        flush_if_quiet(last);
    }
    inj_join_launches(shm);
    if (inj_trace_on())
        inj_trace_round();
    if (watched)
        inj_tracer_drain(inj_join_activity, shm);
    inj_join_steps(shm, inj_now_ns(), last);
    if (watched)
        inj_sample_round(inj_join_quiet());
    mp_shm_flush(shm);
    if (inj_trace_on())
        inj_trace_flush();
    watch_silence(shm);
    publish_gauges(shm);
}

/* ---- the thread ------------------------------------------------------------------------------------ */

static uint64_t round_ns(void)
{
    return inj_trace_on() ? TRACE_NS : inj_sample_draining() ? DRAIN_NS : ROUND_NS;
}

static void *run(void *arg)
{
    uint64_t sleep_ns = ASLEEP_NS;
    bool hooked = false, on = false;

    (void)arg;
    pthread_setname_np(pthread_self(), "moeprof");
    while (!stop && inj_alive()) {
        if (!hooked) {
            int rc = inj_py_hook();

            hooked = rc != MP_EGONE;
            sleep_ns = sleep_ns * 2 > ASLEEP_MAX_NS ? ASLEEP_MAX_NS : sleep_ns * 2;
        }
        if (wake && !started)
            on = start();
        if (on)
            one_round(inj_shm(), false);
        inj_ctl_wait(on ? round_ns() : hooked ? ASLEEP_MAX_NS : sleep_ns);
    }
    inj_ctl_close();
    if (on && inj_alive()) {
        one_round(inj_shm(), true);
        atomic_store(&inj_shm()->state, MP_GUEST_ENDED);
    }
    return NULL;
}

int inj_agent_start(void)
{
    sigset_t all, before;
    int rc;

    inj_ctl_init();
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&thread, NULL, run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc ? MP_ENOMEM : MP_OK;
}

static void signal_agent(_Atomic bool *what)
{
    atomic_store(what, true);
    inj_ctl_kick();
}

void inj_agent_wake(void)
{
    signal_agent(&wake);
}

void inj_agent_stop(void)
{
    static _Atomic bool asked;
    struct timespec limit;

    if (atomic_exchange(&asked, true))
        return;
    signal_agent(&stop);
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_nsec += 200000000;
    limit.tv_sec += limit.tv_nsec / 1000000000;
    limit.tv_nsec %= 1000000000;
    pthread_timedjoin_np(thread, NULL, &limit);
}
