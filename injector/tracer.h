/* CUPTI switched on and off: subscription, launch callbacks, activity kinds, and leaving it.
 *
 * A CUPTI that has recorded once costs every launch 0.8 µs and a GPU-bound step 0.6 % (measured on an
 * H100), also with everything switched off, until it is finalized; coming back takes 10 ms. So between
 * bursts of traced steps it is left: the agent switches off, drains, and offers; the training thread
 * takes the offer at a step boundary, where no backward runs. Other threads may call CUDA meanwhile, as
 * NCCL's watchdog does: 400 rounds beside threads that query and launch all the time (tests/gpu/leave.c)
 * lost no record and no call. Not after another profiler was here or CUDA graphs were launched, and not
 * before CUPTI 12.8: finalizing has crashed there. leave=0 keeps it for good.
 *
 * Agent thread, if nothing else is said.
 */
#ifndef INJ_TRACER_H
#define INJ_TRACER_H

#include "profiler/core/base.h"

#include <pthread.h>

/* Held around our own CUPTI calls and around those of another profiler (other.h); never in a launch. */
extern pthread_mutex_t inj_tracer_lock;

/* Binds CUPTI and the driver, redirects libtorch, starts recording. */
int inj_tracer_start(struct mp_err *err);

/* Switches recording and launch callbacks on and off; both are on after the start. Fails when CUPTI was
 * left and cannot be had again. */
int inj_tracer_arm(bool on, struct mp_err *err);

/* Reads what CUPTI has delivered; nothing once it is left or may be, when names are no longer there. */
void inj_tracer_drain(void (*fn)(void *arg, const uint8_t *record), void *arg);

/* Delivers what is complete. */
void inj_tracer_flush(void);

/* Switched off and drained: CUPTI may be left. */
void inj_tracer_offer(void);

/* Training thread, at a step boundary: leaves CUPTI if that is offered and the stream is not captured. */
void inj_tracer_leave(void *stream);

bool inj_tracer_has_left(void);

/* What the last coming and going took, together; 0: CUPTI was never left. */
uint64_t inj_tracer_move_ns(void);

/* For another profiler, under the lock: everything of ours off and delivered; on again. */
void inj_tracer_pause(void);
void inj_tracer_resume(void);

#endif
