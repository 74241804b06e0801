/* Stand-in for libcupti: one subscriber, one pair of buffer callbacks, records that go into the buffer
 * it was given and come back when that is full or flushed. Version and failures are the test's choice. */
#include "tests/mock/mock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
enum { BAD_KIND = 2, BUSY = CUPTI_MULTIPLE_SUBSCRIBERS, NOT_INITIALIZED = 15, INVALID = 1 };

static struct mock_cupti m = {.version = 130001};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint8_t *buffer; /* being filled */
static size_t cap, used;
static _Atomic bool down; /* the process ends: whoever calls now would crash in the real one */

struct mock_cupti *mock_cupti(void);
void mock_cupti_call(uint32_t cbid, const void *params, const char *symbol, uint32_t corr);
void mock_cupti_record(const void *record, size_t bytes);
void mock_cupti_kernel(uint32_t corr, const char *name, uint64_t start_ns, uint64_t end_ns);
int cuptiGetVersion(uint32_t *version);
int cuptiSubscribe(void **subscriber, cupti_callback_fn fn, void *user);
int cuptiSubscribe_v2(void **subscriber, cupti_callback_fn fn, void *user, void *params);
int cuptiUnsubscribe(void *subscriber);
int cuptiEnableCallback(uint32_t enable, void *subscriber, int domain, uint32_t cbid);
int cuptiEnableDomain(uint32_t enable, void *subscriber, int domain);
int cuptiActivityRegisterCallbacks(cupti_request_fn request, cupti_complete_fn complete);
int cuptiActivityEnable(int kind);
int cuptiActivityDisable(int kind);
int cuptiActivityFlushAll(uint32_t flags);
int cuptiActivityGetNextRecord(uint8_t *from, size_t valid_bytes, uint8_t **record);
int cuptiActivityGetNumDroppedRecords(void *ctx, uint32_t stream, size_t *n);
int cuptiActivitySetAttribute(int attribute, size_t *bytes, void *value);
int cuptiActivityRegisterTimestampCallback(cupti_clock_fn clock);
int cuptiGetResultString(int result, const char **text);
int cuptiFinalize(void);

EXPORT struct mock_cupti *mock_cupti(void)
{
    static bool asked;
    const char *holder = getenv("MOCK_CUPTI_HOLDER");

    if (!asked && holder) /* for programs that cannot call us */
        snprintf(m.holder, sizeof m.holder, "%s", holder);
    asked = true;
    return &m;
}

/* As the real one, it takes itself down among the process's exit handlers, long before libraries end. */
static void take_down(void)
{
    atomic_store(&down, true);
}

static void at_end(void)
{
    atexit(take_down);
}

static void enter(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    if (atomic_load(&down)) {
        fprintf(stderr, "CUPTI was called after its end\n");
        abort();
    }
    pthread_once(&once, at_end);
}

/* ---- subscriber ------------------------------------------------------------------------------- */

EXPORT int cuptiGetVersion(uint32_t *version)
{
    *version = mock_cupti()->version;
    return CUPTI_OK;
}

EXPORT int cuptiSubscribe(void **subscriber, cupti_callback_fn fn, void *user)
{
    enter();
    if (m.subscribe_result)
        return m.subscribe_result;
    if (mock_cupti()->holder[0] || m.subscriber)
        return BUSY;
    m.callback = fn;
    m.user = user;
    m.subscriber = *subscriber = &m;
    return CUPTI_OK;
}

EXPORT int cuptiSubscribe_v2(void **subscriber, cupti_callback_fn fn, void *user, void *params)
{
    struct {
        size_t struct_bytes;
        const char *name;
        char *old_name;
        size_t old_name_bytes;
    } *p = params;
    int rc = cuptiSubscribe(subscriber, fn, user);

    if (m.version < 130000)
        return NOT_INITIALIZED; /* not in that library at all */
    if (rc == BUSY)
        snprintf(p->old_name, p->old_name_bytes, "%s", m.holder);
    return rc;
}

