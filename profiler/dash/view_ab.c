/* A/B: the arms of a before/after, its blocks in time, and what may be said of them so far. */
#include "profiler/dash/fmt.h"
#include "profiler/dash/plot.h"
#include "profiler/dash/utf8.h"
#include "profiler/dash/view.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define FIGURES_W 49 /* of an arm's row, behind its name */
#define CHART_W   24 /* least width of the intervals' picture */

static enum dash_style verdict_style(const struct dash_ab_arm *a)
{
    if (a->status != RP_ARM_MEASURED)
        return a->status == RP_ARM_REFUSED ? DASH_DIM : DASH_BAD;
    return a->verdict == RP_FASTER ? DASH_GOOD : a->verdict == RP_SLOWER ? DASH_WARN : DASH_NORMAL;
}

/* ---- arms --------------------------------------------------------------------------------------- */

static int name_width(int w)
{
    int room = w - FIGURES_W - 2;

    return room < 8 ? 8 : room > 34 ? 34 : room;
}

/* Columns that are left for the picture of the intervals; 0: none. */
static int chart_width(int w)
{
    int left = w - name_width(w) - 2 - FIGURES_W - 3;

    return left < CHART_W ? 0 : left;
}

/* What an arm is worth: "1.112 (1.110 to 1.115)". */
static void ratio_text(char *out, size_t n, const struct dash_ab_arm *a, bool is_base)
{
    if (is_base)
        snprintf(out, n, "base");
    else if (a->ratio.basis == MP_UNKNOWN)
        snprintf(out, n, DASH_UNKNOWN);
    else
        snprintf(out, n, "%.3f (%.3f to %.3f)", a->ratio.v, a->low, a->high);
}

static void draw_arm(const struct dash_ab *ab, unsigned i, int y, struct dash_rect r,
                     struct dash_cells *c)
{
    const struct dash_ab_arm *a = &ab->arm[i];
    int x = name_width(r.w) + 2;
    char b[DASH_FMT_BYTES], text[320];

    dash_put_fit(c, r, 1, y, x - 2, i ? verdict_style(a) : DASH_NORMAL, a->name);
    if (a->status != RP_ARM_MEASURED && a->n_block == 0) {
        snprintf(text, sizeof text, "%s: %s", rp_arm_status_name(a->status), a->why);
        dash_put_fit(c, r, x, y, chart_width(r.w) ? FIGURES_W : r.w - x, verdict_style(a), text);
        return;
    }
    snprintf(text, sizeof text, "%u", a->n_block);
    dash_put_to(c, r, x + 6, y, DASH_NORMAL, text);
    dash_put_to(c, r, x + 16, y, DASH_NORMAL, dash_fmt_ns(b, a->step_ns));
    dash_put_to(c, r, x + 24, y, DASH_NORMAL, dash_fmt_frac(b, a->mfu));
    ratio_text(text, sizeof text, a, i == 0);
    dash_put(c, r, x + 26, y, i ? verdict_style(a) : DASH_DIM, text);
}

/* The intervals on one axis, with a line at 1: as fast as the base. */
static void draw_intervals(const struct dash_ab *ab, int top, int rows, struct dash_rect r,
                           struct dash_cells *c)
{
    double lo = 1, hi = 1, per_column;
    char text[32];

    for (unsigned i = 1; i < ab->n_arm; i++)
        if (ab->arm[i].ratio.basis != MP_UNKNOWN) {
            lo = fmin(lo, ab->arm[i].low);
            hi = fmax(hi, ab->arm[i].high);
        }
    if (r.w == 0 || hi - lo < 1e-6)
        return;
    per_column = (hi - lo) / (r.w - 1);
    snprintf(text, sizeof text, "%.3f", lo);
    dash_put(c, r, 0, 1, DASH_DIM, text);
    snprintf(text, sizeof text, "%.3f", hi);
    dash_put_to(c, r, r.w, 1, DASH_DIM, text);
    for (int k = 0; k < rows; k++) {
        const struct dash_ab_arm *a = &ab->arm[top + k];
        int from = (int)lround((a->low - lo) / per_column),
            to = (int)lround((a->high - lo) / per_column);

        dash_put_ch(c, r, (int)lround((1 - lo) / per_column), 2 + k, DASH_DIM, 0x2502, 1);
        if (top + k == 0 || a->ratio.basis == MP_UNKNOWN)
            continue;
        dash_put_ch(c, r, from, 2 + k, verdict_style(a), 0x2500, to - from + 1);
        dash_put_ch(c, r, (int)lround((a->ratio.v - lo) / per_column), 2 + k, verdict_style(a),
                    c->ascii ? '#' : 0x2588, 1);
    }
}

