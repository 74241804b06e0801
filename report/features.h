/* What of the guest works, as a profile keeps it: meta rows "feature.NAME" with "on", "waiting" or
 * "failed: why". */
#ifndef RP_FEATURES_H
#define RP_FEATURES_H

#include "profiler/core/shm.h"
#include "report/profile_file.h"

int rp_features_put(struct rp_profile *p, const struct mp_reader *r, struct mp_err *err);
/* why: a sentence when it failed, else "". A profile that does not say: waiting. */
enum mp_feature_state rp_feature_get(struct rp_profile *p, enum mp_feature feature, char *why,
                                     size_t why_bytes);

#endif
