/* Kernels: a table whose columns are data. */
#include "profiler/dash/fmt.h"
#include "profiler/dash/utf8.h"
#include "profiler/dash/view.h"

#include <stdio.h>
#include <string.h>

#include "report/demangle.h"

struct cell_text {
    char text[DASH_FMT_BYTES];
};

static const char *steps_of(struct cell_text *t, const struct dash_kernels *k, double v,
                            bool is_time)
{
    struct mp_val a_step = dash_measured(k->n_step ? v / (double)k->n_step : v);

    return is_time ? dash_fmt_ns(t->text, a_step) : dash_fmt_si(t->text, a_step, "");
}

static const char *get_time(struct cell_text *t, const struct dash_kernels *k,
                            const struct dash_kernel_row *row)
{
    return steps_of(t, k, (double)row->ns, true);
}

static const char *get_share(struct cell_text *t, const struct dash_kernels *k,
                             const struct dash_kernel_row *row)
{
    return dash_fmt_frac(t->text, dash_measured(k->ns ? (double)row->ns / (double)k->ns : 0));
}

static const char *get_calls(struct cell_text *t, const struct dash_kernels *k,
                             const struct dash_kernel_row *row)
{
    return steps_of(t, k, (double)row->n, false);
}

static const char *get_mean(struct cell_text *t, const struct dash_kernels *k,
                            const struct dash_kernel_row *row)
{
    (void)k;
    return dash_fmt_ns(t->text, dash_measured((double)row->ns / (double)row->n));
}

static const char *get_max(struct cell_text *t, const struct dash_kernels *k,
                           const struct dash_kernel_row *row)
{
    (void)k;
    return dash_fmt_ns(t->text, dash_measured((double)row->max_ns));
}

static const char *get_layer(struct cell_text *t, const struct dash_kernels *k,
                             const struct dash_kernel_row *row)
{
    (void)k;
    if (row->layer < 0)
        return row->layer == -1 ? "-" : "*";
    snprintf(t->text, sizeof t->text, "L%d", row->layer);
    return t->text;
}

static const struct column {
    const char *title;
    int width;
    int sort;       /* enum dash_sort, -1 none */
    bool wide_only; /* shown from WIDE columns on */
    const char *(*get)(struct cell_text *t, const struct dash_kernels *k,
                       const struct dash_kernel_row *row);
} column[] = {
    {"time/step", 10, DASH_SORT_TIME, false, get_time},
    {"share", 8, -1, false, get_share},
    {"calls", 8, DASH_SORT_CALLS, false, get_calls},
    {"mean", 9, DASH_SORT_MEAN, false, get_mean},
    {"max", 9, DASH_SORT_MAX, true, get_max},
    {"layer", 6, -1, false, get_layer},
};

#define WIDE    100
#define PHASE_W 15 /* with the phase's name; its letter alone takes 3 */

static int phase_width(struct dash_rect r)
{
    return r.w < WIDE ? 3 : PHASE_W;
}

static const char *name_of(const struct dash_kernels *k, const struct dash_kernel_row *row)
{
    return row->name == DASH_NAME_CAP ? "(several)" : dash_kernels_name(k, row->name);
}

static void draw_heads(const struct dash_ui *ui, struct dash_rect r, struct dash_cells *c)
{
    int x = 0;

    for (size_t i = 0; i < countof(column); i++) {
        bool sorted = column[i].sort == (int)ui->sort;
        char title[32];

        if (column[i].wide_only && r.w < WIDE)
            continue;
        x += column[i].width;
        snprintf(title, sizeof title, "%s%s", column[i].title,
                 !sorted       ? ""
                 : ui->reverse ? "▲"
                               : "▼");
        dash_put_to(c, r, x, 1, sorted ? DASH_BOLD : DASH_DIM, title);
    }
    x += 2;
    if (r.w >= WIDE)
        dash_put(c, r, x, 1, DASH_DIM, "phase");
    x += phase_width(r);
    dash_put(c, r, x, 1, ui->sort == DASH_SORT_NAME ? DASH_BOLD : DASH_DIM,
             ui->sort != DASH_SORT_NAME ? "name"
             : ui->reverse              ? "name▲"
                                        : "name▼");
}

