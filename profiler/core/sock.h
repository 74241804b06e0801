/* The control socket, both ends: DIR/PID.sock, a UNIX stream of the frames of wire.h.
 *
 * Both ends refuse (MP_EPERM) a peer of another user. Nothing here raises SIGPIPE. The guest uses the
 * descriptors without blocking; the tool's calls wait up to a limit that the caller gives.
 */
#ifndef MP_SOCK_H
#define MP_SOCK_H

#include "profiler/core/wire.h"

/* ---- guest ------------------------------------------------------------------------------- */

/* Listens on dir/PID.sock of this process, in place of a stale one. Returns a non-blocking descriptor. */
int mp_sock_listen(const char *dir, struct mp_err *err);

/* Takes one connection: a non-blocking descriptor, MP_EBUSY when nobody waits, MP_EPERM: refused and closed. */
int mp_sock_accept(int listener);

void mp_sock_unlink(const char *dir);

/* ---- tool ---------------------------------------------------------------------------------- */

struct mp_sock {
    int fd; /* -1: closed */
    size_t n;
    uint8_t in[4 * MP_WIRE_MAX];
};

/* Connects to the guest of process pid and checks who listens. MP_EGONE: nobody does. */
int mp_sock_open(struct mp_sock *s, const char *dir, int pid, struct mp_err *err);
void mp_sock_close(struct mp_sock *s);

/* Sends one message whole. MP_EGONE: the guest is gone. */
int mp_sock_send(struct mp_sock *s, const struct mp_msg *msg);

/* The next message. Waits up to timeout_ms (-1: for ever): MP_EBUSY when none came in time; MP_EGONE at the end
 * of the stream, MP_EFORMAT, or MP_EIO when a signal of the tool's own interrupted it. */
int mp_sock_recv(struct mp_sock *s, struct mp_msg *out, int timeout_ms);

#endif
