/* See scope.h. Stage 1, on application threads. */
#include "injector/scope.h"

#include "injector/sample.h"
#include "injector/torch_abi.h"
#include "injector/trace.h"
#include "profiler/core/attrib.h"

#include <string.h>

static _Atomic uint32_t n_micro; /* of the running step; owner: the thread that runs the root */
static _Atomic bool in_micro;
static _Atomic uint64_t update_ns; /* when an optimizer last returned */

static void log_nodes(struct inj_thread *t, uint64_t from_seq, struct mp_ctx ctx)
{
    if (!t->known) {
        t->torch_id = inj_torch_thread_id();
        t->known = true;
    }
    inj_thread_log(t, from_seq, ctx);
}

/* Tells the forward log that nodes made from now on belong to the running scope. In the backward
 * proper no graph is built, so nothing is noted. */
static void note(struct inj_thread *t)
{
    if (inj_torch_trusted() && inj_torch_grad_enabled())
        log_nodes(t, inj_torch_next_seq(), t->stack[t->depth ? t->depth - 1 : 0]);
}

/* Code of no part begins; in a layer that was compiled it is all there is. */
static void open_region(struct inj_thread *t, int phase)
{
    t->region = (uint8_t)phase;
    t->region_seq = inj_torch_trusted() ? inj_torch_next_seq() : 0;
}

/* A layer's ends: its nodes learn in which phase, since their backward begins there. Also without a graph to be
 * seen: checkpoints of other makes make one inside. False when it made no node, which leaves the log alone. */
static bool close_region(struct inj_thread *t, struct mp_ctx layer)
{
    layer.ends = t->region;
    t->region = MP_PHASE_OTHER;
    if (!layer.ends || layer.whose != MP_WHOSE_LAYER || !inj_torch_trusted() ||
        inj_torch_next_seq() <= t->region_seq)
        return false;
    log_nodes(t, t->region_seq, layer);
    return true;
}

/* A layer that is entered without a graph, just after a node was made, is wrapped by that node: a
 * checkpoint's. What it runs beside the replay is the layer's. */
static void open_wrapper(struct inj_thread *t)
{
    t->wrapper_seq = 0;
    if (t->stack[1].whose != MP_WHOSE_LAYER || !atomic_load(&in_micro) || !inj_torch_trusted() ||
        inj_torch_grad_enabled() || t->region_seq <= t->noted_seq)
        return;
    t->wrapper_seq = t->region_seq - 1;
    log_nodes(t, t->wrapper_seq, t->stack[1]);
}

/* The layer is left: its wrapper learns where it ended. */
static bool close_wrapper(struct inj_thread *t, struct mp_ctx layer)
{
    if (!t->wrapper_seq)
        return false;
    layer.ends = t->region;
    mp_seqlog_amend(&t->log, t->wrapper_seq, layer);
    t->wrapper_seq = 0;
    return true;
}

/* A layer that is entered while a node runs is a checkpoint's replay, until it is left. Its parts alone say
 * nothing: they are not told of a replay that stops half-way. */
static void open_replay(struct inj_thread *t)
{
    struct inj_node node;

    t->replays = inj_torch_trusted() && inj_torch_node(&node);
    if (t->replays)
        t->replay_seq = node.seq;
}

static uint8_t whose_at(int depth, int layer)
{
    return depth == 0 ? MP_WHOSE_MODEL : depth == 1 && layer >= 0 ? MP_WHOSE_LAYER : MP_WHOSE_PART;
}

static void enter(int depth, int layer, int phase)
{
    struct inj_thread *t = inj_thread_self();

    if (!t || depth < 0 || depth >= INJ_DEPTH_MAX)
        return;
    if (depth == 2 && t->depth == 2)
        close_region(t, t->stack[1]);
    for (int i = t->depth; i < depth; i++) /* scopes between were not hooked */
        t->stack[i] = (struct mp_ctx){.layer = -1, .expert = -1};
    t->stack[depth] = (struct mp_ctx){.layer = (int16_t)layer,
                                      .expert = -1,
                                      .phase = (uint8_t)phase,
                                      .whose = whose_at(depth, layer)};
    t->depth = depth + 1;
    open_region(t, mp_attrib_before((enum mp_phase)phase, depth, layer));
    if (depth == 1) {
        open_replay(t);
        open_wrapper(t);
    }
    note(t);
}

void inj_scope_enter(int depth, int layer, int phase)
{
    if (inj_trace_on())
        inj_trace_scope(INJ_OP_ENTER, depth, layer, phase);
    if (inj_sample_tracing())
        enter(depth, layer, phase);
}

