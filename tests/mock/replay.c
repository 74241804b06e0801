/* Does a recorded job again, without a GPU: its traced input (injector/trace.h) goes through the guest's
 * own scope functions, launch callback, tracer and join, with stand-ins where torch, CUPTI and the driver
 * were. What comes out must be what came out then.
 *
 * Usage: replay FILE          prints the cells that FILE leads to
 *        replay cells DIR PID prints the cells that a real job published
 *        replay pack FROM TO  compresses a trace
 *
 * One thread a recorded thread, so that thread-local facts are where they were; one runs at a time.
 */
#include "tests/mock/replay_file.h"

#include "injector/activity.h"
#include "injector/count.h"
#include "injector/join.h"
#include "injector/launch.h"
#include "injector/sample.h"
#include "injector/scope.h"
#include "injector/torch_abi.h"
#include "injector/tracer.h"
#include "tests/mock/cells.h"
#include "tests/mock/mock_load.h"

#include <pthread.h>
#include <unistd.h>

MOCK_NODE_TYPE(mul_type, "N5torch8autograd9generated12MulBackward0E");
MOCK_NODE_TYPE(any_type, "N5torch8autograd9generated11MmBackward0E");
MOCK_NODE_TYPE(select_type, "N5torch8autograd9generated15SelectBackward0E");

static struct mock mock;
static struct replay_file file;
static size_t n_counted; /* of file.counted, those used */

/* ---- what torch was at that moment ---------------------------------------------------------------------- */

static void be(unsigned flags, uint64_t next_seq, uint32_t torch_id)
{
    mock.torch()->grad = flags & INJ_TRACED_GRAD;
    if (!(flags & INJ_TRACED_TORCH))
        return;
    mock.torch()->next_seq = next_seq;
    mock.torch()->thread_id = torch_id;
}

/* ---- operations ----------------------------------------------------------------------------------------------- */

/* The counts of a step are known when it ends: the host's way into the same tables. */
static void count_step(uint32_t step)
{
    for (; n_counted < file.n_counted && file.counted[n_counted].head.step <= step; n_counted++) {
        const union mp_record *r = &file.counted[n_counted];

        if (r->head.kind != MP_ROUTING) {
            inj_thread_post(inj_thread_self(), r);
            continue;
        }
        for (int k = 0; k < r->routing.n; k++)
            inj_count_expert(r->routing.layer, r->routing.expert0 + k, r->routing.count[k]);
    }
    inj_count_step(step, NULL);
}

static void scope(const struct inj_trace_scope *n)
{
    struct mock_node node = {.vtable = any_type, .seq = n->node_seq};

    be(n->flags, n->next_seq, n->torch_id);
    mock.torch()->node = n->flags & INJ_TRACED_NODE ? &node : NULL;
    switch (n->op) {
    case INJ_OP_ENTER:
        inj_scope_enter(n->depth, n->layer, n->arg);
        break;
    case INJ_OP_LEAVE:
        inj_scope_leave(n->depth);
        break;
    case INJ_OP_EXPERT:
        inj_scope_expert(n->layer, n->arg);
        break;
    case INJ_OP_MICRO_BEGIN:
        inj_micro_begin();
        break;
    case INJ_OP_MICRO_END:
        inj_micro_end();
        break;
    case INJ_OP_OPTIMIZER_BEGIN:
        inj_optimizer_begin();
        break;
    case INJ_OP_OPTIMIZER_END:
        inj_optimizer_end();
        break;
    default:
        count_step(atomic_load(&inj.step));
        inj_step_end(false);
    }
    mock.torch()->node = NULL;
}