EXPORT int cuptiUnsubscribe(void *subscriber)
{
    enter();
    if (!subscriber || subscriber != m.subscriber)
        return INVALID;
    m.subscriber = NULL;
    m.callback = NULL;
    for (unsigned cbid = 0; cbid < CB_MAX; cbid++)
        m.callback_on[cbid] = false;
    return CUPTI_OK;
}

EXPORT int cuptiEnableCallback(uint32_t enable, void *subscriber, int domain, uint32_t cbid)
{
    enter();
    if (subscriber != m.subscriber || domain != DOMAIN_DRIVER || cbid >= CB_MAX)
        return INVALID;
    m.callback_on[cbid] = enable;
    return CUPTI_OK;
}

EXPORT int cuptiEnableDomain(uint32_t enable, void *subscriber, int domain)
{
    (void)enable;
    (void)domain;
    return subscriber == m.subscriber ? CUPTI_OK : INVALID;
}

EXPORT void mock_cupti_call(uint32_t cbid, const void *params, const char *symbol, uint32_t corr)
{
    struct cupti_callback info = {.params = params, .symbol_name = symbol, .correlation = corr};
    cupti_callback_fn callback = m.callback;

    for (int site = SITE_ENTER; site <= SITE_EXIT; site++) {
        info.site = site;
        if (callback && cbid < CB_MAX && m.callback_on[cbid])
            callback(m.user, DOMAIN_DRIVER, cbid, &info);
    }
}

/* ---- activity ---------------------------------------------------------------------------------- */

EXPORT int cuptiActivityRegisterCallbacks(cupti_request_fn request, cupti_complete_fn complete)
{
    enter();
    if (m.register_result)
        return m.register_result;
    m.request = request; /* whoever was there before is replaced, unasked */
    m.complete = complete;
    m.n_register++;
    return CUPTI_OK;
}

/* While kinds are on, records between two looks at the clock are stamped by a mixture of the old and the new. */
EXPORT int cuptiActivityRegisterTimestampCallback(cupti_clock_fn clock)
{
    enter();
    if (!clock)
        return INVALID;
    m.clock = clock;
    m.torn = m.kinds ? 51 : 0;
    return CUPTI_OK;
}

EXPORT int cuptiActivityEnable(int kind)
{
    enter();
    if (m.enable_result)
        return m.enable_result;
    if (kind < 1 || kind > 63)
        return BAD_KIND;
    m.kinds |= 1ull << kind;
    return CUPTI_OK;
}

EXPORT int cuptiActivityDisable(int kind)
{
    enter();
    if (kind < 1 || kind > 63)
        return BAD_KIND;
    m.kinds &= ~(1ull << kind);
    return CUPTI_OK;
}

/* Hands the buffer over; the callback may ask for anything, so no lock is held then. */
static void hand_over(void)
{
    uint8_t *full = buffer;
    size_t bytes = cap, valid = used;
    cupti_complete_fn complete = m.complete;

    buffer = NULL;
    pthread_mutex_unlock(&lock);
    if (full && complete)
        complete(NULL, 0, full, bytes, valid);
    pthread_mutex_lock(&lock);
}

EXPORT int cuptiActivityFlushAll(uint32_t flags)
{
    (void)flags;
    enter();
    usleep((unsigned)m.hang_ms * 1000);
    pthread_mutex_lock(&lock);
    m.n_flush++;
    if (!m.keeps_on_flush)
        hand_over();
    pthread_mutex_unlock(&lock);
    return CUPTI_OK;
}

EXPORT void mock_cupti_record(const void *record, size_t bytes)
{
    uint32_t kind;
    size_t max = 0;
    cupti_request_fn request = m.request;

    memcpy(&kind, record, sizeof kind);
    if (!(m.kinds >> kind & 1) || !request)
        return;
    pthread_mutex_lock(&lock);
    if (buffer && used + bytes > cap)
        hand_over();
    if (!buffer) {
        used = 0;
        request(&buffer, &cap, &max);
    }
    if (buffer && used + bytes <= cap) {
        memcpy(buffer + used, record, bytes);
        if (m.torn) {
            memset(buffer + used + KERNEL_START, 0xff, 8);
            m.torn--;
        }
        used += bytes;
    } else {
        m.dropped++;
    }
    pthread_mutex_unlock(&lock);
}

