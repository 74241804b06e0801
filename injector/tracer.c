/* See tracer.h. */
#include "injector/tracer.h"

#include "injector/activity.h"
#include "injector/cuda_api.h"
#include "injector/cupti_api.h"
#include "injector/elf.h"
#include "injector/guest.h"
#include "injector/launch.h"
#include "injector/other.h"

#include <stdatomic.h>
#include <stdio.h>

#define LEAVE_SINCE_VERSION 26 /* 12.8 */

pthread_mutex_t inj_tracer_lock = PTHREAD_MUTEX_INITIALIZER;

static const int activity_kind[] = {ACT_CONCURRENT_KERNEL, ACT_MEMCPY, ACT_MEMCPY_P2P, ACT_MEMSET};

/* Written under the lock. */
static void *subscriber;
static bool armed;
static _Atomic bool offered, left;
static _Atomic uint64_t come_ns, go_ns;

/* ---- on and off ------------------------------------------------------------------------------------ */

static void kinds(int (*fn)(int kind))
{
    for (size_t i = 0; i < countof(activity_kind); i++)
        fn(activity_kind[i]);
}

static int enable_kinds(struct mp_err *err)
{
    for (size_t i = 0; i < countof(activity_kind); i++) {
        int rc = cupti.enable(activity_kind[i]);

        if (rc != CUPTI_OK && activity_kind[i] == ACT_CONCURRENT_KERNEL)
            return mp_fail(err, MP_ENOTSUP, "CUPTI refuses to record kernels: %s (%d)",
                           inj_cupti_text(rc), rc);
    }
    return MP_OK;
}

static void callbacks(uint32_t on)
{
    for (uint32_t cbid = 0; cbid < CB_MAX; cbid++)
        if (inj_launch_wants(cbid))
            cupti.enable_callback(on, subscriber, DOMAIN_DRIVER, cbid);
}

static int switch_on(struct mp_err *err)
{
    int rc = enable_kinds(err);

    if (rc == MP_OK)
        callbacks(1); /* last: a launch that is counted has a record */
    return rc;
}

static void switch_off(uint32_t flush)
{
    callbacks(0);
    kinds(cupti.disable);
    cupti.flush_all(flush);
}

/* ---- coming ---------------------------------------------------------------------------------------- */

/* Who holds CUPTI: 13.0 tells the name of the other subscriber. */
static void holder(char *name, size_t bytes)
{
    struct {
        size_t struct_size;
        const char *name;
        char *old_name;
        size_t old_name_bytes;
    } params = {sizeof params, "moeprof", name, bytes};
    void *sub = NULL;

    snprintf(name, bytes, "another profiler");
    if (cupti.subscribe_v2 &&
        cupti.subscribe_v2(&sub, inj_launch_callback, NULL, &params) == CUPTI_OK)
        subscriber = sub; /* it let go in between */
}

static int subscribe(struct mp_err *err)
{
    char name[64];
    int rc = cupti.subscribe(&subscriber, inj_launch_callback, NULL);

    if (rc == CUPTI_MULTIPLE_SUBSCRIBERS) {
        subscriber = NULL;
        holder(name, sizeof name);
        if (!subscriber)
            return mp_fail(err, MP_EBUSY,
                           "CUPTI is held by '%s': no times of the GPU; end it to have them", name);
    } else if (rc != CUPTI_OK) {
        subscriber = NULL;
        return mp_fail(err, MP_ENOTSUP, "CUPTI refuses a subscriber: %s (%d)", inj_cupti_text(rc),
                       rc);
    }
    return MP_OK;
}

/* The subscriber first: who holds CUPTI keeps its buffer callbacks and kinds as they are. */
static int come(struct mp_err *err)
{
    uint64_t began_ns = inj_now_ns();
    int rc = subscribe(err);

    if (rc)
        return rc;
    rc = cupti.register_callbacks(inj_other_request, inj_other_complete);
    if (rc != CUPTI_OK)
        rc = mp_fail(err, MP_ENOTSUP, "CUPTI refuses buffer callbacks: %s (%d)", inj_cupti_text(rc),
                     rc);
    else
        rc = switch_on(err);
    if (rc) {
        kinds(cupti.disable);
        cupti.unsubscribe(subscriber);
        subscriber = NULL;
    }
    atomic_store(&come_ns, inj_now_ns() - began_ns);
    return rc;
}

