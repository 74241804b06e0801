/* A training whose experts can be swapped, without a GPU: publishes the fake job's steps, serves the
 * control socket at step boundaries as injector/CONTROL.md says, and runs faster under `moeprof`.
 * Its clock is its own: a step takes a millisecond or two of real time.
 *
 * Usage: fake_ab [steps=N] [ratio=R: moeprof's experts take 1/R of the time] [no-trace] [no-memory]
 *                [parity-fail] [revert=STEP: two steps after a switch, no earlier] [late=N: answers N steps late] [noise=PERCENT]
 *                [end=STEP: exits there] [linger=MS: between its sockets and it] [rank=R world=W] [deaf: no socket] [pace=US: real time a step]
 *                [foreign=STEP: another tool swaps there] [other-model=STEP: another model trains from there on]
 *                [loss-gap=D: the loss under moeprof is D higher] [no-loss] [busy=N: so often a graph is captured]
 */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "profiler/core/shm.h"
#include "profiler/core/sock.h"
#include "tests/mock/fake_job.h"

#define QUEUE 64

enum tracing { AUTO, ON, OFF };

struct job {
    struct mp_shm *shm;
    struct fake_job fake;
    int listener, client;
    size_t n_in, n_queue;
    uint8_t in[4 * MP_WIRE_MAX];
    struct mp_msg queue[QUEUE];
    uint32_t swapped_at; /* step */
    bool swapped, checked, leased, metered, foreign_said, is_other;
    int n_busy;
    enum tracing tracing;
    int argc;
    char **argv;
    uint64_t peak;
};

static const char *option(const struct job *j, const char *name)
{
    size_t n = strlen(name);

    for (int i = 1; i < j->argc; i++)
        if (strncmp(j->argv[i], name, n) == 0 && (j->argv[i][n] == '=' || j->argv[i][n] == 0))
            return j->argv[i] + n + (j->argv[i][n] == '=');
    return NULL;
}

static double number(const struct job *j, const char *name, double otherwise)
{
    const char *text = option(j, name);

    return text ? atof(text) : otherwise;
}

static void env_value(char *out, size_t n, const char *key)
{
    const char *env = getenv("MOEPROF"), *at = env ? strstr(env, key) : NULL;

    snprintf(out, n, "%.*s", at ? (int)strcspn(at + strlen(key), ",") : 0,
             at ? at + strlen(key) : "");
}

static void put(void *arg, const union mp_record *record)
{
    struct job *j = arg;

    mp_shm_put(j->shm, record);
}

/* ---- answers ------------------------------------------------------------------------------------ */

static void tell(struct job *j, struct mp_msg msg)
{
    uint8_t frame[MP_WIRE_MAX];
    size_t n = mp_wire_pack(frame, &msg);

    if (j->client >= 0 && write(j->client, frame, n) != (ssize_t)n && errno != EPIPE)
        raise(SIGABRT);
}

static void done(struct job *j, const struct mp_msg *ask, int code, const char *text)
{
    struct mp_msg msg = {.kind = MP_WIRE_DONE,
                         .id = ask->id,
                         .code = code,
                         .step = j->fake.step,
                         .layer = -1,
                         .value = {NAN, NAN, NAN, NAN}};

    snprintf(msg.name, sizeof msg.name, "%s", j->swapped ? "moeprof" : "original");
    snprintf(msg.text, sizeof msg.text, "%s", text);
    if (ask->kind == MP_WIRE_MEMORY) {
        msg.value[0] = 20e9;
        msg.value[1] = (double)j->peak;
        msg.value[2] = msg.value[3] = 40e9;
    }
    tell(j, msg);
}

static void status(struct job *j, const struct mp_msg *ask)
{
    static const struct {
        const char *name, *text;
        bool yes;
    } arm[] = {{"original", "grouped_mm", true},
               {"grouped_mm", "transformers' own", true},
               {"moeprof", "libmoeprof_kernels.so", true},
               {"scattermoe", "the job's Python has no package scattermoe", false},
               {"deepgemm", "layer 0: needs 'deep_gemm', which is not installed", false}};
    struct mp_msg state = {
        .kind = MP_WIRE_STATE,
        .id = ask->id,
        .text = "grouped_mm",
        .value = {j->fake.n_layer, j->fake.n_layer, j->swapped ? j->fake.n_layer : 0}};

    snprintf(state.name, sizeof state.name, "%s", j->swapped ? "moeprof" : "original");
    tell(j, state);
    for (size_t i = 0; i < countof(arm); i++) {
        struct mp_msg row = {
            .kind = MP_WIRE_ARM, .id = ask->id, .flags = arm[i].yes ? MP_WIRE_YES : 0};

        snprintf(row.name, sizeof row.name, "%s", arm[i].name);
        snprintf(row.text, sizeof row.text, "%s", arm[i].text);
        tell(j, row);
    }
    done(j, ask, 0, "");
}

