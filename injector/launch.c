/* See launch.h. A filter with a table: which cbid, what kind of kernel, where are we; then one note.
 *
 * The scope is a matter of thread-local facts: forward and recompute read the thread's own scope
 * stack, the backward asks which autograd node runs and where that node was made (seqlog.h).
 * Weight pointers in the launch arguments name the expert.
 */
#include "injector/launch.h"

#include "injector/cuda_api.h"
#include "injector/sample.h"
#include "injector/scope.h"
#include "injector/torch_abi.h"
#include "injector/trace.h"
#include "profiler/core/attrib.h"
#include "profiler/core/kname.h"
#include "profiler/core/phase.h"

#include <errno.h>
#include <string.h>

enum kind { SKIP = 0, LAUNCH, LAUNCH_COOP, LAUNCH_EX, GRAPH, COPY };

static const uint8_t kind_of[CB_MAX] = {
    [CB_cuLaunchKernel] = LAUNCH,
    [CB_cuLaunchKernel_ptsz] = LAUNCH,
    [CB_cuLaunchCooperativeKernel] = LAUNCH_COOP,
    [CB_cuLaunchCooperativeKernel_ptsz] = LAUNCH_COOP,
    [CB_cuLaunchKernelEx] = LAUNCH_EX,
    [CB_cuLaunchKernelEx_ptsz] = LAUNCH_EX,
    [CB_cuGraphLaunch] = GRAPH,
    [CB_cuGraphLaunch_ptsz] = GRAPH,
    [CB_cuMemcpyAsync] = COPY,
    [CB_cuMemcpyAsync_ptsz] = COPY,
    [CB_cuMemcpyHtoD_v2] = COPY,
    [CB_cuMemcpyHtoD_v2_ptds] = COPY,
    [CB_cuMemcpyHtoDAsync_v2] = COPY,
    [CB_cuMemcpyHtoDAsync_v2_ptsz] = COPY,
    [CB_cuMemcpyDtoH_v2] = COPY,
    [CB_cuMemcpyDtoH_v2_ptds] = COPY,
    [CB_cuMemcpyDtoHAsync_v2] = COPY,
    [CB_cuMemcpyDtoHAsync_v2_ptsz] = COPY,
    [CB_cuMemcpyDtoD_v2] = COPY,
    [CB_cuMemcpyDtoD_v2_ptds] = COPY,
    [CB_cuMemcpyDtoDAsync_v2] = COPY,
    [CB_cuMemcpyDtoDAsync_v2_ptsz] = COPY,
    [CB_cuMemcpy2DAsync_v2] = COPY,
    [CB_cuMemcpy2DAsync_v2_ptsz] = COPY,
    [CB_cuMemcpy3DAsync_v2] = COPY,
    [CB_cuMemcpy3DAsync_v2_ptsz] = COPY,
    [CB_cuMemsetD8Async] = COPY,
    [CB_cuMemsetD8Async_ptsz] = COPY,
    [CB_cuMemsetD16Async] = COPY,
    [CB_cuMemsetD16Async_ptsz] = COPY,
    [CB_cuMemsetD32Async] = COPY,
    [CB_cuMemsetD32Async_ptsz] = COPY,
};

static enum kind kind_for(uint32_t cbid)
{
    return cbid < CB_MAX ? kind_of[cbid] : SKIP;
}

bool inj_launch_wants(uint32_t cbid)
{
    return kind_for(cbid) != SKIP;
}

static _Atomic(struct mp_ranges *) ranges;
static struct mp_ranges *ranges_old; /* owner: the thread that sets, under the GIL */
static _Atomic uint64_t n_launch;
static _Atomic bool graphs;

void inj_launch_set_ranges(struct mp_ranges *new_ranges)
{
    struct mp_ranges *old;

    if (inj_trace_on())
        inj_trace_set_ranges(new_ranges);
    old = atomic_exchange_explicit(&ranges, new_ranges, memory_order_acq_rel);

    mp_ranges_free(ranges_old); /* two generations back: no callback can still be in it */
    ranges_old = old;
}

