/* The guest's one state, and who owns what.
 *
 * Threads: application threads (launch callback, Python hooks), the agent thread (everything else),
 * CUPTI's worker (hands over full buffers). Nothing here may exit, print, or wait on the application.
 */
#ifndef INJ_GUEST_H
#define INJ_GUEST_H

#include "profiler/core/shm.h"

/* From MOEPROF="key=value,..."; read once at start. */
struct inj_opts {
    char dir[200];      /* job directory; "" the default */
    char session[40];   /* of the `moeprof run` that launched us */
    char trace[200];    /* file that takes the raw event stream (tests), "" none */
    char swap[64];      /* experts implementation to swap in as soon as there is a step, "" none */
    char bad_steps[48]; /* steps= that means nothing: said once the job trains; "" none */
    bool leave;         /* leave CUPTI between bursts of traced steps; the default */
    bool no_cuda;       /* never start CUPTI: CPU tensors only (tests) */
};

struct inj_guest {
    struct inj_opts opts;
    char dir[256];                /* resolved job directory */
    _Atomic int life;             /* enum inj_life */
    _Atomic uint32_t step;        /* written by the thread that runs the optimizer */
    _Atomic uint32_t stage;       /* enum inj_stage: where in the step code outside all scopes is */
    _Atomic(struct mp_shm *) shm; /* set once, never unset while threads run */
};

enum inj_life { INJ_UNBORN = 0, INJ_ALIVE, INJ_DEAD /* forked child, or gave up */ };

enum inj_stage {
    INJ_STAGE_DATA = 0, /* after the update, before the next forward */
    INJ_STAGE_LOSS,     /* the model returned */
    INJ_STAGE_GRADIENT  /* the backward ran */
};

extern struct inj_guest inj;

static inline bool inj_alive(void)
{
    return atomic_load_explicit(&inj.life, memory_order_relaxed) == INJ_ALIVE;
}

/* The shared file, made at first need (a model trains, or something failed that a user must see);
 * NULL when it cannot be had, after one attempt. Any thread but never a launch callback. */
struct mp_shm *inj_shm(void);

/* Switches a feature off for good and says why, once. Any thread but never a launch callback. */
void inj_feature_off(enum mp_feature feature, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void inj_feature_on(enum mp_feature feature);
void inj_log(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Nanoseconds of CLOCK_REALTIME: the clock that CUPTI's stamps are in. */
uint64_t inj_now_ns(void);

#endif
