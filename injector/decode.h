/* Stage 3: CUPTI's activity records → neutral events. Sole reader of their layout. Agent thread. */
#ifndef INJ_DECODE_H
#define INJ_DECODE_H

#include "profiler/core/event.h"

struct inj_activity {
    uint64_t start_ns, end_ns;
    uint64_t bytes;   /* copies and memsets */
    const char *name; /* kernels; CUPTI's, lives as long as the process */
    uint32_t corr;
    uint32_t stream;
    uint8_t kind;  /* enum mp_kind */
    uint8_t flags; /* enum mp_event_flag: direction of a copy, GRAPH */
};

/* False for kinds that are not used. */
bool inj_decode(struct inj_activity *out, const uint8_t *record);

#endif
