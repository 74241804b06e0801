/* See tracer.h. */
#include "injector/tracer.h"

#include "injector/activity.h"
#include "injector/cuda_api.h"
#include "injector/cupti_api.h"
#include "injector/elf.h"
#include "injector/guest.h"
#include "injector/launch.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define RESUME_AFTER_NS 500000000u /* after the other's last flush: it may flush several times */

static const int activity_kind[] = {ACT_CONCURRENT_KERNEL, ACT_MEMCPY, ACT_MEMCPY_P2P, ACT_MEMSET};

static void *subscriber;
static bool armed = true; /* under lock */
/* Held around our own CUPTI calls and around the hand-over; never in a launch. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The other profiler, seen through the redirected calls. */
static struct {
    _Atomic(cupti_request_fn) request;
    _Atomic(cupti_complete_fn) complete;
    _Atomic uint64_t kinds;      /* bit per activity kind below 64 that it enabled */
    _Atomic bool aside;          /* it records; ours is paused */
    _Atomic uint32_t since;      /* step in which that began */
    _Atomic uint64_t flushed_ns; /* its last flush after it disabled everything */
} other;

/* ---- our pair of buffer callbacks: always the registered one ------------------------------------ */

static void request(uint8_t **buffer, size_t *bytes, size_t *max_records)
{
    cupti_request_fn theirs = atomic_load(&other.request);

    if (atomic_load(&other.aside) && theirs)
        theirs(buffer, bytes, max_records);
    else
        inj_activity_request(buffer, bytes, max_records);
}

static size_t record_bytes(const uint8_t *record, const uint8_t *next, const uint8_t *end)
{
    return (size_t)((next ? next : end) - record);
}

/* A buffer of ours that holds the other's records: they are copied into a buffer of its own, which it
 * insists on, and handed over. */
static void forward(void *ctx, uint32_t stream, uint8_t *ours, size_t valid_bytes)
{
    cupti_request_fn req = atomic_load(&other.request);
    cupti_complete_fn done = atomic_load(&other.complete);
    uint8_t *to = NULL, *record = NULL, *next = NULL;
    size_t cap = 0, used = 0, n = 0, max = 0;

    if (!req || !done || cupti.get_next_record(ours, valid_bytes, &record) != CUPTI_OK)
        return;
    while (record) {
        next = record;
        if (cupti.get_next_record(ours, valid_bytes, &next) != CUPTI_OK)
            next = NULL;
        n = record_bytes(record, next, ours + valid_bytes);
        if (to && used + n > cap) {
            done(ctx, stream, to, cap, used);
            to = NULL;
        }
        if (!to) {
            req(&to, &cap, &max);
            used = 0;
            if (!to || n > cap)
                return;
        }
        memcpy(to + used, record, n);
        used += n;
        record = next;
    }
    if (to)
        done(ctx, stream, to, cap, used);
}

static void complete(void *ctx, uint32_t stream, uint8_t *buffer, size_t bytes, size_t valid_bytes)
{
    cupti_complete_fn theirs = atomic_load(&other.complete);

    if (!inj_activity_owns(buffer)) {
        if (theirs)
            theirs(ctx, stream, buffer, bytes, valid_bytes);
        return;
    }
    if (atomic_load(&other.aside)) {
        forward(ctx, stream, buffer, valid_bytes);
        valid_bytes = 0;
    }
    inj_activity_complete(ctx, stream, buffer, bytes, valid_bytes);
}

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
    if (cupti.subscribe_v2 && cupti.subscribe_v2(&sub, inj_launch_callback, NULL, &params) == CUPTI_OK)
        subscriber = sub; /* it let go in between */
}

static void callbacks(uint32_t on)
{
    for (size_t i = 0; inj_launch_cbid[i]; i++)
        cupti.enable_callback(on, subscriber, DOMAIN_DRIVER, inj_launch_cbid[i]);
}

static int subscribe(struct mp_err *err)
{
    char name[64];
    int rc = cupti.subscribe(&subscriber, inj_launch_callback, NULL);

    if (rc == CUPTI_MULTIPLE_SUBSCRIBERS) {
        subscriber = NULL;
        holder(name, sizeof name);
        if (!subscriber)
            return mp_fail(err, MP_EBUSY, "CUPTI is held by '%s': no times of the GPU; end it to have them", name);
    } else if (rc != CUPTI_OK) {
        return mp_fail(err, MP_ENOTSUP, "CUPTI refuses a subscriber: %s (%d)", inj_cupti_text(rc), rc);
    }
    return MP_OK;
}

/* ---- what libtorch calls instead of CUPTI ------------------------------------------------------------ */

static int kineto_subscribe(void **sub, cupti_callback_fn fn, void *user)
{
    (void)fn;
    (void)user;
    *sub = &other; /* a name only: Kineto uses callbacks for nothing that we must serve */
    return CUPTI_OK;
}

static int kineto_unsubscribe(void *sub)
{
    (void)sub;
    return CUPTI_OK;
}

static int kineto_enable_callback(uint32_t on, void *sub, int domain, uint32_t cbid)
{
    (void)on;
    (void)sub;
    (void)domain;
    (void)cbid;
    return CUPTI_OK;
}

static int kineto_enable_domain(uint32_t on, void *sub, int domain)
{
    (void)on;
    (void)sub;
    (void)domain;
    return CUPTI_OK;
}

static int kineto_finalize(void)
{
    return CUPTI_OK; /* would end our recording, and blocks */
}

/* The other profiler begins: what we have so far is delivered to us, then the kinds are off until it
 * turns its own on. */
