/* CUPTI switched on and off: subscription, launch callbacks, activity kinds, and stepping aside for a
 * profiler that the job itself starts.
 *
 * torch.profiler (Kineto) takes CUPTI's one subscriber and one pair of buffer callbacks for itself.
 * So libtorch's imports of CUPTI are redirected: Kineto gets a subscriber that is a name only, its
 * buffer callbacks are kept beside ours, and while it records, the buffers are its own and our
 * recording pauses. When it has stopped and flushed, ours goes on.
 *
 * Agent thread, except the redirected functions, which run on the thread that calls torch.profiler.
 */
#ifndef INJ_TRACER_H
#define INJ_TRACER_H

#include "profiler/core/base.h"

/* Binds CUPTI and the driver, redirects libtorch, starts recording. */
int inj_tracer_start(struct mp_err *err);

/* Switches recording and launch callbacks on and off; both are on after the start. Agent thread only. */
void inj_tracer_arm(bool on);

/* Delivers what is complete. Agent thread only. */
void inj_tracer_flush(void);

/* True while another profiler records. */
bool inj_tracer_aside(void);

/* The step in which that began, last time. */
uint32_t inj_tracer_aside_since(void);

/* Agent, each round: goes on with our recording when the other profiler is done.
 * Returns 1 when recording has just paused, 2 when it has just resumed, 0 else. */
int inj_tracer_poll(void);

void inj_tracer_stop(void);

#endif
