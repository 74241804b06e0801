/* How a GPU was set while a job ran: what a run on the same GPU can differ by. In a profile's table meta. */
#ifndef RP_GPU_FACTS_H
#define RP_GPU_FACTS_H

#include "report/profile_file.h"

/* -1 and "" unknown. */
struct rp_gpu_facts {
    char driver[48];
    int64_t power_limit_mw, default_limit_mw, max_sm_clock_mhz;
    int64_t ecc, mig;  /* 1 on */
    int64_t processes; /* that compute on it, the job's own among them */
};

#define RP_GPU_FACTS_UNKNOWN ((struct rp_gpu_facts){"", -1, -1, -1, -1, -1, -1})

/* Each fact under prefix and its name ("gpu_driver"); what is unknown is not written. Within a transaction. */
int rp_gpu_put(struct rp_profile *p, const char *prefix, const struct rp_gpu_facts *g,
               struct mp_err *err);
void rp_gpu_get(struct rp_gpu_facts *out, struct rp_profile *p, const char *prefix);

#endif
