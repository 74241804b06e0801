/* Timeline: the last step from left to right, a row a phase; the height of a cell is how much of that
 * moment the phase took. */
#include "profiler/dash/fmt.h"
#include "profiler/dash/plot.h"
#include "profiler/dash/view.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABEL_W 15

struct moment {                            /* some bins together */
    uint64_t phase_ns[MP_PHASE_COUNT + 1]; /* the last is idle */
    uint64_t pass_ns[MP_PASS_COUNT];
    uint64_t ns, n;
    uint32_t name, name_ns;
    int layer;
};

static struct moment sum_bins(const struct dash_timeline *t, uint32_t first, uint32_t end)
{
    struct moment s = {.name = DASH_NO_NAME, .layer = -1};

    for (uint32_t i = first; i < end && i < DASH_BINS; i++) {
        const struct dash_bin *bin = &t->bin[i];

        for (int p = 0; p < MP_PHASE_COUNT; p++)
            s.phase_ns[p] += bin->phase_ns[p];
        for (int p = 0; p < MP_PASS_COUNT; p++)
            s.pass_ns[p] += bin->pass_ns[p];
        s.phase_ns[MP_PHASE_COUNT] += bin->idle_ns;
        s.n += bin->n;
        if (bin->name_ns > s.name_ns) {
            s.name = bin->name;
            s.name_ns = bin->name_ns;
            s.layer = bin->layer;
        }
    }
    s.ns =
        dash_timeline_bin_ns(t, end < DASH_BINS ? end : DASH_BINS) - dash_timeline_bin_ns(t, first);
    return s;
}

/* First bin of column x of `columns`. */
static uint32_t column_bin(int x, int columns)
{
    return (uint32_t)((uint64_t)x * DASH_BINS / (uint64_t)columns);
}

static struct moment column(const struct dash_timeline *t, int x, int columns)
{
    uint32_t first = column_bin(x, columns), end = column_bin(x + 1, columns);

    return sum_bins(t, first, end > first ? end : first + 1);
}

static void put_level(struct dash_cells *c, struct dash_rect r, int x, int y, enum dash_style style,
                      double frac)
{
    double one = frac;

    if (frac > 0.005) /* less than half a percent of the moment is not drawn */
        dash_plot_line(c, (struct dash_rect){r.x + x, r.y + y, 1, 1}, style, &one, 1, 0, 1);
}

/* Phases that took time, in order of their first appearance in the step, then idle. */
static int phases_shown(const struct dash_timeline *t, int out[MP_PHASE_COUNT + 1])
{
    bool seen[MP_PHASE_COUNT] = {false};
    int n = 0;

    for (uint32_t i = 0; i < DASH_BINS; i++)
        for (int p = 0; p < MP_PHASE_COUNT; p++)
            if (t->bin[i].phase_ns[p] && !seen[p]) {
                seen[p] = true;
                out[n++] = p;
            }
    out[n++] = MP_PHASE_COUNT;
    return n;
}

static int most_of(const uint64_t *v, int n)
{
    int best = 0;

    for (int i = 1; i < n; i++)
        if (v[i] > v[best])
            best = i;
    return best;
}

static void draw_column(const struct dash_timeline *t, const int *shown, int n_shown, int x,
                        int columns, struct dash_rect r, struct dash_cells *c)
{
    static const char pass_letter[MP_PASS_COUNT] = {'f', 'r', 'b', 'u'};
    struct moment s = column(t, x, columns);
    int at = LABEL_W + x, pass = most_of(s.pass_ns, MP_PASS_COUNT),
        main_phase = most_of(s.phase_ns, MP_PHASE_COUNT + 1);

    if (s.pass_ns[pass])
        dash_put_ch(c, r, at, 1, DASH_DIM, (uint32_t)pass_letter[pass], 1);
    dash_put_ch(c, r, at, 2, dash_phase_style(main_phase), (uint32_t)dash_phase_letter(main_phase),
                1);
    for (int i = 0; i < n_shown && 3 + i < r.h - 1; i++)
        put_level(c, r, at, 3 + i, shown[i] == MP_PHASE_COUNT ? DASH_DIM : DASH_CHART,
                  (double)s.phase_ns[shown[i]] / (double)s.ns);
}

static void draw_axis(const struct dash_timeline *t, int columns, struct dash_rect r,
                      struct dash_cells *c)
{
    char b[DASH_FMT_BYTES];
    int y = r.h - 1;

    dash_put(c, r, LABEL_W, y, DASH_DIM, "0");
    for (int quarter = 1; quarter < 4; quarter++)
        dash_put(c, r, LABEL_W + columns * quarter / 4, y, DASH_DIM,
                 dash_fmt_ns(b, dash_measured((double)t->window_ns * quarter / 4)));
    dash_put_to(c, r, LABEL_W + columns, y, DASH_DIM,
                dash_fmt_ns(b, dash_measured((double)t->window_ns)));
}

