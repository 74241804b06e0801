/* See count.h. Two worlds meet here: the training thread fills, the agent collects; they share the
 * slots, each of which has one owner at a time (state, release/acquire). */
#include "injector/count.h"

#include "count_kernel_ptx.h"
#include "injector/count_tokens.h"
#include "injector/cuda_api.h"
#include "injector/other.h"
#include "injector/thread.h"

#include <stdlib.h>
#include <string.h>

#define SLOT_COUNT  16   /* steps whose counts may be under way: the agent comes 5 times a second */
#define ROUTE_CHUNK 4096 /* indices a block of moeprof_route takes */
#define MAX_COUNTS  (1u << 17) /* layers x experts: 94 x 1024 fits */

enum { SLOT_FREE = 0, SLOT_WAITING };

struct slot {
    _Atomic int state;
    uint32_t step;
    void *event;
    bool on_gpu;     /* count is being copied; event tells when it is there */
    uint32_t *count; /* (n_layer, n_expert), then struct inj_sums; pinned when there is a GPU */
    uint32_t *host;  /* the host's own counts, same shape */
    struct inj_known known;
    bool routed;
};

static struct {
    int n_layer, n_expert;
    size_t n; /* n_layer * n_expert */
    bool gpu_ready, gpu_failed;
    void *route_fn, *mask_fn;
    uint64_t device;  /* counts, then sums */
    bool device_used; /* in this step */
    bool routed;      /* any count in this step */
    uint32_t *host;   /* the host's counts of the running step */
    struct inj_known known;
    struct slot slot[SLOT_COUNT];
    unsigned next;  /* slot that the next step takes */
    unsigned first; /* agent: oldest slot not yet collected */
} c;

static size_t bytes_of(void)
{
    return (c.n * sizeof(uint32_t) + 7) / 8 * 8 + sizeof(struct inj_sums);
}

static size_t sums_at(void)
{
    return (c.n * sizeof(uint32_t) + 7) / 8 * 8;
}

void inj_count_layer(int layer, int n_experts)
{
    /* One model a process; a second one counts where it fits. */
    if (c.n || layer < 0 || n_experts < 1)
        return;
    c.n_layer = layer >= c.n_layer ? layer + 1 : c.n_layer;
    c.n_expert = n_experts > c.n_expert ? n_experts : c.n_expert;
}

/* The tables, at the first count: by then every layer has been declared. Without experts there is
 * one dummy count, so that tokens can be counted all the same. */
static bool ready(void)
{
    size_t n = (size_t)(c.n_layer ? c.n_layer : 1) * (size_t)(c.n_expert ? c.n_expert : 1);

    if (c.n || n > MAX_COUNTS)
        return c.n;
    c.host = calloc(n, sizeof *c.host);
    c.n = c.host ? n : 0;
    return c.n;
}

/* ---- GPU side, training thread --------------------------------------------------------------- */

static bool gpu_make(void)
{
    void *module;

    if (cuda.module_load_data(&module, count_kernel_ptx) ||
        cuda.module_get_function(&c.route_fn, module, "moeprof_route") ||
        cuda.module_get_function(&c.mask_fn, module, "moeprof_mask") ||
        cuda.mem_alloc(&c.device, bytes_of()))
        return false;
    for (int i = 0; i < SLOT_COUNT; i++)
        if (cuda.mem_host_alloc((void **)&c.slot[i].count, bytes_of(), 0) ||
            cuda.event_create(&c.slot[i].event, 2 /* CU_EVENT_DISABLE_TIMING */))
            return false;
    return true;
}

/* During a capture it is put off: allocating would end it. */
static bool gpu_setup(void *stream)
{
    int mode;

    if (c.gpu_ready || c.gpu_failed)
        return c.gpu_ready;
    c.gpu_failed = !ready() || inj_cuda_find();
    if (c.gpu_failed || inj_cuda_captured(stream))
        return false;
    mode = inj_cuda_relax(); /* another thread's */
    c.gpu_ready = gpu_make();
    c.gpu_failed = !c.gpu_ready;
    inj_cuda_restore(mode);
    return c.gpu_ready;
}

