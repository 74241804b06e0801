/* Overview: how well the GPU is used now, where the last step went, and whether to trust it. */
#include "profiler/dash/view.h"
#include "profiler/dash/fmt.h"
#include "profiler/dash/plot.h"
#include "report/blocks_read.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define LABEL_W 10
#define LATE_NS 2000000000u /* before that no step is called late */
/* ---- MFU ------------------------------------------------------------------------------------ */

/* The first of these that is known makes the chart. */
static const struct {
    enum dash_metric metric;
    const char *title;
} chart[] = {
    {DASH_M_MFU, "MFU"},
    {DASH_M_USEFUL_S, "Useful tokens a second"},
    {DASH_M_STEP_NS, "Step time"},
};

static size_t chart_of(const struct dash_job *job)
{
    for (size_t i = 0; i + 1 < countof(chart); i++)
        if (isfinite(dash_ring_last(&job->ring[chart[i].metric])))
            return i;
    return countof(chart) - 1;
}

static const char *fmt_metric(char b[DASH_FMT_BYTES], enum dash_metric metric, double v)
{
    struct mp_val val = dash_measured(v);

    return metric == DASH_M_MFU       ? dash_fmt_frac(b, val)
           : metric == DASH_M_STEP_NS ? dash_fmt_ns(b, val)
                                      : dash_fmt_si(b, val, "");
}

/* A range under a tenth of its top is widened: noise is no news. */
static bool news_range(const double *v, size_t n, double *lo, double *hi)
{
    if (!dash_plot_range(v, n, lo, hi))
        return false;
    if (*hi - *lo < 0.1 * fabs(*hi))
        *lo = *hi - 0.1 * fabs(*hi);
    return true;
}

/* A chart with its scale at the left. */
static void draw_chart(const struct dash_job *job, enum dash_metric metric, struct dash_rect r,
                       struct dash_cells *c)
{
    double v[DASH_RING_CAP], lo = 0, hi = 0;
    struct dash_rect plot = {r.x + LABEL_W, r.y, r.w - LABEL_W, r.h};
    size_t n = dash_ring_copy(&job->ring[metric], v,
                              plot.w < 0                       ? 0
                              : (size_t)plot.w < DASH_RING_CAP ? (size_t)plot.w
                                                               : DASH_RING_CAP);
    char b[DASH_FMT_BYTES];
    if (r.h < 1 || !news_range(v, n, &lo, &hi))
        return;
    dash_put_to(c, r, LABEL_W - 1, 0, DASH_DIM, fmt_metric(b, metric, hi));
    if (r.h > 1)
        dash_put_to(c, r, LABEL_W - 1, r.h - 1, DASH_DIM, fmt_metric(b, metric, lo));
    dash_plot_line(c, plot, DASH_CHART, v, n, lo, hi);
}

static const struct {
    const char *name, *what;
} convention[DASH_CONVENTION_COUNT] = {
    [DASH_OURS] = {"", ""},
    [DASH_PALM] = {" by PaLM",
                   "6N + 12LHQT: every weight trained, every token, the full square of scores"},
    [DASH_TRL] = {" by TRL",
                  "TRL's compute_mfu: as PaLM, embedding counted twice, no shared experts"},
    [DASH_ADJUSTED] = {" by TRL adjusted",
                       "TRL's adjusted_mfu: as compute_mfu with half the scores"},
    [DASH_HF] = {" by total_flos",
                 "transformers' total_flos: 6 x all parameters, every expert counted"},
};

static void draw_rates(const struct dash_job *job, struct dash_rect r, struct dash_cells *c)
{
    const struct dash_figures *f = &job->figures;
    char a[DASH_FMT_BYTES], b[DASH_FMT_BYTES];
    int x = dash_putf(c, r, 1, 2, DASH_BOLD, "%s useful",
                      dash_fmt_si(a, dash_job_value(job, DASH_M_USEFUL_S), "tok/s"));

    x = dash_putf(c, r, x + 3, 2, DASH_NORMAL, "%s with padding",
                  dash_fmt_si(a, dash_job_value(job, DASH_M_PROCESSED_S), "tok/s"));
    if (f->model_flop.basis != MP_UNKNOWN && f->step_ns) {
        struct mp_val rate = {f->model_flop.v * 1e9 / (double)f->step_ns, f->model_flop.basis};

        dash_putf(c, r, x + 3, 2, DASH_NORMAL, "%s of %s", dash_fmt_si(a, rate, "FLOP/s"),
                  dash_fmt_si(b, f->peak_flops, "FLOP/s"));
    }
}

