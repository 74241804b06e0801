/* One thread, one loop: keys wait at most until the next draining is due, so that nothing spins. */
#include "profiler/dash/app.h"

#include "profiler/dash/live.h"
#include "profiler/dash/once.h"
#include "profiler/dash/order.h"
#include "profiler/dash/replay.h"
#include "profiler/dash/term.h"
#include "profiler/dash/view.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NS_PER_S     1000000000u
#define DRAIN_NS     (NS_PER_S / 10)
#define SCAN_NS      NS_PER_S
#define NEW_STEP_NS  (NS_PER_S * 15 / 100) /* a closed step is drawn this soon, at the earliest */
#define FIND_NS      NS_PER_S              /* for a process that was asked for */
#define ONCE_WAIT_NS (3ull * NS_PER_S)     /* for the first whole step, with --once */

struct app {
    const struct dash_options *o;
    struct dash_model m;
    struct dash_cells cells;
    struct dash_live *live; /* NULL in a replay */
    struct dash_orders orders;
    uint64_t scanned_ns, drained_ns, drawn_ns;
    uint64_t steps_drawn; /* steps of all jobs at the last drawing */
};

static uint64_t clock_ns(clockid_t which)
{
    struct timespec t;

    clock_gettime(which, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* ---- drawing -------------------------------------------------------------------------------- */

static uint64_t steps_seen(const struct dash_model *m)
{
    uint64_t n = 0;

    for (int i = 0; i < m->n_job; i++)
        n += m->job[i]->n_step;
    return n;
}

static void draw(struct app *a)
{
    int w, h;

    dash_term_size(&w, &h);
    if (w != a->cells.w || h != a->cells.h) {
        dash_cells_release(&a->cells);
        if (dash_cells_init(&a->cells, w, h) != MP_OK)
            return;
    }
    a->cells.ascii = dash_term_ascii();
    a->cells.mono = dash_term_mono(a->m.ui.theme);
    dash_frame(&a->m, &a->cells);
    dash_term_show(&a->cells, a->m.ui.theme, a->m.ui.redraw);
    a->m.ui.redraw = false;
    a->drawn_ns = now_ns();
    a->steps_drawn = steps_seen(&a->m);
}

static bool is_due(const struct app *a, uint64_t now)
{
    uint64_t since = now - a->drawn_ns;

    if (since >= (uint64_t)(a->m.ui.interval_s * NS_PER_S))
        return true;
    return a->m.ui.interval_s <= 0.5 && !a->m.paused && since >= NEW_STEP_NS &&
           steps_seen(&a->m) != a->steps_drawn;
}

/* Keys that are there, or the first that comes within wait_ms; draws when there is reason to. */
static bool turn(struct app *a, int wait_ms)
{
    uint32_t key = dash_term_key(wait_ms);
    bool pressed = false;

    for (; key != DASH_KEY_NONE && !a->m.ui.quit; key = dash_term_key(0)) {
        dash_key_press(&a->m, key);
        pressed = true;
    }
    pressed |= dash_orders_run(&a->orders, &a->m, now_ns());
    if (pressed || is_due(a, now_ns()))
        draw(a);
    return a->m.ui.quit || dash_term_ended();
}

/* ---- live ----------------------------------------------------------------------------------- */

static void say_waiting(struct app *a)
{
    int asleep = dash_live_asleep(a->live);
    char more[80] = "";

    if (asleep)
        snprintf(more, sizeof more, " %d process%s loaded it and did not train yet.", asleep,
                 asleep == 1 ? "" : "es");
    snprintf(a->m.notice, sizeof a->m.notice,
             "Waiting for a training under moeprof. In another terminal: moeprof run -- python "
             "train.py%s",
             more);
}

static void collect(struct app *a)
{
    uint64_t now = now_ns();

    a->m.now_ns = clock_ns(CLOCK_REALTIME);
    if (!a->scanned_ns || now - a->scanned_ns >= SCAN_NS) {
        dash_live_scan(a->live, &a->m);
        a->scanned_ns = now;
        say_waiting(a);
    }
    dash_live_drain(a->live, &a->m);
    a->drained_ns = now;
}

static void watch(struct app *a)
{
    bool done = false;

    collect(a);
    draw(a);
    while (!done) {
        uint64_t since = now_ns() - a->drained_ns;

        done = turn(a, since >= DRAIN_NS ? 0 : (int)((DRAIN_NS - since) / 1000000u) + 1);
        if (!done && now_ns() - a->drained_ns >= DRAIN_NS) {
            collect(a);
            if (is_due(a, now_ns()))
                draw(a); /* now, not after the next wait for a key */
        }
    }
}

/* Every process that was asked for must run. */
static int check_pids(const struct dash_options *o, struct mp_err *err)
{
    for (size_t i = 0; i < o->n_pid; i++)
        if (kill(o->pid[i], 0) != 0 && errno == ESRCH)
            return mp_fail(err, MP_EGONE, "process %d is gone", o->pid[i]);
    return MP_OK;
}

/* What was asked for and has no agent in it. */
static int check_found(const struct app *a, struct mp_err *err)
{
    for (size_t i = 0; i < a->o->n_pid; i++) {
        bool found = false;

        for (int k = 0; k < a->m.n_job; k++)
            found = found || a->m.job[k]->pid == a->o->pid[i];
        if (!found)
            return mp_fail(
                err, MP_ENOTSUP,
                "process %d does not run under moeprof: start it with 'moeprof run -- CMD...'",
                a->o->pid[i]);
    }
    return MP_OK;
}

/* A process that has just been started may need a moment to publish. */
static int find_asked(struct app *a, struct mp_err *err)
{
    uint64_t begin = now_ns();
    int rc;

    for (;;) {
        a->scanned_ns = 0; /* scan now */
        collect(a);
        rc = check_found(a, err);
        if (rc == MP_OK || now_ns() - begin >= FIND_NS)
            return rc;
        nanosleep(&(struct timespec){0, DRAIN_NS}, NULL);
    }
}

static bool is_waiting_for_step(const struct dash_model *m)
{
    for (int i = 0; i < m->n_job; i++)
        if (dash_job_is_live(m->job[i]) && m->job[i]->n_step == 0)
            return true;
    return false;
}

static int look_once(struct app *a, struct mp_err *err)
{
    uint64_t begin = now_ns();

    do {
        collect(a);
        if (a->m.n_job == 0)
            return mp_fail(
                err, MP_ENOTSUP,
                "no training runs under moeprof: start one with 'moeprof run -- python train.py'");
        if (!is_waiting_for_step(&a->m))
            break;
        nanosleep(&(struct timespec){0, DRAIN_NS}, NULL);
    } while (now_ns() - begin < ONCE_WAIT_NS);
    return MP_OK;
}

static int print(const struct app *a, struct mp_err *err)
{
    if (a->o->print)
        return a->o->print(&a->m, stdout, err);
    return dash_once_text(&a->m, a->o->ascii || !dash_term_utf8(), stdout);
}

static int run_live(struct app *a, bool interactive, struct mp_err *err)
{
    int rc;

    if ((rc = check_pids(a->o, err)))
        return rc;
    a->live = dash_live_new(a->o->dir, a->o->pid, a->o->n_pid);
    if (!a->live)
        return mp_fail(err, MP_ENOMEM, "out of memory");
    if ((rc = find_asked(a, err)))
        return rc;
    if (!interactive)
        return (rc = look_once(a, err)) ? rc : print(a, err);
    if ((rc = dash_term_open(&(struct dash_term_options){a->o->ascii, a->o->no_color}, err)))
        return rc;
    watch(a);
    dash_term_close();
    return MP_OK;
}

/* ---- replay --------------------------------------------------------------------------------- */

static bool replay_turn(void *arg, int wait_ms)
{
    return turn(arg, wait_ms);
}

static int run_replay(struct app *a, bool interactive, struct mp_err *err)
{
    struct dash_replay *r;
    int rc = dash_replay_open(&r, a->o->replay, &a->m, err);

    if (rc != MP_OK)
        return rc;
    if (interactive)
        rc = dash_term_open(&(struct dash_term_options){a->o->ascii, a->o->no_color}, err);
    if (rc == MP_OK)
        rc = dash_replay_run(r, a->o->speed, interactive ? replay_turn : NULL, a, err);
    while (rc == MP_OK && interactive && !a->m.ui.quit && !dash_term_ended())
        turn(a, 500); /* at the end of the profile: look around */
    dash_term_close();
    if (rc == MP_OK && !interactive)
        rc = print(a, err);
    dash_replay_close(r);
    return rc;
}

int dash_app(const struct dash_options *o, struct mp_err *err)
{
    struct app *a = calloc(1, sizeof *a);
    bool interactive = !o->once && !o->print && dash_term_possible();
    int rc;

    if (!a)
        return mp_fail(err, MP_ENOMEM, "out of memory");
    a->o = o;
    a->orders = (struct dash_orders){.dir = o->dir, .readonly = o->readonly};
    dash_model_init(&a->m);
    a->m.ui.interval_s = o->interval_s;
    rc = o->replay ? run_replay(a, interactive, err) : run_live(a, interactive, err);
    dash_orders_end(&a->orders);
    dash_live_free(a->live);
    dash_cells_release(&a->cells);
    dash_model_release(&a->m);
    free(a);
    return rc;
}
