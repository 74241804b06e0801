/* See ab_link.h. */
#include "profiler/cli/ab_link.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define END_MS 1000 /* from a process's closed sockets to its end */

int ab_links_add(struct ab_links *l, const char *dir, int pid, struct mp_err *err)
{
    int rc;

    if (l->n == AB_RANKS)
        return mp_fail(err, MP_EFULL, "more than %d ranks: a before/after drives no more",
                       AB_RANKS);
    rc = mp_sock_open(&l->sock[l->n], dir, pid, err);
    if (rc == MP_OK)
        l->n++;
    return rc;
}

int ab_links_ask(struct ab_links *l, struct mp_msg msg, int purpose, int about)
{
    struct ab_ask *ask = NULL;
    int rc = MP_OK;

    for (size_t i = 0; i < AB_ASKS && !ask; i++)
        ask = l->ask[i].id ? NULL : &l->ask[i];
    if (!ask)
        return MP_EFULL;
    msg.id = ++l->last_id;
    *ask = (struct ab_ask){.id = msg.id, .n_left = l->n};
    ask->answer = (struct ab_answer){
        .purpose = purpose, .about = about, .flags = UINT32_MAX, .value = {NAN, NAN, NAN, NAN}};
    for (unsigned i = 0; i < l->n && !rc; i++)
        rc = mp_sock_send(&l->sock[i], &msg);
    return rc;
}

static void merge(struct ab_answer *a, const struct mp_msg *msg)
{
    a->step = msg->step > a->step ? msg->step : a->step;
    a->flags &= msg->flags;
    for (size_t i = 0; i < countof(a->value); i++)
        a->value[i] = fmax(a->value[i], msg->value[i]); /* of a number and NaN the number */
    if (a->code == 0)
        snprintf(a->text, sizeof a->text, "%s", msg->text);
    if (a->code == 0)
        a->code = msg->code;
    snprintf(a->name, sizeof a->name, "%s", msg->name);
}

static void take(struct ab_links *l, unsigned rank, const struct mp_msg *msg)
{
    bool ends = msg->kind == MP_WIRE_DONE || msg->kind == MP_WIRE_HELLO;
    struct ab_answer answer;

    if (!ends || msg->id == 0) {
        l->on_row(l->arg, rank, msg);
        return;
    }
    for (size_t i = 0; i < AB_ASKS; i++) {
        struct ab_ask *ask = &l->ask[i];

        if (ask->id != msg->id)
            continue;
        merge(&ask->answer, msg);
        if (--ask->n_left)
            return;
        answer = ask->answer;
        ask->id = 0; /* free before the callback asks anew */
        l->on_answer(l->arg, &answer);
        return;
    }
}

int ab_links_poll(struct ab_links *l)
{
    struct mp_msg msg;
    int rc = MP_OK;

    for (unsigned i = 0; i < l->n; i++) {
        while (l->sock[i].fd >= 0 && (rc = mp_sock_recv(&l->sock[i], &msg, 0)) == MP_OK)
            take(l, i, &msg);
        if (l->sock[i].fd >= 0 && rc != MP_EBUSY && rc != MP_EIO)
            return rc;
    }
    return MP_OK;
}

void ab_links_close(struct ab_links *l)
{
    for (unsigned i = 0; i < l->n; i++)
        mp_sock_close(&l->sock[i]);
    l->n = 0;
}

bool ab_link_is_ending(int pid)
{
    struct pollfd end = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
    int n;

    if (end.fd < 0)
        return errno == ESRCH;
    n = poll(&end, 1, END_MS);
    close(end.fd);
    return n == 1;
}
