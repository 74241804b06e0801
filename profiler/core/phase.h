/* The words time is booked under: phase and pass of a cell. One row in phase.c adds a phase. */
#ifndef MP_PHASE_H
#define MP_PHASE_H

#include "profiler/core/base.h"

enum mp_phase {
    MP_PHASE_OTHER = 0, /* nothing known: the coverage figure is what is not here */
    MP_PHASE_EMBED,
    MP_PHASE_ATTENTION,
    MP_PHASE_NORM,
    MP_PHASE_ROUTER,
    MP_PHASE_DISPATCH,
    MP_PHASE_EXPERT,
    MP_PHASE_COMBINE,
    MP_PHASE_SHARED_EXPERT,
    MP_PHASE_DENSE_MLP,
    MP_PHASE_LM_HEAD,
    MP_PHASE_LOSS,
    MP_PHASE_OPTIMIZER,
    MP_PHASE_GRADIENT, /* gradient accumulation, clipping, unscaling */
    MP_PHASE_COMM,
    MP_PHASE_COPY,
    MP_PHASE_COUNT
};

enum mp_pass {
    MP_PASS_FORWARD = 0,
    MP_PASS_RECOMPUTE, /* replay of a forward under activation checkpointing */
    MP_PASS_BACKWARD,
    MP_PASS_UPDATE,
    MP_PASS_COUNT
};

/* Lower-case names as they stand in files and JSON ("shared_expert"); never NULL. */
const char *mp_phase_name(enum mp_phase phase);
const char *mp_pass_name(enum mp_pass pass);

/* The phase of that name, or -1. */
int mp_phase_parse(const char *name);

#endif