static void launch(const struct replay_op *op)
{
    const struct inj_trace_launch *n = (const void *)op->data;
    const struct inj_trace_facts *facts = op->facts;
    struct mock_node node = {.vtable = n->flags & INJ_TRACED_SELECT ? select_type : any_type,
                             .seq = facts->node_seq,
                             .tid = facts->node_tid};
    uint64_t block[REPLAY_WORDS] = {0};
    size_t bytes = sizeof block;
    void *params[] = {block};
    void *extra[] = {(void *)EXTRA_POINTER, block, (void *)EXTRA_SIZE, &bytes, (void *)EXTRA_END};
    bool in_extra = n->flags & INJ_TRACED_EXTRA;
    bool ex = n->cbid == CB_cuLaunchKernelEx || n->cbid == CB_cuLaunchKernelEx_ptsz;
    struct launch_params p = {.f = (void *)(uintptr_t)n->handle,
                              .kernel_params = in_extra ? NULL : params,
                              .extra = in_extra ? extra : NULL};
    struct launch_ex_params px = {.f = p.f, .kernel_params = p.kernel_params, .extra = p.extra};

    memcpy(block, op->word ? op->word : block, op->n_word * sizeof block[0]);
    be(n->flags, facts->next_seq, facts->torch_id);
    mock.torch()->node = n->flags & INJ_TRACED_NODE ? &node : NULL;
    if (inj_thread_self())
        inj_thread_self()->own = n->flags & INJ_TRACED_OWN;
    mock.call(n->cbid, ex ? (const void *)&px : &p, replay_text(&file, facts->name), n->corr);
    mock.torch()->node = NULL;
}

static void set_ranges(const struct replay_op *op)
{
    size_t n = (op->bytes - sizeof op->time_ns) / sizeof(struct mp_range);
    struct mp_range *range = calloc(n + 1, sizeof *range);

    memcpy(range, op->data + sizeof op->time_ns, n * sizeof *range);
    inj_launch_set_ranges(mp_ranges_new(range, n));
    free(range);
}

static void do_op(const struct replay_op *op)
{
    if (op->tag == INJ_TRACE_RANGES)
        set_ranges(op);
    else if (op->tag == INJ_TRACE_POSTED)
        inj_thread_post(inj_thread_self(), op->data);
    else if (op->data[24] == INJ_TRACE_SCOPE)
        scope((const void *)op->data);
    else if (op->data[24] == INJ_TRACE_LAUNCH && op->facts)
        launch(op);
}

/* ---- threads ------------------------------------------------------------------------------------------------------ */

struct worker {
    pthread_t thread;
    bool running;
    const struct replay_op *from, *to; /* its turn; equal: it waits */
};