static void draw_figures(const struct dash_job *job, enum dash_convention by, struct dash_rect r,
                         struct dash_cells *c)
{
    const struct dash_figures *f = &job->figures;
    char a[DASH_FMT_BYTES];
    size_t n;
    struct mp_val mean = dash_job_mean_mfu(job, by, &n);
    int x = dash_putf(c, r, 1, 1, DASH_BOLD, "MFU %s%s", dash_fmt_frac(a, f->mfu[by]),
                      convention[by].name);

    x = dash_putf(c, r, x + 3, 1, DASH_NORMAL, "mean %s over %zu steps", dash_fmt_frac(a, mean), n);
    x = dash_putf(c, r, x + 3, 1, DASH_NORMAL, "HFU %s", dash_fmt_frac(a, f->hfu));
    if (by != DASH_OURS)
        dash_putf(c, r, x + 3, 1, DASH_NORMAL, "ours %s", dash_fmt_frac(a, f->mfu[DASH_OURS]));
    draw_rates(job, r, c);
}

static void draw_mfu(const struct dash_model *m, const struct dash_job *job, struct dash_rect r,
                     struct dash_cells *c)
{
    enum dash_convention by = m->ui.convention;
    enum dash_metric metric = chart[chart_of(job)].metric;
    char title[80];

    snprintf(title, sizeof title, "%s, a column a step", chart[chart_of(job)].title);
    dash_rule(c, r, title);
    draw_figures(job, by, r, c);
    draw_chart(job, metric == DASH_M_MFU ? (enum dash_metric)(DASH_M_MFU + by) : metric,
               (struct dash_rect){r.x, r.y + 3, r.w - 1, r.h - 4}, c);
    if (by != DASH_OURS)
        dash_put_fit(c, r, 1, r.h - 1, r.w - 2, DASH_DIM, convention[by].what);
    else if (job->figures.convention[0])
        dash_put_fit(c, r, 1, r.h - 1, r.w - 2, DASH_DIM, job->figures.convention);
    else
        dash_put_fit(c, r, 1, r.h - 1, r.w - 2, DASH_WARN, job->figures.why_not);
}

/* ---- the step ------------------------------------------------------------------------------- */

/* The order of a training step, so that the bar reads from left to right. */
static const int bar_order[] = {
    MP_PHASE_EMBED,     MP_PHASE_ATTENTION, MP_PHASE_NORM,    MP_PHASE_ROUTER,
    MP_PHASE_DISPATCH,  MP_PHASE_EXPERT,    MP_PHASE_COMBINE, MP_PHASE_SHARED_EXPERT,
    MP_PHASE_DENSE_MLP, MP_PHASE_LM_HEAD,   MP_PHASE_LOSS,    MP_PHASE_GRADIENT,
    MP_PHASE_OPTIMIZER, MP_PHASE_COMM,      MP_PHASE_COPY,    MP_PHASE_OTHER,
    MP_PHASE_COUNT,
};
MP_STATIC_ASSERT(countof(bar_order) == MP_PHASE_COUNT + 1, "every phase and idle are in the bar");

static uint64_t part_ns(const struct dash_step *s, int phase)
{
    return phase == MP_PHASE_COUNT ? s->idle_ns : dash_step_phase_ns(s, (enum mp_phase)phase);
}

struct part {
    int phase;
    uint64_t ns;
};

static int larger_first(const void *pa, const void *pb)
{
    const struct part *a = pa, *b = pb;

    return a->ns > b->ns ? -1 : a->ns < b->ns ? 1 : a->phase - b->phase;
}

static void draw_legend(const struct dash_step *s, struct dash_rect r, struct dash_cells *c)
{
    struct part part[MP_PHASE_COUNT + 1];
    bool with_time = r.w >= 100;
    int width = with_time ? 34 : 25, columns = r.w / width, n = 0;
    char b[DASH_FMT_BYTES];

    for (int p = 0; p <= MP_PHASE_COUNT; p++)
        part[p] = (struct part){p, part_ns(s, p)};
    qsort(part, countof(part), sizeof *part, larger_first);
    while (n <= MP_PHASE_COUNT && part[n].ns > 0 && n < columns * r.h)
        n++;
    for (int i = 0; i < n; i++) {
        int x = i % columns * width + 1, y = i / columns;

        dash_put_ch(c, r, x, y, dash_phase_style(part[i].phase),
                    (uint32_t)dash_phase_letter(part[i].phase), 1);
        dash_put(c, r, x + 2, y, DASH_NORMAL, dash_phase_label(part[i].phase));
        dash_putf(c, r, x + 16, y, DASH_NORMAL, "%6.1f %%",
                  100.0 * (double)part[i].ns / (double)s->window_ns);
        if (with_time)
            dash_put_to(c, r, x + 33, y, DASH_DIM,
                        dash_fmt_ns(b, dash_measured((double)part[i].ns)));
    }
}

