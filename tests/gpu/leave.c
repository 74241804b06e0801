/* Is CUPTI left safely while other threads call CUDA? Usage: leave LIBCUPTI [CYCLES]
 *
 * Each cycle subscribes, records 1000 launches, switches off and finalizes; beside it a thread asks for an
 * event over and over (as NCCL's watchdog does) and, in half of the runs, another one launches. Finalized
 * directly, after a wait for the GPU, or at the exit of a driver call, as CUPTI's documentation has it. A
 * run that does not end within 20 s says in which call it stands. */
#include "injector/cupti_abi.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BUFFERS      256
#define BUFFER_BYTES (256u << 10)
enum { CB_CTX_SYNCHRONIZE = 17, CB_CTX_SYNCHRONIZE_V2 = 800 };

static const char ptx[] =
    ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry nothing() { ret; }\n";
static void *driver, *cupti, *func, *subscriber, *event;
static _Atomic bool done, within, left;
static _Atomic long n_query, n_launch, n_record;
static const char *_Atomic where = "start";
static uint8_t *buffer[BUFFERS];
static _Atomic unsigned next_buffer;

#define CU(name, ...)    call(#name, driver)(__VA_ARGS__)
#define CUPTI(name, ...) call(#name, cupti)(__VA_ARGS__)

static int (*call(const char *name, void *library))()
{
    where = name;
    return (int (*)())dlsym(library, name);
}

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void request(uint8_t **out, size_t *bytes, size_t *max)
{
    *out = buffer[atomic_fetch_add(&next_buffer, 1) % BUFFERS];
    *bytes = BUFFER_BYTES;
    *max = 0;
}

static void complete(void *ctx, uint32_t stream, uint8_t *b, size_t bytes, size_t valid)
{
    int (*next)(uint8_t *, size_t, uint8_t **) =
        (int (*)(uint8_t *, size_t, uint8_t **))dlsym(cupti, "cuptiActivityGetNextRecord");
    uint8_t *record = NULL;

    (void)ctx;
    (void)stream;
    (void)bytes;
    while (next(b, valid, &record) == 0)
        atomic_fetch_add(&n_record, 1);
}

static void finish(void)
{
    CUPTI(cuptiActivityFlushAll, 1);
    CUPTI(cuptiUnsubscribe, subscriber);
    CUPTI(cuptiFinalize);
    left = true;
}

static void callback(void *user, int domain, uint32_t cbid, const struct cupti_callback *info)
{
    (void)user;
    (void)domain;
    if (within && info->site == SITE_EXIT &&
        (cbid == CB_CTX_SYNCHRONIZE || cbid == CB_CTX_SYNCHRONIZE_V2)) {
        within = false;
        finish();
    }
}

static void launch(void *stream)
{
    int (*fn)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *,
              void **, void **) =
        (int (*)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                 void *, void **, void **))dlsym(driver, "cuLaunchKernel");

    fn(func, 1, 1, 1, 32, 1, 1, 0, stream, NULL, NULL);
}

static void *queries(void *ctx)
{
    int (*query)(void *) = (int (*)(void *))dlsym(driver, "cuEventQuery");
    int (*set)(void *) = (int (*)(void *))dlsym(driver, "cuCtxSetCurrent");

    set(ctx);
    for (; !done; n_query++)
        query(event);
    return NULL;
}

static void *launches(void *ctx)
{
    int (*set)(void *) = (int (*)(void *))dlsym(driver, "cuCtxSetCurrent");
    int (*make)(void **, unsigned) = (int (*)(void **, unsigned))dlsym(driver, "cuStreamCreate");
    void *stream = NULL;

    set(ctx);
    make(&stream, 1);
    for (; !done; n_launch++)
        launch(stream);
    return NULL;
}

static void callbacks(int on)
{
    static const unsigned cbid[] = {CB_cuLaunchKernel, CB_cuLaunchKernelEx, CB_cuMemcpyHtoDAsync_v2,
                                    CB_cuMemsetD8Async};

    for (unsigned i = 0; i < sizeof cbid / sizeof *cbid; i++)
        CUPTI(cuptiEnableCallback, on, subscriber, DOMAIN_DRIVER, cbid[i]);
}

