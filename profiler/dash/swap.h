/* One talk with a guest about its experts: how it stands, then a swap, as `moeprof swap` does it. Nothing
 * here waits: the dashboard goes on drawing while the job ends its step. */
#ifndef DASH_SWAP_H
#define DASH_SWAP_H

#include "profiler/core/sock.h"

enum dash_swap_stage {
    DASH_SWAP_IDLE = 0,
    DASH_SWAP_LOOKING,    /* asked how it stands */
    DASH_SWAP_LOOKED,     /* answered; the connection is kept for the swap */
    DASH_SWAP_ASKED,      /* to swap */
    DASH_SWAP_CANCELLING, /* taken back, which is not answered yet */
    DASH_SWAP_ENDED       /* see code and text */
};

struct dash_swap {
    enum dash_swap_stage stage;
    struct mp_sock sock;
    int pid;
    uint64_t asked_ns, heard_ns; /* monotonic; heard_ns 0: not one answer yet */
    /* how it stands */
    char running[MP_WIRE_NAME_CAP], own[MP_WIRE_TEXT_CAP]; /* arm that runs, what `original` is */
    int n_layer, n_swappable, n_swapped;
    char why_not[MP_WIRE_TEXT_CAP + 24]; /* a layer or the arm that cannot be; "" */
    /* what came of it */
    unsigned n_parity, n_failed;
    struct mp_msg worst; /* PARITY row, n_parity > 0 */
    int code;            /* of DONE; MP_EGONE also when the connection was lost */
    uint32_t step;
    char arm[MP_WIRE_NAME_CAP], text[MP_WIRE_TEXT_CAP];
};

/* Connects and asks how it stands. MP_EGONE: nobody listens. */
int dash_swap_look(struct dash_swap *s, const char *dir, int pid, uint64_t now_ns,
                   struct mp_err *err);
bool dash_swap_is_on(const struct dash_swap *s); /* another arm than the job's own runs */
/* LOOKED: asks for the swap. */
void dash_swap_ask(struct dash_swap *s, bool on, uint64_t now_ns);
/* Takes what has come; true when the stage changed. */
bool dash_swap_poll(struct dash_swap *s, uint64_t now_ns);
/* Takes back what was asked for, whatever it was; hangs up when there was nothing. */
void dash_swap_cancel(struct dash_swap *s);
void dash_swap_close(struct dash_swap *s);

/* The outcome as one or two sentences: ENDED. */
void dash_swap_outcome(char *out, size_t n, const struct dash_swap *s);

#endif
