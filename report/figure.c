/* See figure.h. */
#include "report/figure.h"

#include <math.h>
#include <string.h>

#include "report/layout.h"

#define NAME_WIDTH 30

struct mp_val rp_measured(double v, bool is_known)
{
    return (struct mp_val){is_known ? v : 0, is_known ? MP_MEASURED : MP_UNKNOWN};
}

struct mp_val rp_scaled(struct mp_val v, double by)
{
    v.v *= by;
    return v;
}

static const char *plain(char out[RP_FIG], struct mp_val v, double scale, int digits,
                         const char *unit)
{
    if (v.basis == MP_UNKNOWN || !isfinite(v.v))
        strcpy(out, RP_DASH);
    else
        snprintf(out, RP_FIG, "%s%.*f%s%s", v.basis > MP_MEASURED ? "~" : "", digits, v.v * scale,
                 *unit ? " " : "", unit);
    return out;
}

const char *rp_figure_text(char out[RP_FIG], enum rp_unit unit, struct mp_val v)
{
    switch (unit) {
    case RP_UNIT_SECONDS:
        return rp_fmt_seconds(out, v);
    case RP_UNIT_RATIO:
        return rp_fmt_percent(out, v);
    case RP_UNIT_COUNT:
        return rp_fmt_count(out, v);
    case RP_UNIT_BYTES:
        return plain(out, v, 1.0 / (1 << 30), 2, "GiB");
    case RP_UNIT_HERTZ:
        return plain(out, v, 1e-6, 0, "MHz");
    case RP_UNIT_WATT:
        return plain(out, v, 1, 0, "W");
    case RP_UNIT_CELSIUS:
        return plain(out, v, 1, 0, "°C");
    case RP_UNIT_PLAIN:
        break;
    }
    return plain(out, v, 1, 2, "");
}

struct mp_val rp_figure_change(const struct rp_figure *f, int from, int to)
{
    struct mp_val a = f->v[from], b = f->v[to];

    if (a.basis == MP_UNKNOWN || b.basis == MP_UNKNOWN || !(fabs(a.v) > 0))
        return (struct mp_val){0, MP_UNKNOWN};
    return (struct mp_val){b.v / a.v - 1, a.basis > b.basis ? a.basis : b.basis};
}

const char *rp_change_text(char out[RP_FIG], struct mp_val change)
{
    double shown = round(change.v * 1000) / 10;

    if (change.basis == MP_UNKNOWN || !isfinite(change.v))
        return strcpy(out, RP_DASH);
    snprintf(out, RP_FIG, "%s%s%.1f %%", change.basis > MP_MEASURED ? "~" : "",
             shown > 0   ? "+"
             : shown < 0 ? "−"
                         : "",
             fabs(shown));
    return out;
}

bool rp_figure_is_worse(const struct rp_figure *f, int from, int to, double tolerance)
{
    double a = f->v[from].v, b = f->v[to].v, loss = f->better > 0 ? a - b : b - a;

    if (f->better == 0 || f->v[from].basis == MP_UNKNOWN || f->v[to].basis == MP_UNKNOWN)
        return false;
    return loss > f->least && loss > tolerance * fabs(a);
}

/* ---- text --------------------------------------------------------------------------------------- */

static bool has_any(const struct rp_figure *row, int n_side)
{
    for (int i = 0; i < n_side; i++)
        if (row->v[i].basis != MP_UNKNOWN)
            return true;
    return false;
}

static int width(int n_side)
{
    return n_side <= 2 ? 24 : (RP_WIDTH - 2 - NAME_WIDTH) / n_side;
}

/* Cut to its column, so that long names stay apart. */
static void head_cell(FILE *f, int columns, const char *text)
{
    char cut[128];

    rp_right(f, columns, rp_cut(cut, sizeof cut, text, (size_t)columns - 1));
}

void rp_figures_head(FILE *f, const char *title, const char *const *side, int n_side)
{
    rp_left(f, NAME_WIDTH + 2, title);
    for (int i = 0; i < n_side; i++)
        head_cell(f, width(n_side), side[i]);
    if (n_side == 2)
        rp_right(f, 12, "change");
    fputc('\n', f);
}

void rp_figures_text(FILE *f, const struct rp_figure *row, size_t n, int n_side)
{
    char text[RP_FIG];

    for (size_t k = 0; k < n; k++) {
        if (!has_any(&row[k], n_side))
            continue;
        fputs("  ", f);
        rp_left(f, NAME_WIDTH, row[k].name);
        for (int i = 0; i < n_side; i++)
            rp_right(f, width(n_side), rp_figure_text(text, row[k].unit, row[k].v[i]));
        if (n_side == 2)
            rp_right(f, 12, rp_change_text(text, rp_figure_change(&row[k], 0, 1)));
        fputc('\n', f);
    }
}

/* ---- Markdown ----------------------------------------------------------------------------------- */

void rp_md_text(FILE *f, const char *text)
{
    for (; *text; text++)
        switch (*text) {
        case '<':
            fputs("&lt;", f);
            break;
        case '&':
            fputs("&amp;", f);
            break;
        case '|':
        case '`':
        case '*':
        case '_':
        case '[':
        case '\\':
            fprintf(f, "\\%c", *text);
            break;
        default:
            fputc((unsigned char)*text < 0x20 ? ' ' : *text, f);
        }
}

void rp_md_line(FILE *f, const char *before, const char *text, const char *after)
{
    fputs(before, f);
    rp_md_text(f, text);
    fputs(after, f);
}

void rp_figures_md_head(FILE *f, const char *title, const char *const *side, int n_side)
{
    fprintf(f, "| %s |", title);
    for (int i = 0; i < n_side; i++) {
        fputc(' ', f);
        rp_md_text(f, side[i]);
        fputs(" |", f);
    }
    fputs(n_side == 2 ? " change |\n|---|" : "\n|---|", f);
    for (int i = 0; i < n_side + (n_side == 2); i++)
        fputs("--:|", f);
    fputc('\n', f);
}

void rp_figures_md(FILE *f, const struct rp_figure *row, size_t n, int n_side)
{
    char text[RP_FIG];

    for (size_t k = 0; k < n; k++) {
        if (row[k].is_detail || !has_any(&row[k], n_side))
            continue;
        fputs("| ", f);
        rp_md_text(f, row[k].name);
        fputs(" |", f);
        for (int i = 0; i < n_side; i++)
            fprintf(f, " %s |", rp_figure_text(text, row[k].unit, row[k].v[i]));
        if (n_side == 2)
            fprintf(f, " %s |", rp_change_text(text, rp_figure_change(&row[k], 0, 1)));
        fputc('\n', f);
    }
}
