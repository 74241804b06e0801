/* See order.h. One function an order; a table says which. */
#include "profiler/dash/order.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void show(struct dash_model *m, enum dash_dialog_kind kind, const char *title,
                 const char *fmt, ...) __attribute__((format(printf, 4, 5)));

static void show(struct dash_model *m, enum dash_dialog_kind kind, const char *title,
                 const char *fmt, ...)
{
    struct dash_dialog *d = &m->ui.dialog;
    va_list ap;

    d->kind = kind;
    snprintf(d->title, sizeof d->title, "%s", title);
    va_start(ap, fmt);
    vsnprintf(d->text, sizeof d->text, fmt, ap);
    va_end(ap);
}

static void ask(struct dash_model *m, const char *title, enum dash_order yes)
{
    m->ui.dialog.kind = DASH_ASK;
    m->ui.dialog.yes = yes;
    snprintf(m->ui.dialog.title, sizeof m->ui.dialog.title, "%s", title);
}

/* Why nothing may be done to this job; NULL: it may. */
static const char *why_not(const struct dash_orders *o, const struct dash_job *job)
{
    if (o->readonly)
        return "This dashboard was started with --readonly: it changes no job.";
    if (!job)
        return "There is no job yet.";
    if (job->replay)
        return "This is a recording: there is no job that could be changed.";
    if (!dash_job_is_live(job))
        return "This job does not run any more, or its agent is off.";
    return NULL;
}

/* ---- swap --------------------------------------------------------------------------------------- */

static const char SWAP_TITLE[] = "Swap the experts";

static void swap_begin(struct dash_orders *o, struct dash_model *m)
{
    const struct dash_job *job = dash_model_job(m, NULL);
    const char *no = why_not(o, job);
    struct mp_err err = {0};

    if (!no && job->ab.is_running)
        no =
            "A before/after is under way in this job and swaps by itself: x on its screen ends it.";
    if (no) {
        show(m, DASH_SAY, SWAP_TITLE, "%s", no);
        return;
    }
    dash_swap_close(&o->swap);
    if (dash_swap_look(&o->swap, o->dir, job->pid, m->clock_ns, &err))
        show(m, DASH_SAY, SWAP_TITLE, "%s: it can be asked once a model trains in it.", err.msg);
    else
        show(m, DASH_BUSY, SWAP_TITLE, "Asking process %d what it can swap.", job->pid);
}

static void swap_question(struct dash_model *m, const struct dash_swap *s)
{
    struct dash_dialog *d = &m->ui.dialog;
    const char *own = s->own[0] ? s->own : "its own implementation";

    if (dash_swap_is_on(s)) {
        ask(m, SWAP_TITLE, DASH_ORDER_SWAP_OFF);
        snprintf(d->text, sizeof d->text,
                 "Process %d runs its experts as '%s'. Give it back its own (%.80s), from the next "
                 "step on?",
                 s->pid, s->running, own);
    } else if (s->why_not[0] || s->n_swappable == 0) {
        show(m, DASH_SAY, SWAP_TITLE, "%d of %d layers can be swapped%s%s.%s", s->n_swappable,
             s->n_layer, s->why_not[0] ? "; " : "", s->why_not,
             s->n_swappable ? " 'moeprof swap PID on --partial' swaps those that can be." : "");
    } else {
        ask(m, SWAP_TITLE, DASH_ORDER_SWAP_ON);
        snprintf(d->text, sizeof d->text,
                 "Run the experts of process %d (all %d layers; now %.80s) through moeprof's "
                 "kernels? First "
                 "both get one step's own activations and gradients, and nothing is swapped when "
                 "any result "
                 "differs by more than rounding.",
                 s->pid, s->n_layer, own);
    }
}

static void swap_ask(struct dash_orders *o, struct dash_model *m, bool on)
{
    if (o->swap.stage != DASH_SWAP_LOOKED) { /* the job left while the question stood */
        show(m, DASH_SAY, SWAP_TITLE, "Process %d does not listen any more.", o->swap.pid);
        return;
    }
    dash_swap_ask(&o->swap, on, m->clock_ns);
    show(m, DASH_BUSY, SWAP_TITLE, "Process %d is asked; it takes effect when a step ends.",
         o->swap.pid);
}

static void swap_on(struct dash_orders *o, struct dash_model *m)
{
    swap_ask(o, m, true);
}

static void swap_off(struct dash_orders *o, struct dash_model *m)
{
    swap_ask(o, m, false);
}

static void cancel(struct dash_orders *o, struct dash_model *m)
{
    dash_swap_cancel(&o->swap);
    if (o->swap.stage == DASH_SWAP_CANCELLING)
        show(m, DASH_BUSY, SWAP_TITLE, "Taking it back.");
    else
        m->ui.dialog.kind = DASH_NO_DIALOG;
}

