/* See launch.h. A filter with a table: which cbid, what kind of kernel, where are we; then one note.
 *
 * The scope is a matter of thread-local facts: forward and recompute read the thread's own scope
 * stack, the backward asks which autograd node runs and where that node was made (seqlog.h).
 * Weight pointers in the launch arguments name the expert.
 */
#include "injector/launch.h"

#include "injector/launch_args.h"
#include "injector/sample.h"
#include "injector/scope.h"
#include "injector/torch_abi.h"
#include "injector/trace.h"
#include "profiler/core/attrib.h"
#include "profiler/core/kname.h"
#include "profiler/core/phase.h"

#include <errno.h>

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

static void read_args(enum kind kind, const void *block, struct inj_args *a)
{
    if (kind == LAUNCH_EX) {
        const struct launch_ex_params *p = block;

        *a = (struct inj_args){p->f, p->kernel_params, p->extra};
    } else {
        const struct launch_params *p = block;

        *a = (struct inj_args){p->f, p->kernel_params, kind == LAUNCH ? p->extra : NULL};
    }
}

/* ---- where we are ---------------------------------------------------------------------------- */

static enum mp_whose set_ctx(struct inj_note *n, struct mp_ctx ctx)
{
    n->layer = ctx.layer;
    n->expert = ctx.expert;
    n->phase = ctx.phase;
    return (enum mp_whose)ctx.whose;
}

/* Where the backward of code of no part begins: where its forward ended, else where the node before,
 * of the same layer, was. */
static void begin_region(struct inj_thread *t, int layer_before)
{
    uint8_t phase = t->node_ctx.ends ? t->node_ctx.ends : t->node_ctx.phase;

    if (phase || t->node_ctx.layer != layer_before)
        t->region = phase;
}

static enum mp_whose backward_ctx(struct inj_thread *t, const struct inj_node *node,
                                  struct inj_note *n)
{
    const struct mp_ctx unknown = {.layer = -1, .expert = -1, .phase = MP_PHASE_OTHER};
    const struct mp_ctx accumulate = {.layer = -1, .expert = -1, .phase = MP_PHASE_GRADIENT};
    enum mp_whose whose;

    n->pass = MP_PASS_BACKWARD;
    if (node->seq == INJ_SEQ_ACCUMULATE)
        return set_ctx(n, accumulate);
    if (node->seq != t->node_seq || node->tid != t->node_tid || !t->ran_node) {
        struct inj_thread *made = inj_thread_by_torch_id(node->tid);
        int layer = t->node_found ? t->node_ctx.layer : -1;

        t->node_seq = node->seq;
        t->node_tid = node->tid;
        t->ran_node = true;
        t->node_found = made && mp_seqlog_find(&made->log, node->seq, &t->hint, &t->node_ctx);
        t->node_select = inj_torch_is_select(node);
        begin_region(t, layer);
    }
    whose = set_ctx(n, t->node_found ? t->node_ctx : unknown);
    /* stack[e] of eager loops: zeros of the whole stack, a copied slice, a sum of stacks */
    if (t->node_select && n->phase == MP_PHASE_EXPERT) {
        n->phase = MP_PHASE_GRADIENT;
        whose = MP_WHOSE_PART;
    }
    atomic_store_explicit(&inj.stage, INJ_STAGE_GRADIENT, memory_order_relaxed);
    return whose;
}

/* Outside every scope and node. */
static enum mp_whose outside_ctx(struct inj_thread *t, struct inj_note *n)
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
    return set_ctx(n, ctx);
}

/* A forward inside a node. A graph is made there, or code of an autograd.Function runs, which makes none:
 * an adapter's, or that of a compiled region. */
static bool replays(const struct inj_thread *t, const struct inj_node *node)
{
    return t->depth && (inj_torch_grad_enabled() || (t->replays && t->replay_seq == node->seq));
}

static enum mp_whose locate(struct inj_thread *t, struct inj_note *n)
{
    struct inj_node node;
    const struct mp_ctx update = {.layer = -1, .expert = -1, .phase = MP_PHASE_OPTIMIZER};

    if (t->own) {
        n->flags |= MP_FLAG_OWN;
        return set_ctx(n, (struct mp_ctx){.layer = -1, .expert = -1, .phase = MP_PHASE_OTHER});
    }
    if (t->in_optimizer) {
        n->pass = MP_PASS_UPDATE;
        return set_ctx(n, update);
    }
    if (inj_torch_trusted() && inj_torch_node(&node)) {
        if (!replays(t, &node))
            return backward_ctx(t, &node, n);
        n->pass = MP_PASS_RECOMPUTE;
        t->ran_node = true;
        return set_ctx(n, t->stack[t->depth - 1]);
    }
    if (t->depth && (t->root || !t->ran_node))
        return set_ctx(n, t->stack[t->depth - 1]);
    return outside_ctx(t, n);
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
        inj_thread_log(t, inj_torch_next_seq() - 1, *ctx);
}

