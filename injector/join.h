/* The agent's work on records: launches and GPU activity become events; steps are closed.
 * Owner: agent thread. Pure but for the ring it publishes to, so that recorded streams replay through
 * it in tests. */
#ifndef INJ_JOIN_H
#define INJ_JOIN_H

#include "injector/thread.h"

int inj_join_init(void); /* MP_ENOMEM */

/* Takes the outboxes of all threads. */
void inj_join_launches(struct mp_shm *shm);

/* One CUPTI activity record. */
void inj_join_activity(void *shm, const uint8_t *record);

/* Publishes counts that have arrived and closes the steps that are complete.
 * now_ns: CLOCK_REALTIME; all: close whatever is pending (process exit). */
void inj_join_steps(struct mp_shm *shm, uint64_t now_ns, bool all);

/* Steps from `from` to `to` were (partly) not recorded: they get these flags. */
void inj_join_mark_steps(struct mp_shm *shm, uint32_t from, uint32_t to, unsigned flags);

/* True when no step waits for records of launches. */
bool inj_join_quiet(void);

/* CUPTI was left: names of kernels stand elsewhere when it comes back. */
void inj_join_forget_names(void);

#endif
