/* The guest's state and its voice: features and sentences for top and doctor. */
#include "injector/guest.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct inj_guest inj = {.opts.leave = true};

/* Creation and the log; never in a launch. */
static pthread_mutex_t shm_lock = PTHREAD_MUTEX_INITIALIZER;
static bool shm_tried;

uint64_t inj_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static struct mp_shm *create(void)
{
    struct mp_shm *shm = NULL;
    struct mp_err err;

    if (mp_shm_dir(inj.dir, sizeof inj.dir, inj.opts.dir, &err) ||
        mp_shm_create(&shm, inj.dir, &err)) {
        /* the only place without a better one: nobody can see a sentence in a file that is not there */
        fprintf(stderr, "moeprof: this job is not recorded: %s\n", err.msg);
        return NULL;
    }
    snprintf(shm->session, sizeof shm->session, "%s", inj.opts.session);
    atomic_store(&shm->state, MP_GUEST_ASLEEP);
    return shm;
}

struct mp_shm *inj_shm(void)
{
    struct mp_shm *shm = atomic_load_explicit(&inj.shm, memory_order_acquire);

    if (shm || !inj_alive())
        return shm;
    pthread_mutex_lock(&shm_lock);
    shm = atomic_load(&inj.shm);
    if (!shm && !shm_tried) {
        shm_tried = true;
        shm = create();
        atomic_store_explicit(&inj.shm, shm, memory_order_release);
    }
    pthread_mutex_unlock(&shm_lock);
    return shm;
}

void inj_feature_off(enum mp_feature feature, const char *fmt, ...)
{
    struct mp_shm *shm = inj_shm();
    char text[156];
    va_list ap;

    if (!shm || atomic_load(&shm->feature[feature].state) == MP_FEATURE_FAILED)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&shm_lock);
    mp_shm_feature(shm, feature, MP_FEATURE_FAILED, text);
    mp_shm_log(shm, 2, text);
    pthread_mutex_unlock(&shm_lock);
}

void inj_feature_on(enum mp_feature feature)
{
    struct mp_shm *shm = inj_shm();

    if (shm && atomic_load(&shm->feature[feature].state) == MP_FEATURE_WAITING)
        mp_shm_feature(shm, feature, MP_FEATURE_ON, "");
}

void inj_log(int level, const char *fmt, ...)
{
    struct mp_shm *shm = inj_shm();
    char text[176];
    va_list ap;

    if (!shm)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&shm_lock);
    mp_shm_log(shm, level, text);
    pthread_mutex_unlock(&shm_lock);
}
