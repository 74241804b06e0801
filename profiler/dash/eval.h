/* From a step to its figures, by the model's description and the GPU's peak: where the dashboard meets
 * core/flops, core/mfu and report/spec. One a job, owned by whoever feeds the job.
 */
#ifndef DASH_EVAL_H
#define DASH_EVAL_H

#include "profiler/core/mfu.h"
#include "profiler/dash/job.h"
#include "report/spec.h"

struct dash_eval {
    struct rp_spec spec;
    bool has_spec;
    struct mp_peak peak;
    char gpu_name[96];
    int gpu_cc, gpu_sm_count; /* 0 unknown */
    uint64_t host_end_ns;     /* of the step before, number step_before */
    uint32_t step_before;
};

void dash_eval_release(struct dash_eval *e);

void dash_eval_gpu(struct dash_eval *e, const char *name, int cc, int sm_count);

/* A new description, which is also told to the job as facts for people. */
void dash_eval_describe(struct dash_eval *e, struct dash_job *job, const char *json, size_t bytes);

/* Steps in their order. One that was not watched lasts from the end of the one before it to its own. */
void dash_eval_step(struct dash_eval *e, const struct mp_step *step, struct dash_figures *out);

#endif
