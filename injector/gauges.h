/* Clock, power, temperature and memory of the job's GPU, by NVML, on the agent thread. */
#ifndef INJ_GAUGES_H
#define INJ_GAUGES_H

#include "profiler/core/shm.h"

/* Binds NVML to the GPU with that PCI UUID. MP_ENOTSUP when there is no NVML. */
int inj_gauges_start(const char *uuid);

/* Reads the gauges into shm; each that fails leaves its valid bit clear. */
void inj_gauges_read(struct mp_shm *shm);

#endif
