/* Which steps are traced. Watching every launch costs a job 1 to 6 % of its step time (measured on an
 * H100: 2.6 % GPU-bound, 2 to 6 % launch-bound, most of it CUPTI's own), so that after the first steps
 * only bursts are traced; in between launches pass untouched and a step has marks, tokens, pairs and
 * routing counts, and the flag MP_STEP_UNTRACED.
 *
 * How long in between follows from what bursts cost this job: armed for 1/16 of the time at most, and
 * 0.2 % of it spent on coming to CUPTI and leaving it (tracer.h).
 *
 * A step is traced whole or not at all: the switch is thrown at step boundaries, on the training
 * thread, by one flag that launch callbacks read. CUPTI itself is armed before and disarmed after, by
 * the agent.
 */
#ifndef INJ_SAMPLE_H
#define INJ_SAMPLE_H

#include "injector/guest.h"

enum inj_sample_mode {
    INJ_SAMPLE_AUTO = 0, /* bursts */
    INJ_SAMPLE_ALWAYS,   /* every step */
    INJ_SAMPLE_NEVER     /* no step, and no routing counts: headline times of a before/after */
};

/* Steps traced at first, then `on` of every on + off, however long they are. Before the start. */
void inj_sample_init(int first, int on, int off);

/* What a tool asks for; holds from a step boundary on. Any thread. */
void inj_sample_mode(enum inj_sample_mode mode);

/* What a tool asks for while it is connected (CONTROL.md, TRACE): "on", "off", or "auto", which is what
 * the job was started with. Returns false for another word. Any thread. */
bool inj_sample_ask(const char *word);

/* Launch callbacks and hooks: is the running step traced? */
extern _Atomic bool inj_tracing;
static inline bool inj_sample_tracing(void)
{
    return atomic_load_explicit(&inj_tracing, memory_order_relaxed);
}

/* Are routing counts wanted? */
bool inj_sample_counts(void);

/* Agent, at the start: CUPTI is armed, the running step is (partly) traced. */
void inj_sample_start(void);

/* Training thread, at the end of a step: true when the ended step was traced. */
bool inj_sample_boundary(void);

/* Agent, each round: arms and disarms CUPTI. quiet: every traced step has been closed. */
void inj_sample_round(bool quiet);

/* Agent: a burst is over and its last records are wanted soon, since CUPTI stays armed until then. */
bool inj_sample_draining(void);

/* Agent: may a GPU operation of that start time belong to a traced step? */
bool inj_sample_covers(uint64_t start_ns);

#endif
