/* Where the step's time went: one bar a profile on a common axis, each the sum of its parts and idle
 * time, and the same as a table. Means over the counted steps, since means add up. */
#include "report/render_html_part.h"

#include <stdlib.h>
#include <string.h>

/* Order of the parts, the same in every bar: along the way of a token, then what comes after. */
static const enum mp_phase bar_order[MP_PHASE_COUNT] = {
    MP_PHASE_EMBED,     MP_PHASE_ATTENTION, MP_PHASE_NORM,    MP_PHASE_ROUTER,
    MP_PHASE_DISPATCH,  MP_PHASE_EXPERT,    MP_PHASE_COMBINE, MP_PHASE_SHARED_EXPERT,
    MP_PHASE_DENSE_MLP, MP_PHASE_LM_HEAD,   MP_PHASE_LOSS,    MP_PHASE_GRADIENT,
    MP_PHASE_OPTIMIZER, MP_PHASE_COMM,      MP_PHASE_COPY,    MP_PHASE_OTHER};

struct part {
    const char *name, *color;
    double at, seconds;
};

static size_t parts_of(const double *phase_s, double idle_s, struct part *part)
{
    size_t n = 0;
    double at = 0;

    for (size_t i = 0; i < MP_PHASE_COUNT; i++) {
        double s = phase_s[bar_order[i]];

        if (s <= 0)
            continue;
        part[n++] = (struct part){html_phase(bar_order[i]), mp_phase_name(bar_order[i]), at, s};
        at += s;
    }
    part[n++] = (struct part){"GPU idle", "idle", at, idle_s};
    return n;
}

static void labels(FILE *f, const struct part *part, size_t n, double max)
{
    char fig[RP_FIG];

    fputs("<div class=\"over\" aria-hidden=\"true\">", f);
    for (size_t i = 0; i < n; i++) {
        double share = part[i].seconds / max;

        if (share < 0.055)
            continue;
        fprintf(f, "<span class=\"c-%s%s\" style=\"left:%.3f%%;width:%.3f%%\">%s<br>%s</span>",
                part[i].color, share < .16 ? " small" : "", part[i].at / max * 100, share * 100,
                part[i].name, rp_fmt_seconds(fig, (struct mp_val){part[i].seconds, MP_MEASURED}));
    }
    fputs("</div>", f);
}

void html_bar(FILE *f, const struct html_bar *b, double max)
{
    struct part part[MP_PHASE_COUNT + 1];
    size_t n = parts_of(b->phase_s, b->idle_s, part);
    char fig[RP_FIG], title[160];

    fputs("<div class=\"bar\"><div class=\"name\"><span>", f);
    html_text(f, b->name);
    fprintf(f, "</span><span>%s</span></div>\n<div class=\"stretch\">", b->right);
    snprintf(title, sizeof title, "%.80s by phase, %.60s", b->name, b->right);
    svg_open(f, "parts", HTML_WIDTH, 40, true, title, "The table below has the same figures.");
    for (size_t k = 0; k < n; k++)
        fprintf(f,
                "<rect class=\"c edge c-%s\" x=\"%.2f\" y=\"0\" width=\"%.2f\" "
                "height=\"40\"><title>%s %s</title></rect>\n",
                part[k].color, part[k].at / max * HTML_WIDTH, part[k].seconds / max * HTML_WIDTH,
                part[k].name, rp_fmt_seconds(fig, (struct mp_val){part[k].seconds, MP_MEASURED}));
    fputs("</svg>", f);
    labels(f, part, n, max);
    fputs("</div></div>\n", f);
}

