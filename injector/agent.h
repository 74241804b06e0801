/* The agent thread: wakes the guest, empties buffers, joins, attributes, publishes.
 * The only thread that calls CUPTI, and the only producer of the shared ring. */
#ifndef INJ_AGENT_H
#define INJ_AGENT_H

#include "profiler/core/base.h"

/* Starts the thread (all signals blocked). MP_ENOMEM. */
int inj_agent_start(void);

/* A model trains: start recording. Any thread. */
void inj_agent_wake(void);

/* Process exit: a last flush, at most 200 ms. */
void inj_agent_stop(void);

#endif
