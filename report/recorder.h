/* From a guest's shared memory to its profile: one recorder a process, one thread for all of them.
 *
 * The caller polls often enough that the ring does not lap (its slack is seconds); what is lapped all
 * the same is counted and stands in the profile as a gap. When the profile can no longer be written
 * (disk full) the recorder says so once, keeps what was committed readable, and goes on reading, so
 * that the progress line stays true. The guest never notices a recorder, nor its death.
 */
#ifndef RP_RECORDER_H
#define RP_RECORDER_H

#include "profiler/core/shm.h"
#include "profiler/core/step.h"
#include "report/ab.h"

struct rp_recorder; /* opaque */

/* Creates the profile. Takes over *reader (open, from the oldest record) also when it fails, except with
 * MP_EBUSY: another recorder writes the profile, and another name may be tried. */
int rp_recorder_new(struct rp_recorder **r, struct mp_reader *reader, const char *path,
                    struct mp_err *err);

/* Reads all that is there, commits about once a second. Returns how many records came. */
size_t rp_recorder_poll(struct rp_recorder *r);

/* The last of it: drains, closes the open steps, writes the totals, closes the profile.
 * `end` says in one word why it ended: "exit", "killed", "stopped". */
void rp_recorder_end(struct rp_recorder *r, const char *end);
void rp_recorder_free(struct rp_recorder *r);

/* What a before/after has done so far, in place of what was there: it can be watched, and survives a kill. */
void rp_recorder_ab(struct rp_recorder *r, const struct rp_ab_record *record);

/* How its GPU is set, once. */
void rp_recorder_gpu(struct rp_recorder *r, const struct rp_gpu_facts *g);

struct rp_status {
    int pid, rank, world;
    const char *path; /* borrowed from the recorder */
    enum mp_guest_state state;
    uint32_t n_step;        /* closed */
    struct mp_val step_s;   /* median of the last steps */
    struct mp_val tokens_s; /* useful tokens per second over them */
    struct mp_val mfu;      /* 0..1 over them */
    uint64_t n_record;
    uint64_t n_dropped; /* by CUPTI, the guest and the ring together */
};

/* Whether nothing can come any more: poll once more after a true. *end: "exit" or "killed". */
bool rp_recorder_is_over(const struct rp_recorder *r, const char **end);

void rp_recorder_status(const struct rp_recorder *r, struct rp_status *out);

/* The sentence when writing has failed, borrowed; else NULL. */
const char *rp_recorder_failure(const struct rp_recorder *r);

#endif