static void page_bar(struct rp_html *h, size_t i, double max)
{
    const struct rp_report *r = h->page[i].report;
    struct html_bar b = {.name = h->n > 1 ? h->label[i] : "mean step"};
    char mean[RP_FIG], mfu[RP_FIG];

    if (r->step.count == 0)
        return;
    for (int p = 0; p < MP_PHASE_COUNT; p++)
        b.phase_s[p] = html_phase_s(r, (enum mp_phase)p);
    b.idle_s = html_per_step(r, r->idle_s).v;
    snprintf(b.right, sizeof b.right, "%s, MFU %s", rp_fmt_seconds(mean, r->step.mean_s),
             rp_fmt_percent(mfu, r->mfu.mfu));
    html_bar(h->f, &b, max);
}

void html_bar_axis(FILE *f, double max)
{
    double step = html_tick(max, 6);
    char fig[RP_FIG];

    fputs("<div class=\"ticks\" aria-hidden=\"true\">", f);
    for (int i = 0; i * step <= max * 1.0001; i++)
        fprintf(f, "<span%s style=\"left:%.2f%%\">%s</span>",
                i * step > .94 * max ? " class=\"end\"" : "", i * step / max * 100,
                rp_fmt_seconds(fig, (struct mp_val){i * step, MP_MEASURED}));
    fputs("</div>\n", f);
}

/* ---- the table ------------------------------------------------------------------------------------ */

static double pass_s(const struct rp_report *r, enum mp_phase phase, int pass)
{
    for (size_t i = 0; i < r->n_phase; i++)
        if (r->phase[i].phase == phase && (int)r->phase[i].pass == pass)
            return r->phase[i].step_s.v;
    return 0;
}

static bool has_pass(const struct rp_report *r, int pass)
{
    for (size_t i = 0; i < r->n_phase; i++)
        if ((int)r->phase[i].pass == pass)
            return true;
    return false;
}

static struct mp_val some(double s)
{
    return (struct mp_val){s, MP_MEASURED};
}

static void cell_or_blank(FILE *f, double seconds)
{
    if (seconds > 0)
        html_seconds(f, some(seconds));
    else
        fputs("<td class=\"n\" data-v=\"0\"></td>", f);
}

static void name_cell(FILE *f, const char *color, const char *name)
{
    fprintf(f, "<tr><td><i class=\"sw c-%s\"></i>%s</td>", color, name);
}

static void meter(FILE *f, const char *color, double share)
{
    fprintf(f, "<td class=\"meter\"><i class=\"sw c-%s\" style=\"width:%.2f%%\"></i></td>", color,
            share * 100);
}

static void table_one(FILE *f, const struct rp_report *r)
{
    fputs("<div class=\"scroll\"><table class=\"sort\"><caption>The same as a table; per step, "
          "mean</caption><thead><tr><th>phase</th>",
          f);
    for (int pass = 0; pass < MP_PASS_COUNT; pass++)
        if (has_pass(r, pass))
            fprintf(f, "<th class=\"n\">%s</th>", mp_pass_name((enum mp_pass)pass));
    fputs("<th class=\"n\">all</th><th class=\"n\">share</th><td></td></tr></thead><tbody>\n", f);
    for (size_t i = 0; i < MP_PHASE_COUNT; i++) {
        double all = html_phase_s(r, bar_order[i]);

        if (all <= 0)
            continue;
        name_cell(f, mp_phase_name(bar_order[i]), html_phase(bar_order[i]));
        for (int pass = 0; pass < MP_PASS_COUNT; pass++)
            if (has_pass(r, pass))
                cell_or_blank(f, pass_s(r, bar_order[i], pass));
        html_seconds(f, some(all));
        html_percent(f, some(all / r->step.mean_s.v));
        meter(f, mp_phase_name(bar_order[i]), all / r->step.mean_s.v);
        fputs("</tr>\n", f);
    }
    name_cell(f, "idle", "GPU idle");
    for (int pass = 0; pass < MP_PASS_COUNT; pass++)
        if (has_pass(r, pass))
            cell_or_blank(f, 0);
    html_seconds(f, html_per_step(r, r->idle_s));
    html_percent(f, r->idle_ratio);
    meter(f, "idle", r->idle_ratio.v);
    fputs("</tr></tbody><tfoot><tr><td>step</td>", f);
    for (int pass = 0; pass < MP_PASS_COUNT; pass++)
        if (has_pass(r, pass))
            fputs("<td></td>", f);
    html_seconds(f, r->step.mean_s);
    html_percent(f, some(1));
    fputs("<td></td></tr></tfoot></table></div>\n", f);
}