static int arm_rows(struct dash_rect r, const struct dash_ab *ab, int top)
{
    int left = (int)ab->n_arm - top, room = r.h - 2;

    return left < room ? left : room;
}

static void draw_arms(const struct dash_model *m, const struct dash_ab *ab, struct dash_rect r,
                      struct dash_cells *c)
{
    int top = m->ui.top[DASH_AB], x = name_width(r.w) + 2;
    int rows = arm_rows(r, ab, top);
    char state[240], title[280];

    dash_ab_state(state, sizeof state, ab);
    snprintf(title, sizeof title, "Before/after: %s", state);
    dash_rule(c, r, title);
    dash_put(c, r, 1, 1, DASH_DIM, "arm");
    dash_put(c, r, x, 1, DASH_DIM, "blocks   step, med     MFU  times the base (95 %)");
    for (int k = 0; k < rows; k++) {
        draw_arm(ab, (unsigned)(top + k), 2 + k, r, c);
        if (top + k == m->ui.row[DASH_AB] && ab->n_arm > 1)
            dash_put_ch(c, r, 0, 2 + k, DASH_BOLD, '>', 1);
    }
    x += FIGURES_W + 2;
    draw_intervals(ab, top, rows, (struct dash_rect){r.x + x, r.y, chart_width(r.w), r.h}, c);
}

/* ---- blocks ------------------------------------------------------------------------------------- */

static bool rate_range(const struct dash_ab *ab, double *lo, double *hi)
{
    double rate[DASH_AB_BLOCKS];

    for (size_t i = 0; i < ab->n_block; i++)
        rate[i] = ab->block[i].rate;
    if (!dash_plot_range(rate, ab->n_block, lo, hi))
        return false;
    *lo = fmin(*lo, *hi / 2);
    return true;
}

/* The blocks of one arm, each where it stood in time. */
static void draw_arm_blocks(const struct dash_ab *ab, unsigned arm, double lo, double hi,
                            int per_block, struct dash_rect r, struct dash_cells *c)
{
    size_t room = (size_t)(r.w / per_block), first = ab->n_block > room ? ab->n_block - room : 0;

    for (size_t i = first; i < ab->n_block; i++) {
        const struct dash_ab_block *b = &ab->block[i];
        int x = (int)(i - first) * per_block;
        double bar[2] = {b->rate, b->rate};
        bool last = i + 1 == ab->n_block;

        if (b->arm != arm)
            continue;
        if (isfinite(b->rate))
            dash_plot_line(c, (struct dash_rect){r.x + x, r.y, per_block > 2 ? 2 : 1, r.h},
                           arm ? DASH_CHART : DASH_DIM, bar, per_block > 2 ? 2 : 1, lo, hi);
        else
            dash_put_ch(c, r, x, r.h - 1, DASH_WARN,
                        last && ab->is_running ? '>'
                        : b->is_cut            ? 'x'
                                               : '.',
                        1);
    }
}

static void draw_blocks(const struct dash_model *m, const struct dash_ab *ab, struct dash_rect r,
                        struct dash_cells *c)
{
    int top = m->ui.top[DASH_AB], x = name_width(r.w) + 2, shown = 0, per_block, h;
    double lo = 0, hi = 0;

