/* Which arms of a before/after a job has, which are refused and why. */
#ifndef CLI_AB_ARMS_H
#define CLI_AB_ARMS_H

#include "profiler/core/wire.h"
#include "report/ab.h"

/* A row of STATUS: true when it speaks of arm i, which is refused when the row says so. */
bool ab_arm_row(struct rp_ab_record *r, unsigned i, const struct mp_msg *row);

/* No row spoke of arm i, but of those in known. */
void ab_arm_missing(struct rp_ab_record *r, unsigned i, const char *known);

/* Rows of CHECK about arm i: a layer's parity, and its cosines, which follow it. */
void ab_parity_row(struct rp_ab_record *r, unsigned i, const struct mp_msg *row);
void ab_cosine_row(struct rp_ab_record *r, unsigned i, const struct mp_msg *row);

/* What to say of arm i, with its status. */
void ab_arm_say(struct rp_ab_record *r, unsigned i, enum rp_arm_status status, const char *why);

/* The answer about arm i: measured, parity failed, or what any other code means. */
void ab_arm_answered(struct rp_ab_record *r, unsigned i, enum rp_arm_status otherwise, int code,
                     const char *text);

/* Is arm i what the job runs anyway, or the same as an arm before it? */
bool ab_arm_is_own(const struct rp_ab_record *r, unsigned i);
bool ab_arm_is_again(const struct rp_ab_record *r, unsigned i);

#endif