static void draw_step(const struct dash_job *job, struct dash_rect r, struct dash_cells *c)
{
    const struct dash_step *s = &job->last;
    struct dash_segment segment[countof(bar_order)];
    int bar_h = r.h >= 8 ? 2 : 1;
    char title[160], newest[48] = "", b[DASH_FMT_BYTES];

    if (!s->known || s->window_ns == 0) {
        dash_rule(c, r, "Step");
        dash_put(c, r, 1, 1, DASH_DIM,
                 job->n_step ? "no step whose operations on a GPU were watched yet"
                             : "no complete step yet");
        return;
    }
    if (job->newest_step > s->step)
        snprintf(newest, sizeof newest, "; now %u, not watched", job->newest_step);
    snprintf(title, sizeof title, "Step %u: %s in %u micro-batch%s, %u kernels%s%s", s->step,
             dash_fmt_ns(b, dash_measured((double)s->window_ns)), s->n_micro,
             s->n_micro == 1 ? "" : "es", s->n_kernel,
             s->flags & MP_STEP_PARTIAL      ? ", not a whole step"
             : s->flags & MP_STEP_INCOMPLETE ? ", some records missing"
                                             : "",
             newest);
    dash_rule(c, r, title);
    for (size_t i = 0; i < countof(bar_order); i++)
        segment[i] =
            (struct dash_segment){part_ns(s, bar_order[i]), dash_phase_style(bar_order[i]),
                                  dash_phase_letter(bar_order[i]), dash_phase_label(bar_order[i])};
    dash_plot_stack(c, (struct dash_rect){r.x + 1, r.y + 1, r.w - 2, bar_h}, segment,
                    countof(segment));
    draw_legend(s, (struct dash_rect){r.x, r.y + 1 + bar_h, r.w, r.h - 1 - bar_h}, c);
}

/* Phase x pass, with the history of each phase. */
/* What a phase must have taken to be among the `rows` longest. */
static uint64_t least_shown(const struct dash_step *s, int rows)
{
    uint64_t least = 1;

    for (int p = 0; p < MP_PHASE_COUNT; p++) {
        int longer = 0;

        for (int q = 0; q < MP_PHASE_COUNT; q++)
            longer += part_ns(s, q) > part_ns(s, p);
        if (longer >= rows && part_ns(s, p) >= least)
            least = part_ns(s, p) + 1;
    }
    return least;
}

static void draw_phase(const struct dash_job *job, int phase, int y, struct dash_rect r,
                       struct dash_cells *c)
{
    const struct dash_step *s = &job->last;
    struct dash_rect line = {r.x + 62, r.y + y, r.w - 63, 1};
    double v[DASH_RING_CAP], lo = 0, hi = 0;
    char b[DASH_FMT_BYTES];
    size_t n = dash_ring_copy(&job->ring[DASH_M_PHASE + phase], v, line.w > 0 ? (size_t)line.w : 0);

    dash_put(c, r, 1, y, DASH_NORMAL, dash_phase_label(phase));
    for (int pass = 0; pass < MP_PASS_COUNT; pass++)
        if (s->booked_ns[phase][pass])
            dash_put_to(c, r, 26 + 11 * pass, y, DASH_NORMAL,
                        dash_fmt_ns(b, dash_measured((double)s->booked_ns[phase][pass])));
    if (news_range(v, n, &lo, &hi))
        dash_plot_line(c, line, DASH_CHART, v, n, lo, hi);
}