static void kinds(const char *name)
{
    static const int kind[] = {ACT_CONCURRENT_KERNEL, ACT_MEMCPY, ACT_MEMSET};

    for (unsigned i = 0; i < 3; i++)
        ((int (*)(int))dlsym(cupti, name))(kind[i]);
}

static void leave(bool at_exit)
{
    left = false;
    if (at_exit) {
        CUPTI(cuptiEnableCallback, 1, subscriber, DOMAIN_DRIVER, CB_CTX_SYNCHRONIZE);
        CUPTI(cuptiEnableCallback, 1, subscriber, DOMAIN_DRIVER, CB_CTX_SYNCHRONIZE_V2);
        within = true;
        CU(cuCtxSynchronize);
    }
    if (!left) {
        CU(cuCtxSynchronize);
        finish();
    }
}

static void stuck(int sig)
{
    static char text[200];
    int n = snprintf(text, sizeof text, "STUCK in %s, signal %d, queries %ld launches %ld\n", where,
                     sig, n_query, n_launch);

    _exit(write(1, text, (size_t)n) > 0 ? 3 : 4);
}

static void start(void)
{
    void *ctx = NULL, *module = NULL;
    int device = 0;

    CU(cuInit, 0);
    CU(cuDeviceGet, &device, 0);
    CU(cuDevicePrimaryCtxRetain, &ctx, device);
    CU(cuCtxSetCurrent, ctx);
    if (CU(cuModuleLoadData, &module, ptx) || CU(cuModuleGetFunction, &func, module, "nothing"))
        exit(5);
    CU(cuEventCreate, &event, 0);
    CU(cuEventRecord, event, NULL);
    for (unsigned i = 0; i < BUFFERS; i++)
        buffer[i] = aligned_alloc(8, BUFFER_BYTES);
}

static void run(bool at_exit, bool with_launches, int cycles)
{
    pthread_t thread[2];
    void *ctx = NULL;
    double came = 0, went = 0, worst = 0;
    int bad = 0;

    alarm(20);
    start();
    CU(cuCtxGetCurrent, &ctx);
    pthread_create(&thread[0], NULL, queries, ctx);
    if (with_launches)
        pthread_create(&thread[1], NULL, launches, ctx);
    for (int i = 0; i < cycles; i++) {
        double t = now_ms();

        n_record = 0;
        bad += CUPTI(cuptiSubscribe, &subscriber, callback, NULL) != 0;
        CUPTI(cuptiActivityRegisterCallbacks, request, complete);
        kinds("cuptiActivityEnable");
        callbacks(1);
        came += now_ms() - t;
        for (int k = 0; k < 1000; k++)
            launch(NULL);
        CU(cuCtxSynchronize);
        callbacks(0);
        kinds("cuptiActivityDisable");
        CUPTI(cuptiActivityFlushAll, 0);
        usleep(2000);
        t = now_ms();
        leave(at_exit);
        t = now_ms() - t;
        went += t;
        worst = t > worst ? t : worst;
        bad += n_record < 1000;
    }
    done = true;
    where = "joining";
    pthread_join(thread[0], NULL);
    if (with_launches)
        pthread_join(thread[1], NULL);
    printf("%s, %s: %d cycles, %d bad; come %.1f ms, go %.1f (worst %.1f); %ld queries, %ld "
           "launches beside\n",
           at_exit ? "at an exit" : "directly",
           with_launches ? "launches beside" : "queries beside", cycles, bad, came / cycles,
           went / cycles, worst, n_query, n_launch);
}

int main(int argc, char **argv)
{
    int status;

    driver = dlopen("libcuda.so.1", RTLD_NOW);
    cupti = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!driver || !cupti)
        return 2;
    signal(SIGALRM, stuck);
    signal(SIGSEGV, stuck);
    signal(SIGABRT, stuck);
    for (int i = 0; i < 4; i++) {
        fflush(stdout);
        if (fork() == 0) {
            run(i & 1, i & 2, argc > 2 ? atoi(argv[2]) : 100);
            fflush(stdout);
            _exit(0);
        }
        wait(&status);
        if (status)
            printf("run %d ended with %x\n", i, (unsigned)status);
    }
    return 0;
}
