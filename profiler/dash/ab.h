/* A before/after in the job, as its profile tells it: arms, blocks so far, what they are worth. Read from
 * the profile (while it is being recorded, or afterwards), so that joining late loses nothing. */
#ifndef DASH_AB_H
#define DASH_AB_H

#include "report/ab.h"

struct dash_eval;

#define DASH_AB_BLOCKS 256 /* newest; what a plot can show */

struct dash_ab_arm {
    char name[96]; /* "original (grouped_mm)" */
    enum rp_arm_status status;
    char why[240]; /* unless measured */
    unsigned n_block, n_pair;
    struct mp_val step_ns, mfu; /* median of the counted steps */
    struct mp_val ratio;        /* of rates, arm over base; unknown before two pairs */
    double low, high;           /* its 95 % interval */
    enum rp_verdict verdict;
    char sentence[600];
    /* of the parity check */
    unsigned n_layer, n_failed; /* n_layer 0: not checked */
    struct rp_parity worst;
};

struct dash_ab_block {
    unsigned arm;
    double rate; /* work a second, over the mean of all blocks; NAN: not known yet, or cut */
    bool is_cut;
};

struct dash_ab {
    bool is_known;   /* the profile holds a before/after */
    bool is_running; /* it goes on */
    bool is_settled; /* nothing more will come of it */
    char end[160];   /* why it ended early; "" */
    char parity[400];
    unsigned n_arm, n_left;    /* left: measured by turns */
    size_t n_planned, n_begun; /* blocks of all arms */
    struct dash_ab_arm arm[RP_AB_ARMS];
    struct dash_ab_block block[DASH_AB_BLOCKS]; /* (n_block), oldest first */
    size_t n_block;
    uint64_t seen;    /* what the figures were made of: they are made anew when it changes, .. */
    uint64_t next_ns; /* .. and not before this */
};

/* Brings *ab up to date with what p holds: the record at each call, figures as often as they are cheap. False: no before/after, or none that can be read; *ab is then
 * empty. now_ns: CLOCK_REALTIME; a profile that nobody has written to for a while is not running. */
bool dash_ab_read(struct dash_ab *ab, struct rp_profile *p, const struct dash_eval *eval,
                  uint64_t now_ns);

/* "block 5 of 20: moeprof", "checking the arms' numbers", "done", "ended early: ..". */
void dash_ab_state(char *out, size_t n, const struct dash_ab *ab);

#endif