uint64_t inj_launch_count(void)
{
    return atomic_load_explicit(&n_launch, memory_order_relaxed);
}

bool inj_launch_graphs(void)
{
    return atomic_load_explicit(&graphs, memory_order_relaxed);
}

/* ---- what is known of a kernel, by its handle --------------------------------------------- */

#define FUNC_LOG2      12 /* 4096 kernels; 96 distinct ones seen in an eager MoE step */
#define FUNC_CAP       (1u << FUNC_LOG2)
#define PARAM_MAX      32
#define SCAN_MAX_BYTES 4096 /* the driver's own limit before 12.1; weights stand early */

struct func {
    _Atomic(void *) handle;     /* NULL free; set last, release */
    _Atomic(const char *) name; /* never read through: its module may be gone */
    uint64_t name_hash;
    uint8_t kclass;
    uint8_t n_param;
    uint16_t param_bytes[PARAM_MAX];
};

static struct func func_table[FUNC_CAP];
static _Atomic int func_lock; /* 0 free; taken with one try: who fails classifies by itself */

static void fill_params(struct func *f, void *handle)
{
    size_t offset, bytes;

    for (f->n_param = 0; f->n_param < PARAM_MAX; f->n_param++) {
        int rc = cuda.kernel_param_info
                     ? cuda.kernel_param_info(handle, f->n_param, &offset, &bytes)
                     : 1;

        if (rc)
            rc = cuda.func_param_info ? cuda.func_param_info(handle, f->n_param, &offset, &bytes)
                                      : 1;
        if (rc)
            break;
        f->param_bytes[f->n_param] = (uint16_t)(bytes > UINT16_MAX ? UINT16_MAX : bytes);
    }
}

static uint64_t hash(const char *name) /* FNV-1a */
{
    uint64_t h = 14695981039346656037u;

    for (; name && *name; name++)
        h = (h ^ (unsigned char)*name) * 1099511628211u;
    return h;
}

/* Kernels that take a weight: products, and generated kernels, which may be anything. */
static bool takes_weights(enum mp_kclass kclass)
{
    return kclass == MP_KC_GEMM || kclass == MP_KC_GROUPED || kclass == MP_KC_UNKNOWN;
}

/* Another address of the same name is kept: names are CUPTI's, which may have been left and met again. */
static bool is_named(struct func *f, const char *name)
{
    if (atomic_load_explicit(&f->name, memory_order_relaxed) == name)
        return true;
    if (f->name_hash != hash(name))
        return false;
    atomic_store_explicit(&f->name, name, memory_order_relaxed);
    return true;
}

/* The row of a handle; NULL when the table is full or another thread is adding. A handle that was
 * unloaded and given to another kernel is told by its name. */
static const struct func *func_get(void *handle, const char *name)
{
    uint32_t at = (uint32_t)(((uintptr_t)handle >> 4) * 2654435761u) >> (32 - FUNC_LOG2);
    int expected = 0;

    for (unsigned probe = 0; probe < 16; probe++, at = (at + 1) & (FUNC_CAP - 1)) {
        struct func *f = &func_table[at];
        void *have = atomic_load_explicit(&f->handle, memory_order_acquire);

        if (have == handle)
            return is_named(f, name) ? f : NULL;
        if (have)
            continue;
        if (!atomic_compare_exchange_strong(&func_lock, &expected, 1))
            return NULL;
        if (!atomic_load(&f->handle)) {
            atomic_store_explicit(&f->name, name, memory_order_relaxed);
            f->name_hash = hash(name);
            f->kclass = (uint8_t)mp_kname_class(name);
            if (takes_weights(f->kclass))
                fill_params(f, handle);
            atomic_store_explicit(&f->handle, handle, memory_order_release);
        }
        atomic_store(&func_lock, 0);
        return atomic_load(&f->handle) == handle ? f : NULL;
    }
    return NULL;
}

