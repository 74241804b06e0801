/* The course of a before/after: waits for the job to train, looks at its arms, checks their numbers, runs
 * the blocks, restores the job. Driven by ab_drive_tick from the loop that records the job; never waits.
 *
 * Everything of a block is asked for ahead and by step, while the block before it runs: the switch, the
 * start of the memory peaks, tracing for the steps behind the counted ones. What an answer says is what
 * counts; a request that came late only makes a block longer.
 */
#ifndef CLI_AB_DRIVE_H
#define CLI_AB_DRIVE_H

#include <time.h>

#include "profiler/cli/ab_link.h"
#include "profiler/cli/follow.h"
#include "report/ab.h"

struct ab_options {
    char arm[RP_AB_ARMS][RP_AB_NAME];
    unsigned n_arm;
    uint32_t n_block, n_step, n_drop, n_traced, n_warmup;
    uint64_t seed;
};

enum ab_stage { AB_WAIT = 0, AB_GREET, AB_LOOK, AB_CHECK, AB_RUN, AB_RESTORE, AB_DONE };

struct ab_drive {
    const struct ab_options *o;
    const char *dir; /* job directory */
    struct ab_links links;
    enum ab_stage stage;
    struct rp_ab_record record; /* the caller's after AB_DONE */
    struct rp_plan_slot *slot;  /* (n_slot), of the arms that are left */
    size_t n_slot, n_begun;     /* blocks switched to */
    size_t n_asked;             /* blocks asked for */
    unsigned n_busy;            /* answers that a graph is being captured */
    unsigned checked;           /* arms looked at by CHECK */
    uint32_t caps, step;        /* MP_WIRE_CAN_*, newest step heard of */
    uint32_t untraced_from;     /* since when tracing is off */
    uint32_t reset_at;          /* when the memory peaks began anew */
    bool is_listed[RP_AB_ARMS]; /* STATUS named it */
    bool is_told;               /* the profile holds the record as it is */
    struct mp_err wait;         /* why nothing could be asked until now; "" nothing trains */
    time_t trains_since;        /* ab_now_s; 0: nothing trains */
    bool is_wait_said;
    char path[512]; /* the profile of rank 0 */
    int pid;
};

/* Monotonic seconds, never 0. */
time_t ab_now_s(void);

int ab_drive_init(struct ab_drive *d, const struct ab_options *o, const char *dir,
                  struct mp_err *err);
/* True when nothing is left to do. */
bool ab_drive_tick(struct ab_drive *d, struct cli_follow *f);
/* The job is gone, or somebody pressed Ctrl-C: closes the record as it is. */
void ab_drive_stop(struct ab_drive *d, const char *why);
void ab_drive_free(struct ab_drive *d);

#endif
