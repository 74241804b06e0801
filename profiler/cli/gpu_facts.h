/* What a before/after has to say of its GPU, from NVML: limits and settings, and who else uses it. */
#ifndef CLI_GPU_FACTS_H
#define CLI_GPU_FACTS_H

#include "report/gpu_facts.h"

/* Of the GPU of process pid, whose guest is in the job directory. Facts that cannot be had stay unknown. */
void cli_gpu_facts(struct rp_gpu_facts *out, const char *dir, int pid);

#endif