/* Scope `depth` of the thread has ended; the code of the one around it goes on. */
static void leave(struct inj_thread *t, int depth)
{
    struct mp_ctx left = t->stack[depth], *parent = &t->stack[depth - 1];
    bool noted = false;

    if (depth == 1) {
        t->replays = false;
        noted = close_wrapper(t, left);
        noted |= t->depth == 2 && close_region(t, left);
        parent->layer = -1;
    }
    t->depth = depth;
    parent->phase = (uint8_t)mp_attrib_after(left.phase, depth, left.layer);
    parent->expert = -1;
    open_region(t, parent->phase);
    if (noted) /* what is made from here on is not the layer's, with a graph to be seen or without */
        log_nodes(t, inj_torch_next_seq(), *parent);
    else
        note(t);
}

void inj_scope_leave(int depth)
{
    struct inj_thread *t = inj_sample_tracing() ? inj_thread_self() : NULL;

    if (inj_trace_on())
        inj_trace_scope(INJ_OP_LEAVE, depth, 0, 0);
    if (!t || depth < 1 || depth >= t->depth)
        return;
    leave(t, depth);
}

void inj_scope_expert(int layer, int expert)
{
    struct inj_thread *t = inj_thread_self();
    struct mp_ctx *ctx;

    if (inj_trace_on())
        inj_trace_scope(INJ_OP_EXPERT, 0, layer, expert);
    if (!t || !t->depth)
        return;
    ctx = &t->stack[t->depth - 1];
    ctx->layer = (int16_t)layer;
    ctx->phase = MP_PHASE_EXPERT;
    ctx->expert = (int16_t)expert;
    note(t);
}

void inj_micro_begin(void)
{
    struct inj_thread *t = inj_thread_self();

    if (inj_trace_on())
        inj_trace_scope(INJ_OP_MICRO_BEGIN, 0, 0, 0);
    atomic_fetch_add(&n_micro, 1);
    atomic_store(&in_micro, true);
    if (t) {
        t->depth = 0;
        t->root = true;
    }
    /* Also when not traced: recording may begin inside this forward. */
    enter(0, -1, MP_PHASE_EMBED);
}

void inj_micro_end(void)
{
    struct inj_thread *t = inj_thread_self();

    if (inj_trace_on())
        inj_trace_scope(INJ_OP_MICRO_END, 0, 0, 0);
    atomic_store(&in_micro, false);
    atomic_store_explicit(&inj.stage, INJ_STAGE_LOSS, memory_order_relaxed);
    if (!t)
        return;
    t->stack[0] = (struct mp_ctx){.layer = -1, .expert = -1, .phase = MP_PHASE_LOSS};
    t->depth = 0;
    note(t);
}

void inj_optimizer_begin(void)
{
    struct inj_thread *t = inj_thread_self();

    if (inj_trace_on())
        inj_trace_scope(INJ_OP_OPTIMIZER_BEGIN, 0, 0, 0);
    if (t)
        t->in_optimizer = true;
}

void inj_optimizer_end(void)
{
    struct inj_thread *t = inj_thread_self();

    if (inj_trace_on())
        inj_trace_scope(INJ_OP_OPTIMIZER_END, 0, 0, 0);
    if (t)
        t->in_optimizer = false;
    atomic_store_explicit(&update_ns, inj_now_ns(), memory_order_relaxed);
}

void inj_step_end(bool at_update)
{
    struct inj_thread *t = inj_thread_self();
    struct mp_step_mark mark = {.kind = MP_STEP, .end_ns = inj_now_ns()};
    uint64_t updated_ns = atomic_load(&update_ns);
    bool traced;

    if (inj_trace_on())
        inj_trace_scope(INJ_OP_STEP_END, 0, 0, 0);
    traced = inj_sample_boundary();
    atomic_store_explicit(&inj.stage, INJ_STAGE_DATA, memory_order_relaxed);
    if (at_update && updated_ns)
        mark.end_ns = updated_ns;
    mark.flags = (uint16_t)((traced ? 0 : MP_STEP_UNTRACED) | (at_update ? MP_STEP_PARTIAL : 0));
    mark.n_micro = (uint16_t)atomic_exchange(&n_micro, 0);
    mark.step = atomic_fetch_add(&inj.step, 1);
    if (t)
        inj_thread_post(t, &mark);
}

bool inj_counting(void)
{
    struct inj_node node;

    if (!atomic_load_explicit(&in_micro, memory_order_relaxed))
        return false;
    return !(inj_torch_trusted() && inj_torch_node(&node));
}
