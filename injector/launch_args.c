/* See launch_args.h. */
#include "injector/launch_args.h"

#include "injector/cupti_abi.h"

#include <string.h>

#define SCAN_MAX_BYTES 4096 /* the driver's own limit before 12.1; weights stand early */

static size_t scanned(size_t bytes)
{
    return bytes < SCAN_MAX_BYTES ? bytes : SCAN_MAX_BYTES;
}

/* Nearly every word is outside all ranges, so that test is made here. A weight of another
 * layer than the one asked for is a word left over from another launch. */
static bool scan_words(const struct mp_ranges *r, const void *bytes, size_t n, int layer,
                       struct mp_hit *hit)
{
    uint64_t lo = r->lo, span = r->hi - r->lo;

    for (size_t i = 0; i + 8 <= n; i += 8) {
        uint64_t word;

        memcpy(&word, (const char *)bytes + i, 8);
        if (word - lo < span && mp_ranges_find(r, word, hit) &&
            (layer == INJ_ANY_LAYER || hit->layer == layer))
            return true;
    }
    return false;
}

const void *inj_args_extra(void **extra, size_t *bytes)
{
    const void *buffer = NULL;

    *bytes = 0;
    for (int i = 0; i < 8 && (uintptr_t)extra[i] != EXTRA_END; i += 2) {
        if ((uintptr_t)extra[i] == EXTRA_POINTER)
            buffer = extra[i + 1];
        else if ((uintptr_t)extra[i] == EXTRA_SIZE)
            *bytes = *(const size_t *)extra[i + 1];
    }
    return buffer;
}

bool inj_args_weight(struct mp_hit *hit, const struct mp_ranges *r, const struct inj_func *f,
                     const struct inj_args *a, int layer)
{
    const void *buffer;
    size_t bytes;

    if (!a->params) {
        buffer = a->extra ? inj_args_extra(a->extra, &bytes) : NULL;
        return buffer && scan_words(r, buffer, scanned(bytes), layer, hit);
    }
    for (unsigned i = 0; i < f->n_param; i++)
        if (scan_words(r, a->params[i], scanned(f->param_bytes[i]), layer, hit))
            return true;
    return false;
}
