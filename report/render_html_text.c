/* Escaping and the smallest pieces of the page. Nothing from a profile reaches the page but through
 * html_text: kernel names, command lines and host names are anybody's. */
#include "report/render_html_part.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "report/utf8.h"

#define REPLACEMENT "\xef\xbf\xbd"

static const char *escape(unsigned char c)
{
    switch (c) {
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '&':
        return "&amp;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    }
    return c < 0x20 && c != '\n' && c != '\t' ? REPLACEMENT : NULL;
}

void html_text(FILE *f, const char *text)
{
    for (const char *s = text; *s;) {
        size_t n = rp_utf8(s);
        const char *e = n ? escape((unsigned char)*s) : REPLACEMENT;

        if (e)
            fputs(e, f);
        else
            fwrite(s, 1, n, f);
        s += n ? n : 1;
    }
}

void html_printf(FILE *f, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    html_text(f, text);
}

const char *html_phase(enum mp_phase phase)
{
    switch (phase) {
    case MP_PHASE_SHARED_EXPERT:
        return "shared expert";
    case MP_PHASE_DENSE_MLP:
        return "dense MLP";
    case MP_PHASE_LM_HEAD:
        return "LM head";
    case MP_PHASE_COMM:
        return "communication";
    default:
        return mp_phase_name(phase);
    }
}

void html_section(struct rp_html *h, const char *id, const char *title, const char *sub)
{
    fprintf(h->f, "<section aria-labelledby=\"%s\">\n<h2 id=\"%s\">%s</h2>\n", id, id, title);
    if (sub && *sub)
        fprintf(h->f, "<p class=\"sub\">%s</p>\n", sub);
}

void html_page_head(struct rp_html *h, size_t i, int level)
{
    if (h->n < 2)
        return;
    fprintf(h->f, "<h3 aria-level=\"%d\">", level);
    html_text(h->f, h->label[i]);
    fputs("</h3>\n", h->f);
}

void html_cell(FILE *f, struct mp_val v, const char *text)
{
    if (v.basis == MP_UNKNOWN || !isfinite(v.v))
        fputs("<td class=\"n\" data-v=\"\">" RP_DASH "</td>", f);
    else
        fprintf(f, "<td class=\"n\" data-v=\"%.6g\">%s</td>", v.v, text);
}

void html_seconds(FILE *f, struct mp_val v)
{
    char fig[RP_FIG];

    html_cell(f, v, rp_fmt_seconds(fig, v));
}

void html_percent(FILE *f, struct mp_val v)
{
    char fig[RP_FIG];

    html_cell(f, v, rp_fmt_percent(fig, v));
}

void svg_open(FILE *f, const char *classes, double width, double height, bool stretch,
              const char *title, const char *desc)
{
    fprintf(f, "<svg class=\"%s\" role=\"img\" viewBox=\"0 0 %g %g\"%s><title>", classes, width,
            height, stretch ? " preserveAspectRatio=\"none\"" : "");
    html_text(f, title);
    fputs("</title><desc>", f);
    html_text(f, desc);
    fputs("</desc>\n", f);
}

double html_phase_s(const struct rp_report *r, enum mp_phase phase)
{
    double sum = 0;

    for (size_t i = 0; i < r->n_phase; i++)
        if (r->phase[i].phase == phase)
            sum += r->phase[i].step_s.v;
    return sum;
}

struct mp_val html_per_step(const struct rp_report *r, struct mp_val v)
{
    if (r->step.count == 0)
        v.basis = MP_UNKNOWN;
    else
        v.v /= r->step.count;
    return v;
}

double html_tick(double max, int count)
{
    double unit = max > 0 ? pow(10, floor(log10(max / count))) : 1;
    double n = max / count / unit;

    return unit * (n <= 1 ? 1 : n <= 2 ? 2 : n <= 5 ? 5 : 10);
}