static void draw_strip(const struct dash_model *m, const struct dash_job *job, struct dash_rect r,
                       struct dash_cells *c)
{
    const struct dash_timeline *t = &job->timeline;
    int shown[MP_PHASE_COUNT + 1], n = phases_shown(t, shown), columns = r.w - LABEL_W - 1;
    char title[120], a[DASH_FMT_BYTES], b[DASH_FMT_BYTES];

    snprintf(title, sizeof title, "Step %u: %s, a column is %s%s", t->step,
             dash_fmt_ns(a, dash_measured((double)t->window_ns)),
             dash_fmt_ns(b, dash_measured((double)t->window_ns / columns)),
             t->n_cut ? ", cut off" : "");
    dash_rule(c, r, title);
    dash_put(c, r, 1, 1, DASH_DIM, "pass");
    dash_put(c, r, 1, 2, DASH_DIM, "mostly");
    for (int i = 0; i < n && 3 + i < r.h - 1; i++) {
        dash_put_ch(c, r, 1, 3 + i, dash_phase_style(shown[i]),
                    (uint32_t)dash_phase_letter(shown[i]), 1);
        dash_put_fit(c, r, 3, 3 + i, LABEL_W - 4, DASH_NORMAL, dash_phase_label(shown[i]));
    }
    for (int x = 0; x < columns; x++)
        draw_column(t, shown, n, x, columns, r, c);
    draw_axis(t, columns, r, c);
    dash_restyle(c, r, LABEL_W + m->ui.col[DASH_TIMELINE] * columns / (int)DASH_BINS, 2, 1,
                 DASH_SELECTED);
}

static void draw_mark(const struct dash_model *m, const struct dash_job *job, int columns,
                      struct dash_rect r, struct dash_cells *c)
{
    const struct dash_timeline *t = &job->timeline;
    int x = m->ui.col[DASH_TIMELINE] * columns / (int)DASH_BINS, main_phase;
    struct moment s = column(t, x, columns);
    char title[80], a[DASH_FMT_BYTES], b[DASH_FMT_BYTES];

    snprintf(title, sizeof title, "At the mark: %s to %s",
             dash_fmt_ns(a, dash_measured((double)dash_timeline_bin_ns(t, column_bin(x, columns)))),
             dash_fmt_ns(b, dash_measured((double)dash_timeline_bin_ns(t, column_bin(x, columns)) +
                                          (double)s.ns)));
    dash_rule(c, r, title);
    main_phase = most_of(s.phase_ns, MP_PHASE_COUNT + 1);
    dash_putf(c, r, 1, 1, DASH_NORMAL, "mostly %s (%s), idle %s, %llu operations begin",
              dash_phase_label(main_phase),
              dash_fmt_frac(a, dash_measured((double)s.phase_ns[main_phase] / (double)s.ns)),
              dash_fmt_frac(b, dash_measured((double)s.phase_ns[MP_PHASE_COUNT] / (double)s.ns)),
              (unsigned long long)s.n);
    if (s.name_ns == 0)
        return;
    x = s.layer >= 0 ? dash_putf(c, r, 1, 2, DASH_DIM, "longest, in layer %d: ", s.layer)
                     : dash_put(c, r, 1, 2, DASH_DIM, "longest: ");
    dash_put_fit(c, r, x, 2, r.w - x, DASH_NORMAL,
                 s.name == DASH_NO_NAME ? "a copy or memset"
                                        : dash_kernels_name(&job->kernels, s.name));
}

static struct dash_extent extent(const struct dash_model *m, const struct dash_job *job,
                                 const struct dash_layout *l)
{
    (void)m;
    (void)job;
    (void)l;
    return (struct dash_extent){1, (int)DASH_BINS, 1};
}

static void draw(const struct dash_model *m, const struct dash_job *job,
                 const struct dash_layout *l, struct dash_cells *c)
{
    struct dash_rect r = l->slot[DASH_SLOT_STRIP];

    if (!job->timeline.valid) {
        dash_rule(c, r, "Timeline");
        dash_put_wrap(c, r, 1, DASH_DIM,
                      job->replay   ? "This profile holds no single operations."
                      : job->n_step ? "No step whose operations on a GPU were watched yet."
                                    : "No complete step yet.");
        return;
    }
    draw_strip(m, job, r, c);
    draw_mark(m, job, r.w - LABEL_W - 1, l->slot[DASH_SLOT_DETAIL], c);
}

const struct dash_view dash_view_timeline = {
    .name = "Timeline",
    .hint = "left, right: the mark",
    .extent = extent,
    .draw = draw,
};
