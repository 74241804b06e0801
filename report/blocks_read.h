/* The steps of a profile as blocks.h wants them, and the gauges over a stretch of time. */
#ifndef RP_BLOCKS_READ_H
#define RP_BLOCKS_READ_H

#include "profiler/core/flops.h"
#include "report/blocks.h"
#include "report/profile_file.h"

struct rp_step_list {
    struct rp_ab_step *step; /* (n), by number */
    size_t n;
};

/* model: NULL when none is known. A step that was not traced lasts from the end of the one before it to
 * its own, by the host clock; a traced one as core/step says. */
int rp_steps_read(struct rp_step_list *out, struct rp_profile *p, const struct mp_model *model,
                  struct mp_err *err);
void rp_steps_release(struct rp_step_list *l);

struct rp_gauge_list {
    struct rp_gauge *gauge; /* (n), by time */
    size_t n;
};

int rp_gauges_read(struct rp_gauge_list *out, struct rp_profile *p, struct mp_err *err);
void rp_gauges_release(struct rp_gauge_list *l);

/* Samples, one a second, added up. */
struct rp_gauge_sum {
    size_t n[RP_GAUGE_COUNT]; /* known samples of each */
    double sum[RP_GAUGE_COUNT], min[RP_GAUGE_COUNT], max[RP_GAUGE_COUNT];
    uint32_t throttle_bits; /* ever seen */
    size_t n_throttled;     /* samples in which something held the clock back */
};

/* Adds the samples from begin to end, both in. */
void rp_gauge_add(struct rp_gauge_sum *s, const struct rp_gauge_list *l, uint64_t begin_ns,
                  uint64_t end_ns);
struct mp_val rp_gauge_mean(const struct rp_gauge_sum *s, enum rp_gauge_id id);
struct mp_val rp_gauge_min(const struct rp_gauge_sum *s, enum rp_gauge_id id);
struct mp_val rp_gauge_max(const struct rp_gauge_sum *s, enum rp_gauge_id id);

/* "power cap, heat"; "" when nothing holds the clock back. */
const char *rp_throttle_text(char out[64], uint32_t bits);

#endif
