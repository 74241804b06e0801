/* Around the views: header, tabs, footer; the compact form; and what stands there without a job. */
#include "profiler/dash/fmt.h"
#include "profiler/dash/utf8.h"
#include "profiler/dash/view.h"

#include <stdio.h>
#include <string.h>

static const struct dash_view *const view[DASH_SCREEN_COUNT] = {
    [DASH_OVERVIEW] = &dash_view_overview, [DASH_EXPERTS] = &dash_view_experts,
    [DASH_KERNELS] = &dash_view_kernels,   [DASH_TIMELINE] = &dash_view_timeline,
    [DASH_LOG] = &dash_view_log,           [DASH_AB] = &dash_view_ab,
    [DASH_HELP] = &dash_view_help,
};

bool dash_frame_has(const struct dash_model *m, enum dash_screen screen)
{
    return !view[screen]->has || view[screen]->has(dash_model_job(m, NULL));
}

static enum dash_style state_style(const struct dash_job *job)
{
    if (job->replay)
        return DASH_BAR;
    return dash_job_is_live(job)                       ? DASH_GOOD
           : job->state == MP_GUEST_OFF || !job->alive ? DASH_BAD
                                                       : DASH_WARN;
}

static void draw_header(const struct dash_model *m, const struct dash_job *job, struct dash_rect r,
                        struct dash_cells *c)
{
    int index, n, x, state_w;
    char where[48] = "";

    dash_put_ch(c, r, 0, 0, DASH_BAR, ' ', r.w);
    x = dash_put(c, r, 1, 0, DASH_BAR, "moeprof ");
    if (!job)
        return;
    dash_model_shown(m, &n);
    dash_model_job(m, &index);
    if (job->pid > 0)
        x = dash_putf(c, r, x, 0, DASH_BAR, " PID %d ", job->pid);
    if (job->rank >= 0)
        x = dash_putf(c, r, x, 0, DASH_BAR, " rank %d/%d ", job->rank, job->world);
    if (n > 1)
        snprintf(where, sizeof where, "job %d/%d ", index + 1, n);
    state_w = dash_text_width(dash_job_state(job)) + (int)strlen(where) + 1;
    dash_put_fit(c, r, x + 1, 0, r.w - state_w - x - 2, DASH_BAR, job->title);
    x = dash_put(c, r, r.w - state_w, 0, DASH_BAR, where);
    dash_put(c, r, x, 0, state_style(job), dash_job_state(job));
}

static void draw_tabs(const struct dash_model *m, struct dash_rect r, struct dash_cells *c)
{
    bool narrow = r.w < 70;
    int x = narrow ? 0 : 1;
    char pace[32];

    for (int i = 0; i < DASH_SCREEN_COUNT; i++) {
        enum dash_style style = i == (int)m->ui.screen ? DASH_TAB : DASH_DIM;

        if (!dash_frame_has(m, (enum dash_screen)i))
            continue;
        x = dash_putf(c, r, x, 0, style, i == DASH_HELP ? "? %s" : "%2$d %1$s", view[i]->name,
                      i + 1);
        if (c->mono && style == DASH_TAB)
            dash_put_ch(c, r, x, 0, style, '<', 1);
        x += narrow ? 1 : 2;
    }
    snprintf(pace, sizeof pace, "every %g s ", m->ui.interval_s);
    if (m->paused)
        dash_put_to(c, r, r.w, 0, DASH_WARN, "PAUSED ");
    else if (x + (int)strlen(pace) < r.w)
        dash_put_to(c, r, r.w, 0, DASH_DIM, pace);
}