static void many_row(struct rp_html *h, const char *color, const char *name, const double *seconds)
{
    name_cell(h->f, color, name);
    for (size_t i = 0; i < h->n; i++) {
        const struct rp_report *r = h->page[i].report;
        struct mp_val v = {seconds[i], r->step.count ? MP_MEASURED : MP_UNKNOWN};

        html_seconds(h->f, v);
        v.v /= r->step.count ? r->step.mean_s.v : 1;
        html_percent(h->f, v);
    }
    if (h->is_pair) {
        char fig[RP_FIG];
        struct mp_val d = some(seconds[1] - seconds[0]);

        rp_fmt_seconds(fig, some(d.v < 0 ? -d.v : d.v));
        fprintf(h->f, "<td class=\"n\" data-v=\"%.6g\">%s%s</td>", d.v,
                d.v > 0   ? "+"
                : d.v < 0 ? "−"
                          : "",
                fig);
    }
    fputs("</tr>\n", h->f);
}

static void table_many(struct rp_html *h)
{
    double *seconds = calloc(h->n, sizeof *seconds), any;

    if (!seconds)
        return;
    fputs("<div class=\"scroll\"><table class=\"sort\"><caption>The same as a table; per step, "
          "mean</caption><thead><tr><th>phase</th>",
          h->f);
    for (size_t i = 0; i < h->n; i++) {
        fputs("<th class=\"n\">", h->f);
        html_text(h->f, h->label[i]);
        fputs("</th><th class=\"n\">share</th>", h->f);
    }
    fprintf(h->f, "%s</tr></thead><tbody>\n", h->is_pair ? "<th class=\"n\">change</th>" : "");
    for (size_t k = 0; k < MP_PHASE_COUNT; k++) {
        any = 0;
        for (size_t i = 0; i < h->n; i++)
            any += seconds[i] = html_phase_s(h->page[i].report, bar_order[k]);
        if (any > 0)
            many_row(h, mp_phase_name(bar_order[k]), html_phase(bar_order[k]), seconds);
    }
    for (size_t i = 0; i < h->n; i++)
        seconds[i] = html_per_step(h->page[i].report, h->page[i].report->idle_s).v;
    many_row(h, "idle", "GPU idle", seconds);
    for (size_t i = 0; i < h->n; i++)
        seconds[i] = h->page[i].report->step.mean_s.v;
    fputs("</tbody><tfoot>", h->f);
    many_row(h, "layer", "step", seconds);
    fputs("</tfoot></table></div>\n", h->f);
    free(seconds);
}

void html_where(struct rp_html *h)
{
    double max = 0;

    html_section(h, "where", "Where a step’s time went",
                 "Every nanosecond of the step is in exactly one part; where operations overlap, "
                 "the more productive one has it. Hatched: no operation ran on the GPU.");
    for (size_t i = 0; i < h->n; i++)
        max = h->page[i].report->step.mean_s.v > max ? h->page[i].report->step.mean_s.v : max;
    if (max <= 0) {
        fputs("<p>" RP_DASH " no whole step</p>\n</section>\n", h->f);
        return;
    }
    fputs("<figure aria-label=\"Where a step’s time went\">\n", h->f);
    for (size_t i = 0; i < h->n; i++)
        page_bar(h, i, max);
    html_bar_axis(h->f, max);
    fputs("</figure>\n", h->f);
    if (h->n < 2)
        table_one(h->f, h->page[0].report);
    else
        table_many(h);
    fputs("</section>\n", h->f);
}
