/* Stage 2: correlation id → what was known at the launch.
 *
 * Direct mapped: CUPTI's ids count up, so slot = id mod capacity keeps the newest MP_CORR_CAP calls
 * and needs no deletion; a record that comes later than that finds a stranger in its slot and is
 * counted as unmatched. A graph launch answers for all its nodes. Owner: agent thread.
 */
#ifndef MP_CORR_H
#define MP_CORR_H

#include "profiler/core/base.h"

struct mp_launch {
    uint64_t time_ns; /* CLOCK_REALTIME at the call */
    uint32_t corr;
    uint32_t step;
    int16_t layer;
    int16_t expert;
    uint8_t phase; /* of the scope, before the kernel's class is known */
    uint8_t pass;
    uint8_t kclass; /* enum mp_kclass */
    uint8_t flags;  /* enum mp_event_flag: OWN, POINTER */
};

/* 2^18 ids = 6 MiB: a launch takes one id (runtime and driver share it) and a record comes within
 * seconds; 57 k launches/s is the most seen. */
#define MP_CORR_LOG2 18
#define MP_CORR_CAP  (1u << MP_CORR_LOG2)

struct mp_corr {
    struct mp_launch slot[MP_CORR_CAP];
};

static inline void mp_corr_put(struct mp_corr *c, const struct mp_launch *launch)
{
    c->slot[launch->corr & (MP_CORR_CAP - 1)] = *launch;
}

static inline const struct mp_launch *mp_corr_get(const struct mp_corr *c, uint32_t corr)
{
    const struct mp_launch *l = &c->slot[corr & (MP_CORR_CAP - 1)];

    return corr && l->corr == corr ? l : NULL;
}

#endif
