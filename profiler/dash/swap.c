/* See swap.h; the protocol is injector/CONTROL.md. */
#include "profiler/dash/swap.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define DEAF_NS 2000000000u /* a guest's agent answers within 20 ms; a stopped process never */

enum { HELLO_ID = 1, STATUS_ID, SWAP_ID, CANCEL_ID };

static int send(struct dash_swap *s, uint16_t kind, uint32_t id, const char *name)
{
    struct mp_msg m = {.kind = kind, .id = id, .layer = -1};

    snprintf(m.name, sizeof m.name, "%s", name);
    if (kind == MP_WIRE_CANCEL)
        m.step = s->stage == DASH_SWAP_LOOKING ? STATUS_ID : SWAP_ID;
    return mp_sock_send(&s->sock, &m);
}

static void end(struct dash_swap *s, int code, const char *text)
{
    mp_sock_close(&s->sock);
    s->stage = DASH_SWAP_ENDED;
    s->code = code;
    snprintf(s->text, sizeof s->text, "%s", text);
}

int dash_swap_look(struct dash_swap *s, const char *dir, int pid, uint64_t now_ns,
                   struct mp_err *err)
{
    int rc;

    *s = (struct dash_swap){.pid = pid, .asked_ns = now_ns};
    if ((rc = mp_sock_open(&s->sock, dir, pid, err)))
        return rc;
    s->stage = DASH_SWAP_LOOKING;
    if (send(s, MP_WIRE_HELLO, HELLO_ID, "top " MP_VERSION) ||
        send(s, MP_WIRE_STATUS, STATUS_ID, ""))
        end(s, MP_EGONE, "");
    return MP_OK;
}

bool dash_swap_is_on(const struct dash_swap *s)
{
    return s->n_swapped > 0 || (s->running[0] && strcmp(s->running, "original") != 0);
}

void dash_swap_ask(struct dash_swap *s, bool on, uint64_t now_ns)
{
    s->stage = DASH_SWAP_ASKED;
    s->asked_ns = now_ns;
    if (send(s, MP_WIRE_SWAP, SWAP_ID, on ? "moeprof" : "original"))
        end(s, MP_EGONE, "");
}

void dash_swap_cancel(struct dash_swap *s)
{
    bool waits = s->stage == DASH_SWAP_LOOKING || s->stage == DASH_SWAP_ASKED;

    if (!waits || !s->heard_ns || send(s, MP_WIRE_CANCEL, CANCEL_ID, ""))
        dash_swap_close(s); /* a guest drops what a connection that ended had asked for */
    else
        s->stage = DASH_SWAP_CANCELLING;
}

void dash_swap_close(struct dash_swap *s)
{
    if (s->stage != DASH_SWAP_IDLE)
        mp_sock_close(&s->sock);
    s->stage = DASH_SWAP_IDLE;
}

/* ---- what comes in ------------------------------------------------------------------------------ */

static int count(double v)
{
    return v > 0 && v < 1e6 ? (int)v : 0;
}

static void take_parity(struct dash_swap *s, const struct mp_msg *m)
{
    bool passed = m->flags & MP_WIRE_YES;
    bool was = s->worst.flags & MP_WIRE_YES;

    if (s->n_parity == 0 || (passed == was ? !(m->value[2] <= s->worst.value[2]) : was))
        s->worst = *m;
    s->n_parity++;
    s->n_failed += !passed;
}

static void take_row(struct dash_swap *s, const struct mp_msg *m)
{
    bool no = !(m->flags & MP_WIRE_YES);

    switch (m->kind) {
    case MP_WIRE_STATE:
        memcpy(s->running, m->name, sizeof s->running);
        memcpy(s->own, m->text, sizeof s->own);
        s->n_layer = count(m->value[0]);
        s->n_swappable = count(m->value[1]);
        s->n_swapped = count(m->value[2]);
        break;
    case MP_WIRE_ARM:
        if (no && strcmp(m->name, "moeprof") == 0)
            snprintf(s->why_not, sizeof s->why_not, "%s", m->text);
        break;
    case MP_WIRE_LAYER:
        if (no && !s->why_not[0])
            snprintf(s->why_not, sizeof s->why_not, "layer %d: %s", m->layer, m->text);
        break;
    case MP_WIRE_PARITY:
        take_parity(s, m);
        break;
    default:
        break;
    }
}

static void take_done(struct dash_swap *s, const struct mp_msg *m)
{
    if (m->id == STATUS_ID && s->stage == DASH_SWAP_LOOKING && m->code == MP_OK) {
        s->stage = DASH_SWAP_LOOKED;
    } else if (s->stage == DASH_SWAP_CANCELLING && m->id == SWAP_ID && m->code == MP_OK) {
        s->step = m->step; /* it had been done already */
        memcpy(s->arm, m->name, sizeof s->arm);
        end(s, MP_OK, "");
    } else if (s->stage == DASH_SWAP_CANCELLING) {
        end(s, MP_EGONE, "taken back: nothing was swapped");
    } else if (m->id == SWAP_ID || m->code != MP_OK) {
        s->step = m->step;
        memcpy(s->arm, m->name, sizeof s->arm);
        end(s, m->code, m->code && !m->text[0] ? mp_strcode(m->code) : m->text);
    }
}

bool dash_swap_poll(struct dash_swap *s, uint64_t now_ns)
{
    enum dash_swap_stage before = s->stage;
    struct mp_msg m;
    int rc = MP_OK;

    while (s->stage != DASH_SWAP_IDLE && s->stage != DASH_SWAP_ENDED &&
           (rc = mp_sock_recv(&s->sock, &m, 0)) == MP_OK) {
        s->heard_ns = now_ns;
        if (m.kind == MP_WIRE_DONE)
            take_done(s, &m);
        else if (m.id)
            take_row(s, &m);
    }
    if (rc != MP_OK && rc != MP_EBUSY && rc != MP_EIO)
        end(s, MP_EGONE, "the job closed the connection");
    else if (s->stage == DASH_SWAP_LOOKING && !s->heard_ns && now_ns - s->asked_ns > DEAF_NS)
        end(s, MP_EBUSY, "the process does not answer: is it stopped?");
    return s->stage != before;
}

/* ---- sentences ---------------------------------------------------------------------------------- */

static int parity_text(char *out, size_t n, const struct dash_swap *s)
{
    if (s->n_parity == 0)
        return snprintf(out, n, "Parity was checked before in this job.");
    return snprintf(
        out, n,
        "Parity passed on %u layer%s; the furthest: layer %d, %s, %.2f times as far off "
        "as the job's own.",
        s->n_parity, s->n_parity == 1 ? "" : "s", s->worst.layer, s->worst.name, s->worst.value[2]);
}

void dash_swap_outcome(char *out, size_t n, const struct dash_swap *s)
{
    bool own = strcmp(s->arm, "original") == 0;
    int k;

    if (s->code == MP_OK && own) {
        snprintf(out, n, "The job's own experts%s%s%s run again from step %u on, bit for bit.",
                 s->own[0] ? " (" : "", s->own, s->own[0] ? ")" : "", s->step);
    } else if (s->code == MP_OK) {
        k = snprintf(out, n, "%s runs from step %u on. ", s->arm, s->step);
        if (k > 0 && (size_t)k < n)
            parity_text(out + k, n - (size_t)k, s);
    } else if (s->code == MP_WIRE_EPARITY) {
        snprintf(out, n, "Nothing was swapped, the numbers differ: %s.", s->text);
    } else {
        snprintf(out, n, "%s.", s->text[0] ? s->text : mp_strcode(s->code));
    }
}
