/* Which profile a running job is recorded into: DIR/PID.moeprof in the job directory is a symbolic link
 * to it, there as long as somebody records. Lets a dashboard find the run's whole history. Any thread. */
#ifndef RP_PROFILE_LINK_H
#define RP_PROFILE_LINK_H

#include "profiler/core/base.h"

/* Points the link at path, in place of one that was left over. Failing is no error: the recording stands. */
void rp_link_put(const char *dir, int pid, const char *path);
void rp_link_remove(const char *dir, int pid);

/* The absolute path of the profile; false and "" when nobody records. */
bool rp_link_get(char *out, size_t n, const char *dir, int pid);

#endif