/* Weights of which layer may a kernel read there? A part of the model that is in no layer reads its own. */
static int may_read(const struct inj_note *n, enum mp_whose whose)
{
    static const uint32_t parts = 1u << MP_PHASE_EMBED | 1u << MP_PHASE_ATTENTION |
                                  1u << MP_PHASE_NORM | 1u << MP_PHASE_LM_HEAD;

    if (whose == MP_WHOSE_MODEL || (n->layer < 0 && !(parts >> n->phase & 1)))
        return INJ_ANY_LAYER;
    return n->layer;
}

static bool reads_weight(const struct inj_func *f, const struct inj_args *a, int layer,
                         struct mp_hit *hit)
{
    const struct mp_ranges *r;

    if (!inj_func_takes_weights(f->kclass))
        return false;
    r = atomic_load_explicit(&ranges, memory_order_acquire);
    return r && r->n && inj_args_weight(hit, r, f, a, layer);
}

/* Does the phase of a weight count for more than that of the scope? In a part of a layer it does not: a
 * kernel that is fused with the next part's is its own. */
static bool weight_tells(const struct inj_note *n, const struct mp_hit *hit, enum mp_whose whose)
{
    if (whose != MP_WHOSE_PART || hit->layer < 0 || n->phase == MP_PHASE_OTHER ||
        n->phase == MP_PHASE_LOSS)
        return true;
    /* inline loops run in the block's own scope */
    return n->phase == MP_PHASE_ROUTER && hit->phase == MP_PHASE_EXPERT;
}

static void apply_hit(struct inj_thread *t, struct inj_note *n, const struct mp_hit *hit,
                      enum mp_whose whose)
{
    if (weight_tells(n, hit, whose))
        n->phase = hit->phase;
    n->layer = hit->layer;
    n->flags |= MP_FLAG_POINTER;
    if (n->kclass != MP_KC_GEMM || hit->expert < 0)
        return;
    n->expert = hit->expert;
    if (t->depth && n->pass != MP_PASS_BACKWARD && inj_torch_trusted())
        expert_runs(t, hit->expert);
}

/* The node that was just made, if one was, and those after it are of that place. */
static void place_begins(struct inj_thread *t, struct mp_ctx ctx)
{
    uint64_t next_seq;

    if (!inj_torch_trusted() || (next_seq = inj_torch_next_seq()) <= t->region_seq)
        return;
    ctx.ends = ctx.phase;
    inj_thread_log(t, next_seq - 1, ctx);
}

/* In code of no part no module says which phase runs: the kernel before does, until one reads a weight. A
 * layer that was compiled has no other code. In the model's own code the weight names the layer, too: that
 * of layers that are no modules to torch, or of a model that was compiled as a whole. */
static void follow_region(struct inj_thread *t, struct inj_note *n, enum mp_whose whose)
{
    bool told = n->flags & MP_FLAG_POINTER, forward = n->pass != MP_PASS_BACKWARD && t->depth;
    struct mp_ctx *ctx = forward ? &t->stack[t->depth - 1] : &t->node_ctx, here = *ctx;
    enum mp_phase last = (enum mp_phase)t->region;

    if (forward && whose == MP_WHOSE_MODEL && n->layer < 0 && last == MP_PHASE_NORM)
        last = MP_PHASE_LOSS; /* behind the model's last norm */
    if (!told)
        n->phase = (uint8_t)mp_attrib_region(last, (enum mp_kclass)n->kclass);
    if (whose == MP_WHOSE_MODEL)
        ctx->layer = here.layer = n->layer;
    here.phase = n->phase;
    if (forward && (told || n->phase != t->region))
        place_begins(t, here);
    t->region = n->phase;
}

/* What a launch is told, before anything is made of it. */
static void trace(struct inj_thread *t, uint32_t cbid, const struct cupti_callback *info,
                  const struct inj_func *f, const struct inj_args *a)
{
    const struct mp_ranges *r = atomic_load_explicit(&ranges, memory_order_acquire);
    const void *buffer;
    size_t n;

    inj_trace_launch(t, cbid, a->func, info, !a->params && a->extra);
    if (a->params)
        for (unsigned i = 0; f && i < f->n_param; i++)
            inj_trace_words(t, r, a->params[i], f->param_bytes[i]);
    else if (a->extra && (buffer = inj_args_extra(a->extra, &n)))
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
    const struct inj_func *f = NULL;
    struct inj_args a = {0};
    struct mp_hit hit;
    enum mp_whose whose;

    if (n.counts) {
        read_args(kind, info->params, &a);
        f = inj_func_get(a.func, info->symbol_name);
        n.kclass = f ? f->kclass : (uint8_t)mp_kname_class(info->symbol_name);
    } else {
        n.kclass = kind == COPY ? MP_KC_COPY : MP_KC_UNKNOWN;
        if (kind == GRAPH)
            atomic_store_explicit(&graphs, true, memory_order_relaxed);
    }
    if (inj_trace_on())
        trace(t, cbid, info, f, &a);
    whose = locate(t, &n);
    if (f && n.pass != MP_PASS_UPDATE && !(n.flags & MP_FLAG_OWN) &&
        reads_weight(f, &a, may_read(&n, whose), &hit))
        apply_hit(t, &n, &hit, whose);
    if (whose != MP_WHOSE_PART)
        follow_region(t, &n, whose);
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
