/* See activity.h. */
#include "injector/activity.h"

#include "injector/cupti_api.h"
#include "injector/trace.h"

#include <stdatomic.h>
#include <sys/mman.h>

static uint8_t *pool;
static _Atomic uint64_t free_mask;        /* bit i: buffer i is free */
static _Atomic uint64_t full_mask;        /* bit i: buffer i waits for the agent; release */
static size_t full_bytes[INJ_BUFFER_MAX]; /* written before the bit is set */
static uint64_t full_order[INJ_BUFFER_MAX];
static _Atomic uint64_t n_full;
static _Atomic uint64_t n_starved, n_dropped;

int inj_activity_init(void)
{
    void *p;

    if (pool)
        return MP_OK;
    p = mmap(NULL, (size_t)INJ_BUFFER_BYTES * INJ_BUFFER_MAX, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return MP_ENOMEM;
    pool = p;
    atomic_store(&free_mask, UINT64_MAX);
    return MP_OK;
}

bool inj_activity_owns(const uint8_t *buffer)
{
    return pool && buffer >= pool && buffer < pool + (size_t)INJ_BUFFER_BYTES * INJ_BUFFER_MAX;
}

void inj_activity_request(uint8_t **buffer, size_t *bytes, size_t *max_records)
{
    uint64_t mask = atomic_load(&free_mask);
    int i;

    *max_records = 0;
    do {
        if (!mask) { /* CUPTI drops the records and counts them; before 12.9 NULL could crash */
            atomic_fetch_add(&n_starved, 1);
            *buffer = NULL;
            *bytes = 0;
            return;
        }
        i = __builtin_ctzll(mask);
    } while (!atomic_compare_exchange_weak(&free_mask, &mask, mask & ~(1ull << i)));
    *buffer = pool + (size_t)i * INJ_BUFFER_BYTES;
    *bytes = INJ_BUFFER_BYTES;
}

void inj_activity_complete(void *ctx, uint32_t stream, uint8_t *buffer, size_t bytes,
                           size_t valid_bytes)
{
    size_t i = (size_t)(buffer - pool) / INJ_BUFFER_BYTES, dropped = 0;

    (void)bytes;
    if (!inj_activity_owns(buffer))
        return;
    if (cupti.dropped(ctx, stream, &dropped) == CUPTI_OK && dropped)
        atomic_fetch_add(&n_dropped, dropped);
    full_bytes[i] = valid_bytes;
    full_order[i] = atomic_fetch_add(&n_full, 1);
    atomic_fetch_or_explicit(&full_mask, 1ull << i, memory_order_release);
}

void inj_activity_reset(void)
{
    atomic_store(&full_mask, 0);
    atomic_store(&free_mask, UINT64_MAX);
}

static int oldest(uint64_t mask)
{
    int best = -1;

    for (; mask; mask &= mask - 1) {
        int i = __builtin_ctzll(mask);

        if (best < 0 || full_order[i] < full_order[best])
            best = i;
    }
    return best;
}

void inj_activity_drain(void (*fn)(void *arg, const uint8_t *record), void *arg)
{
    uint64_t mask;

    while ((mask = atomic_load_explicit(&full_mask, memory_order_acquire))) {
        int i = oldest(mask);
        uint8_t *buffer = pool + (size_t)i * INJ_BUFFER_BYTES, *record = NULL;

        if (inj_trace_on())
            inj_trace_buffer(buffer, full_bytes[i], cupti.get_next_record);
        while (cupti.get_next_record(buffer, full_bytes[i], &record) == CUPTI_OK)
            fn(arg, record);
        atomic_fetch_and(&full_mask, ~(1ull << i));
        atomic_fetch_or(&free_mask, 1ull << i);
    }
}

uint64_t inj_activity_delivered(void)
{
    return atomic_load(&n_full);
}

uint64_t inj_activity_starved(void)
{
    return atomic_load(&n_starved);
}

void inj_activity_drop(void)
{
    atomic_fetch_add(&n_dropped, 1);
}

uint64_t inj_activity_dropped(void)
{
    return atomic_load(&n_dropped);
}
