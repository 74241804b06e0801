/* See sample.h. */
#include "injector/sample.h"

#include "injector/ctl.h"
#include "injector/join.h"
#include "injector/tracer.h"

#include <string.h>

#define TAIL_NS     1000000000u /* launched before tracing went on, run after: at most so late */
#define LONG_NS     500000000u  /* a burst of long steps is cut short at the next boundary */
#define ARMED_SHARE 16          /* of the time CUPTI is armed in 1/16: it costs 1 to 6 % of that */
#define MOVE_SHARE  500         /* coming back to CUPTI and leaving it take 0.2 % of the time */

_Atomic bool inj_tracing;

static int first = 10, on = 4, off;
static bool paced = true; /* off by time; else by `off` steps, as the job was told */
static _Atomic int mode;
static _Atomic int asked = -1; /* by a tool, in place of mode; -1: nothing */
static _Atomic bool want;      /* tracing is to go on at a boundary */
static _Atomic bool armed;
static int left;                       /* steps until the next change; owner: training thread */
static _Atomic uint64_t on_ns, off_ns; /* when tracing last went on, off; 0 never */
static _Atomic uint64_t armed_ns, disarmed_ns; /* when CUPTI was last armed, disarmed */
static _Atomic bool again;                     /* the burst is not the first one */
static bool offered, lost; /* agent: CUPTI may be left; it could not be had again */

void inj_sample_init(int first_steps, int on_steps, int off_steps)
{
    if (first_steps <= 0)
        return;
    first = first_steps;
    on = on_steps > 0 ? on_steps : 1;
    off = off_steps > 0 ? off_steps : 0;
    paced = false;
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
    atomic_store(&again, false);
    left = first + 1; /* the running step is not whole */
    atomic_store(&armed, true);
    atomic_store(&armed_ns, inj_now_ns());
    atomic_store(&want, true);
    atomic_store(&on_ns, inj_now_ns());
    atomic_store(&inj_tracing, true);
}

/* How long CUPTI is to be off after the last burst, by what that one cost. */
static uint64_t rest_ns(void)
{
    uint64_t by_burst = (atomic_load(&disarmed_ns) - atomic_load(&armed_ns)) * (ARMED_SHARE - 1);
    uint64_t by_move = inj_tracer_move_ns() * MOVE_SHARE;

    return by_burst > by_move ? by_burst : by_move;
}

static bool rested(void)
{
    return !atomic_load(&armed) && inj_now_ns() - atomic_load(&off_ns) > rest_ns();
}

/* Not of one step: only the next traced one tells where a step ended on the GPU. */
static bool long_burst(void)
{
    return atomic_load(&again) && on - left >= 2 && inj_now_ns() - atomic_load(&on_ns) > LONG_NS;
}

static bool wanted_by_time(bool tracing)
{
    if (tracing)
        return --left > 0 && !long_burst();
    return atomic_load(&want) || rested();
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
        if (paced)
            return wanted_by_time(tracing);
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

    if (atomic_exchange(&want, now) != now)
        inj_ctl_kick(); /* the agent arms or drains at once */
    if (was && !now) {
        atomic_store(&inj_tracing, false);
        atomic_store(&off_ns, inj_now_ns());
    } else if (!was && now && atomic_load(&armed)) {
        left = on;
        atomic_store(&again, true);
        atomic_store(&on_ns, inj_now_ns());
        atomic_store(&inj_tracing, true);
    }
    return was;
}

/* Once, when both are known. */
static void tell_pace(void)
{
    static bool told;

    if (told || !inj_tracer_move_ns())
        return;
    told = true;
    inj_log(0, "CUPTI is met and left in %.1f ms: a burst of traced steps every %.1f s%s",
            (double)inj_tracer_move_ns() / 1e6, (double)rest_ns() / 1e9,
            paced ? "" : " would be enough");
}

static void arm(void)
{
    struct mp_err err = {0};

    if (inj_tracer_has_left())
        inj_join_forget_names();
    lost = inj_tracer_arm(true, &err) != MP_OK;
    if (lost) {
        inj_feature_off(MP_FEATURE_CUPTI, "%s", err.msg);
        return;
    }
    offered = false;
    tell_pace();
    atomic_store(&armed_ns, inj_now_ns());
    atomic_store(&armed, true);
}

static void disarm(void)
{
    inj_tracer_arm(false, NULL);
    atomic_store(&armed, false);
    atomic_store(&disarmed_ns, inj_now_ns());
}

void inj_sample_round(bool quiet)
{
    bool wants = atomic_load(&want);

    if (wants && !atomic_load(&armed) && !lost) {
        arm();
    } else if (inj_sample_draining() && quiet) {
        if (atomic_load(&armed)) {
            disarm();
        } else { /* a round later: what that delivered was read */
            inj_tracer_offer();
            offered = true;
        }
    }
}

bool inj_sample_draining(void)
{
    return atomic_load(&on_ns) && !atomic_load(&want) && !inj_sample_tracing() &&
           (atomic_load(&armed) || !offered);
}

/* In a later burst not its first second, nor an earlier burst: CUPTI is armed a little longer than steps
 * are traced, and delivers when it likes. */
bool inj_sample_covers(uint64_t start_ns)
{
    uint64_t went_off = atomic_load(&off_ns);
    bool ended = went_off && !inj_sample_tracing();

    if (atomic_load(&again))
        return start_ns > atomic_load(&on_ns) + TAIL_NS && (!ended || start_ns < went_off);
    return !ended || start_ns < went_off;
}