static bool swap_go_on(struct dash_orders *o, struct dash_model *m)
{
    char text[600];

    if (!dash_swap_poll(&o->swap, m->clock_ns))
        return false;
    if (o->swap.stage == DASH_SWAP_LOOKED)
        swap_question(m, &o->swap);
    if (o->swap.stage == DASH_SWAP_ENDED) {
        dash_swap_outcome(text, sizeof text, &o->swap);
        show(m, DASH_SAY, o->swap.code == MP_OK ? "Swapped" : "Not swapped", "%s", text);
        o->swap.stage = DASH_SWAP_IDLE;
    }
    return true;
}

/* ---- report ------------------------------------------------------------------------------------- */

static const char REPORT_TITLE[] = "Report";

static void report_begin(struct dash_orders *o, struct dash_model *m)
{
    const struct dash_job *job = dash_model_job(m, NULL);
    struct mp_err err = {0};

    if (!job)
        show(m, DASH_SAY, REPORT_TITLE, "There is no job yet.");
    else if (o->write.child)
        show(m, DASH_SAY, REPORT_TITLE, "One is being written: %s", o->write.html);
    else if (dash_write_begin(&o->write, job, o->dir, &err))
        show(m, DASH_SAY, REPORT_TITLE, "%s", err.msg);
    else
        show(m, DASH_SAY, REPORT_TITLE, "Writing %s", o->write.html);
}

static bool report_go_on(struct dash_orders *o, struct dash_model *m)
{
    bool ok;

    if (!dash_write_poll(&o->write, &ok))
        return false;
    if (ok)
        show(m, DASH_SAY, REPORT_TITLE, "Wrote %s: a browser shows it, without a network.",
             o->write.html);
    else
        show(m, DASH_SAY, REPORT_TITLE, "No report: %s",
             o->write.said[0] ? o->write.said : "the process that wrote it ended");
    return true;
}

/* ---- before/after ------------------------------------------------------------------------------- */

static const char AB_TITLE[] = "End the before/after";

static void ab_question(struct dash_orders *o, struct dash_model *m)
{
    const struct dash_job *job = dash_model_job(m, NULL);
    const char *no = why_not(o, job);

    if (!no && !job->ab.is_running)
        no = "No before/after is under way in this job.";
    if (!no && job->recorder <= 0)
        no = "It is not known which process runs it.";
    if (no) {
        show(m, DASH_SAY, AB_TITLE, "%s", no);
        return;
    }
    ask(m, AB_TITLE, DASH_ORDER_AB_END);
    snprintf(m->ui.dialog.text, sizeof m->ui.dialog.text,
             "End it after %zu of %zu blocks? The job gets its own experts back and goes on; "
             "'moeprof ab' "
             "(process %d) reports what there is and ends.",
             job->ab.n_begun, job->ab.n_planned, job->recorder);
}

/* A PID may have come again: only a moeprof is signalled. */
static bool is_moeprof(int pid)
{
    char path[64], name[32] = "";
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    f = fopen(path, "r");
    if (f && !fgets(name, sizeof name, f))
        name[0] = 0;
    if (f)
        fclose(f);
    return strcmp(name, "moeprof\n") == 0;
}

static void ab_end(struct dash_orders *o, struct dash_model *m)
{
    const struct dash_job *job = dash_model_job(m, NULL);

    (void)o;
    if (!job || !is_moeprof(job->recorder) || kill(job->recorder, SIGUSR1) != 0)
        show(m, DASH_SAY, AB_TITLE, "The process that runs it is gone.");
    else
        show(m, DASH_SAY, AB_TITLE, "Asked process %d to end it.", job->recorder);
}

/* ---- all ---------------------------------------------------------------------------------------- */

static void (*const run[DASH_ORDER_COUNT])(struct dash_orders *o, struct dash_model *m) = {
    [DASH_ORDER_SWAP] = swap_begin,     [DASH_ORDER_SWAP_ON] = swap_on,
    [DASH_ORDER_SWAP_OFF] = swap_off,   [DASH_ORDER_CANCEL] = cancel,
    [DASH_ORDER_REPORT] = report_begin, [DASH_ORDER_AB] = ab_question,
    [DASH_ORDER_AB_END] = ab_end,
};

bool dash_orders_run(struct dash_orders *o, struct dash_model *m, uint64_t now_ns)
{
    enum dash_order order = m->ui.order;
    bool changed = order != DASH_ORDER_NONE;

    m->clock_ns = now_ns;
    m->ui.order = DASH_ORDER_NONE;
    if (run[order])
        run[order](o, m);
    changed |= swap_go_on(o, m);
    return report_go_on(o, m) || changed;
}

void dash_orders_end(struct dash_orders *o)
{
    dash_swap_close(&o->swap);
}
