/* Stage 1: every launch, on the thread that makes it, inside CUPTI's driver callback. */
#ifndef INJ_LAUNCH_H
#define INJ_LAUNCH_H

#include "injector/cupti_abi.h"
#include "profiler/core/ranges.h"

/* The driver calls, below CB_MAX, that the callback is for. */
bool inj_launch_wants(uint32_t cbid);

/* The subscriber callback. No allocation, lock, CUDA (pure queries once a kernel), CUPTI or Python. */
void inj_launch_callback(void *user, int domain, uint32_t cbid, const struct cupti_callback *info);

/* Replaces the table of weight ranges; the old one is unmapped a generation later. Any one thread
 * under the GIL. */
void inj_launch_set_ranges(struct mp_ranges *ranges);

/* Kernel launches seen. */
uint64_t inj_launch_count(void);

/* CUDA graphs were launched, ever. */
bool inj_launch_graphs(void);

#endif