/* In the order of the bar, so that no row jumps; where rows are few, the longest. */
static void draw_phases(const struct dash_job *job, struct dash_rect r, struct dash_cells *c)
{
    const struct dash_step *s = &job->last;
    uint64_t least = least_shown(s, r.h - 2);
    int y = 2;

    if (r.h < 3)
        return;
    dash_rule(c, r, "Last step by phase and pass; history at the right");
    for (int pass = 0; pass < MP_PASS_COUNT; pass++)
        dash_putf(c, r, 16 + 11 * pass, 1, DASH_DIM, "%10s", mp_pass_name((enum mp_pass)pass));
    for (size_t i = 0; i < countof(bar_order) && y < r.h; i++)
        if (bar_order[i] != MP_PHASE_COUNT && part_ns(s, bar_order[i]) >= least)
            draw_phase(job, bar_order[i], y++, r, c);
}

static void draw_history(const struct dash_job *job, enum dash_metric metric, const char *title,
                         struct dash_rect r, struct dash_cells *c)
{
    if (r.h < 2)
        return;
    dash_rule(c, r, title);
    draw_chart(job, metric, (struct dash_rect){r.x, r.y + 1, r.w - 1, r.h - 1}, c);
}

/* ---- GPU and agent -------------------------------------------------------------------------- */

static int put_row(struct dash_cells *c, struct dash_rect r, int y, const char *label)
{
    dash_put(c, r, 1, y, DASH_DIM, label);
    return LABEL_W + 1;
}

static void put_gauge(const struct dash_job *job, struct dash_rect r, int y, const char *label,
                      const char *text, enum dash_metric metric, struct dash_cells *c)
{
    double v[DASH_RING_CAP], lo = 0, hi = 0;
    struct dash_rect line = {r.x + 32, r.y + y, r.w - 33, 1};
    size_t n = dash_ring_copy(&job->ring[metric], v, line.w > 0 ? (size_t)line.w : 0);

    dash_put(c, r, put_row(c, r, y, label), y, DASH_NORMAL, text);
    if (y < r.h && news_range(v, n, &lo, &hi))
        dash_plot_line(c, line, DASH_CHART, v, n, lo, hi);
}

static void draw_gpu(const struct dash_job *job, struct dash_rect r, struct dash_cells *c)
{
    const struct dash_gauges *g = &job->gauges;
    char title[128], b[DASH_FMT_BYTES], total[DASH_FMT_BYTES], text[80];

    snprintf(title, sizeof title, "%.100s", job->gpu_name[0] ? job->gpu_name : "GPU");
    dash_rule(c, r, title);
    put_gauge(job, r, 1, "clock", dash_fmt_num(b, g->sm_clock_mhz, 0, "MHz"), DASH_M_SM_CLOCK, c);
    put_gauge(job, r, 2, "power", dash_fmt_num(b, g->power_w, 0, "W"), DASH_M_POWER, c);
    snprintf(text, sizeof text, "%s of %s", dash_fmt_bytes(b, g->mem_bytes),
             dash_fmt_bytes(total, (struct mp_val){(double)job->gpu_mem_bytes,
                                                   job->gpu_mem_bytes ? MP_MEASURED : MP_UNKNOWN}));
    put_gauge(job, r, 3, "memory", text, DASH_M_MEM, c);
    put_gauge(job, r, 4, "temp", dash_fmt_num(b, g->temp_c, 0, "°C"), DASH_M_TEMP, c);
    put_row(c, r, 5, "held by");
    if (!g->throttle_known)
        dash_put(c, r, LABEL_W + 1, 5, DASH_NORMAL, DASH_UNKNOWN);
    else if (rp_throttle_text(text, g->throttle_bits)[0])
        dash_put(c, r, LABEL_W + 1, 5, DASH_WARN, text);
    else
        dash_put(c, r, LABEL_W + 1, 5, DASH_NORMAL, "nothing");
}

/* Beside the state: its reason, or how long a step has been under way that should have ended. */
static void draw_why(const struct dash_model *m, const struct dash_job *job, int x,
                     struct dash_rect r, struct dash_cells *c)
{
    uint64_t since = m->now_ns > job->last_step_ns ? m->now_ns - job->last_step_ns : 0;
    char b[DASH_FMT_BYTES], text[80];

    if (job->why[0]) {
        dash_put_fit(c, r, x + 1, 1, r.w - x - 1, DASH_DIM, job->why);
    } else if (dash_job_is_live(job) && job->last_step_ns && since > LATE_NS &&
               since > 3 * job->figures.step_ns) {
        snprintf(text, sizeof text, "step %u runs for %s", job->running_step,
                 dash_fmt_ns(b, dash_measured((double)since)));
        dash_put_fit(c, r, x + 1, 1, r.w - x - 1, DASH_WARN, text);
    }
}