static size_t bytes_of(uint32_t kind)
{
    if (kind < 64 && m.record_bytes[kind])
        return m.record_bytes[kind];
    switch (kind) {
    case ACT_KERNEL:
    case ACT_CONCURRENT_KERNEL:
        return m.version >= 130100 ? 224 : m.version >= 130000 ? 216 : 208;
    case ACT_MEMCPY:
        return m.version >= 26 ? 96 : 88;
    case ACT_MEMCPY_P2P:
        return 96;
    case ACT_MEMSET:
        return 88;
    case ACT_OVERHEAD:
        return 56;
    default:
        return 0;
    }
}

/* Names are CUPTI's own and end with it; another's may then stand where they stood. */
static char arena[1 << 14];
static size_t arena_used;

static const char *keep(const char *name)
{
    static size_t at;

    for (at = 0; at < arena_used; at += strlen(arena + at) + 1)
        if (strcmp(arena + at, name) == 0)
            return arena + at;
    if (arena_used + strlen(name) + 1 > sizeof arena)
        return name;
    arena_used += strlen(strcpy(arena + at, name)) + 1;
    return arena + at;
}

EXPORT void mock_cupti_kernel(uint32_t corr, const char *name, uint64_t start_ns, uint64_t end_ns)
{
    uint8_t r[224] = {ACT_CONCURRENT_KERNEL};
    uint32_t stream = 7;

    memcpy(r + KERNEL_START, &start_ns, 8);
    memcpy(r + KERNEL_END, &end_ns, 8);
    memcpy(r + KERNEL_STREAM, &stream, 4);
    memcpy(r + KERNEL_CORR, &corr, 4);
    pthread_mutex_lock(&lock);
    name = keep(name);
    pthread_mutex_unlock(&lock);
    memcpy(r + KERNEL_NAME, &name, sizeof name);
    mock_cupti_record(r, bytes_of(ACT_CONCURRENT_KERNEL));
}

EXPORT int cuptiActivityGetNextRecord(uint8_t *from, size_t valid_bytes, uint8_t **record)
{
    uint8_t *next = from;
    uint32_t kind;

    if (*record) {
        memcpy(&kind, *record, sizeof kind);
        next = *record + bytes_of(kind);
    }
    if (next >= from + valid_bytes || !valid_bytes)
        return CUPTI_NO_MORE;
    memcpy(&kind, next, sizeof kind);
    if (!bytes_of(kind))
        return BAD_KIND;
    *record = next;
    return CUPTI_OK;
}

EXPORT int cuptiActivityGetNumDroppedRecords(void *ctx, uint32_t stream, size_t *n)
{
    (void)ctx;
    (void)stream;
    *n = atomic_exchange(&m.dropped, 0);
    return CUPTI_OK;
}

EXPORT int cuptiActivitySetAttribute(int attribute, size_t *bytes, void *value)
{
    (void)attribute;
    (void)bytes;
    (void)value;
    return CUPTI_OK;
}

EXPORT int cuptiGetResultString(int result, const char **text)
{
    *text = result == BUSY ? "CUPTI_ERROR_MULTIPLE_SUBSCRIBERS"
            : result       ? "CUPTI_ERROR_UNKNOWN"
                           : "CUPTI_SUCCESS";
    return CUPTI_OK;
}

EXPORT int cuptiFinalize(void)
{
    enter();
    pthread_mutex_lock(&lock);
    m.n_finalize++;
    m.kinds = 0;
    m.request = NULL;
    m.complete = NULL;
    m.clock = NULL;
    buffer = NULL;
    memset(arena, '?', arena_used);
    arena_used = 0;
    pthread_mutex_unlock(&lock);
    if (m.subscriber)
        cuptiUnsubscribe(m.subscriber);
    return CUPTI_OK;
}
