/* A made-up training in a process that has the guest's objects and stand-ins for torch, CUPTI and the
 * driver: eager experts, a checkpointed layer, an autograd thread, copies, an optimizer. For scripts.
 *
 * Usage: MOEPROF=... job key=value...
 *   steps=N  pause=MS (after each step)  wait=MS (at the end)  kill=STEP (SIGKILL itself)  fork=STEP
 *   kineto=STEP (a second user of CUPTI records that step)  held=NAME (another tool has CUPTI)
 *   exit=CODE  nowait=1 (for the guest to be ready)  cuda=0, torch=0 (is not there)  hang=MS (CUPTI takes so long to flush, at the end)
 */
#include "injector/agent.h"
#include "injector/count.h"
#include "injector/guest.h"
#include "injector/inject.h"
#include "injector/launch.h"
#include "injector/scope.h"
#include "injector/torch_abi.h"
#include "injector/tracer.h"
#include "profiler/core/phase.h"
#include "tests/mock/mock_load.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#define LAYERS  2
#define EXPERTS 4
enum { GATE = 0x10000, STACK = 0x100000, SLICE = 0x1000, LAYER = 0x100000 };

MOCK_NODE_TYPE(mul_type, "N5torch8autograd9generated12MulBackward0E");
MOCK_NODE_TYPE(mm_type, "N5torch8autograd9generated11MmBackward0E");
MOCK_NODE_TYPE(select_type, "N5torch8autograd9generated15SelectBackward0E");

static struct mock mock;
static struct {
    const char *held;
    int steps, pause_ms, wait_ms, kill_step, fork_step, kineto_step, exit_code, cuda, torch,
        hang_ms, nowait;
} opt = {.steps = 3, .kill_step = -1, .fork_step = -1, .kineto_step = -1, .cuda = 1, .torch = 1};

/* ---- the GPU ----------------------------------------------------------------------------------------- */

static _Atomic uint32_t next_corr = 1;
static _Atomic uint64_t gpu_ns; /* when the GPU is free */

static uint64_t run_on_gpu(uint64_t ns)
{
    uint64_t now = inj_now_ns(), start = atomic_load(&gpu_ns);

    start = start > now ? start : now;
    atomic_store(&gpu_ns, start + ns);
    return start;
}

static void kernel(const char *name, uint64_t word, bool in_extra)
{
    uint64_t block[16] = {7, word, 9}, start;
    size_t bytes = sizeof block;
    void *params[] = {block};
    void *extra[] = {(void *)EXTRA_POINTER, block, (void *)EXTRA_SIZE, &bytes, (void *)EXTRA_END};
    struct launch_params p = {.f = (void *)(uintptr_t)name};
    uint32_t corr = atomic_fetch_add(&next_corr, 1);

    p.kernel_params = in_extra ? NULL : params;
    p.extra = in_extra ? extra : NULL;
    mock.call(CB_cuLaunchKernel, &p, name, corr);
    start = run_on_gpu(900);
    mock.kernel(corr, name, start, start + 900);
}

static void copy(void)
{
    uint8_t r[96] = {ACT_MEMCPY};
    uint32_t corr = atomic_fetch_add(&next_corr, 1);
    uint64_t start, end, bytes = 4096;

    mock.call(CB_cuMemcpyHtoDAsync_v2, NULL, NULL, corr);
    start = run_on_gpu(300);
    end = start + 300;
    r[COPY_KIND] = COPY_HTOD;
    memcpy(r + COPY_BYTES, &bytes, 8);
    memcpy(r + COPY_START, &start, 8);
    memcpy(r + COPY_END, &end, 8);
    memcpy(r + COPY_CORR, &corr, 4);
    mock.record(r, mock.cupti()->version >= 26 ? 96 : 88);
}

/* ---- forward ------------------------------------------------------------------------------------------- */

static const char gemm[] = "nvjet_sm90_tst_64x8", add[] = "vectorized_elementwise_kernel_add",
                  gather[] = "vectorized_gather_kernel", scatter[] = "indexFuncLargeIndex_add",
                  topk[] = "sbtopk::gatherTopK", adam[] = "multi_tensor_apply_kernel",
                  fill[] = "FillFunctor";