static void draw_agent(const struct dash_model *m, const struct dash_job *job, struct dash_rect r,
                       struct dash_cells *c)
{
    const struct dash_counters *n = &job->counters;
    struct mp_val coverage = dash_job_value(job, DASH_M_COVERAGE);
    char a[DASH_FMT_BYTES], b[DASH_FMT_BYTES];
    enum dash_style lossy = n->n_dropped + n->n_lost + n->n_lapped ? DASH_WARN : DASH_NORMAL;
    int x;

    dash_rule(c, r, "Agent");
    x = dash_put(c, r, put_row(c, r, 1, "state"), 1,
                 dash_job_is_live(job) || job->replay ? DASH_GOOD : DASH_WARN, dash_job_state(job));
    draw_why(m, job, x, r, c);
    dash_put_fit(c, r, put_row(c, r, 2, "experts"), 2, r.w - LABEL_W - 1, DASH_BOLD,
                 job->backend[0] ? job->backend : DASH_UNKNOWN);
    dash_putf(c, r, put_row(c, r, 3, "coverage"), 3,
              coverage.basis != MP_UNKNOWN && coverage.v < 0.99 ? DASH_WARN : DASH_NORMAL,
              "%s of GPU time", dash_fmt_frac(a, coverage));
    dash_putf(c, r, put_row(c, r, 4, "own cost"), 4, DASH_NORMAL, "%s core, %s GPU",
              dash_fmt_frac(a, n->agent_frac), dash_fmt_frac(b, dash_step_own(&job->last)));
    put_row(c, r, 5, "records");
    dash_putf(c, r, LABEL_W + 1, 5, lossy, "%s, lost %llu",
              dash_fmt_si(a, dash_measured((double)n->n_record), ""),
              (unsigned long long)(n->n_dropped + n->n_lost + n->n_lapped));
}

/* ---- several jobs --------------------------------------------------------------------------- */

static void draw_jobs(const struct dash_model *m, struct dash_rect r, struct dash_cells *c)
{
    int n, index, first;
    struct dash_job *const *job = dash_model_shown(m, &n);
    char b[DASH_FMT_BYTES];

    if (r.h < 2)
        return;
    dash_model_job(m, &index);
    first = index >= r.h - 1 ? index - r.h + 2 : 0;
    dash_rule(c, r, "Jobs");
    for (int i = first; i < n && i - first + 1 < r.h; i++) {
        int y = i - first + 1;

        enum dash_style style = i == index ? DASH_SELECTED : DASH_NORMAL;

        dash_put_ch(c, r, 1, y, style, ' ', 67);
        dash_putf(c, r, 1, y, style, "%c%8d  %s", i == index ? '>' : ' ', job[i]->pid,
                  dash_job_state(job[i]));
        dash_put(c, r, 26, y, style, "MFU");
        dash_put_to(c, r, 38, y, style, dash_fmt_frac(b, job[i]->figures.mfu[DASH_OURS]));
        dash_put_to(c, r, 50, y, style, dash_fmt_ns(b, dash_job_value(job[i], DASH_M_STEP_NS)));
        dash_put_to(c, r, 67, y, style,
                    dash_fmt_si(b, dash_job_value(job[i], DASH_M_USEFUL_S), "tok/s"));
        dash_put_fit(c, r, 70, y, r.w - 71, DASH_DIM, job[i]->title);
    }
}

static void draw(const struct dash_model *m, const struct dash_job *job,
                 const struct dash_layout *l, struct dash_cells *c)
{
    draw_mfu(m, job, l->slot[DASH_SLOT_MFU], c);
    draw_step(job, l->slot[DASH_SLOT_STEP], c);
    draw_phases(job, l->slot[DASH_SLOT_PHASES], c);
    draw_history(job, DASH_M_USEFUL_S, "Useful tokens a second", l->slot[DASH_SLOT_TOKENS], c);
    draw_history(job, DASH_M_STEP_NS, "Step time", l->slot[DASH_SLOT_TIME], c);
    draw_gpu(job, l->slot[DASH_SLOT_GPU], c);
    draw_agent(m, job, l->slot[DASH_SLOT_GUEST], c);
    draw_jobs(m, l->slot[DASH_SLOT_JOBS], c);
}

const struct dash_view dash_view_overview = {
    .name = "Overview",
    .hint = "[ ] job  m whose MFU  +- pace  c colours",
    .draw = draw,
};