static struct worker worker[INJ_THREAD_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;

static void *work(void *arg)
{
    struct worker *w = arg;

    pthread_mutex_lock(&lock);
    while (w->running) {
        for (; w->from < w->to; w->from++)
            do_op(w->from);
        pthread_cond_broadcast(&turn);
        while (w->running && w->from == w->to)
            pthread_cond_wait(&turn, &lock);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void give_turn(struct worker *w, const struct replay_op *from, const struct replay_op *to)
{
    pthread_mutex_lock(&lock);
    w->from = from;
    w->to = to;
    if (!w->running) {
        w->running = true;
        pthread_create(&w->thread, NULL, work, w);
    }
    pthread_cond_broadcast(&turn);
    while (w->from < w->to)
        pthread_cond_wait(&turn, &lock);
    pthread_mutex_unlock(&lock);
}

static void end_workers(void)
{
    for (size_t i = 0; i < countof(worker); i++) {
        if (!worker[i].running)
            continue;
        pthread_mutex_lock(&lock);
        worker[i].running = false;
        pthread_cond_broadcast(&turn);
        pthread_mutex_unlock(&lock);
        pthread_join(worker[i].thread, NULL);
    }
}

/* ---- the agent ------------------------------------------------------------------------------------------------------- */

static void agent_round(const struct replay_op *op)
{
    struct mp_shm *shm = inj_shm();

    inj_join_launches(shm);
    for (size_t i = op->activity; i < op->activity + op->n_activity; i++)
        mock.record(file.activity[i].record,
                    mock.cupti()->record_bytes[file.activity[i].record[0] & 63]);
    inj_tracer_flush();
    inj_activity_drain(inj_join_activity, shm);
    inj_join_steps(shm, op->time_ns, false);
    mp_shm_flush(shm);
}

#define TURN_MAX 4096 /* operations between two looks into the outboxes */

static void run(void)
{
    for (size_t i = 0, k; i < file.n_op; i = k) {
        const struct replay_op *op = &file.op[i];

        k = i + 1;
        if (op->tag == INJ_TRACE_ROUND) {
            agent_round(op);
            continue;
        }
        while (k < file.n_op && k - i < TURN_MAX && file.op[k].thread == op->thread &&
               file.op[k].tag != INJ_TRACE_ROUND)
            k++;
        give_turn(&worker[op->thread], op, &file.op[k]);
        if (k - i == TURN_MAX)
            inj_join_launches(inj_shm());
    }
}

/* ---- start --------------------------------------------------------------------------------------------------------------- */

static void believe_torch(void)
{
    struct mock_node node = {.vtable = mul_type, .seq = 1, .tid = 1};

    for (size_t i = 0; i < file.n_op; i++)
        if (file.op[i].tag == INJ_TRACE_NOTE && file.op[i].data[24] == INJ_TRACE_SCOPE &&
            ((const struct inj_trace_scope *)(const void *)file.op[i].data)->flags &
                INJ_TRACED_TORCH) {
            mock.torch()->thread_id = 1;
            mock.torch()->node = &node;
            inj_torch_init();
            inj_torch_check(1, true);
            mock.torch()->node = NULL;
            return;
        }
}

static uint32_t first_step(void)
{
    for (size_t i = 0; i < file.n_op; i++)
        if (file.op[i].tag == INJ_TRACE_NOTE && file.op[i].data[24] == INJ_TRACE_SCOPE)
            return ((const struct inj_trace_scope *)(const void *)file.op[i].data)->step;
    return 0;
}

/* The last record of a buffer may seem longer than it was. */
static void learn_size(const struct replay_activity *a)
{
    size_t *bytes = &mock.cupti()->record_bytes[a->record[0] & 63];

    if (!*bytes || a->bytes < *bytes)
        *bytes = a->bytes;
}

static int start(const char *dir)
{
    struct mp_err err = {0};

    mock_load_torch(&mock);
    mock_load_cupti(&mock);
    mock_load_cuda(&mock);
    mock.cupti()->version = file.cupti_version;
    mock.cuda()->param_bytes = REPLAY_WORDS * 8;
    for (size_t i = 0; i < file.n_activity; i++)
        learn_size(&file.activity[i]);
    for (size_t i = 0; i < file.n_counted; i++)
        if (file.counted[i].head.kind == MP_ROUTING)
            inj_count_layer(file.counted[i].routing.layer,
                            file.counted[i].routing.expert0 + file.counted[i].routing.n);
    snprintf(inj.opts.dir, sizeof inj.opts.dir, "%s", dir);
    atomic_store(&inj.life, INJ_ALIVE);
    atomic_store(&inj.step, first_step());
    if (inj_thread_init() || inj_join_init() || !inj_shm())
        return 1;
    believe_torch();
    if (inj_tracer_start(&err)) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    inj_sample_mode(INJ_SAMPLE_ALWAYS);
    inj_sample_start();
    inj_join_mark_steps(inj_shm(), first_step(), first_step(), MP_STEP_PARTIAL);
    return 0;
}

static int replay(const char *path)
{
    char dir[] = "/tmp/mp_replay_XXXXXX";
    const struct replay_op last = {.time_ns = UINT64_MAX / 2};
    int rc;

    replay_read(&file, path);
    if (!mkdtemp(dir) || start(dir))
        return 1;
    run();
    end_workers();
    agent_round(&last);
    inj_join_steps(inj_shm(), last.time_ns, true);
    mp_shm_flush(inj_shm());
    rc = cells_print(stdout, dir, getpid());
    if (inj_thread_lost() + inj_activity_starved()) {
        fprintf(stderr, "%s: the replay itself lost records\n", path);
        rc = 1;
    }
    atomic_store(&inj.life, INJ_DEAD);
    mp_shm_close(inj_shm(), dir, true);
    rmdir(dir);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc == 2)
        return replay(argv[1]);
    if (argc == 4 && strcmp(argv[1], "cells") == 0)
        return cells_print(stdout, argv[2], atoi(argv[3]));
    if (argc == 4 && strcmp(argv[1], "pack") == 0)
        return replay_pack(argv[2], argv[3]);
    fprintf(stderr, "usage: replay FILE | replay cells DIR PID | replay pack FROM TO\n");
    return 2;
}