static int check(struct job *j, const struct mp_msg *ask)
{
    bool fails = option(j, "parity-fail") != NULL;

    for (int layer = 0; layer < j->fake.n_layer; layer++) {
        bool bad = fails && layer == 1;
        struct mp_msg row = {
            .kind = MP_WIRE_PARITY,
            .id = ask->id,
            .layer = layer,
            .name = "dgate_up",
            .flags = bad ? 0 : MP_WIRE_YES,
            .value = {bad ? 0.02 : 0.002, 0.0021, bad ? 9.5 : 0.95 + 0.01 * layer, 4096},
            .text = ""};

        if (bad)
            strcpy(row.text, "dgate_up is 9.5 times as far off as the job's own");
        tell(j, row);
        row = (struct mp_msg){.kind = MP_WIRE_COSINE,
                              .id = ask->id,
                              .layer = layer,
                              .flags = layer ? 0 : MP_WIRE_TWICE | MP_WIRE_YES,
                              .name = "ddown",
                              .value = {0.999998, 0.999997, bad ? 0.98 : 0.999996, 0.999995}};
        tell(j, row);
    }
    return fails ? MP_WIRE_EPARITY : 0;
}

static void swapped_tell(struct job *j, const char *arm)
{
    struct mp_msg notice = {.kind = MP_WIRE_SWAPPED, .step = j->fake.step, .layer = -1};

    snprintf(notice.name, sizeof notice.name, "%s", arm);
    tell(j, notice);
}

static void swap(struct job *j, const struct mp_msg *ask)
{
    bool on = strcmp(ask->name, "moeprof") == 0;

    if (!on && strcmp(ask->name, "original") != 0 && strcmp(ask->name, "grouped_mm") != 0) {
        done(j, ask, MP_EINVAL, "no such arm");
        return;
    }
    if (j->n_busy < (int)number(j, "busy", 0)) {
        j->n_busy++;
        done(j, ask, MP_EBUSY, "a CUDA graph is being captured");
        return;
    }
    if (on && !j->checked && check(j, ask)) {
        done(j, ask, MP_WIRE_EPARITY, "layer 1: dgate_up is 9.5 times as far off as the job's own");
        return;
    }
    j->checked |= on;
    if (on != j->swapped) {
        swapped_tell(j, on ? "moeprof" : "original");
        j->swapped_at = j->fake.step;
    }
    j->swapped = on;
    done(j, ask, 0, "");
}

/* The loss falls slowly and is never twice the same. */
static void loss_tell(struct job *j, const struct mp_msg *ask)
{
    struct mp_msg row = {.kind = MP_WIRE_LOSS, .id = ask->id, .step = j->fake.step, .layer = -1};

    row.value[0] = 2.5 - 1e-4 * j->fake.step + 1e-6 * (double)fake_rnd(&j->fake, 1000) +
                   (j->swapped ? number(j, "loss-gap", 0) : 0);
    row.value[1] = 8;
    row.value[2] = j->swapped ? 5e9 : 9e9;
    row.value[3] = NAN;
    if (j->metered && !option(j, "no-loss"))
        tell(j, row);
    j->metered = (ask->flags & MP_WIRE_RESET) != 0;
}

static void carry_out(struct job *j, const struct mp_msg *ask)
{
    switch (ask->kind) {
    case MP_WIRE_HELLO:
        j->leased = ask->flags & MP_WIRE_LEASE;
        tell(j, (struct mp_msg){.kind = MP_WIRE_HELLO,
                                .id = ask->id,
                                .step = j->fake.step,
                                .name = "0.1.0",
                                .flags = MP_WIRE_CAN_SWAP |
                                         (option(j, "no-memory") ? 0u : MP_WIRE_CAN_MEMORY) |
                                         (option(j, "no-trace") ? 0u : MP_WIRE_CAN_TRACE)});
        break;
    case MP_WIRE_STATUS:
        status(j, ask);
        break;
    case MP_WIRE_CHECK: {
        int code = check(j, ask);

        j->checked = code == 0;

        j->checked |= code == 0;
        done(j, ask, code,
             code ? "layer 1: dgate_up is 9.5 times as far off as the job's own" : "");
        break;
    }
    case MP_WIRE_SWAP:
        swap(j, ask);
        break;
    case MP_WIRE_TRACE:
        j->tracing = strcmp(ask->name, "off") == 0 ? OFF : strcmp(ask->name, "on") == 0 ? ON : AUTO;
        done(j, ask, 0, "");
        break;
    case MP_WIRE_MEMORY:
        loss_tell(j, ask);
        done(j, ask, 0, "");
        j->peak = ask->flags & MP_WIRE_RESET ? 0 : j->peak;
        break;
    default:
        done(j, ask, MP_ENOTSUP, "what is that");
    }
}

/* ---- step boundaries ---------------------------------------------------------------------------- */

