/* The profiler that the job itself starts: torch.profiler (Kineto).
 *
 * It takes CUPTI's one subscriber and one pair of buffer callbacks for itself. So libtorch's imports of
 * CUPTI are redirected: Kineto gets a subscriber that is a name only, and its buffer callbacks are kept
 * beside ours. From the first call with which it changes anything until it has fetched its records, our
 * recording pauses, the buffers are its own, and CUPTI does for it what it would do without us.
 *
 * The redirected functions run on the thread that calls torch.profiler.
 */
#ifndef INJ_OTHER_H
#define INJ_OTHER_H

#include "profiler/core/base.h"

/* The pair of buffer callbacks that is registered with CUPTI, whoever records. */
void inj_other_request(uint8_t **buffer, size_t *bytes, size_t *max_records);
void inj_other_complete(void *ctx, uint32_t stream, uint8_t *buffer, size_t bytes,
                        size_t valid_bytes);

/* Once, when ours is registered. */
void inj_other_redirect(void);

/* True while it records. */
bool inj_other_aside(void);

/* The step in which that began, last time. */
uint32_t inj_other_since(void);

/* It has recorded, ever: its trace may point to names that CUPTI holds. */
bool inj_other_was_here(void);

/* Agent, each round: goes on with our recording when it is done.
 * Returns 1 when recording has just paused, 2 when it has just resumed, 0 else. */
int inj_other_poll(void);

#endif
