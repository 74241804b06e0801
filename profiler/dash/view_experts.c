/* Experts: who gets the tokens, or the GPU's time. Every cell is relative to its layer's mean, so that
 * layers of different cost compare. */
#include "profiler/dash/fmt.h"
#include "profiler/dash/plot.h"
#include "profiler/dash/view.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABEL_W  6
#define VIO_W    7
#define TALL_MAX 4 /* lines of a layer; taller ones read as bars */

static bool is_shared(const struct dash_experts *e, enum dash_expert_metric metric, uint32_t row)
{
    return metric == DASH_TIME && e->basis[row] == MP_APPORTIONED;
}

static struct mp_val with_mark(const struct dash_experts *e, enum dash_expert_metric metric,
                               uint32_t row, double v)
{
    struct mp_val val = dash_measured(v);

    if (val.basis && is_shared(e, metric, row))
        val.basis = MP_APPORTIONED;
    return val;
}

/* ---- the map -------------------------------------------------------------------------------- */

/* Experts share a column when there are more of them than columns; the fullest one shows. */
struct scale {
    int columns;    /* of the map */
    int per_column; /* experts */
    int per_expert; /* columns: 2 where there is room */
};

static struct scale scale_for(const struct dash_experts *e, struct dash_rect r)
{
    int room = r.w - LABEL_W - VIO_W, n = (int)e->n_expert;
    struct scale s = {room, 1, 1};

    if (room < 1 || n < 1)
        return (struct scale){0, 1, 1};
    s.per_column = (n + room - 1) / room;
    s.per_expert = n * 2 <= room ? 2 : 1;
    s.columns = (n + s.per_column - 1) / s.per_column * s.per_expert;
    return s;
}

/* Lines of each layer in h lines: more than one only where all layers have them. */
static int tall_for(const struct dash_experts *e, int h)
{
    int room = e->n_layer ? h / (int)e->n_layer : 1;

    return room < 1 ? 1 : room < TALL_MAX ? room : TALL_MAX;
}

static void draw_heat(const struct dash_model *m, const struct dash_experts *e, uint32_t row, int y,
                      struct dash_rect r, struct dash_cells *c)
{
    enum dash_expert_metric metric = m->ui.expert_metric;
    struct scale s = scale_for(e, r);
    double mean = dash_experts_mean(e, metric, row);

    for (int x = 0; x < s.columns; x++) {
        int first = x / s.per_expert * s.per_column;
        double top = NAN;

        for (int i = first; i < first + s.per_column; i++)
            top = fmax(top,
                       dash_experts_value(e, metric, row, (uint32_t)i)); /* fmax passes over NAN */
        dash_plot_heat(c, r, LABEL_W + x, y, dash_heat_level(top / mean));
    }
}

static void draw_ends(const struct dash_model *m, const struct dash_experts *e, uint32_t row, int y,
                      struct dash_rect r, struct dash_cells *c)
{
    enum dash_expert_metric metric = m->ui.expert_metric;
    char b[DASH_FMT_BYTES];

    dash_putf(c, r, 0, y, (int)row == m->ui.row[DASH_EXPERTS] ? DASH_SELECTED : DASH_DIM, "L%-4d",
              e->layer[row]);
    dash_put_to(
        c, r, r.w - 1, y, DASH_NORMAL,
        dash_fmt_num(b, with_mark(e, metric, row, dash_experts_maxvio(e, metric, row)), 2, ""));
}

static void mark_selected(const struct dash_model *m, const struct dash_experts *e,
                          struct dash_rect r, struct dash_cells *c)
{
    const struct dash_ui *ui = &m->ui;
    struct scale s = scale_for(e, r);
    int tall = tall_for(e, r.h - 2), y = (ui->row[DASH_EXPERTS] - ui->top[DASH_EXPERTS]) * tall + 1;
    int x = ui->col[DASH_EXPERTS] / s.per_column * s.per_expert;

    for (int i = 0; i < tall && s.columns > 0; i++)
        dash_restyle(c, r, LABEL_W + x, y + i, s.per_expert, DASH_SELECTED);
}

static void draw_map(const struct dash_model *m, const struct dash_experts *e, struct dash_rect r,
                     struct dash_cells *c)
{
    struct scale s = scale_for(e, r);
    char title[120], shared[40] = "";
    int top = m->ui.top[DASH_EXPERTS], last = r.h - 1, tall = tall_for(e, r.h - 2);

    if (s.per_column > 1)
        snprintf(shared, sizeof shared, ", fullest of %d a column", s.per_column);
    snprintf(title, sizeof title, "%s by layer and expert, last %u step%s%s",
             m->ui.expert_metric == DASH_LOAD ? "Tokens" : "GPU time", dash_experts_depth(e),
             dash_experts_depth(e) == 1 ? "" : "s", shared);
    dash_rule(c, r, title);
    for (int y = 1, row = top; y < last && row < (int)e->n_layer; y++, row = top + (y - 1) / tall) {
        draw_heat(m, e, (uint32_t)row, y, r, c);
        if ((y - 1) % tall == 0)
            draw_ends(m, e, (uint32_t)row, y, r, c);
    }
    mark_selected(m, e, r, c);
    dash_plot_heat_legend(c, r, LABEL_W, last);
    dash_put_to(c, r, r.w - 1, last, DASH_DIM, "MaxVio");
}

/* ---- worst layers and one expert ------------------------------------------------------------ */

struct ranked {
    uint32_t row;
    double vio;
};

static int worse_first(const void *pa, const void *pb)
{
    const struct ranked *a = pa, *b = pb;

    return a->vio > b->vio ? -1 : a->vio < b->vio ? 1 : (int)a->row - (int)b->row;
}

