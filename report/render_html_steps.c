/* How long steps took: in order on the left, how often on the right; all profiles on one axis. Means
 * hide what this shows: a first step of warm-up, every tenth step that logs, a slow drift. */
#include "report/render_html_part.h"

#include <math.h>
#include <stdlib.h>

#define PLOT_W  720.0 /* of HTML_WIDTH; the rest is the histogram */
#define BINS    24
#define DOT_MAX 1200 /* a profile; beyond it columns of min to max */

static struct html_axis axis_of(const struct rp_html *h)
{
    double low = INFINITY, high = 0;

    for (size_t i = 0; i < h->n; i++) {
        const struct rp_step_stat *s = &h->page[i].report->timed;

        if (s->count == 0)
            continue;
        low = fmin(low, s->min_s.v);
        high = fmax(high, s->max_s.v);
    }
    return html_axis_of(low, high);
}

static void dots(FILE *f, const struct html_axis *a, const struct rp_step_stat *s)
{
    double span = (PLOT_W - HTML_PLOT_LEFT - 20) / (s->count > 1 ? s->count - 1 : 1);
    double r = span > 12 ? 4 : span > 4 ? 3 : 1.6;

    for (uint32_t i = 0; i < s->count; i++)
        fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>\n", HTML_PLOT_LEFT + 10 + span * i,
                html_axis_y(a, s->seconds[i]), r);
}

/* Too many for dots: one path of columns from the least to the most. */
static void columns(FILE *f, const struct html_axis *a, const struct rp_step_stat *s)
{
    int n = (int)(PLOT_W - HTML_PLOT_LEFT - 20);

    fputs("<path d=\"", f);
    for (int c = 0; c < n; c++) {
        uint32_t from = (uint32_t)((uint64_t)s->count * (uint64_t)c / (uint64_t)n);
        uint32_t to = (uint32_t)((uint64_t)s->count * (uint64_t)(c + 1) / (uint64_t)n);
        double low = s->seconds[from], high = low;

        for (uint32_t i = from; i < to; i++) {
            low = fmin(low, s->seconds[i]);
            high = fmax(high, s->seconds[i]);
        }
        fprintf(f, "M%g %.1fh1V%.1fh-1z", HTML_PLOT_LEFT + 10 + c, html_axis_y(a, low) + .7,
                html_axis_y(a, high) - .7);
    }
    fputs("\"/>\n", f);
}

static void histogram(FILE *f, const struct html_axis *a, const struct rp_step_stat *s, size_t i,
                      size_t n)
{
    uint32_t bin[BINS] = {0}, most = 1;
    double high = HTML_PLOT_H / BINS, lane = (HTML_WIDTH - PLOT_W) / (double)n;

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
                    PLOT_W + 12 + lane * (double)i, HTML_PLOT_H - (b + 1) * high + 8.5,
                    (lane - 24) * bin[b] / most, high - 1, bin[b]);
}

static void series(struct rp_html *h, const struct html_axis *a, size_t i)
{
    const struct rp_step_stat *s = &h->page[i].report->timed;

    if (s->count == 0)
        return;
    fprintf(h->f, "<g class=\"c c-%s\" opacity=\".85\">\n", html_series(i));
    if (s->count <= DOT_MAX)
        dots(h->f, a, s);
    else
        columns(h->f, a, s);
    histogram(h->f, a, s, i, h->n);
    fprintf(h->f,
            "</g><line x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"var(--ink)\" "
            "stroke-dasharray=\"2 3\"/>\n",
            HTML_PLOT_LEFT, PLOT_W - 8, html_axis_y(a, s->median_s.v),
            html_axis_y(a, s->median_s.v));
}

static void table(struct rp_html *h)
{
    fputs("<div class=\"scroll\"><table><caption>The same as a table</caption><thead><tr><th></th>"
          "<th class=\"n\">steps</th><th class=\"n\">median</th><th class=\"n\">mean</th><th "
          "class=\"n\">least</th><th class=\"n\">most</th></tr></thead><tbody>\n",
          h->f);
    for (size_t i = 0; i < h->n; i++) {
        const struct rp_step_stat *s = &h->page[i].report->timed;

        fprintf(h->f, "<tr><td><i class=\"sw c-%s\"></i>", html_series(i));
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
    struct html_axis a = axis_of(h);

    html_section(h, "steps", "How long steps took",
                 "Left in the order in which they ran, right how often each time occurred; dashed "
                 "is the median. Warm-up and steps recorded in part are left out.");
    if (!(a.high > a.low)) {
        fputs("<p>" RP_DASH " no whole step</p>\n</section>\n", h->f);
        return;
    }
    fputs("<figure class=\"scroll\" tabindex=\"0\" aria-label=\"How long steps took\">", h->f);
    html_axis_open(h->f, &a, "Step times",
                   "A dot a step in order, and a histogram of the same times.");
    for (size_t i = 0; i < h->n; i++)
        series(h, &a, i);
    fputs("</svg></figure>\n", h->f);
    table(h);
    fputs("</section>\n", h->f);
}