static void listen_in(struct job *j)
{
    struct mp_msg msg;
    ssize_t n;
    int used;

    if (j->listener < 0)
        return;
    if (j->client < 0 && (j->client = mp_sock_accept(j->listener)) < 0)
        return;
    while ((n = read(j->client, j->in + j->n_in, sizeof j->in - j->n_in)) > 0) {
        j->n_in += (size_t)n;
        while ((used = mp_wire_unpack(&msg, j->in, j->n_in)) > 0) {
            j->n_in -= (size_t)used;
            memmove(j->in, j->in + used, j->n_in);
            if (j->n_queue < QUEUE)
                j->queue[j->n_queue++] = msg;
        }
    }
    if (n == 0) { /* the lease, where there is one, ends */
        close(j->client);
        j->client = -1;
        j->n_queue = j->n_in = 0;
        j->swapped = j->swapped && !j->leased;
        j->tracing = AUTO;
    }
}

static void events(struct job *j)
{
    uint32_t step = j->fake.step;

    if (!j->foreign_said && step >= (uint32_t)number(j, "foreign", 1e9)) {
        j->foreign_said = true;
        swapped_tell(j, "deepgemm");
    }
    if (!j->is_other && step >= (uint32_t)number(j, "other-model", 1e9)) {
        j->is_other = true;
        j->checked = false;
    }
    /* Early in a block: later the next switch may be on its way, and then ab ends rather than go on. */
    if (j->swapped && option(j, "revert") && step >= (uint32_t)number(j, "revert", 0) &&
        step == j->swapped_at + 2) {
        j->swapped = false;
        tell(j, (struct mp_msg){.kind = MP_WIRE_REVERTED,
                                .step = j->fake.step,
                                .layer = 0,
                                .text = "layer 0: NaN in the output"});
    }
}

static void boundary(struct job *j)
{
    size_t kept = 0;

    listen_in(j);
    events(j);
    for (size_t i = 0; i < j->n_queue; i++)
        if (j->queue[i].step + (uint32_t)number(j, "late", 0) <= j->fake.step)
            carry_out(j, &j->queue[i]);
        else
            j->queue[kept++] = j->queue[i];
    j->n_queue = kept;
}

/* Both arms run grouped kernels; the job's own loses time between them. */
static void step(struct job *j)
{
    uint64_t began = j->fake.now_ns;
    double ratio = number(j, "ratio", 1.5), noise = number(j, "noise", 0.2) / 100;

    j->fake.untraced = j->tracing == OFF;
    if (!j->swapped)
        j->fake.now_ns += (uint64_t)((ratio - 1) * 25e6);
    j->fake.now_ns += (uint64_t)(noise * 30e6 * fake_rnd(&j->fake, 1000) / 1000);
    fake_step(&j->fake);
    j->peak = j->swapped ? 30000000000u : 33000000000u;
    if (j->fake.now_ns < began)
        raise(SIGABRT);
}

static void train(struct job *j)
{
    uint32_t steps = (uint32_t)number(j, "steps", 100000), end = (uint32_t)number(j, "end", 1e9);
    long pace_ns = (long)(number(j, "pace", 2000) * 1000);
    char *spec;

    fake_init(&j->fake, put, j);
    j->fake.n_layer = 2;
    j->fake.n_expert = 16;
    j->fake.grouped = true;
    spec = fake_spec(&j->fake);
    mp_shm_spec_set(j->shm, spec, strlen(spec));
    free(spec);
    atomic_store(&j->shm->state, MP_GUEST_RECORDING);
    while (j->fake.step < steps && j->fake.step < end) {
        atomic_store(&j->shm->step, j->fake.step);
        boundary(j);
        step(j);
        mp_shm_flush(j->shm);
        nanosleep(&(struct timespec){0, pace_ns}, NULL);
    }
}

int main(int argc, char **argv)
{
    struct job j = {.listener = -1, .client = -1, .argc = argc, .argv = argv};
    char wanted[2048], dir[2048], session[40];
    struct mp_err err;

    signal(SIGPIPE, SIG_IGN); /* a tool hangs up when it likes */
    env_value(wanted, sizeof wanted, "dir=");
    env_value(session, sizeof session, "session=");
    if (mp_shm_dir(dir, sizeof dir, wanted, &err) || mp_shm_create(&j.shm, dir, &err))
        return 99;
    snprintf(j.shm->session, sizeof j.shm->session, "%s", session);
    snprintf(j.shm->gpu_name, sizeof j.shm->gpu_name, "NVIDIA H100 80GB HBM3");
    j.shm->gpu_cc = 90;
    j.shm->gpu_sm_count = 132;
    j.shm->rank = (int)number(&j, "rank", -1);
    j.shm->world = (int)number(&j, "world", 1);
    for (int i = 0; i < FAKE_NAME_COUNT; i++)
        mp_shm_name_add(j.shm, fake_name[i]);
    if (!option(&j, "deaf"))
        j.listener = mp_sock_listen(dir, NULL);
    puts("training");
    fflush(stdout);
    train(&j);
    mp_shm_flush(j.shm);
    atomic_store(&j.shm->state, MP_GUEST_ENDED);
    mp_sock_unlink(dir);
    if (option(&j, "linger")) {
        close(j.client);
        usleep((useconds_t)number(&j, "linger", 0) * 1000);
    }
    mp_shm_close(j.shm, dir, false);
    return 0;
}
