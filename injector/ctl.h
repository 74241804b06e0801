/* The guest's side of the control socket (CONTROL.md): connections, the queue of requests, the answers.
 *
 * Two threads meet here. The agent serves the socket inside inj_ctl_wait and never waits for the training
 * thread; the training thread takes requests and posts answers under one short lock, between steps only.
 */
#ifndef INJ_CTL_H
#define INJ_CTL_H

#include "profiler/core/wire.h"

/* A request on its way: the connection it came from, and its message. */
struct inj_request {
    uint64_t ticket; /* connection << 32 | id; what an answer is addressed to */
    struct mp_msg msg;
};

/* ---- agent -------------------------------------------------------------------------------- */

/* Before the first wait. MP_EIO: waits still work, but nothing ends them early. */
int inj_ctl_init(void);

/* Listens in the job directory; once, when a model was found. */
int inj_ctl_open(const char *dir, struct mp_err *err);

/* Serves connections for that long, or until inj_ctl_kick. */
void inj_ctl_wait(uint64_t ns);

/* Cuts connections off and removes the socket. */
void inj_ctl_close(void);

/* ---- any thread ----------------------------------------------------------------------------- */

void inj_ctl_kick(void);

/* In a fork's child: lets go of the descriptors, and nothing else. */
void inj_ctl_forked(void);

/* ---- training thread, between steps ------------------------------------------------------------ */

/* True when a request waits: one relaxed load. */
bool inj_ctl_pending(void);

/* A request of the guest itself (moeprof run --swap): ticket 0, its answer is a line in the log. */
void inj_ctl_ask(const struct mp_msg *msg);

/* The oldest request that is due at this step. */
bool inj_ctl_take(struct inj_request *out, uint32_t step);

/* The request that was taken last, and not answered with DONE since, is not wanted any more. */
bool inj_ctl_cancelled(void);

/* Sends msg to the connection of the ticket, with its id; to every connection for ticket 0. Dropped when
 * nobody is there. */
void inj_ctl_post(uint64_t ticket, const struct mp_msg *msg);

/* What STATUS is answered with from now on: STATE, ARM and LAYER rows. Copied. */
void inj_ctl_publish(const struct mp_msg *row, size_t n);

/* Answers a STATUS that was taken from the queue. */
void inj_ctl_status(uint64_t ticket);

#endif
