/* GPU operations of a profile by start time, with bounded memory: what traces and timelines are made of.
 *
 * A profile keeps records as they arrived: buffer by buffer, each nearly by time. The walk sorts over
 * two chunks at a time (131072 records, 10 MB), which undoes every disorder that buffers make; an
 * operation that comes later than that is handed out late and counted. Routing and step marks are
 * handed out after the operations that came before them. Owner: the caller's thread.
 */
#ifndef RP_EVENTS_H
#define RP_EVENTS_H

#include "report/profile_file.h"

/* Each answers 0 to go on; what else it answers ends the walk and is returned. NULL: not wanted. */
struct rp_events_fn {
    int (*operation)(void *arg, const struct mp_event *event); /* kernel, copy, memset, graph */
    int (*routing)(void *arg, const struct mp_routing *routing);
    int (*mark)(void *arg, const struct mp_step_mark *mark);
    void *arg;
};

struct rp_events_stat {
    uint64_t n_operation;
    uint64_t n_late; /* handed out after one that started later */
    uint64_t n_lost; /* gaps in the recording */
};

/* stat may be NULL. Errors: those of rp_each_chunk, MP_ENOMEM, and what fn answers. */
int rp_events_walk(struct rp_profile *p, const struct rp_events_fn *fn, struct rp_events_stat *stat,
                   struct mp_err *err);

struct rp_timed {
    uint64_t at_ns; /* of an operation: its start; of others: the latest start before them */
    union mp_record record;
};

/* By at_ns, stable. room has n elements too. */
void rp_events_sort(struct rp_timed *item, struct rp_timed *room, size_t n);

#endif
