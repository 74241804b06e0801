/* Log and environment: what runs, what works in the agent and what does not, and what it said. */
#include "profiler/dash/fmt.h"
#include "profiler/dash/utf8.h"
#include "profiler/dash/view.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define LABEL_W 20

/* A text that scrolls: rows before `skip` are counted, not drawn. */
struct page {
    struct dash_cells *c; /* NULL: only count */
    struct dash_rect r;
    int y; /* next row of the whole text */
    int skip;
};

static int rows_of(const char *text, int w)
{
    int width = dash_text_width(text);

    return w < 1 || width <= w ? 1 : (width + w - 1) / w;
}

static void put_line(struct page *p, enum dash_style label_style, const char *label,
                     enum dash_style style, const char *text)
{
    struct dash_rect value = {p->r.x + LABEL_W, p->r.y, p->r.w - LABEL_W, p->r.h};
    int y = p->y - p->skip, n = rows_of(text, value.w);

    p->y += n;
    if (!p->c || y + n <= 0)
        return;
    dash_put_fit(p->c, p->r, 1, y, LABEL_W - 2, label_style, label);
    dash_put_wrap(p->c, value, y, style, text); /* rows above the rectangle are clipped */
}

static void put_title(struct page *p, const char *title)
{
    int y = p->y++ - p->skip;

    if (p->c && y >= 0 && y < p->r.h)
        dash_rule(p->c, (struct dash_rect){p->r.x, p->r.y + y, p->r.w, 1}, title);
}

static void put_features(struct page *p, const struct dash_job *job)
{
    static const char *const state[] = {"waiting", "on", "off"};

    put_title(p, job->replay ? "What worked" : "What works");
    for (int i = 0; i < MP_FEATURE_COUNT; i++) {
        enum mp_feature_state s = job->feature[i].state;
        char text[200];

        snprintf(text, sizeof text, "%s%s%s", state[s > MP_FEATURE_FAILED ? 0 : s],
                 job->feature[i].why[0] ? ": " : "", job->feature[i].why);
        put_line(p, DASH_DIM, dash_feature_name((enum mp_feature)i),
                 s == MP_FEATURE_ON       ? DASH_GOOD
                 : s == MP_FEATURE_FAILED ? DASH_BAD
                                          : DASH_DIM,
                 text);
    }
}

static void put_all(struct page *p, const struct dash_job *job)
{
    put_features(p, job);
    put_title(p, "What runs");
    put_line(p, DASH_DIM, "command", DASH_NORMAL, job->title);
    if (job->gpu_name[0])
        put_line(p, DASH_DIM, "GPU", DASH_NORMAL, job->gpu_name);
    for (uint32_t i = 0; i < job->n_fact; i++)
        put_line(p, DASH_DIM, job->fact[i].label, DASH_NORMAL, job->fact[i].text);
    if (job->n_fact == 0)
        put_line(p, DASH_DIM, "model", DASH_DIM, "not described yet");
}

static void draw_log(const struct dash_job *job, struct dash_rect r, struct dash_cells *c)
{
    static const enum dash_style style[] = {DASH_NORMAL, DASH_WARN, DASH_BAD};
    static const char mark[] = " !X";
    uint32_t room = r.h > 1 ? (uint32_t)r.h - 1 : 0,
             first = job->n_log > room ? job->n_log - room : 0;

    dash_rule(c, r, "Log, newest last");
    if (job->n_log == 0)
        dash_put(c, r, 1, 1, DASH_DIM, "nothing so far");
    for (uint32_t i = first; i < job->n_log; i++) {
        const struct mp_log_row *row = &job->log[i];
        uint32_t level = row->level < 2 ? row->level : 2;
        time_t seconds = (time_t)(row->time_ns / 1000000000u);
        struct tm when = {0};
        char text[sizeof row->text + 48], clock[16] = "";

        localtime_r(&seconds, &when);
        strftime(clock, sizeof clock, "%H:%M:%S", &when);
        snprintf(text, sizeof text, "%s %c %.*s", clock, mark[level], (int)sizeof row->text,
                 row->text);
        if (row->count > 1)
            snprintf(text + strlen(text), sizeof text - strlen(text), " (%u times)", row->count);
        dash_put_fit(c, r, 1, (int)(i - first) + 1, r.w - 2, style[level], text);
    }
}

static struct dash_extent extent(const struct dash_model *m, const struct dash_job *job,
                                 const struct dash_layout *l)
{
    struct page p = {NULL, l->slot[DASH_SLOT_ENV], 0, 0};

    (void)m;
    if (job)
        put_all(&p, job);
    return (struct dash_extent){p.y > p.r.h ? p.y - p.r.h + 1 : 1, 0, p.r.h};
}

static void draw(const struct dash_model *m, const struct dash_job *job,
                 const struct dash_layout *l, struct dash_cells *c)
{
    struct page p = {c, l->slot[DASH_SLOT_ENV], 0, m->ui.row[DASH_LOG]};

    put_all(&p, job);
    draw_log(job, l->slot[DASH_SLOT_LOG], c);
}

const struct dash_view dash_view_log = {
    .name = "Log",
    .hint = "j k scroll",
    .extent = extent,
    .draw = draw,
};