static uint64_t weight(int layer, int expert)
{
    return STACK + (uint64_t)layer * LAYER + (uint64_t)expert * SLICE;
}

/* One operation with a gradient: its node is made, then its kernel is launched. */
static void op(const char *name, uint64_t word)
{
    if (mock.torch()->grad)
        mock.torch()->next_seq++;
    kernel(name, word, word >= STACK);
}

static void experts(int layer)
{
    for (int e = 0; e < EXPERTS; e++) {
        if ((e + layer) % 3 == 2) /* nobody chose it */
            continue;
        op(gather, 0);
        op(gemm, weight(layer, e));
        op(add, 0);
        op(gemm, weight(layer, e));
        op(scatter, 0);
    }
}

static void layer(int i)
{
    inj_scope_enter(1, i, MP_PHASE_OTHER);
    inj_scope_enter(2, i, MP_PHASE_ATTENTION);
    op(gemm, 0);
    op(add, 0);
    inj_scope_leave(2);
    op(add, 0);
    inj_scope_enter(2, i, MP_PHASE_ROUTER);
    op(gemm, GATE + (uint64_t)i * 0x1000);
    op(topk, 0);
    inj_scope_enter(3, i, MP_PHASE_EXPERT);
    experts(i);
    inj_scope_leave(3);
    inj_scope_leave(2);
    op(add, 0);
    inj_scope_leave(1);
}

/* ---- backward --------------------------------------------------------------------------------------------- */

struct span {                         /* nodes of one forward */
    uint64_t first, last, checkpoint; /* checkpoint: the node that replays layer 1 */
};

static void run_node(const void *const *type, uint64_t seq, bool replay)
{
    struct mock_node node = {.vtable = type, .seq = seq, .tid = seq == UINT64_MAX ? 0 : 1};

    mock.torch()->node = &node;
    mock.torch()->grad = false;
    if (replay) {
        mock.torch()->grad = true;
        layer(1);
        mock.torch()->grad = false;
    }
    kernel(seq % 3 ? gemm : add, 0, false);
    mock.torch()->node = NULL;
}

static void *engine(void *arg)
{
    const struct span *s = arg;

    mock.torch()->thread_id = 2;
    mock.torch()->next_seq = s->last; /* any: it is this thread's own counter */
    for (uint64_t seq = s->last; seq > s->first; seq--) {
        run_node(seq % 7 ? mm_type : select_type, seq - 1, seq - 1 == s->checkpoint);
        if (seq % 5 == 0) {
            kernel(add, 0, false); /* two gradients meet */
            run_node(mm_type, UINT64_MAX, false);
        }
    }
    return NULL;
}

/* ---- a step -------------------------------------------------------------------------------------------------- */

static void micro_batch(void)
{
    struct mp_micro m = {.processed = 64,
                         .useful = 60,
                         .trainable = 59,
                         .head_rows = UINT32_MAX,
                         .n_segment = 2,
                         .batch = 2,
                         .basis = MP_MEASURED};
    struct span s = {.first = mock.torch()->next_seq};
    pthread_t thread;

    copy();
    inj_micro_begin();
    inj_count_micro(&m);
    op(gather, 0);
    layer(0);
    s.checkpoint = mock.torch()->next_seq;
    mock.torch()->grad = false; /* checkpointed: no graph now */
    layer(1);
    mock.torch()->grad = true;
    mock.torch()->next_seq++;
    inj_scope_enter(1, -1, MP_PHASE_LM_HEAD);
    op(gemm, 0);
    inj_scope_leave(1);
    inj_count_flush();
    inj_micro_end();
    op(add, 0);
    s.last = mock.torch()->next_seq;
    for (int i = 0; i < LAYERS; i++)
        for (int e = 0; e < EXPERTS; e++)
            inj_count_expert(i, e, (uint32_t)(e + 1));
    pthread_create(&thread, NULL, engine, &s);
    pthread_join(thread, NULL);
}

static void step(void)
{
    micro_batch();
    micro_batch();
    kernel(add, 0, false); /* clips */
    inj_optimizer_begin();
    kernel(adam, 0, false);
    inj_optimizer_end();
    kernel(fill, 0, false);
    inj_count_step(atomic_load(&inj.step), NULL);
    inj_step_end(false);
    inj_tracer_leave(NULL);
}

