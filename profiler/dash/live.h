/* Running jobs: finds guests in the job directory, drains their rings and feeds the model.
 * A guest that never trained is no job and is not shown, unless its PID was asked for.
 */
#ifndef DASH_LIVE_H
#define DASH_LIVE_H

#include "profiler/dash/model.h"

struct dash_live; /* opaque */

/* pid[0..n_pid-1]: only these; none: all. Borrowed. */
struct dash_live *dash_live_new(const char *dir, const int *pid, size_t n_pid);
void dash_live_free(struct dash_live *live);

/* Looks for jobs that came, and takes note of processes that went. About once a second. */
void dash_live_scan(struct dash_live *live, struct dash_model *m);

/* Reads what was published since the last call. Returns how many records. */
size_t dash_live_drain(struct dash_live *live, struct dash_model *m);

/* Guests that were found in the last scan but have not trained. */
int dash_live_asleep(const struct dash_live *live);

#endif