static uint32_t fullest(const struct dash_experts *e, enum dash_expert_metric metric, uint32_t row)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < e->width[row]; i++)
        if (dash_experts_value(e, metric, row, i) > dash_experts_value(e, metric, row, best))
            best = i;
    return best;
}

static void draw_worst(const struct dash_model *m, const struct dash_experts *e, struct dash_rect r,
                       struct dash_cells *c)
{
    enum dash_expert_metric metric = m->ui.expert_metric;
    struct ranked *rank = calloc(e->n_layer + 1, sizeof *rank);
    char b[DASH_FMT_BYTES];

    dash_rule(c, r, "Most uneven layers");
    for (uint32_t i = 0; rank && i < e->n_layer; i++) {
        double vio = dash_experts_maxvio(e, metric, i);

        rank[i] = (struct ranked){i, isfinite(vio) ? vio : -1};
    }
    if (rank)
        qsort(rank, e->n_layer, sizeof *rank, worse_first);
    for (int y = 1; rank && y < r.h && y <= (int)e->n_layer && rank[y - 1].vio >= 0; y++) {
        uint32_t row = rank[y - 1].row, dead = dash_experts_dead(e, row);

        dash_putf(c, r, 1, y, DASH_NORMAL, "L%d", e->layer[row]);
        dash_put(c, r, 7, y, DASH_DIM, "MaxVio");
        dash_put_to(c, r, 20, y, DASH_NORMAL,
                    dash_fmt_num(b, with_mark(e, metric, row, rank[y - 1].vio), 2, ""));
        dash_putf(c, r, 22, y, DASH_NORMAL, "e%u", fullest(e, metric, row));
        if (dead)
            dash_putf(c, r, 28, y, DASH_WARN, "%u dead", dead);
    }
    free(rank);
}

static void draw_value(const struct dash_experts *e, enum dash_expert_metric metric, uint32_t row,
                       uint32_t expert, int y, struct dash_rect r, struct dash_cells *c)
{
    double v = dash_experts_value(e, metric, row, expert), mean = dash_experts_mean(e, metric, row);
    struct mp_val a_step = with_mark(e, metric, row, v / dash_experts_depth(e));
    char b[DASH_FMT_BYTES];

    dash_put(c, r, 1, y, DASH_DIM, metric == DASH_LOAD ? "tokens" : "time");
    dash_put_to(c, r, 20, y, DASH_NORMAL,
                metric == DASH_LOAD ? dash_fmt_si(b, a_step, "") : dash_fmt_ns(b, a_step));
    dash_put(c, r, 21, y, DASH_DIM, "a step");
    if (isfinite(v / mean))
        dash_putf(c, r, 29, y, DASH_NORMAL, "%.1f×", v / mean);
}

static void draw_expert(const struct dash_model *m, const struct dash_experts *e,
                        struct dash_rect r, struct dash_cells *c)
{
    uint32_t row = (uint32_t)m->ui.row[DASH_EXPERTS], expert = (uint32_t)m->ui.col[DASH_EXPERTS];
    struct dash_rect plot = {r.x + 1, r.y + 3, r.w - 2, r.h > 11 ? 8 : r.h - 3};
    double v[DASH_RING_CAP], lo = 0, hi = 0;
    char title[64];
    size_t n;

    snprintf(title, sizeof title, "Layer %d, expert %u", e->layer[row], expert);
    dash_rule(c, r, title);
    if (expert >= e->width[row]) {
        dash_putf(c, r, 1, 1, DASH_DIM, "this layer has %u experts", e->width[row]);
        return;
    }
    draw_value(e, DASH_LOAD, row, expert, 1, r, c);
    draw_value(e, DASH_TIME, row, expert, 2, r, c);
    n = dash_experts_history(e, m->ui.expert_metric, row, expert, v,
                             plot.w > 0 ? (size_t)plot.w : 0);
    if (dash_plot_range(v, n, &lo, &hi))
        dash_plot_line(c, plot, DASH_CHART, v, n, 0, hi);
}

/* ---- the screen ----------------------------------------------------------------------------- */

static void draw_nothing(const struct dash_job *job, struct dash_rect r, struct dash_cells *c)
{
    dash_rule(c, r, "Experts");
    if (!job->last.known)
        dash_put_wrap(c, r, 1, DASH_DIM, "No complete step yet.");
    else if (job->feature[MP_FEATURE_ROUTING].state == MP_FEATURE_FAILED)
        dash_put_wrap(c, r, 1, DASH_WARN, job->feature[MP_FEATURE_ROUTING].why);
    else
        dash_put_wrap(c, r, 1, DASH_DIM,
                      "No routing was seen so far: either this model has no experts, or none of "
                      "them ran in a complete step.");
}

static struct dash_extent extent(const struct dash_model *m, const struct dash_job *job,
                                 const struct dash_layout *l)
{
    int room = l->slot[DASH_SLOT_MAP].h - 2;

    (void)m;
    if (!job)
        return (struct dash_extent){0, 0, 1};
    return (struct dash_extent){(int)job->experts.n_layer, (int)job->experts.n_expert,
                                room / tall_for(&job->experts, room)};
}

static void draw(const struct dash_model *m, const struct dash_job *job,
                 const struct dash_layout *l, struct dash_cells *c)
{
    const struct dash_experts *e = &job->experts;

    if (e->n_layer == 0) {
        draw_nothing(job, l->slot[DASH_SLOT_MAP], c);
        return;
    }
    draw_map(m, e, l->slot[DASH_SLOT_MAP], c);
    draw_worst(m, e, l->slot[DASH_SLOT_WORST], c);
    draw_expert(m, e, l->slot[DASH_SLOT_EXPERT], c);
}

const struct dash_view dash_view_experts = {
    .name = "Experts",
    .hint = "t load or time  arrows choose",
    .extent = extent,
    .draw = draw,
};
