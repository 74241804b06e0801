/* See sock.h. */
#include "profiler/core/sock.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 4

static int address_of(struct sockaddr_un *out, const char *dir, int pid, struct mp_err *err)
{
    int n = snprintf(out->sun_path, sizeof out->sun_path, "%s/%d.sock", dir, pid);

    out->sun_family = AF_UNIX;
    if (n < 0 || (size_t)n >= sizeof out->sun_path)
        return mp_fail(err, MP_EINVAL, "job directory '%.100s' is too long for a socket", dir);
    return MP_OK;
}

static bool same_user(int fd, pid_t *pid)
{
    struct ucred peer = {0};
    socklen_t bytes = sizeof peer;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0 || bytes != sizeof peer)
        return false;
    *pid = peer.pid;
    return peer.uid == geteuid();
}

int mp_sock_listen(const char *dir, struct mp_err *err)
{
    struct sockaddr_un at = {0};
    int fd, rc = address_of(&at, dir, (int)getpid(), err);

    if (rc)
        return rc;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return mp_fail(err, MP_EIO, "cannot make a control socket: %s", strerror(errno));
    unlink(at.sun_path);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || chmod(at.sun_path, 0600) != 0 ||
        listen(fd, BACKLOG) != 0) {
        rc = mp_fail(err, MP_EIO, "cannot listen on '%.100s': %s", at.sun_path, strerror(errno));
        close(fd);
        return rc;
    }
    return fd;
}

int mp_sock_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    pid_t pid;

    if (fd < 0)
        return MP_EBUSY;
    if (same_user(fd, &pid))
        return fd;
    close(fd);
    return MP_EPERM;
}

void mp_sock_unlink(const char *dir)
{
    struct sockaddr_un at = {0};

    if (address_of(&at, dir, (int)getpid(), NULL) == MP_OK)
        unlink(at.sun_path);
}

/* ---- tool ---------------------------------------------------------------------------------- */

int mp_sock_open(struct mp_sock *s, const char *dir, int pid, struct mp_err *err)
{
    struct sockaddr_un at = {0};
    pid_t peer = 0;
    int rc = address_of(&at, dir, pid, err);

    s->fd = -1;
    s->n = 0;
    if (rc)
        return rc;
    s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0)
        return mp_fail(err, MP_EIO, "cannot make a socket: %s", strerror(errno));
    if (connect(s->fd, (struct sockaddr *)&at, sizeof at) != 0)
        rc = mp_fail(err, errno == EACCES ? MP_EPERM : MP_EGONE,
                     "cannot reach the guest of process %d: %s", pid, strerror(errno));
    else if (!same_user(s->fd, &peer) || peer != pid) /* a child has inherited the listener */
        rc = mp_fail(err, MP_EPERM, "the socket of process %d is not its own", pid);
    if (rc)
        mp_sock_close(s);
    return rc;
}

void mp_sock_close(struct mp_sock *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

int mp_sock_send(struct mp_sock *s, const struct mp_msg *msg)
{
    uint8_t frame[MP_WIRE_MAX];
    size_t n = mp_wire_pack(frame, msg), sent = 0;
    ssize_t k;

    while (sent < n) {
        k = send(s->fd, frame + sent, n - sent, MSG_NOSIGNAL);
        if (k < 0 && errno != EINTR)
            return MP_EGONE;
        sent += k > 0 ? (size_t)k : 0;
    }
    return MP_OK;
}

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* One message out of what has arrived: 1, 0 when more must come, or MP_EFORMAT. */
static int take(struct mp_sock *s, struct mp_msg *out)
{
    int used = mp_wire_unpack(out, s->in, s->n);

    if (used <= 0)
        return used;
    s->n -= (size_t)used;
    memmove(s->in, s->in + used, s->n);
    return 1;
}

int mp_sock_recv(struct mp_sock *s, struct mp_msg *out, int timeout_ms)
{
    int64_t end = now_ms() + timeout_ms, left;
    int got;
    ssize_t k;

    while ((got = take(s, out)) == 0) {
        left = timeout_ms < 0 ? -1 : end - now_ms();
        if (timeout_ms >= 0 && left < 0)
            left = 0;
        got = poll(&(struct pollfd){.fd = s->fd, .events = POLLIN}, 1, (int)left);
        if (got < 0)
            return MP_EIO;
        if (got == 0)
            return MP_EBUSY;
        k = recv(s->fd, s->in + s->n, sizeof s->in - s->n, 0);
        if (k < 0 && errno == EINTR)
            return MP_EIO;
        if (k <= 0)
            return MP_EGONE;
        s->n += (size_t)k;
    }
    return got < 0 ? got : MP_OK;
}