/* ---- what else happens to jobs ---------------------------------------------------------------------------------- */

/* A data worker: what it runs must not be seen. */
static void forked(void)
{
    pid_t pid = fork();

    if (!pid) {
        for (int i = 0; i < 3; i++)
            layer(0);
        inj_log(2, "a fork's child spoke");
        exit(0);
    }
    waitpid(pid, NULL, 0);
}

static int happenings(int i)
{
    struct mock_kineto_seen seen;

    if (i == opt.kill_step)
        raise(SIGKILL);
    if (i == opt.fork_step)
        forked();
    if (i == opt.kineto_step)
        return mock.kineto_start();
    if (i == opt.kineto_step + 1 && opt.kineto_step >= 0) {
        seen = mock.kineto_stop();
        printf("kineto kernels %u others %u unknown %u\n", seen.kernels, seen.others,
               seen.unknown_buffers);
    }
    return 0;
}

/* ---- start --------------------------------------------------------------------------------------------------------- */

static void believe_torch(void)
{
    struct mock_node node = {.vtable = mul_type, .seq = 1, .tid = 1};

    mock.torch()->thread_id = 1;
    mock.torch()->next_seq = 10;
    inj_torch_init();
    mock.torch()->node = &node;
    inj_torch_check(1, true);
    mock.torch()->node = NULL;
}

static void tables(void)
{
    struct mp_range r[LAYERS * 2];

    memset(r, 0, sizeof r);
    for (int i = 0; i < LAYERS; i++) {
        inj_count_layer(i, EXPERTS);
        r[i * 2] = (struct mp_range){.base = GATE + (uint64_t)i * 0x1000,
                                     .bytes = 0x100,
                                     .layer = (int16_t)i,
                                     .expert = -1,
                                     .phase = MP_PHASE_ROUTER};
        r[i * 2 + 1] = (struct mp_range){.base = weight(i, 0),
                                         .bytes = EXPERTS * SLICE,
                                         .n_slice = EXPERTS,
                                         .layer = (int16_t)i,
                                         .expert = -1,
                                         .phase = MP_PHASE_EXPERT};
    }
    inj_launch_set_ranges(mp_ranges_new(r, countof(r)));
}

static void read_options(int argc, char **argv)
{
    static const struct {
        const char *name;
        int *to;
    } number[] = {{"steps", &opt.steps},    {"pause", &opt.pause_ms}, {"wait", &opt.wait_ms},
                  {"kill", &opt.kill_step}, {"fork", &opt.fork_step}, {"kineto", &opt.kineto_step},
                  {"exit", &opt.exit_code}, {"cuda", &opt.cuda},      {"torch", &opt.torch},
                  {"hang", &opt.hang_ms},   {"nowait", &opt.nowait}};

    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');

        if (!value)
            exit(2);
        *value++ = '\0';
        if (!strcmp(argv[i], "held"))
            opt.held = value;
        for (size_t k = 0; k < countof(number); k++)
            if (!strcmp(argv[i], number[k].name))
                *number[k].to = atoi(value);
    }
}

static void start(void)
{
    if (opt.torch) {
        mock_load_torch(&mock);
        mock_load_cupti(&mock);
    }
    if (opt.cuda)
        mock_load_cuda(&mock);
    if (opt.held)
        snprintf(mock.cupti()->holder, sizeof mock.cupti()->holder, "%s", opt.held);
    moeprof_attach(NULL);
    inj_thread_init();
    if (opt.torch)
        believe_torch();
    tables();
    inj_agent_wake();
}

static bool started(void)
{
    struct mp_shm *shm = atomic_load(&inj.shm);
    unsigned state = shm ? atomic_load(&shm->state) : MP_GUEST_ASLEEP;

    return state == MP_GUEST_RECORDING || state == MP_GUEST_OFF;
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    start();
    for (int i = 0; i < 200 && !opt.nowait && !started(); i++)
        usleep(10000);
    for (int i = 0; opt.torch && i < opt.steps; i++) {
        if (happenings(i))
            return 9;
        step();
        usleep((unsigned)opt.pause_ms * 1000);
    }
    usleep((unsigned)opt.wait_ms * 1000);
    if (opt.torch)
        mock.cupti()->hang_ms = opt.hang_ms;
    return opt.exit_code;
}
