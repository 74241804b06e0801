/* What the recorder copies once a second beside the records: facts of the process, counters, gauges,
 * log, names, model description. Private to the recorder. */
#ifndef RP_RECORDER_META_H
#define RP_RECORDER_META_H

#include "profiler/core/shm.h"
#include "report/profile_file.h"
#include "report/spec.h"

struct rp_meta_state {
    bool has_facts;
    uint32_t n_unbalanced; /* steps whose time does not add up: a fault of moeprof, to be told */
    uint64_t n_lapped;     /* lost in the ring, before and since the reader was opened */
    uint32_t n_name;
    char *json;        /* (MP_SPEC_CAP + 1), allocated upon first use */
    size_t json_bytes; /* > 0: not yet in the profile */
    struct rp_spec spec;
    bool has_spec;
    uint64_t log_seen[MP_LOG_CAP]; /* time + count of what is written, by row */
};

void rp_meta_release(struct rp_meta_state *m);
/* Takes a newer model description; true when there was one. */
bool rp_meta_spec(struct rp_meta_state *m, struct mp_reader *reader);
int rp_meta_write(struct rp_meta_state *m, struct mp_reader *reader, struct rp_profile *p,
                  struct mp_err *err);
/* The last rows: the profile is whole, and why it ended. */
int rp_meta_end(struct rp_profile *p, const char *end, struct mp_err *err);
/* Records lost anywhere between the GPU and this reader. */
uint64_t rp_meta_dropped(const struct rp_meta_state *m, const struct mp_reader *reader);

#endif
