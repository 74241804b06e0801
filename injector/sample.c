/* See sample.h. */
#include "injector/sample.h"

#include "injector/tracer.h"

#include <string.h>

#define TAIL_NS 1000000000u /* launched before tracing went on, run after: at most this much later */

_Atomic bool inj_tracing;

static int first = 10, on = 4, off = 28; /* 1 of 8 steps */
static _Atomic int mode;
static _Atomic int asked = -1; /* by a tool, in place of mode; -1: nothing */
static _Atomic bool want; /* tracing is to go on at a boundary */
static _Atomic bool armed;
static int left;          /* steps until the next change; owner: training thread */
static _Atomic uint64_t on_ns, off_ns; /* when tracing last went on, off; 0 never */

void inj_sample_init(int first_steps, int on_steps, int off_steps)
{
    if (first_steps <= 0)
        return;
    first = first_steps;
    on = on_steps > 0 ? on_steps : 1;
    off = off_steps > 0 ? off_steps : 0;
}

void inj_sample_mode(enum inj_sample_mode m)
{
    atomic_store(&mode, m);
}

bool inj_sample_ask(const char *word)
{
    int m = strcmp(word, "on") == 0    ? (int)INJ_SAMPLE_ALWAYS
            : strcmp(word, "off") == 0 ? (int)INJ_SAMPLE_NEVER
                                       : -1;

    if (m < 0 && strcmp(word, "auto") != 0)
        return false;
    atomic_store(&asked, m);
    return true;
}

static int mode_now(void)
{
    int m = atomic_load_explicit(&asked, memory_order_relaxed);

    return m >= 0 ? m : atomic_load_explicit(&mode, memory_order_relaxed);
}

bool inj_sample_counts(void)
{
    return mode_now() != INJ_SAMPLE_NEVER;
}

void inj_sample_start(void)
{
    left = first + 1; /* the running step is not whole */
    atomic_store(&armed, true);
    atomic_store(&want, true);
    atomic_store(&on_ns, inj_now_ns());
    atomic_store(&inj_tracing, true);
}

/* What the next steps should be. */
static bool wanted(bool tracing)
{
    switch (mode_now()) {
    case INJ_SAMPLE_ALWAYS:
        left = 0;
        return true;
    case INJ_SAMPLE_NEVER:
        left = 0;
        return false;
    default:
        if (--left > 0)
            return atomic_load(&want);
        if (tracing && off > 0) {
            left = off;
            return false;
        }
        return true; /* `left` is set when tracing goes on: the agent has to arm first */
    }
}

bool inj_sample_boundary(void)
{
    bool was = atomic_load(&inj_tracing), now = wanted(was);

    atomic_store(&want, now);
    if (was && !now) {
        atomic_store(&inj_tracing, false);
        atomic_store(&off_ns, inj_now_ns());
    } else if (!was && now && atomic_load(&armed)) {
        left = on;
        atomic_store(&on_ns, inj_now_ns());
        atomic_store(&inj_tracing, true);
    }
    return was;
}

void inj_sample_round(bool quiet)
{
    if (atomic_load(&want) && !atomic_load(&armed)) {
        inj_tracer_arm(true);
        atomic_store(&armed, true);
    } else if (!atomic_load(&want) && !inj_sample_tracing() && atomic_load(&armed) && quiet) {
        inj_tracer_arm(false);
        atomic_store(&armed, false);
    }
}

bool inj_sample_covers(uint64_t start_ns)
{
    uint64_t went_off = atomic_load(&off_ns);

    if (!went_off || start_ns < went_off)
        return true;
    return inj_sample_tracing() && start_ns > atomic_load(&on_ns) + TAIL_NS;
}
