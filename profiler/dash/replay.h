/* A recorded job: reads a profile and feeds the model as if it ran now.
 */
#ifndef DASH_REPLAY_H
#define DASH_REPLAY_H

#include "profiler/dash/model.h"

struct dash_replay; /* opaque */

/* Opens the profile and tells the model what it says about the job. */
int dash_replay_open(struct dash_replay **r, const char *path, struct dash_model *m,
                     struct mp_err *err);
void dash_replay_close(struct dash_replay *r);

/* Called while the replay waits for its clock; true ends it. */
typedef bool (*dash_tick_fn)(void *arg, int wait_ms);

/* Feeds all steps, at `speed` times real time; 0: at once, without a tick. */
int dash_replay_run(struct dash_replay *r, double speed, dash_tick_fn tick, void *arg,
                    struct mp_err *err);

#endif
