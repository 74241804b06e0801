/* See thread.h. A pthread key instead of __thread: the first touch of a late-loaded library's TLS
 * allocates, and the first touch is in a launch. A key below 32 never does; when the process has made 32
 * keys before ours, glibc allocates once a thread, at its first launch: no CUDA or torch lock that malloc
 * could want is held there. */
#include "injector/thread.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

static struct inj_thread *pool;
static _Atomic unsigned n_used;
static _Atomic uint64_t n_lost;
static pthread_key_t key;

static void thread_ends(void *slot)
{
    struct inj_thread *t = slot;

    atomic_store_explicit(&t->free, true, memory_order_release);
}

int inj_thread_init(void)
{
    void *p;

    if (pool)
        return MP_OK;
    if (pthread_key_create(&key, thread_ends))
        return MP_ENOMEM;
    p = mmap(NULL, sizeof(struct inj_thread) * INJ_THREAD_MAX, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return MP_ENOMEM;
    pool = p;
    return MP_OK;
}

static struct inj_thread *new_slot(void)
{
    unsigned i = atomic_load(&n_used);

    do {
        if (i >= INJ_THREAD_MAX)
            return NULL;
    } while (!atomic_compare_exchange_weak(&n_used, &i, i + 1));
    return &pool[i];
}

/* That of a thread that has ended. Its outbox goes on where it is: the agent may still be reading. */
static struct inj_thread *used_slot(void)
{
    for (unsigned i = 0; i < INJ_THREAD_MAX; i++) {
        struct inj_thread *t = &pool[i];
        bool is_free = true;

        if (!atomic_compare_exchange_strong(&t->free, &is_free, false))
            continue;
        atomic_store(&t->known, false); /* its nodes are nobody's from here on */
        atomic_store(&t->log.n, 0);
        t->depth = 0;
        t->replays = t->in_optimizer = t->own = t->root = t->ran_node = t->node_found =
            t->node_select = false;
        t->hint = t->noted_seq = t->wrapper_seq = 0;
        return t;
    }
    return NULL;
}

struct inj_thread *inj_thread_self(void)
{
    struct inj_thread *t;

    if (!pool)
        return NULL;
    t = pthread_getspecific(key);
    if (t)
        return t;
    t = new_slot();
    if (!t)
        t = used_slot();
    if (!t) {
        atomic_fetch_add_explicit(&n_lost, 1, memory_order_relaxed);
        return NULL;
    }
    t->stack[0] = (struct mp_ctx){.layer = -1};
    if (pthread_setspecific(key, t))
        return NULL;
    return t;
}

struct inj_thread *inj_thread_at(unsigned i)
{
    return pool && i < atomic_load(&n_used) ? &pool[i] : NULL;
}

struct inj_thread *inj_thread_by_torch_id(uint64_t id)
{
    struct inj_thread *t;

    for (unsigned i = 0; (t = inj_thread_at(i)); i++)
        if (atomic_load_explicit(&t->known, memory_order_acquire) && t->torch_id == id)
            return t;
    return NULL;
}

void inj_thread_log(struct inj_thread *t, uint64_t seq, struct mp_ctx ctx)
{
    mp_seqlog_put(&t->log, seq, ctx);
    t->noted_seq = seq > t->noted_seq ? seq : t->noted_seq;
}

bool inj_thread_post(struct inj_thread *t, const void *record32)
{
    uint64_t head = atomic_load_explicit(&t->head, memory_order_relaxed);

    if (head - atomic_load_explicit(&t->tail, memory_order_acquire) >= INJ_OUTBOX_CAP) {
        atomic_fetch_add_explicit(&n_lost, 1, memory_order_relaxed);
        return false;
    }
    memcpy(&t->outbox[head & (INJ_OUTBOX_CAP - 1)], record32, sizeof(union mp_record));
    atomic_store_explicit(&t->head, head + 1, memory_order_release);
    return true;
}

size_t inj_thread_take(struct inj_thread *t, union mp_record *out, size_t n)
{
    uint64_t tail = atomic_load_explicit(&t->tail, memory_order_relaxed);
    uint64_t have = atomic_load_explicit(&t->head, memory_order_acquire) - tail;

    if (n > have)
        n = (size_t)have;
    for (size_t i = 0; i < n; i++)
        out[i] = t->outbox[(tail + i) & (INJ_OUTBOX_CAP - 1)];
    atomic_store_explicit(&t->tail, tail + n, memory_order_release);
    return n;
}

uint64_t inj_thread_lost(void)
{
    return atomic_load_explicit(&n_lost, memory_order_relaxed);
}
