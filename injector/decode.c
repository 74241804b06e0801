/* See decode.h. */
#include "injector/decode.h"

#include "injector/cupti_abi.h"

#include <string.h>

static uint32_t u32(const uint8_t *record, size_t offset)
{
    uint32_t v;

    memcpy(&v, record + offset, sizeof v);
    return v;
}

static uint64_t u64(const uint8_t *record, size_t offset)
{
    uint64_t v;

    memcpy(&v, record + offset, sizeof v);
    return v;
}

static void kernel(struct inj_activity *a, const uint8_t *r)
{
    a->kind = MP_KERNEL;
    a->start_ns = u64(r, KERNEL_START);
    a->end_ns = u64(r, KERNEL_END);
    a->stream = u32(r, KERNEL_STREAM);
    a->corr = u32(r, KERNEL_CORR);
    memcpy(&a->name, r + KERNEL_NAME, sizeof a->name);
    if (u64(r, KERNEL_GRAPH_NODE))
        a->flags = MP_FLAG_GRAPH;
}

static void copy(struct inj_activity *a, const uint8_t *r, size_t corr)
{
    uint8_t direction = r[COPY_KIND];

    a->kind = MP_MEMCPY;
    a->bytes = u64(r, COPY_BYTES);
    a->start_ns = u64(r, COPY_START);
    a->end_ns = u64(r, COPY_END);
    a->stream = u32(r, COPY_STREAM);
    a->corr = u32(r, corr);
    a->flags = direction == COPY_HTOD   ? MP_FLAG_HTOD
               : direction == COPY_DTOH ? MP_FLAG_DTOH
                                        : MP_FLAG_DTOD;
}

static void set(struct inj_activity *a, const uint8_t *r)
{
    a->kind = MP_MEMSET;
    a->bytes = u64(r, SET_BYTES);
    a->start_ns = u64(r, SET_START);
    a->end_ns = u64(r, SET_END);
    a->stream = u32(r, SET_STREAM);
    a->corr = u32(r, SET_CORR);
}

bool inj_decode(struct inj_activity *a, const uint8_t *r)
{
    memset(a, 0, sizeof *a);
    switch (u32(r, 0)) {
    case ACT_KERNEL:
    case ACT_CONCURRENT_KERNEL:
        kernel(a, r);
        return true;
    case ACT_MEMCPY:
        copy(a, r, COPY_CORR);
        return true;
    case ACT_MEMCPY_P2P:
        copy(a, r, P2P_CORR);
        return true;
    case ACT_MEMSET:
        set(a, r);
        return true;
    case ACT_OVERHEAD:
        a->kind = MP_OVERHEAD;
        a->start_ns = u64(r, OVERHEAD_START);
        a->end_ns = u64(r, OVERHEAD_END);
        return true;
    default:
        return false;
    }
}
