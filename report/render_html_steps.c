/* How long steps took: in order on the left, how often on the right; all profiles on one axis. Means
 * hide what this shows: a first step of warm-up, every tenth step that logs, a slow drift. */
#include "report/render_html_part.h"

#include <math.h>
#include <stdlib.h>

#define PLOT_W  720.0 /* of HTML_WIDTH; the rest is the histogram */
#define LEFT    64.0
#define PLOT_H  150.0
#define BINS    24
#define DOT_MAX 1200 /* a profile; beyond it columns of min to max */

struct axis {
    double low, high; /* seconds */
};

static double y_of(const struct axis *a, double s)
{
    return PLOT_H - (s - a->low) / (a->high - a->low) * PLOT_H + 8;
}

static struct axis axis_of(const struct rp_html *h)
{
    struct axis a = {INFINITY, 0};

    for (size_t i = 0; i < h->n; i++) {
        const struct rp_step_stat *s = &h->page[i].report->timed;

        if (s->count == 0)
            continue;
        a.low = fmin(a.low, s->min_s.v);
        a.high = fmax(a.high, s->max_s.v);
    }
    /* From zero, unless the steps are all but equal: then what differs is the question. */
    if (a.low > 0.5 * a.high && a.high > 0)
        a.low -= fmax((a.high - a.low) * .15, a.high * .01);
    else
        a.low = 0;
    a.high += (a.high - a.low) * .05;
    return a;
}

static void axis_lines(FILE *f, const struct axis *a)
{
    double step = html_tick(a->high - a->low, 4);
    char fig[RP_FIG];

    for (double v = ceil(a->low / step) * step; v <= a->high; v += step)
        fprintf(f,
                "<line class=\"axis\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\"/><text "
                "class=\"mute\" x=\"%g\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                LEFT, HTML_WIDTH, y_of(a, v), y_of(a, v), LEFT - 6, y_of(a, v) + 4,
                rp_fmt_seconds(fig, (struct mp_val){v, MP_MEASURED}));
}

static const char *color(size_t i)
{
    static const char *const set[] = {"attention", "expert", "lm_head", "router"};

    return set[i % countof(set)];
}

static void dots(FILE *f, const struct axis *a, const struct rp_step_stat *s)
{
    double span = (PLOT_W - LEFT - 20) / (s->count > 1 ? s->count - 1 : 1);
    double r = span > 12 ? 4 : span > 4 ? 3 : 1.6;

    for (uint32_t i = 0; i < s->count; i++)
        fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>\n", LEFT + 10 + span * i,
                y_of(a, s->seconds[i]), r);
}

/* Too many for dots: one path of columns from the least to the most. */
static void columns(FILE *f, const struct axis *a, const struct rp_step_stat *s)
{
    int n = (int)(PLOT_W - LEFT - 20);

    fputs("<path d=\"", f);
    for (int c = 0; c < n; c++) {
        uint32_t from = (uint32_t)((uint64_t)s->count * (uint64_t)c / (uint64_t)n);
        uint32_t to = (uint32_t)((uint64_t)s->count * (uint64_t)(c + 1) / (uint64_t)n);
        double low = s->seconds[from], high = low;

        for (uint32_t i = from; i < to; i++) {
            low = fmin(low, s->seconds[i]);
            high = fmax(high, s->seconds[i]);
        }
        fprintf(f, "M%g %.1fh1V%.1fh-1z", LEFT + 10 + c, y_of(a, low) + .7, y_of(a, high) - .7);
    }
    fputs("\"/>\n", f);
}

static void histogram(FILE *f, const struct axis *a, const struct rp_step_stat *s, size_t i,
                      size_t n)
{
    uint32_t bin[BINS] = {0}, most = 1;
    double high = PLOT_H / BINS, lane = (HTML_WIDTH - PLOT_W) / (double)n;

    for (uint32_t k = 0; k < s->count; k++) {
        int b = (int)((s->seconds[k] - a->low) / (a->high - a->low) * BINS);

        b = b < 0 ? 0 : b >= BINS ? BINS - 1 : b;
        most = ++bin[b] > most ? bin[b] : most;
    }
    for (int b = 0; b < BINS; b++)
        if (bin[b])
            fprintf(f,
                    "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>%u "
                    "steps</title></rect>\n",
                    PLOT_W + 12 + lane * (double)i, PLOT_H - (b + 1) * high + 8.5,
                    (lane - 24) * bin[b] / most, high - 1, bin[b]);
}

static void series(struct rp_html *h, const struct axis *a, size_t i)
{
    const struct rp_step_stat *s = &h->page[i].report->timed;

    if (s->count == 0)
        return;
    fprintf(h->f, "<g class=\"c c-%s\" opacity=\".85\">\n", color(i));
    if (s->count <= DOT_MAX)
        dots(h->f, a, s);
    else
        columns(h->f, a, s);
    histogram(h->f, a, s, i, h->n);
    fprintf(h->f,
            "</g><line x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"var(--ink)\" "
            "stroke-dasharray=\"2 3\"/>\n",
            LEFT, PLOT_W - 8, y_of(a, s->median_s.v), y_of(a, s->median_s.v));
}

static void table(struct rp_html *h)
{
    fputs("<div class=\"scroll\"><table><caption>The same as a table</caption><thead><tr><th></th>"
          "<th class=\"n\">steps</th><th class=\"n\">median</th><th class=\"n\">mean</th><th "
          "class=\"n\">least</th><th class=\"n\">most</th></tr></thead><tbody>\n",
          h->f);
    for (size_t i = 0; i < h->n; i++) {
        const struct rp_step_stat *s = &h->page[i].report->timed;

        fprintf(h->f, "<tr><td><i class=\"sw c-%s\"></i>", color(i));
        html_text(h->f, h->label[i]);
        fprintf(h->f, "</td><td class=\"n\">%u</td>", s->count);
        html_seconds(h->f, s->median_s);
        html_seconds(h->f, s->mean_s);
        html_seconds(h->f, s->min_s);
        html_seconds(h->f, s->max_s);
        fputs("</tr>\n", h->f);
    }
    fputs("</tbody></table></div>\n", h->f);
}

void html_steps(struct rp_html *h)
{
    struct axis a = axis_of(h);

    html_section(h, "steps", "How long steps took",
                 "Left in the order in which they ran, right how often each time occurred; dashed "
                 "is the median. Warm-up and steps recorded in part are left out.");
    if (!(a.high > a.low)) {
        fputs("<p>" RP_DASH " no whole step</p>\n</section>\n", h->f);
        return;
    }
    fputs("<figure class=\"scroll\" tabindex=\"0\" aria-label=\"How long steps took\">", h->f);
    svg_open(h->f, "wide", HTML_WIDTH, PLOT_H + 16, false, "Step times",
             "A dot a step in order, and a histogram of the same times.");
    axis_lines(h->f, &a);
    for (size_t i = 0; i < h->n; i++)
        series(h, &a, i);
    fputs("</svg></figure>\n", h->f);
    table(h);
    fputs("</section>\n", h->f);
}