/* ---- launch arguments ---------------------------------------------------------------------- */

/* Nearly every word is outside all ranges, so that test is made here. In a layer's scope a weight of
 * another layer is a word left over from another launch. */
static bool scan_words(const struct mp_ranges *r, const void *bytes, size_t n, int layer,
                       struct mp_hit *hit)
{
    uint64_t lo = r->lo, span = r->hi - r->lo;

    for (size_t i = 0; i + 8 <= n; i += 8) {
        uint64_t word;

        memcpy(&word, (const char *)bytes + i, 8);
        if (word - lo < span && mp_ranges_find(r, word, hit) && (layer < 0 || hit->layer == layer))
            return true;
    }
    return false;
}

static bool scan_params(const struct func *f, void **params, int layer, struct mp_hit *hit)
{
    const struct mp_ranges *r = atomic_load_explicit(&ranges, memory_order_acquire);

    if (!r || !r->n)
        return false;
    for (unsigned i = 0; i < f->n_param; i++) {
        size_t n = f->param_bytes[i] < SCAN_MAX_BYTES ? f->param_bytes[i] : SCAN_MAX_BYTES;

        if (scan_words(r, params[i], n, layer, hit))
            return true;
    }
    return false;
}

/* cuBLAS hands its arguments over as one buffer. */
static const void *extra_buffer(void **extra, size_t *bytes)
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

static bool scan_extra(void **extra, int layer, struct mp_hit *hit)
{
    const struct mp_ranges *r = atomic_load_explicit(&ranges, memory_order_acquire);
    size_t bytes;
    const void *buffer = extra_buffer(extra, &bytes);

    if (!r || !r->n || !buffer)
        return false;
    return scan_words(r, buffer, bytes < SCAN_MAX_BYTES ? bytes : SCAN_MAX_BYTES, layer, hit);
}

struct args {
    void *func;
    void **params, **extra;
};

static void read_args(enum kind kind, const void *block, struct args *a)
{
    if (kind == LAUNCH_EX) {
        const struct launch_ex_params *p = block;

        *a = (struct args){p->f, p->kernel_params, p->extra};
    } else {
        const struct launch_params *p = block;

        *a = (struct args){p->f, p->kernel_params, kind == LAUNCH ? p->extra : NULL};
    }
}

/* ---- where we are ---------------------------------------------------------------------------- */

static void set_ctx(struct inj_note *n, struct mp_ctx ctx)
{
    n->layer = ctx.layer;
    n->expert = ctx.expert;
    n->phase = ctx.phase;
}

static void backward_ctx(struct inj_thread *t, const struct inj_node *node, struct inj_note *n)
{
    const struct mp_ctx unknown = {.layer = -1, .expert = -1, .phase = MP_PHASE_OTHER};
    const struct mp_ctx accumulate = {.layer = -1, .expert = -1, .phase = MP_PHASE_GRADIENT};

    n->pass = MP_PASS_BACKWARD;
    if (node->seq == INJ_SEQ_ACCUMULATE) {
        set_ctx(n, accumulate);
        return;
    }
    if (node->seq != t->node_seq || node->tid != t->node_tid || !t->ran_node) {
        struct inj_thread *made = inj_thread_by_torch_id(node->tid);

        t->node_seq = node->seq;
        t->node_tid = node->tid;
        t->ran_node = true;
        t->node_found = made && mp_seqlog_find(&made->log, node->seq, &t->hint, &t->node_ctx);
        t->node_select = inj_torch_is_select(node);
        t->region = t->node_found ? t->node_ctx.ends : MP_PHASE_OTHER;
    }
    set_ctx(n, t->node_found ? t->node_ctx : unknown);
    /* stack[e] of eager loops: zeros of the whole stack, a copied slice, a sum of stacks */
    if (t->node_select && n->phase == MP_PHASE_EXPERT)
        n->phase = MP_PHASE_GRADIENT;
    atomic_store_explicit(&inj.stage, INJ_STAGE_GRADIENT, memory_order_relaxed);
}