static void step_aside(void)
{
    if (atomic_load(&other.aside))
        return;
    kinds(cupti.disable);
    cupti.flush_all(FLUSH_FORCED);
    atomic_store(&other.since, atomic_load(&inj.step));
    atomic_store(&other.aside, true);
}

static int kineto_register(cupti_request_fn req, cupti_complete_fn done)
{
    pthread_mutex_lock(&lock);
    atomic_store(&other.request, req);
    atomic_store(&other.complete, done);
    pthread_mutex_unlock(&lock);
    return CUPTI_OK;
}

static int kineto_enable(int kind)
{
    int rc;

    pthread_mutex_lock(&lock);
    step_aside();
    if (kind >= 0 && kind < 64)
        atomic_fetch_or(&other.kinds, 1ull << kind);
    rc = cupti.enable(kind);
    pthread_mutex_unlock(&lock);
    return rc;
}

static int kineto_disable(int kind)
{
    int rc;

    if (kind < 0 || kind > 63 || !(atomic_load(&other.kinds) >> kind & 1))
        return CUPTI_OK; /* not on by its doing: it may be on by ours */
    pthread_mutex_lock(&lock);
    atomic_fetch_and(&other.kinds, ~(1ull << kind));
    rc = cupti.disable(kind);
    atomic_store(&other.flushed_ns, inj_now_ns());
    pthread_mutex_unlock(&lock);
    return rc;
}

static int kineto_flush(uint32_t flags)
{
    int rc;

    pthread_mutex_lock(&lock);
    rc = cupti.flush_all(flags);
    atomic_store(&other.flushed_ns, inj_now_ns());
    pthread_mutex_unlock(&lock);
    return rc;
}

static void redirect_torch(void)
{
    static const struct inj_patch patch[] = {
        {"cuptiSubscribe", (void *)kineto_subscribe},
        {"cuptiUnsubscribe", (void *)kineto_unsubscribe},
        {"cuptiEnableCallback", (void *)kineto_enable_callback},
        {"cuptiEnableDomain", (void *)kineto_enable_domain},
        {"cuptiActivityRegisterCallbacks", (void *)kineto_register},
        {"cuptiActivityEnable", (void *)kineto_enable},
        {"cuptiActivityDisable", (void *)kineto_disable},
        {"cuptiActivityFlushAll", (void *)kineto_flush},
        {"cuptiFinalize", (void *)kineto_finalize},
    };

    inj_elf_patch("libtorch_cpu.so", patch, countof(patch));
}

/* ---- public -------------------------------------------------------------------------------------------- */

static int record(struct mp_err *err)
{
    int rc = cupti.register_callbacks(request, complete);

    if (rc != CUPTI_OK)
        return mp_fail(err, MP_ENOTSUP, "CUPTI refuses buffer callbacks: %s (%d)", inj_cupti_text(rc), rc);
    rc = enable_kinds(err);
    if (rc)
        return rc;
    redirect_torch();
    callbacks(1); /* last: a launch that is counted has a record */
    return MP_OK;
}

int inj_tracer_start(struct mp_err *err)
{
    int rc = inj_cupti_find(err);

    if (rc)
        return rc;
    if (!inj_elf_mapped("libcuda.so"))
        return mp_fail(err, MP_ENOTSUP, "no CUDA driver in this process: GPU time cannot be recorded");
    if (inj_cuda_find())
        return mp_fail(err, MP_ENOTSUP, "the CUDA driver in this process lacks calls that recording needs");
    if (inj_activity_init())
        return mp_fail(err, MP_ENOMEM, "no memory for activity buffers");
    rc = subscribe(err); /* first: who holds CUPTI keeps its buffer callbacks and kinds as they are */
    if (rc)
        return rc;
    rc = record(err);
    if (rc) {
        kinds(cupti.disable);
        cupti.unsubscribe(subscriber);
        subscriber = NULL;
    }
    return rc;
}

void inj_tracer_arm(bool on)
{
    pthread_mutex_lock(&lock);
    armed = on;
    if (on) {
        if (!atomic_load(&other.aside))
            enable_kinds(NULL);
        callbacks(1);
    } else {
        callbacks(0);
        if (!atomic_load(&other.aside)) {
            kinds(cupti.disable);
            cupti.flush_all(FLUSH_FORCED);
        }
    }
    pthread_mutex_unlock(&lock);
}

void inj_tracer_flush(void)
{
    pthread_mutex_lock(&lock);
    if (!atomic_load(&other.aside))
        cupti.flush_all(0);
    pthread_mutex_unlock(&lock);
}

bool inj_tracer_aside(void)
{
    return atomic_load(&other.aside);
}

uint32_t inj_tracer_aside_since(void)
{
    return atomic_load(&other.since);
}

int inj_tracer_poll(void)
{
    static bool was_aside;
    bool aside = atomic_load(&other.aside);
    int change = 0;

    if (aside && !was_aside) {
        was_aside = true;
        return 1;
    }
    if (!aside || atomic_load(&other.kinds) ||
        inj_now_ns() - atomic_load(&other.flushed_ns) < RESUME_AFTER_NS)
        return 0;
    pthread_mutex_lock(&lock);
    if (!atomic_load(&other.kinds)) {
        atomic_store(&other.aside, false);
        if (armed)
            enable_kinds(NULL);
        was_aside = false;
        change = 2;
    }
    pthread_mutex_unlock(&lock);
    return change;
}

void inj_tracer_stop(void)
{
    pthread_mutex_lock(&lock);
    if (!atomic_load(&other.aside))
        cupti.flush_all(0);
    pthread_mutex_unlock(&lock);
}
