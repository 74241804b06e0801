/* See other.h. */
#include "injector/other.h"

#include "injector/activity.h"
#include "injector/cupti_api.h"
#include "injector/elf.h"
#include "injector/guest.h"
#include "injector/tracer.h"

#include <stdatomic.h>
#include <string.h>

#define RESUME_AFTER_NS   500000000u   /* after its last call: it may flush several times */
#define GIVEN_UP_AFTER_NS 10000000000u /* it is off and does not fetch its records */

/* Written under inj_tracer_lock. */
static struct {
    _Atomic(cupti_request_fn) request;
    _Atomic(cupti_complete_fn) complete;
    _Atomic uint64_t kinds; /* bit per activity kind below 64 that it enabled */
    _Atomic bool aside;     /* it records; ours is paused */
    _Atomic bool fetched;   /* a flush since it switched its last kind off */
    _Atomic bool was_here;
    _Atomic uint32_t since;     /* step in which that began */
    _Atomic uint64_t called_ns; /* its last call */
    bool own_clock;             /* stamps are in a clock of its own */
} other;

/* ---- the pair of buffer callbacks ---------------------------------------------------------------- */

void inj_other_request(uint8_t **buffer, size_t *bytes, size_t *max_records)
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

void inj_other_complete(void *ctx, uint32_t stream, uint8_t *buffer, size_t bytes,
                        size_t valid_bytes)
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

/* ---- what libtorch calls instead of CUPTI ------------------------------------------------------------ */

static int its_subscribe(void **sub, cupti_callback_fn fn, void *user)
{
    (void)fn;
    (void)user;
    *sub = &other; /* a name only: Kineto uses callbacks for nothing that we must serve */
    return CUPTI_OK;
}

static int its_unsubscribe(void *sub)
{
    (void)sub;
    return CUPTI_OK;
}

static int its_enable_callback(uint32_t on, void *sub, int domain, uint32_t cbid)
{
    (void)on;
    (void)sub;
    (void)domain;
    (void)cbid;
    return CUPTI_OK;
}

static int its_enable_domain(uint32_t on, void *sub, int domain)
{
    (void)on;
    (void)sub;
    (void)domain;
    return CUPTI_OK;
}

static int its_finalize(void)
{
    return CUPTI_OK; /* would end our recording, and blocks */
}

/* Opens each call that changes what CUPTI does. At the first one what we have so far is delivered to us
 * and everything of ours is off: another clock or another kind of buffers, set while we record, would
 * tear records apart, its first ones included. */
static void its_turn(void)
{
    pthread_mutex_lock(&inj_tracer_lock);
    atomic_store(&other.called_ns, inj_now_ns());
    if (atomic_load(&other.aside))
        return;
    inj_tracer_pause();
    atomic_store(&other.since, atomic_load(&inj.step));
    atomic_store(&other.was_here, true);
    atomic_store(&other.fetched, false);
    atomic_store(&other.aside, true);
}

static int its_turn_ends(int rc)
{
    pthread_mutex_unlock(&inj_tracer_lock);
    return rc;
}

static int its_register(cupti_request_fn req, cupti_complete_fn done)
{
    its_turn();
    atomic_store(&other.request, req);
    atomic_store(&other.complete, done);
    return its_turn_ends(cupti.register_callbacks(inj_other_request, inj_other_complete));
}

static int its_clock(cupti_clock_fn clock)
{
    its_turn();
    other.own_clock = true;
    return its_turn_ends(cupti.register_clock(clock));
}

static int its_attribute(int attribute, size_t *bytes, void *value)
{
    its_turn();
    return its_turn_ends(cupti.set_attribute(attribute, bytes, value));
}

static int its_enable(int kind)
{
    its_turn();
    if (kind >= 0 && kind < 64)
        atomic_fetch_or(&other.kinds, 1ull << kind);
    return its_turn_ends(cupti.enable(kind));
}

static int its_disable(int kind)
{
    if (kind < 0 || kind > 63 || !(atomic_load(&other.kinds) >> kind & 1))
        return CUPTI_OK; /* not on by its doing: it may be on by ours */
    its_turn();
    atomic_fetch_and(&other.kinds, ~(1ull << kind));
    atomic_store(&other.fetched, false);
    return its_turn_ends(cupti.disable(kind));
}

static int its_flush(uint32_t flags)
{
    int rc;

    pthread_mutex_lock(&inj_tracer_lock);
    rc = cupti.flush_all(flags);
    atomic_store(&other.called_ns, inj_now_ns());
    atomic_store(&other.fetched, !atomic_load(&other.kinds));
    pthread_mutex_unlock(&inj_tracer_lock);
    return rc;
}

void inj_other_redirect(void)
{
    static const struct inj_patch patch[] = {
        {"cuptiSubscribe", (void *)its_subscribe},
        {"cuptiUnsubscribe", (void *)its_unsubscribe},
        {"cuptiEnableCallback", (void *)its_enable_callback},
        {"cuptiEnableDomain", (void *)its_enable_domain},
        {"cuptiActivityRegisterCallbacks", (void *)its_register},
        {"cuptiActivityRegisterTimestampCallback", (void *)its_clock},
        {"cuptiActivitySetAttribute", (void *)its_attribute},
        {"cuptiActivityEnable", (void *)its_enable},
        {"cuptiActivityDisable", (void *)its_disable},
        {"cuptiActivityFlushAll", (void *)its_flush},
        {"cuptiFinalize", (void *)its_finalize},
    };

    inj_elf_patch("libtorch_cpu.so", patch, countof(patch));
}

/* ---- its end -------------------------------------------------------------------------------------------- */

bool inj_other_aside(void)
{
    return atomic_load(&other.aside);
}

uint32_t inj_other_since(void)
{
    return atomic_load(&other.since);
}

bool inj_other_was_here(void)
{
    return atomic_load(&other.was_here);
}

static bool done(void)
{
    uint64_t quiet_ns = inj_now_ns() - atomic_load(&other.called_ns);

    return !atomic_load(&other.kinds) &&
           quiet_ns > (atomic_load(&other.fetched) ? RESUME_AFTER_NS : GIVEN_UP_AFTER_NS);
}

int inj_other_poll(void)
{
    static bool was_aside;
    int change = 0;

    if (!inj_other_aside())
        return 0;
    if (!was_aside) {
        was_aside = true;
        return 1;
    }
    pthread_mutex_lock(&inj_tracer_lock);
    if (done()) {
        atomic_store(&other.aside, false);
        if (other.own_clock)
            cupti.register_clock(inj_now_ns);
        inj_tracer_resume();
        was_aside = false;
        change = 2;
    }
    pthread_mutex_unlock(&inj_tracer_lock);
    return change;
}