/* Outside every scope and node. */
static void outside_ctx(struct inj_thread *t, struct inj_note *n)
{
    static const uint8_t phase[] = {
        [INJ_STAGE_DATA] = MP_PHASE_OTHER,
        [INJ_STAGE_LOSS] = MP_PHASE_LOSS,
        [INJ_STAGE_GRADIENT] = MP_PHASE_GRADIENT,
    };
    uint32_t stage = atomic_load_explicit(&inj.stage, memory_order_relaxed);
    struct mp_ctx ctx = {.layer = -1, .expert = -1, .phase = phase[stage]};

    if (t->ran_node && !t->root && stage == INJ_STAGE_GRADIENT) {
        /* between two nodes the engine adds up gradients that meet at one input */
        n->pass = MP_PASS_BACKWARD;
        if (t->node_found)
            ctx = t->node_ctx;
        ctx.expert = -1;
    }
    set_ctx(n, ctx);
}

static void locate(struct inj_thread *t, struct inj_note *n)
{
    struct inj_node node;
    const struct mp_ctx update = {.layer = -1, .expert = -1, .phase = MP_PHASE_OPTIMIZER};

    if (t->own) {
        n->flags |= MP_FLAG_OWN;
        set_ctx(n, (struct mp_ctx){.layer = -1, .expert = -1, .phase = MP_PHASE_OTHER});
    } else if (t->in_optimizer) {
        n->pass = MP_PASS_UPDATE;
        set_ctx(n, update);
    } else if (inj_torch_trusted() && inj_torch_node(&node)) {
        if (t->depth && inj_torch_grad_enabled()) { /* a forward inside a node: checkpoint replay */
            n->pass = MP_PASS_RECOMPUTE;
            set_ctx(n, t->stack[t->depth - 1]);
            t->ran_node = true;
        } else {
            backward_ctx(t, &node, n);
        }
    } else if (t->depth && (t->root || !t->ran_node)) {
        set_ctx(n, t->stack[t->depth - 1]);
    } else {
        outside_ctx(t, n);
    }
}

/* ---- experts ----------------------------------------------------------------------------------- */

/* Which classes may carry on the expert of the last product. In an eager loop the gather for expert
 * e+1 comes after the last product of e, so gathers and index kernels do not; turned round in the
 * backward, where also the full-size fills and copies of select's gradient come before theirs. */
static bool carries(enum mp_kclass kclass, enum mp_pass pass)
{
    if (kclass == MP_KC_GEMM || kclass == MP_KC_ELEMENTWISE)
        return true;
    if (pass == MP_PASS_BACKWARD)
        return kclass == MP_KC_GATHER;
    return kclass == MP_KC_SCATTER || kclass == MP_KC_COPY;
}

/* A product that reads the weight of one expert: from here on, and in the node just made, that
 * expert runs. */
static void expert_runs(struct inj_thread *t, int expert)
{
    struct mp_ctx *ctx = &t->stack[t->depth - 1];

    if (ctx->phase != MP_PHASE_EXPERT || ctx->expert == expert)
        return;
    ctx->expert = (int16_t)expert;
    if (inj_torch_grad_enabled())
        mp_seqlog_put(&t->log, inj_torch_next_seq() - 1, *ctx);
}

static void apply_hit(struct inj_thread *t, struct inj_note *n, const struct mp_hit *hit)
{
    bool one = n->kclass == MP_KC_GEMM && hit->expert >= 0;

    n->layer = hit->layer;
    n->flags |= MP_FLAG_POINTER;
    if (n->phase == MP_PHASE_OTHER || n->phase == MP_PHASE_LOSS || n->layer < 0)
        n->phase = hit->phase;
    if (!one)
        return;
    n->expert = hit->expert;
    if (n->phase == MP_PHASE_ROUTER) /* inline loops run in the block's own scope */
        n->phase = hit->phase;
    if (t->depth && n->pass != MP_PASS_BACKWARD && inj_torch_trusted())
        expert_runs(t, hit->expert);
}

