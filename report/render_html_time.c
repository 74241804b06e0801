/* The timeline of one step: a lane a pass. A column of a lane is filled from below by the share of its
 * time in which each phase ran; what stays empty is time in which that pass had nothing on the GPU. */
#include "report/render_html_part.h"

#define LANE 60.0

static double bin_ns(const struct rp_timeline *t)
{
    return (double)t->window_ns / HTML_BINS;
}

/* Streams that overlap make more time than there is: scaled down to the column. */
static double column_scale(const struct rp_timeline *t, int pass, int bin)
{
    double sum = 0;

    for (int p = 0; p < MP_PHASE_COUNT; p++)
        sum += t->ns[pass][p][bin];
    return sum > bin_ns(t) ? 1 / sum : 1 / bin_ns(t);
}

static double below(const struct rp_timeline *t, int pass, int phase, int bin)
{
    double sum = 0;

    for (int p = 0; p < phase; p++)
        sum += t->ns[pass][p][bin];
    return sum * column_scale(t, pass, bin);
}

/* One path a phase; columns alike in a row become one box. */
static void lane_phase(FILE *f, const struct rp_timeline *t, int pass, int phase)
{
    int bin = 0;

    fprintf(f, "<path class=\"c c-%s\" d=\"", mp_phase_name((enum mp_phase)phase));
    while (bin < HTML_BINS) {
        double share = t->ns[pass][phase][bin] * column_scale(t, pass, bin);
        double floor = below(t, pass, phase, bin);
        int from = bin++;

        if (share < 0.004)
            continue;
        while (bin < HTML_BINS && share > 0.985 &&
               t->ns[pass][phase][bin] * column_scale(t, pass, bin) > 0.985)
            bin++;
        fprintf(f, "M%d %.1fh%dv%.1fh-%dz", from, (1 - floor - share) * LANE, bin - from,
                share * LANE, bin - from);
    }
    fprintf(f, "\"><title>%s</title></path>\n", html_phase((enum mp_phase)phase));
}

static bool has_time(const struct rp_timeline *t, int pass, int phase)
{
    for (int b = 0; b < HTML_BINS; b++)
        if (t->ns[pass][phase][b])
            return true;
    return false;
}

static void lane(FILE *f, const struct rp_timeline *t, int pass, char *used)
{
    bool any = false;
    char title[64];

    for (int p = 0; p < MP_PHASE_COUNT && !any; p++)
        any = has_time(t, pass, p);
    if (!any)
        return;
    snprintf(title, sizeof title, "%s over the step", mp_pass_name((enum mp_pass)pass));
    fprintf(f, "<div class=\"lane\"><span>%s</span><div class=\"stretch\">",
            mp_pass_name((enum mp_pass)pass));
    svg_open(f, "time", HTML_BINS, LANE, true, title,
             "Phases by colour, filled by the share of time that each has.");
    for (int p = 0; p < MP_PHASE_COUNT; p++)
        if (has_time(t, pass, p)) {
            lane_phase(f, t, pass, p);
            used[p] = 1;
        }
    fputs("</svg></div></div>\n", f);
}

/* Which decoder layer runs: alternating shades, numbered where there is room. */
static void layer_lane(FILE *f, const struct rp_timeline *t)
{
    int bin = 0, shade = 0;

    fputs("<div class=\"lane thin\"><span>layer</span><div class=\"stretch\">", f);
    svg_open(f, "time", HTML_BINS, 20, true, "Decoder layer over the step",
             "Numbers where a layer is wide enough.");
    while (bin < HTML_BINS) {
        int from = bin++, l = t->layer[from];

        while (bin < HTML_BINS && t->layer[bin] == l)
            bin++;
        if (l >= 0)
            fprintf(f,
                    "<rect x=\"%d\" y=\"0\" width=\"%d\" height=\"20\" fill=\"var(--neutral)\" "
                    "fill-opacity=\"%s\"><title>layer %d</title></rect>\n",
                    from, bin - from, shade++ % 2 ? ".55" : ".25", l);
    }
    fputs("</svg><div class=\"over\" aria-hidden=\"true\">", f);
    for (bin = 0; bin < HTML_BINS;) {
        int from = bin++, l = t->layer[from];

        while (bin < HTML_BINS && t->layer[bin] == l)
            bin++;
        if (l >= 0 && bin - from >= 16)
            fprintf(f, "<span style=\"left:%.2f%%;width:%.2f%%;color:var(--ink)\">%d</span>",
                    from * 100.0 / HTML_BINS, (bin - from) * 100.0 / HTML_BINS, l);
    }
    fputs("</div></div></div>\n", f);
}

static void time_axis(FILE *f, const struct rp_timeline *t)
{
    double max = (double)t->window_ns * 1e-9, step = html_tick(max, 6);
    char fig[RP_FIG];

    fputs("<div class=\"lane\"><span></span><div class=\"ticks\" aria-hidden=\"true\">", f);
    for (int i = 0; i * step <= max; i++)
        fprintf(f, "<span%s style=\"left:%.2f%%\">%s</span>",
                i * step > .94 * max ? " class=\"end\"" : "", i * step / max * 100,
                rp_fmt_seconds(fig, (struct mp_val){i * step, MP_MEASURED}));
    fputs("</div></div>\n", f);
}

static void legend(FILE *f, const char *used)
{
    fputs("<ul class=\"legend\">", f);
    for (int p = 0; p < MP_PHASE_COUNT; p++)
        if (used[p])
            fprintf(f, "<li><i class=\"sw c-%s\"></i>%s</li>", mp_phase_name((enum mp_phase)p),
                    html_phase((enum mp_phase)p));
    fputs("</ul>\n", f);
}

static void timeline(struct rp_html *h, size_t i)
{
    const struct rp_timeline *t = &h->page[i].data->timeline;
    char used[MP_PHASE_COUNT] = {0}, fig[RP_FIG];

    html_page_head(h, i, 3);
    fprintf(h->f, "<figure><figcaption>Step %u, %s, the nearest to the median.</figcaption>\n",
            t->step,
            rp_fmt_seconds(fig, (struct mp_val){(double)t->window_ns * 1e-9, MP_MEASURED}));
    for (int pass = 0; pass < MP_PASS_COUNT; pass++)
        lane(h->f, t, pass, used);
    layer_lane(h->f, t);
    time_axis(h->f, t);
    legend(h->f, used);
    fputs("</figure>\n", h->f);
}

void html_timeline(struct rp_html *h)
{
    html_section(h, "time", "One step in time",
                 "A column is filled by how much of its time the GPU worked for that pass; the "
                 "figures of all steps together are in the table above.");
    for (size_t i = 0; i < h->n; i++)
        if (h->page[i].data && h->page[i].data->timeline.window_ns &&
            h->page[i].data->timeline.n_operation)
            timeline(h, i);
        else
            fputs("<p>" RP_DASH " no raw records of a whole step</p>\n", h->f);
    fputs("</section>\n", h->f);
}
