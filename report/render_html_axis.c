/* The upward axis of seconds that plots of steps and of blocks share. */
#include "report/render_html_part.h"

#include <math.h>

struct html_axis html_axis_of(double low, double high)
{
    struct html_axis a = {0, high};

    if (low > .5 * high && high > 0)
        a.low = low - fmax((high - low) * .15, high * .01);
    a.high += (high - a.low) * .05;
    return a;
}

double html_axis_y(const struct html_axis *a, double seconds)
{
    return HTML_PLOT_H - (seconds - a->low) / (a->high - a->low) * HTML_PLOT_H + 8;
}

void html_axis_open(FILE *f, const struct html_axis *a, const char *title, const char *desc)
{
    double step = html_tick(a->high - a->low, 4);
    char fig[RP_FIG];

    svg_open(f, "wide", HTML_WIDTH, HTML_PLOT_H + 16, false, title, desc);
    for (int i = (int)ceil(a->low / step); i * step <= a->high; i++) {
        double y = html_axis_y(a, i * step);

        fprintf(f,
                "<line class=\"axis\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\"/><text "
                "class=\"mute\" x=\"%g\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                HTML_PLOT_LEFT, HTML_WIDTH, y, y, HTML_PLOT_LEFT - 6, y + 4,
                rp_fmt_seconds(fig, (struct mp_val){i * step, MP_MEASURED}));
    }
}

const char *html_series(size_t i)
{
    static const char *const set[] = {"attention", "expert", "lm_head", "router"};

    return set[i % countof(set)];
}