    if (r.h < 2)
        return;
    dash_rule(c, r, "Blocks in time: work a second, bars from half the fastest on (> runs, x cut)");
    if (ab->n_block == 0) {
        dash_put_words(
            c, (struct dash_rect){r.x + 1, r.y + 1, r.w - 2, r.h - 1}, 0, DASH_DIM,
            "None yet: first every arm shows on the job's own data that its numbers agree.");
        return;
    }
    for (unsigned i = (unsigned)top; i < ab->n_arm; i++)
        shown += ab->arm[i].status == RP_ARM_MEASURED || ab->arm[i].n_block;
    h = shown ? (r.h - 1) / shown : 0;
    h = h < 1 ? 1 : h > 8 ? 8 : h;
    per_block = (int)ab->n_planned * 3 <= r.w - x ? 3 : (int)ab->n_planned * 2 <= r.w - x ? 2 : 1;
    rate_range(ab, &lo, &hi);
    for (unsigned i = (unsigned)top, y = 1; i < ab->n_arm && (int)y + h <= r.h; i++) {
        if (ab->arm[i].status != RP_ARM_MEASURED && ab->arm[i].n_block == 0)
            continue;
        dash_put_fit(c, r, 1, (int)y + h - 1, x - 2, DASH_NORMAL, ab->arm[i].name);
        draw_arm_blocks(ab, i, lo, hi, per_block,
                        (struct dash_rect){r.x + x, r.y + (int)y, r.w - x - 1, h}, c);
        y += (unsigned)h;
    }
}

/* ---- words -------------------------------------------------------------------------------------- */

static int put_parity(const struct dash_ab_arm *a, struct dash_rect r, int y, struct dash_cells *c)
{
    const struct rp_parity *w = &a->worst;
    char text[480];

    snprintf(text, sizeof text,
             "parity: %u of %u layers agree; worst layer %d, %s: error %.2g of the fp64 norm, %.2f "
             "times "
             "the job's own%s%s",
             a->n_layer - a->n_failed, a->n_layer, w->layer,
             w->quantity[0] ? w->quantity : DASH_UNKNOWN, w->error, w->ratio, w->why[0] ? "; " : "",
             w->why);
    return dash_put_words(c, r, y, a->n_failed ? DASH_BAD : DASH_NORMAL, text);
}

/* Of the arm chosen; and what ended the whole. */
static void draw_verdict(const struct dash_model *m, const struct dash_ab *ab, struct dash_rect r,
                         struct dash_cells *c)
{
    unsigned i = m->ui.row[DASH_AB] > 0 && m->ui.row[DASH_AB] < (int)ab->n_arm
                     ? (unsigned)m->ui.row[DASH_AB]
                     : (ab->n_arm > 1 ? 1 : 0);
    const struct dash_ab_arm *a = &ab->arm[i];
    struct dash_rect text = {r.x + 1, r.y + 1, r.w - 2, r.h - 1};
    char b[320];
    int y = 0;

    dash_rule(c, r, a->name);
    if (a->sentence[0])
        y = dash_put_words(c, text, y, verdict_style(a), a->sentence);
    if (a->status != RP_ARM_MEASURED) {
        snprintf(b, sizeof b, "%s: %s", rp_arm_status_name(a->status), a->why);
        y = dash_put_words(c, text, y, verdict_style(a), b);
    }
    if (a->n_layer)
        y = put_parity(a, text, y, c);
    if (*ab->end) {
        snprintf(b, sizeof b, "ended early: %s", ab->end);
        y = dash_put_words(c, text, y, DASH_WARN, b);
    }
    if (!a->sentence[0] && a->status == RP_ARM_MEASURED)
        dash_put_words(c, text, y, DASH_DIM, "Nothing to say before the first block of both arms.");
}

/* ---- the screen --------------------------------------------------------------------------------- */

static bool has(const struct dash_job *job)
{
    return job && job->ab.is_known;
}

static struct dash_extent extent(const struct dash_model *m, const struct dash_job *job,
                                 const struct dash_layout *l)
{
    (void)m;
    return (struct dash_extent){job ? (int)job->ab.n_arm : 0, 0, l->slot[DASH_SLOT_ARMS].h - 2};
}

static void draw(const struct dash_model *m, const struct dash_job *job,
                 const struct dash_layout *l, struct dash_cells *c)
{
    draw_arms(m, &job->ab, l->slot[DASH_SLOT_ARMS], c);
    draw_blocks(m, &job->ab, l->slot[DASH_SLOT_BLOCKS], c);
    draw_verdict(m, &job->ab, l->slot[DASH_SLOT_VERDICT], c);
}

const struct dash_view dash_view_ab = {
    .name = "A/B",
    .hint = "j k arm  x end it",
    .has = has,
    .extent = extent,
    .draw = draw,
};
