/* The foil between the guest and libcupti: function pointers found in what the process has mapped.
 * Only the agent thread calls CUPTI, but for get_next_record and dropped, for torch.profiler (other.h),
 * and for leaving CUPTI (tracer.h). */
#ifndef INJ_CUPTI_API_H
#define INJ_CUPTI_API_H

#include "injector/cupti_abi.h"
#include "profiler/core/base.h"

typedef void (*cupti_request_fn)(uint8_t **buffer, size_t *bytes, size_t *max_records);
typedef void (*cupti_complete_fn)(void *ctx, uint32_t stream, uint8_t *buffer, size_t bytes,
                                  size_t valid_bytes);
typedef void (*cupti_callback_fn)(void *user, int domain, uint32_t cbid,
                                  const struct cupti_callback *info);
typedef uint64_t (*cupti_clock_fn)(void); /* CPU side of activity stamps, nanoseconds */

struct inj_cupti {
    int (*get_version)(uint32_t *version);
    int (*subscribe)(void **subscriber, cupti_callback_fn fn, void *user);
    int (*subscribe_v2)(void **subscriber, cupti_callback_fn fn, void *user,
                        void *params); /* 13.0, may be NULL */
    int (*unsubscribe)(void *subscriber);
    int (*enable_callback)(uint32_t enable, void *subscriber, int domain, uint32_t cbid);
    int (*register_callbacks)(cupti_request_fn request, cupti_complete_fn complete);
    int (*enable)(int kind);
    int (*disable)(int kind);
    int (*flush_all)(uint32_t flags);
    int (*get_next_record)(uint8_t *buffer, size_t valid_bytes, uint8_t **record);
    int (*dropped)(void *ctx, uint32_t stream, size_t *n);
    int (*set_attribute)(int attribute, size_t *bytes, void *value);
    int (*register_clock)(cupti_clock_fn clock);
    int (*finalize)(void);
    int (*result_string)(int result, const char **text);
    uint32_t version;
    char path[512];
};

extern struct inj_cupti cupti; /* written by inj_cupti_find, before any other thread reads it */

/* Finds libcupti: the one that libtorch is bound to, else one that is mapped, else (nothing mapped)
 * loads one by name. MP_ENOTSUP with a sentence when there is none. */
int inj_cupti_find(struct mp_err *err);

/* CUPTI's own words for a result. */
const char *inj_cupti_text(int result);

#endif