/* A layer that runs as one compiled region calls no module that would say which phase runs: the kernel
 * before does, until one reads a weight. */
static void follow_region(struct inj_thread *t, struct inj_note *n)
{
    if (n->phase == MP_PHASE_OTHER)
        n->phase = (uint8_t)mp_attrib_region((enum mp_phase)t->region, (enum mp_kclass)n->kclass);
    t->region = n->phase;
}

/* What a launch is told, before anything is made of it. */
static void trace(struct inj_thread *t, uint32_t cbid, const struct cupti_callback *info,
                  const struct func *f, const struct args *a)
{
    const struct mp_ranges *r = atomic_load_explicit(&ranges, memory_order_acquire);
    const void *buffer;
    size_t n;

    inj_trace_launch(t, cbid, a->func, info, !a->params && a->extra);
    if (a->params)
        for (unsigned i = 0; f && i < f->n_param; i++)
            inj_trace_words(t, r, a->params[i], f->param_bytes[i]);
    else if (a->extra && (buffer = extra_buffer(a->extra, &n)))
        inj_trace_words(t, r, buffer, n);
}

/* ---- the callback -------------------------------------------------------------------------------- */

static void note_launch(struct inj_thread *t, enum kind kind, uint32_t cbid,
                        const struct cupti_callback *info)
{
    struct inj_note n = {
        .kind = INJ_NOTE_LAUNCH,
        .time_ns = inj_now_ns(),
        .corr = info->correlation,
        .step = atomic_load_explicit(&inj.step, memory_order_relaxed),
        .counts = kind == LAUNCH || kind == LAUNCH_COOP || kind == LAUNCH_EX,
    };
    const struct func *f = NULL;
    struct args a = {0};
    struct mp_hit hit;
    bool in_region;

    if (n.counts) {
        read_args(kind, info->params, &a);
        f = func_get(a.func, info->symbol_name);
        n.kclass = f ? f->kclass : (uint8_t)mp_kname_class(info->symbol_name);
    } else {
        n.kclass = kind == COPY ? MP_KC_COPY : MP_KC_UNKNOWN;
        if (kind == GRAPH)
            atomic_store_explicit(&graphs, true, memory_order_relaxed);
    }
    if (inj_trace_on())
        trace(t, cbid, info, f, &a);
    locate(t, &n);
    in_region = n.layer >= 0 && n.phase == MP_PHASE_OTHER;
    if (f && n.pass != MP_PASS_UPDATE && !(n.flags & MP_FLAG_OWN) && takes_weights(f->kclass) &&
        (a.params ? scan_params(f, a.params, n.layer, &hit)
                  : a.extra && scan_extra(a.extra, n.layer, &hit)))
        apply_hit(t, &n, &hit);
    if (in_region)
        follow_region(t, &n);
    if (n.phase != MP_PHASE_EXPERT || !carries(n.kclass, n.pass))
        n.expert = -1;
    if (n.counts && !(n.flags & MP_FLAG_OWN))
        atomic_fetch_add_explicit(&n_launch, 1, memory_order_relaxed);
    inj_thread_post(t, &n);
}

void inj_launch_callback(void *user, int domain, uint32_t cbid, const struct cupti_callback *info)
{
    enum kind kind = kind_for(cbid);
    struct inj_thread *t;
    int saved = errno;

    (void)user;
    if (domain != DOMAIN_DRIVER || kind == SKIP || info->site != SITE_ENTER || !inj_alive() ||
        !inj_sample_tracing())
        return;
    t = inj_thread_self();
    if (t)
        note_launch(t, kind, cbid, info);
    errno = saved;
}