/* Our own calls are marked, so that their launches are not taken for the job's. */
static void own(bool on)
{
    struct inj_thread *t = inj_thread_self();

    if (t)
        t->own = on;
}

static int gpu_begin(void *stream)
{
    own(true);
    if (inj_other_aside()) /* another profiler would see our kernels */
        return MP_EBUSY;
    if (!gpu_setup(stream) || inj_cuda_captured(stream))
        return MP_ENOTSUP;
    if (!c.device_used && cuda.memset_async(c.device, 0, bytes_of() / 4, stream))
        return MP_ENOTSUP;
    c.device_used = true;
    return MP_OK;
}

static int gpu_route(int layer, const void *index, int index_bytes, size_t n, void *stream)
{
    int rc = gpu_begin(stream); /* makes the buffer whose address is read below */
    uint64_t out = c.device + (size_t)layer * (size_t)c.n_expert * sizeof(uint32_t);
    unsigned long long count = n;
    void *params[] = {&index, &index_bytes, &count, &c.n_expert, &out};
    unsigned blocks = (unsigned)((n + ROUTE_CHUNK - 1) / ROUTE_CHUNK);

    if (rc == MP_OK && n &&
        cuda.launch(c.route_fn, blocks, 1, 1, 256, 1, 1, (unsigned)c.n_expert * 4, stream, params,
                    NULL))
        rc = MP_ENOTSUP;
    own(false);
    return rc;
}

static int gpu_mask(const struct inj_mask *m, void *stream)
{
    int rc = gpu_begin(stream);
    uint64_t sums = c.device + sums_at();
    int is_float = m->mask_float;
    uint32_t cols = m->cols;
    void *params[] = {(void *)&m->mask,      (void *)&m->mask_bytes,   &is_float,
                      (void *)&m->labels,    (void *)&m->position_ids, &cols,
                      (void *)&m->window[0], (void *)&m->window[1],    (void *)&m->window[2],
                      (void *)&m->window[3], (void *)&m->n_window,     &sums};

    if (rc == MP_OK && m->rows &&
        cuda.launch(c.mask_fn, m->rows, 1, 1, 256, 1, 1, 0, stream, params, NULL))
        rc = MP_ENOTSUP;
    own(false);
    return rc;
}

/* ---- host side, training thread --------------------------------------------------------------- */

static void host_route(int layer, const void *index, int index_bytes, size_t n)
{
    uint32_t *row = c.host + (size_t)layer * (size_t)c.n_expert;

    for (size_t i = 0; i < n; i++) {
        int64_t e = index_bytes == 8 ? ((const int64_t *)index)[i] : ((const int32_t *)index)[i];

        if (e >= 0 && e < c.n_expert)
            row[e]++;
    }
}

int inj_count_route(int layer, const void *index, int index_bytes, size_t n, bool on_gpu,
                    void *stream)
{
    int rc = MP_OK;

    if (!ready() || layer < 0 || layer >= c.n_layer)
        return MP_EINVAL;
    if (on_gpu)
        rc = gpu_route(layer, index, index_bytes, n, stream);
    else
        host_route(layer, index, index_bytes, n);
    c.routed |= rc == MP_OK;
    return rc;
}

void inj_count_expert(int layer, int expert, uint32_t n)
{
    if (!ready() || layer < 0 || layer >= c.n_layer || expert < 0 || expert >= c.n_expert)
        return;
    c.host[(size_t)layer * (size_t)c.n_expert + (size_t)expert] += n;
    c.routed = true;
}

static void put_outbox(void *arg, const union mp_record *record)
{
    (void)arg;
    inj_thread_post(inj_thread_self(), record);
}

int inj_count_mask(const struct inj_mask *m, bool on_gpu, void *stream)
{
    struct inj_sums s = {0};
    struct inj_known k = {0};
    int rc;

    if (on_gpu) {
        rc = gpu_mask(m, stream);
        if (rc == MP_OK)
            inj_known_add(&c.known, m);
        return rc;
    }
    inj_sums_add(&s, m);
    inj_known_add(&k, m);
    if (inj_thread_self())
        inj_tokens_emit(&k, &s, atomic_load(&inj.step), put_outbox, NULL);
    return MP_OK;
}

/* ---- step's end, training thread ------------------------------------------------------------- */

