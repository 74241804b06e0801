/* Watching a job directory: which guests of a session are there, which of them train, one recorder for
 * each that does. One owner thread. */
#ifndef CLI_FOLLOW_H
#define CLI_FOLLOW_H

#include "report/recorder.h"

struct cli_follow; /* opaque */

/* `out`: the file that the first or rank 0 gets, NULL for default names. Both borrowed. */
struct cli_follow *cli_follow_new(const char *dir, const char *session, const char *out);

/* Looks for new guests, polls the recorders, finishes those whose process is gone. Returns the number
 * of records read. */
size_t cli_follow_poll(struct cli_follow *f);

/* Finishes everything; `end` as in rp_recorder_end. */
void cli_follow_end(struct cli_follow *f, const char *end);
void cli_follow_free(struct cli_follow *f);

/* Processes that are being recorded and still run. */
unsigned cli_follow_active(const struct cli_follow *f);

struct cli_target {
    int pid, rank, world; /* rank -1, world 1: not distributed */
    char path[512];       /* of its profile */
};

/* Those processes; returns how many, of which the first max are in out. */
size_t cli_follow_targets(const struct cli_follow *f, struct cli_target *out, size_t max);

/* What a before/after in that process has done so far, into its profile. */
void cli_follow_ab(struct cli_follow *f, int pid, const struct rp_ab_record *record);

struct cli_follow_result {
    unsigned n_profile; /* written and closed well */
    unsigned n_failed;  /* recordings that failed: each has been said on stderr */
    char why[256];      /* the first reason a guest gave for not recording, or "" */
};

void cli_follow_result(const struct cli_follow *f, struct cli_follow_result *out);

/* The progress line of all recordings; false when there is none. */
bool cli_follow_line(const struct cli_follow *f, char *out, size_t out_bytes);

#endif
