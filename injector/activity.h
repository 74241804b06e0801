/* Activity buffers: a fixed pool that CUPTI fills and the agent empties.
 *
 * request and complete run on application threads and on CUPTI's worker; they take and give buffers
 * with atomics alone. The records are read by the agent.
 */
#ifndef INJ_ACTIVITY_H
#define INJ_ACTIVITY_H

#include "injector/cupti_abi.h"
#include "profiler/core/base.h"

/* 1.2k kernel records of 216 bytes: a full buffer comes by itself, twice in a step of 2400 launches, so
 * that CUPTI need not be asked to flush, which holds up launches by milliseconds. */
#define INJ_BUFFER_BYTES (256u << 10)
#define INJ_BUFFER_MAX   64 /* 16 MiB mapped, touched as used; one a launching thread at least */

int inj_activity_init(void); /* MP_ENOMEM */

void inj_activity_request(uint8_t **buffer, size_t *bytes, size_t *max_records);
void inj_activity_complete(void *ctx, uint32_t stream, uint8_t *buffer, size_t bytes,
                           size_t valid_bytes);

/* Agent: calls fn with each record of each full buffer, then gives the buffer back. */
void inj_activity_drain(void (*fn)(void *arg, const uint8_t *record), void *arg);

/* Agent: CUPTI was left, and with it every buffer that it or we held. */
void inj_activity_reset(void);

bool inj_activity_owns(const uint8_t *buffer);

/* Buffers that CUPTI has handed over, ever. */
uint64_t inj_activity_delivered(void);

/* Buffers that were wanted while none was free; each costs the records CUPTI could not store. */
uint64_t inj_activity_starved(void);
/* Records that CUPTI reported as dropped, and those that were of no use. */
uint64_t inj_activity_dropped(void);
void inj_activity_drop(void); /* one of no use */

#endif
