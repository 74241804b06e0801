/* The control connections to all ranks of a job, driven as one: a request goes to every rank, its answer
 * is complete when every rank has answered, and holds from the latest of their steps. One owner thread;
 * nothing here waits but ab_link_is_ending(). */
#ifndef CLI_AB_LINK_H
#define CLI_AB_LINK_H

#include "profiler/core/sock.h"

#define AB_RANKS 64
#define AB_ASKS  32 /* open at a time; a guest queues 64 */

struct ab_answer {
    int purpose, about; /* as asked */
    uint32_t step;      /* the latest of the ranks */
    int code;           /* of the first rank that failed, or 0 */
    uint32_t flags;     /* common to all */
    double value[4];    /* the largest */
    char name[MP_WIRE_NAME_CAP], text[MP_WIRE_TEXT_CAP];
};

struct ab_ask {
    uint32_t id; /* 0: free */
    unsigned n_left;
    struct ab_answer answer;
};

struct ab_links {
    struct mp_sock sock[AB_RANKS];
    unsigned n;
    uint32_t last_id;
    struct ab_ask ask[AB_ASKS];
    void *arg;
    /* rows of an answer, and notices (id 0); rank: index of the connection */
    void (*on_row)(void *arg, unsigned rank, const struct mp_msg *msg);
    void (*on_answer)(void *arg, const struct ab_answer *answer);
};

/* Adds one connection. MP_EGONE: nobody listens (yet). */
int ab_links_add(struct ab_links *l, const char *dir, int pid, struct mp_err *err);

/* Sends msg to every rank under an id of its own. MP_EFULL: too many are open; MP_EGONE. */
int ab_links_ask(struct ab_links *l, struct mp_msg msg, int purpose, int about);

/* Takes what has come. MP_EGONE or MP_EFORMAT: a connection is lost, and with it the measurement. */
int ab_links_poll(struct ab_links *l);

void ab_links_close(struct ab_links *l);

/* Of a connection that is lost: does its process exit? One that does closes its sockets first, so this
 * gives it a second. */
bool ab_link_is_ending(int pid);

#endif