static void draw_line(const struct dash_kernels *k, const struct dash_kernel_row *row,
                      bool selected, int y, struct dash_rect r, struct dash_cells *c)
{
    char name[RP_KERNEL_NAME];
    enum dash_style style = selected ? DASH_SELECTED : DASH_NORMAL;
    int x = 0;

    if (selected)
        dash_put_ch(c, r, 0, y, style, ' ', r.w);
    for (size_t i = 0; i < countof(column); i++) {
        struct cell_text t;

        if (column[i].wide_only && r.w < WIDE)
            continue;
        x += column[i].width;
        dash_put_to(c, r, x, y, style, column[i].get(&t, k, row));
    }
    if (selected)
        dash_put(c, r, 0, y, style, ">");
    x += 2;
    if (row->phase >= 0) {
        dash_put_ch(c, r, x, y, selected ? style : dash_phase_style(row->phase),
                    (uint32_t)dash_phase_letter(row->phase), 1);
        dash_put_fit(c, r, x + 2, y, phase_width(r) - 3, style, dash_phase_label(row->phase));
    } else {
        dash_put(c, r, x, y, style, "*");
    }
    x += phase_width(r);
    dash_put_fit(c, r, x, y, r.w - x, style, rp_kernel_name(name, sizeof name, name_of(k, row)));
}

static void draw_detail(const struct dash_model *m, const struct dash_kernels *k,
                        struct dash_rect r, struct dash_cells *c)
{
    int at = m->ui.row[DASH_KERNELS];

    if (r.h < 1)
        return;
    dash_rule(c, r, "Whole name");
    if (at < m->n_kernel)
        dash_put_wrap(c, r, 1, DASH_NORMAL, name_of(k, &m->kernel[at]));
}

static struct dash_extent extent(const struct dash_model *m, const struct dash_job *job,
                                 const struct dash_layout *l)
{
    (void)job;
    return (struct dash_extent){m->n_kernel, 0, l->slot[DASH_SLOT_TABLE].h - 2};
}

static void draw(const struct dash_model *m, const struct dash_job *job,
                 const struct dash_layout *l, struct dash_cells *c)
{
    struct dash_rect r = l->slot[DASH_SLOT_TABLE];
    const struct dash_ui *ui = &m->ui;
    char title[200];
    int top = ui->top[DASH_KERNELS];

    snprintf(title, sizeof title, "Kernels by %s, %d rows%s%s%s%s%s", dash_group_name(ui->group),
             m->n_kernel, ui->filter[0] ? ", filter '" : "", ui->filter, ui->filter[0] ? "'" : "",
             job->kernels.n_step ? "" : ", before the first whole step: totals",
             job->kernels.n_over ? ", table full: the rest is left out" : "");
    dash_rule(c, r, title);
    draw_heads(ui, r, c);
    for (int y = 2; y < r.h && top + y - 2 < m->n_kernel; y++)
        draw_line(&job->kernels, &m->kernel[top + y - 2], top + y - 2 == ui->row[DASH_KERNELS], y,
                  r, c);
    if (m->n_kernel == 0)
        dash_put(c, r, 1, 2, DASH_DIM,
                 ui->filter[0] ? "no kernel matches the filter" : "no kernel was seen yet");
    draw_detail(m, &job->kernels, l->slot[DASH_SLOT_DETAIL], c);
}

const struct dash_view dash_view_kernels = {
    .name = "Kernels",
    .hint = "/ filter  <> sort  r reverse  b rows by  e whole name",
    .extent = extent,
    .draw = draw,
};
