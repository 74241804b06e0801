/* Stand-in for libtorch_cpu.so: the C++ functions that the guest reads, and a profiler that uses CUPTI
 * as Kineto does, through this library's own imports. */
#include "tests/mock/mock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT       __attribute__((visibility("default")))
#define BUFFERS      64
#define BUFFER_BYTES 4096 /* small, so that records spill from one into the next */

struct mock_torch *mock_torch(void);

struct control {
    void *vtable;
    _Atomic int use_count, weak_count;
};

struct shared_ptr {
    void *object;
    struct control *control;
};

struct shared_ptr *_ZN5torch8autograd16get_current_nodeEv(struct shared_ptr *out);
uint64_t _ZN2at15sequence_number4peekEv(void);
uint64_t _ZN2at14RecordFunction15currentThreadIdEv(void);
int mock_kineto_start(void);
struct mock_kineto_seen mock_kineto_stop(void);
int mock_kineto_disable(int which);

EXPORT struct shared_ptr *_ZN5torch8autograd16get_current_nodeEv(struct shared_ptr *out)
{
    static _Thread_local struct control control = {.use_count = 1};
    struct mock_torch *t = mock_torch();

    *out = (struct shared_ptr){0};
    t->use_count = atomic_load(&control.use_count); /* as it stood before this call */
    if (t->node) {
        atomic_fetch_add(&control.use_count, 1);
        *out = (struct shared_ptr){t->node, &control};
    }
    return out;
}

EXPORT uint64_t _ZN2at15sequence_number4peekEv(void)
{
    return mock_torch()->next_seq;
}

EXPORT uint64_t _ZN2at14RecordFunction15currentThreadIdEv(void)
{
    return mock_torch()->thread_id;
}

/* ---- the profiler ---------------------------------------------------------------------------- */

int cuptiSubscribe(void **subscriber, cupti_callback_fn fn, void *user);
int cuptiActivityRegisterCallbacks(cupti_request_fn request, cupti_complete_fn complete);
int cuptiActivityEnable(int kind);
int cuptiActivityDisable(int kind);
int cuptiActivityFlushAll(uint32_t flags);
int cuptiActivityGetNextRecord(uint8_t *buffer, size_t valid_bytes, uint8_t **record);
int cuptiUnsubscribe(void *subscriber);
int cuptiActivityRegisterTimestampCallback(cupti_clock_fn clock);
int cuptiActivitySetAttribute(int attribute, size_t *bytes, void *value);

static const int kind[] = {ACT_CONCURRENT_KERNEL, ACT_MEMCPY};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint8_t *given[BUFFERS];
static struct mock_kineto_seen seen;
static bool recording;
static void *subscriber;

static void no_callback(void *user, int domain, uint32_t cbid, const struct cupti_callback *info)
{
    (void)user;
    (void)domain;
    (void)cbid;
    (void)info;
}

static void request(uint8_t **buffer, size_t *bytes, size_t *max_records)
{
    *max_records = 0;
    *bytes = BUFFER_BYTES;
    *buffer = aligned_alloc(8, BUFFER_BYTES);
    pthread_mutex_lock(&lock);
    for (int i = 0; i < BUFFERS; i++) {
        if (!given[i]) {
            given[i] = *buffer;
            break;
        }
    }
    pthread_mutex_unlock(&lock);
}

static uint64_t ticks(void)
{
    return 12345;
}

/* Buffers for each thread or for all: it sets that before it begins and when it has its records. */
static void per_thread(uint8_t on)
{
    size_t bytes = sizeof on;

    cuptiActivitySetAttribute(10, &bytes, &on);
}

static void count(const uint8_t *record)
{
    uint64_t start_ns;

    memcpy(&start_ns, record + KERNEL_START, 8);
    if (start_ns == UINT64_MAX)
        seen.out_of_window++;
    else if (*(const uint32_t *)(const void *)record == ACT_CONCURRENT_KERNEL)
        seen.kernels++;
    else
        seen.others++;
}

static void complete(void *ctx, uint32_t stream, uint8_t *buffer, size_t bytes, size_t valid_bytes)
{
    uint8_t *record = NULL;
    bool known = false;

    (void)ctx;
    (void)stream;
    (void)bytes;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < BUFFERS && !known; i++) {
        known = given[i] == buffer;
        if (known)
            given[i] = NULL;
    }
    seen.unknown_buffers += !known;
    while (known && cuptiActivityGetNextRecord(buffer, valid_bytes, &record) == CUPTI_OK)
        count(record);
    pthread_mutex_unlock(&lock);
    if (known)
        free(buffer);
}

EXPORT int mock_kineto_start(void)
{
    int rc = cuptiSubscribe(&subscriber, no_callback, NULL);

    if (rc)
        return rc;
    seen = (struct mock_kineto_seen){0};
    rc = cuptiActivityRegisterTimestampCallback(ticks);
    per_thread(1);
    rc = rc ? rc : cuptiActivityRegisterCallbacks(request, complete);
    for (size_t i = 0; !rc && i < countof(kind); i++)
        rc = cuptiActivityEnable(kind[i]);
    recording = !rc;
    return rc;
}

EXPORT int mock_kineto_disable(int which)
{
    return cuptiActivityDisable(which);
}

EXPORT struct mock_kineto_seen mock_kineto_stop(void)
{
    for (size_t i = 0; recording && i < countof(kind); i++)
        seen.refused += cuptiActivityDisable(kind[i]) != CUPTI_OK;
    cuptiActivityFlushAll(FLUSH_FORCED);
    per_thread(0);
    cuptiUnsubscribe(subscriber);
    recording = false;
    return seen;
}