int inj_tracer_start(struct mp_err *err)
{
    int rc = inj_cupti_find(err);

    if (rc)
        return rc;
    if (!inj_elf_mapped("libcuda.so"))
        return mp_fail(err, MP_ENOTSUP,
                       "no CUDA driver in this process: GPU time cannot be recorded");
    if (inj_cuda_find())
        return mp_fail(err, MP_ENOTSUP,
                       "the CUDA driver in this process lacks calls that recording needs");
    if (inj_activity_init())
        return mp_fail(err, MP_ENOMEM, "no memory for activity buffers");
    pthread_mutex_lock(&inj_tracer_lock);
    rc = come(err);
    armed = rc == MP_OK;
    pthread_mutex_unlock(&inj_tracer_lock);
    if (rc == MP_OK)
        inj_other_redirect();
    return rc;
}

/* Under the lock. */
static int come_back(struct mp_err *err)
{
    int rc;

    if (!atomic_load(&left))
        return switch_on(err);
    inj_activity_reset();
    rc = come(err);
    if (rc == MP_OK)
        atomic_store(&left, false);
    return rc;
}

int inj_tracer_arm(bool on, struct mp_err *err)
{
    int rc = MP_OK;

    pthread_mutex_lock(&inj_tracer_lock);
    armed = on;
    atomic_store(&offered, false);
    if (!inj_other_aside()) {
        if (on)
            rc = come_back(err);
        else
            switch_off(0);
    }
    pthread_mutex_unlock(&inj_tracer_lock);
    return rc;
}

/* ---- leaving --------------------------------------------------------------------------------------- */

void inj_tracer_offer(void)
{
    bool may;

    pthread_mutex_lock(&inj_tracer_lock);
    may = inj.opts.leave && !armed && subscriber && !inj_other_was_here() && !inj_launch_graphs() &&
          cupti.version >= LEAVE_SINCE_VERSION;
    atomic_store(&offered, may);
    pthread_mutex_unlock(&inj_tracer_lock);
}

static void go(void)
{
    uint64_t began_ns = inj_now_ns();

    cuda.ctx_synchronize();
    cupti.flush_all(FLUSH_FORCED);
    cupti.unsubscribe(subscriber);
    cupti.finalize();
    subscriber = NULL;
    atomic_store(&left, true);
    atomic_store(&go_ns, inj_now_ns() - began_ns);
}

void inj_tracer_leave(void *stream)
{
    if (!atomic_load_explicit(&offered, memory_order_relaxed) || inj_cuda_captured(stream) ||
        pthread_mutex_trylock(&inj_tracer_lock))
        return;
    if (atomic_load(&offered) && !inj_other_was_here()) {
        go();
        atomic_store(&offered, false);
    }
    pthread_mutex_unlock(&inj_tracer_lock);
}

bool inj_tracer_has_left(void)
{
    return atomic_load(&left);
}

uint64_t inj_tracer_move_ns(void)
{
    uint64_t go = atomic_load(&go_ns);

    return go ? go + atomic_load(&come_ns) : 0;
}

/* ---- delivery -------------------------------------------------------------------------------------- */

void inj_tracer_drain(void (*fn)(void *arg, const uint8_t *record), void *arg)
{
    if (!atomic_load(&offered) && !atomic_load(&left))
        inj_activity_drain(fn, arg);
}

void inj_tracer_flush(void)
{
    pthread_mutex_lock(&inj_tracer_lock);
    if (inj_alive() && !inj_other_aside() && subscriber)
        cupti.flush_all(0);
    pthread_mutex_unlock(&inj_tracer_lock);
}

/* ---- for another profiler --------------------------------------------------------------------------- */

void inj_tracer_pause(void)
{
    atomic_store(&offered, false);
    if (!subscriber)
        return;
    callbacks(0);
    kinds(cupti.disable);
    cuda.ctx_synchronize(); /* what is forced out below is complete, and nothing comes late */
    cupti.flush_all(FLUSH_FORCED);
}

void inj_tracer_resume(void)
{
    struct mp_err err = {0};

    if (armed && come_back(&err))
        inj_log(2, "%s", err.msg);
}
