/* See ctl.h. Descriptors and connections belong to the agent; queue, outbox and rows to the lock. */
#include "injector/ctl.h"

#include "injector/guest.h"
#include "injector/sample.h"
#include "profiler/core/sock.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS   8u
#define QUEUE     64u
#define OWN       2u /* places beyond, for what no tool asked: the job's first arm, "original" */
#define ROWS      256u
#define OUT_BYTES (512u << 10) /* rows of two status answers; who leaves more unread is cut off */

struct client {
    int fd;
    uint32_t tag; /* names the connection in tickets; never 0 */
    bool lease, hello;
    size_t n_in, n_out;
    uint8_t in[2 * MP_WIRE_MAX];
    uint8_t *out;
};

struct outgoing {
    struct outgoing *next;
    uint32_t tag; /* 0: everybody */
    size_t n;
    uint8_t frame[MP_WIRE_MAX];
};

static struct client client[CLIENTS]; /* agent */
static int listener = -1, bell = -1;
static uint32_t last_tag;
static char directory[256];
static _Atomic bool woken; /* inj_ctl_kick ends the wait; a ring alone asks to look at the outbox */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct inj_request queue[QUEUE + OWN]; /* in order of arrival */
static size_t n_queue;
static uint64_t running; /* ticket of the request that was taken last and is not done */
static bool running_cancelled;
static _Atomic size_t n_waiting; /* n_queue, to be read without the lock */
static _Atomic bool is_child; /* of a fork: nobody serves, and the lock may never be given back */
static struct outgoing *outbox, **outbox_end = &outbox;
static struct mp_msg *rows;
static size_t n_rows;

static void ring(void)
{
    uint64_t one = 1;

    if (bell >= 0 && write(bell, &one, sizeof one) < 0)
        return; /* it rings already */
}

static void enqueue(uint32_t tag, struct mp_msg *msg, uint32_t id)
{
    struct outgoing *o = malloc(sizeof *o);

    if (!o)
        return;
    msg->id = id;
    o->next = NULL;
    o->tag = tag;
    o->n = mp_wire_pack(o->frame, msg);
    *outbox_end = o;
    outbox_end = &o->next;
}

/* ---- training thread ---------------------------------------------------------------------- */

bool inj_ctl_pending(void)
{
    return atomic_load_explicit(&n_waiting, memory_order_relaxed) != 0;
}

/* Under the lock. */
static void forget_request(size_t i)
{
    n_queue--;
    memmove(queue + i, queue + i + 1, (n_queue - i) * sizeof *queue);
    atomic_store(&n_waiting, n_queue);
}

static bool queue_put(uint64_t ticket, const struct mp_msg *msg)
{
    if (n_queue >= (ticket ? QUEUE : QUEUE + OWN))
        return false;
    queue[n_queue].ticket = ticket;
    queue[n_queue++].msg = *msg;
    atomic_store(&n_waiting, n_queue);
    return true;
}

void inj_ctl_ask(const struct mp_msg *msg)
{
    pthread_mutex_lock(&lock);
    queue_put(0, msg);
    pthread_mutex_unlock(&lock);
}

bool inj_ctl_take(struct inj_request *out, uint32_t step)
{
    size_t i = 0;
    bool due;

    pthread_mutex_lock(&lock);
    while (i < n_queue && (int32_t)(queue[i].msg.step - step) > 0)
        i++;
    due = i < n_queue;
    if (due) {
        *out = queue[i];
        running = out->ticket;
        running_cancelled = false;
        forget_request(i);
    }
    pthread_mutex_unlock(&lock);
    return due;
}

bool inj_ctl_cancelled(void)
{
    bool cancelled;

    if (atomic_load(&is_child))
        return true;
    pthread_mutex_lock(&lock);
    cancelled = running_cancelled;
    pthread_mutex_unlock(&lock);
    return cancelled;
}

void inj_ctl_post(uint64_t ticket, const struct mp_msg *msg)
{
    struct mp_msg copy = *msg;

    if (atomic_load(&is_child))
        return;
    pthread_mutex_lock(&lock);
    if (msg->kind == MP_WIRE_DONE && ticket == running)
        running = 0;
    enqueue((uint32_t)(ticket >> 32), &copy, (uint32_t)ticket);
    pthread_mutex_unlock(&lock);
    ring();
}

void inj_ctl_publish(const struct mp_msg *row, size_t n)
{
    struct mp_msg *copy =
                      n <= ROWS && !atomic_load(&is_child) ? malloc(n * sizeof *copy + 1) : NULL,
                  *old;

    if (!copy)
        return;
    if (n) /* row may be NULL then */
        memcpy(copy, row, n * sizeof *copy);
    pthread_mutex_lock(&lock);
    old = rows;
    rows = copy;
    n_rows = n;
    pthread_mutex_unlock(&lock);
    free(old);
}