static void draw_footer(const struct dash_model *m, struct dash_rect r, struct dash_cells *c)
{
    int x;

    dash_put_ch(c, r, 0, 0, DASH_BAR, ' ', r.w);
    if (m->ui.editing) {
        x = dash_put(c, r, 1, 0, DASH_BAR, "filter: ");
        x = dash_put(c, r, x, 0, DASH_BAR, m->ui.filter);
        x = dash_put(c, r, x, 0, DASH_BAR, "_");
        dash_put(c, r, x + 3, 0, DASH_BAR, "Enter keeps it, Esc drops it");
        return;
    }
    x = dash_put(c, r, 1, 0, DASH_BAR, "q quit  ? help  Space pause  ");
    dash_put(c, r, x, 0, DASH_BAR, view[m->ui.screen]->hint);
}

/* The figures that matter most, a line each, as many as there are. */
static void draw_compact(const struct dash_model *m, const struct dash_job *job, struct dash_rect r,
                         struct dash_cells *c)
{
    char b[DASH_FMT_BYTES];
    int y = 0;

    if (m->ui.dialog.kind) {
        y = dash_put_words(c, r, 0, DASH_NORMAL, m->ui.dialog.text);
        dash_put_words(c, r, y, DASH_DIM, dash_dialog_hint(m->ui.dialog.kind));
        return;
    }
    if (!job) {
        dash_put_wrap(c, r, 0, DASH_NORMAL, m->notice[0] ? m->notice : "waiting for a job");
        return;
    }
    dash_putf(c, r, 0, y++, DASH_BOLD, "MFU %s", dash_fmt_frac(b, job->figures.mfu[DASH_OURS]));
    dash_putf(c, r, 0, y++, DASH_NORMAL, "step %s",
              dash_fmt_ns(b, dash_job_value(job, DASH_M_STEP_NS)));
    dash_putf(c, r, 0, y++, DASH_NORMAL, "%s useful",
              dash_fmt_si(b, dash_job_value(job, DASH_M_USEFUL_S), "tok/s"));
    dash_putf(c, r, 0, y++, DASH_NORMAL, "PID %d %s%s", job->pid, dash_job_state(job),
              m->paused ? " PAUSED" : "");
    if (r.w < DASH_COMPACT_W || r.h < DASH_COMPACT_H)
        return;
    dash_putf(c, r, 0, y++, DASH_DIM, "make it %dx%d for more", DASH_FULL_W, DASH_FULL_H);
}

static void draw_waiting(const struct dash_model *m, struct dash_rect body, struct dash_cells *c)
{
    struct dash_rect text = {body.x + 2, body.y + 1, body.w - 4, body.h - 1};

    dash_put_wrap(c, text, 0, DASH_NORMAL, m->notice[0] ? m->notice : "waiting for a job");
}

void dash_frame(struct dash_model *m, struct dash_cells *c)
{
    const struct dash_job *job = dash_model_job(m, NULL);
    const struct dash_view *v;
    struct dash_extent extent = {0, 0, 1};
    struct dash_layout l;
    int n_job;

    if (!dash_frame_has(m, m->ui.screen))
        m->ui.screen = DASH_OVERVIEW; /* another job was chosen */
    v = view[m->ui.screen];
    dash_model_shown(m, &n_job);
    dash_layout(&l, m->ui.screen, c->w, c->h, n_job, m->ui.expanded);
    dash_cells_clear(c);
    dash_model_query(m);
    if (v->extent)
        extent = v->extent(m, job, &l);
    dash_model_fit(m, extent);
    if (l.size != DASH_FULL) {
        draw_compact(m, job, l.slot[DASH_SLOT_COMPACT], c);
        return;
    }
    draw_header(m, job, l.slot[DASH_SLOT_HEADER], c);
    draw_tabs(m, l.slot[DASH_SLOT_TABS], c);
    draw_footer(m, l.slot[DASH_SLOT_FOOTER], c);
    if (job || m->ui.screen == DASH_HELP)
        v->draw(m, job, &l, c);
    else
        draw_waiting(m, (struct dash_rect){0, 2, c->w, c->h - 3}, c);
    if (m->ui.dialog.kind)
        dash_dialog_draw(&m->ui.dialog, dash_dialog_rect(&m->ui.dialog, c->w, c->h), c);
}