static bool slot_ready(struct slot *s)
{
    size_t n = c.n * sizeof(uint32_t);

    if (!s->host)
        s->host = calloc(1, n ? n : 4);
    return s->host && atomic_load_explicit(&s->state, memory_order_acquire) == SLOT_FREE;
}

static bool copy_out(struct slot *s, void *stream)
{
    bool ok;

    own(true);
    ok = !inj_cuda_captured(stream) && !cuda.copy_to_host(s->count, c.device, bytes_of(), stream) &&
         !cuda.event_record(s->event, stream);
    own(false);
    return ok;
}

void inj_count_step(uint32_t step, void *stream)
{
    struct slot *s = &c.slot[c.next % SLOT_COUNT];
    size_t n = c.n * sizeof(uint32_t);
    bool used = c.device_used;

    if (!c.n || (!c.routed && !c.known.n_micro))
        goto clear;
    if (!slot_ready(s)) {
        inj_log(
            1,
            "steps end faster than their counts are collected: some have no tokens and no routing");
        goto clear;
    }
    s->step = step;
    s->known = c.known;
    s->routed = c.routed;
    memcpy(s->host, c.host, n);
    if (used && !copy_out(s, stream)) {
        inj_log(
            1, "counts could not be copied from the GPU: some steps have no tokens and no routing");
        goto clear;
    }
    if (!used)
        s->known.n_micro = 0;
    s->on_gpu = used;
    atomic_store_explicit(&s->state, SLOT_WAITING, memory_order_release);
    c.next++;
clear:
    if (c.n)
        memset(c.host, 0, n);
    memset(&c.known, 0, sizeof c.known);
    c.device_used = false; /* the next count clears the device buffer first */
    c.routed = false;
}

/* ---- agent --------------------------------------------------------------------------------------- */

static void emit_layer(const struct slot *s, int layer, inj_put_fn put, void *arg)
{
    for (int e = 0; e < c.n_expert; e += 4) {
        union mp_record r = {.routing = {.step = s->step,
                                         .layer = (int16_t)layer,
                                         .expert0 = (int16_t)e,
                                         .kind = MP_ROUTING,
                                         .basis = MP_MEASURED}};

        for (int k = 0; k < 4 && e + k < c.n_expert; k++) {
            size_t at = (size_t)layer * (size_t)c.n_expert + (size_t)(e + k);

            r.routing.count[k] = s->host[at] + (s->on_gpu ? s->count[at] : 0);
            r.routing.n++;
        }
        put(arg, &r);
    }
}

static bool layer_counted(const struct slot *s, int layer)
{
    for (int e = 0; e < c.n_expert; e++) {
        size_t at = (size_t)layer * (size_t)c.n_expert + (size_t)e;

        if (s->host[at] || (s->on_gpu && s->count[at]))
            return true;
    }
    return false;
}

static void emit_slot(const struct slot *s, inj_put_fn put, void *arg)
{
    struct inj_sums sums = {0};

    if (s->on_gpu)
        memcpy(&sums, (const char *)s->count + sums_at(), sizeof sums);
    if (s->known.n_micro)
        inj_tokens_emit(&s->known, &sums, s->step, put, arg);
    for (int layer = 0; s->routed && layer < c.n_layer; layer++)
        if (layer_counted(s, layer))
            emit_layer(s, layer, put, arg);
}

static bool under_way(const struct slot *s)
{
    int mode, rc;

    if (!s->on_gpu)
        return false;
    mode = inj_cuda_relax();
    rc = cuda.event_query(s->event);
    inj_cuda_restore(mode);
    return rc;
}

int inj_count_collect(inj_put_fn put, void *arg, uint32_t *oldest)
{
    int waiting = 0;

    for (unsigned i = 0; i < SLOT_COUNT; i++) {
        struct slot *s = &c.slot[c.first % SLOT_COUNT];

        if (atomic_load_explicit(&s->state, memory_order_acquire) != SLOT_WAITING)
            break;
        if (under_way(s)) {
            waiting = 1;
            *oldest = s->step;
            break;
        }
        emit_slot(s, put, arg);
        atomic_store_explicit(&s->state, SLOT_FREE, memory_order_release);
        c.first++;
    }
    return waiting;
}