/* Under the lock. */
static void status_put(uint32_t tag, uint32_t id)
{
    struct mp_msg done = {.kind = MP_WIRE_DONE, .layer = -1, .step = atomic_load(&inj.step)};

    for (size_t i = 0; i < n_rows; i++)
        enqueue(tag, &rows[i], id);
    enqueue(tag, &done, id);
}

void inj_ctl_status(uint64_t ticket)
{
    pthread_mutex_lock(&lock);
    status_put((uint32_t)(ticket >> 32), (uint32_t)ticket);
    pthread_mutex_unlock(&lock);
    ring();
}

/* ---- agent: one connection ------------------------------------------------------------------ */

static void drop_requests(uint32_t tag)
{
    for (size_t i = n_queue; i-- > 0;)
        if (queue[i].ticket >> 32 == tag)
            forget_request(i);
    running_cancelled |= running && running >> 32 == tag;
}

/* Under the lock. The last one is enough, so that there is always a place for it. */
static void ask_back(void)
{
    struct mp_msg back = {.kind = MP_WIRE_SWAP, .layer = -1, .name = "original"};

    for (size_t i = n_queue; i-- > 0;)
        if (!queue[i].ticket && !strcmp(queue[i].msg.name, back.name))
            forget_request(i);
    queue_put(0, &back);
}

static void hang_up(struct client *c)
{
    close(c->fd);
    free(c->out);
    pthread_mutex_lock(&lock);
    drop_requests(c->tag);
    if (c->lease) {
        ask_back();
        inj_sample_ask("auto");
    }
    pthread_mutex_unlock(&lock);
    memset(c, 0, sizeof *c);
    c->fd = -1;
}

static void answer(struct client *c, struct mp_msg *msg, uint32_t id)
{
    pthread_mutex_lock(&lock);
    enqueue(c->tag, msg, id);
    pthread_mutex_unlock(&lock);
}

static void answer_done(struct client *c, uint32_t id, int code, const char *text)
{
    struct mp_msg done = {
        .kind = MP_WIRE_DONE, .code = code, .layer = -1, .step = atomic_load(&inj.step)};

    snprintf(done.text, sizeof done.text, "%s", text);
    answer(c, &done, id);
}

static void take_hello(struct client *c, const struct mp_msg *m)
{
    struct mp_msg hello = {.kind = MP_WIRE_HELLO,
                           .layer = -1,
                           .step = atomic_load(&inj.step),
                           .flags = MP_WIRE_CAN_SWAP | MP_WIRE_CAN_MEMORY | MP_WIRE_CAN_TRACE,
                           .value = {(double)getpid()},
                           .name = MP_VERSION};

    c->hello = true;
    c->lease = (m->flags & MP_WIRE_LEASE) != 0;
    answer(c, &hello, m->id);
}

static void take_cancel(struct client *c, const struct mp_msg *m)
{
    uint64_t wanted = (uint64_t)c->tag << 32 | m->step;
    bool found = false, runs;

    pthread_mutex_lock(&lock);
    for (size_t i = n_queue; i-- > 0;)
        if (queue[i].ticket == wanted) {
            forget_request(i);
            found = true;
        }
    runs = !found && running == wanted;
    running_cancelled |= runs;
    pthread_mutex_unlock(&lock);
    if (found)
        answer_done(c, m->step, MP_EGONE, "cancelled");
    answer_done(c, m->id, found || runs ? MP_OK : MP_EINVAL,
                found || runs ? "" : "that request does not wait");
}

static void take_request(struct client *c, const struct mp_msg *m)
{
    bool known = false, room = true;

    pthread_mutex_lock(&lock);
    if (m->kind == MP_WIRE_STATUS && rows) {
        status_put(c->tag, m->id);
        known = true;
    }
    if (!known)
        room = queue_put((uint64_t)c->tag << 32 | m->id, m);
    pthread_mutex_unlock(&lock);
    if (!room)
        answer_done(c, m->id, MP_EFULL, "too many requests wait for a step to end");
}

static void take_message(struct client *c, const struct mp_msg *m)
{
    if (m->kind == MP_WIRE_HELLO)
        take_hello(c, m);
    else if (!c->hello || m->id == 0)
        answer_done(c, m->id, MP_EINVAL, "HELLO must come first, and every request needs an id");
    else if (m->version != MP_WIRE_VERSION)
        answer_done(c, m->id, MP_EVERSION,
                    "the guest is of another version of moeprof than the tool");
    else if (m->kind == MP_WIRE_CANCEL)
        take_cancel(c, m);
    else if (m->kind == MP_WIRE_STATUS || m->kind == MP_WIRE_SWAP || m->kind == MP_WIRE_CHECK ||
             m->kind == MP_WIRE_MEMORY || m->kind == MP_WIRE_TRACE)
        take_request(c, m);
    else
        answer_done(c, m->id, MP_ENOTSUP, "unknown request");
}

/* False: the connection is to be cut. */
static bool receive(struct client *c)
{
    ssize_t k = recv(c->fd, c->in + c->n_in, sizeof c->in - c->n_in, MSG_DONTWAIT);
    struct mp_msg m;
    int used;

    if (k <= 0)
        return k < 0 && (errno == EAGAIN || errno == EINTR);
    c->n_in += (size_t)k;
    while ((used = mp_wire_unpack(&m, c->in, c->n_in)) > 0) {
        c->n_in -= (size_t)used;
        memmove(c->in, c->in + used, c->n_in);
        take_message(c, &m);
    }
    return used == 0;
}

static bool transmit(struct client *c)
{
    ssize_t k;

    while (c->n_out) {
        k = send(c->fd, c->out, c->n_out, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0)
            return errno == EAGAIN || errno == EINTR;
        c->n_out -= (size_t)k;
        memmove(c->out, c->out + k, c->n_out);
    }
    return true;
}

/* ---- agent: all of them ---------------------------------------------------------------------- */

static void accept_one(void)
{
    struct client *c = NULL;
    int fd = mp_sock_accept(listener);

    for (size_t i = 0; i < CLIENTS && !c; i++)
        if (client[i].fd < 0)
            c = &client[i];
    if (fd < 0)
        return;
    if (!c || !(c->out = malloc(OUT_BYTES))) {
        close(fd);
        return;
    }
    c->fd = fd;
    c->tag = ++last_tag ? last_tag : ++last_tag;
}

static void hand_over(const struct outgoing *o)
{
    for (size_t i = 0; i < CLIENTS; i++) {
        struct client *c = &client[i];

        if (c->fd < 0 || (o->tag && o->tag != c->tag) || (!o->tag && !c->hello))
            continue;
        if (c->n_out + o->n > OUT_BYTES) {
            hang_up(c);
            continue;
        }
        memcpy(c->out + c->n_out, o->frame, o->n);
        c->n_out += o->n;
    }
}

static void empty_outbox(void)
{
    struct outgoing *o, *next;

    pthread_mutex_lock(&lock);
    o = outbox;
    outbox = NULL;
    outbox_end = &outbox;
    pthread_mutex_unlock(&lock);
    for (; o; o = next) {
        next = o->next;
        hand_over(o);
        free(o);
    }
    for (size_t i = 0; i < CLIENTS; i++)
        if (client[i].fd >= 0 && !transmit(&client[i]))
            hang_up(&client[i]);
}

/* Waits for one thing to happen, and takes it. */
static void serve(int timeout_ms)
{
    struct pollfd p[CLIENTS + 2];
    uint64_t rings;

    p[0] = (struct pollfd){.fd = bell, .events = POLLIN};
    p[1] = (struct pollfd){.fd = listener, .events = POLLIN};
    for (size_t i = 0; i < CLIENTS; i++)
        p[i + 2] = (struct pollfd){.fd = client[i].fd,
                                   .events = (short)(POLLIN | (client[i].n_out ? POLLOUT : 0))};
    if (poll(p, countof(p), timeout_ms) <= 0)
        return;
    for (size_t i = 0; i < CLIENTS; i++)
        if (client[i].fd >= 0 && (p[i + 2].revents & (POLLIN | POLLHUP | POLLERR)) &&
            !receive(&client[i]))
            hang_up(&client[i]);
    if (p[1].revents & POLLIN)
        accept_one();
    if ((p[0].revents & POLLIN) && read(bell, &rings, sizeof rings) < 0)
        return;
}

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void inj_ctl_wait(uint64_t ns)
{
    int64_t end = now_ms() + (int64_t)(ns / 1000000u), left;

    do {
        empty_outbox();
        left = end - now_ms();
        serve(left > 0 ? (int)left : 0);
    } while (left > 0 && !atomic_exchange(&woken, false));
    empty_outbox();
}

void inj_ctl_kick(void)
{
    atomic_store(&woken, true);
    ring();
}

int inj_ctl_init(void)
{
    for (size_t i = 0; i < CLIENTS; i++)
        client[i].fd = -1;
    bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return bell < 0 ? MP_EIO : MP_OK;
}

int inj_ctl_open(const char *dir, struct mp_err *err)
{
    int fd = mp_sock_listen(dir, err);

    if (fd < 0)
        return fd;
    snprintf(directory, sizeof directory, "%s", dir);
    listener = fd;
    return MP_OK;
}

void inj_ctl_close(void)
{
    empty_outbox();
    for (size_t i = 0; i < CLIENTS; i++)
        if (client[i].fd >= 0)
            hang_up(&client[i]);
    if (listener >= 0) {
        close(listener);
        mp_sock_unlink(directory);
    }
    listener = -1;
}

void inj_ctl_forked(void)
{
    atomic_store(&is_child, true);
    atomic_store(&n_waiting, 0);
    if (listener >= 0)
        close(listener);
    if (bell >= 0)
        close(bell);
    for (size_t i = 0; i < CLIENTS; i++)
        if (client[i].fd >= 0)
            close(client[i].fd);
    listener = bell = -1;
}
