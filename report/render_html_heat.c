/* Layers down, experts across: tokens, and time. A colour is a path of strokes, one a run of equal cells,
 * so 94 layers of 1024 experts stay below a megabyte. Colour goes by the square root, because a few
 * experts often have many times the mean. */
#include "report/render_html_part.h"

#include <math.h>
#include <stdlib.h>

#define LEVELS 12

struct map {
    const struct rp_report *r;
    size_t *first; /* (n_row + 1): index of each layer's first expert */
    size_t n_row;
    int n_column;
    double max_tokens, max_s; /* a step */
};

static struct mp_val tokens_of(const struct map *m, size_t i)
{
    return html_per_step(m->r, m->r->expert[i].tokens);
}

static struct mp_val time_of(const struct map *m, size_t i)
{
    return html_per_step(m->r, m->r->expert[i].seconds);
}

static int map_make(struct map *m, const struct rp_report *r)
{
    *m = (struct map){.r = r};
    m->first = calloc(r->n_expert + 1, sizeof *m->first);
    if (!m->first)
        return MP_ENOMEM;
    for (size_t i = 0; i < r->n_expert; i++) {
        if (i == 0 || r->expert[i].layer != r->expert[i - 1].layer)
            m->first[m->n_row++] = i;
        if (r->expert[i].expert >= m->n_column)
            m->n_column = r->expert[i].expert + 1;
        if (tokens_of(m, i).basis != MP_UNKNOWN)
            m->max_tokens = fmax(m->max_tokens, tokens_of(m, i).v);
        if (time_of(m, i).basis != MP_UNKNOWN)
            m->max_s = fmax(m->max_s, time_of(m, i).v);
    }
    m->first[m->n_row] = r->n_expert;
    return MP_OK;
}

/* 0: nothing, or not known. */
static int level(struct mp_val v, double max)
{
    int l;

    if (v.basis == MP_UNKNOWN || v.v <= 0 || max <= 0)
        return 0;
    l = 1 + (int)(sqrt(v.v / max) * LEVELS);
    return l > LEVELS ? LEVELS : l;
}

static void level_path(FILE *f, const struct map *m,
                       struct mp_val (*get)(const struct map *, size_t), double max, int want)
{
    bool open = false;

    for (size_t row = 0; row < m->n_row; row++)
        for (size_t i = m->first[row]; i < m->first[row + 1];) {
            size_t from = i++;

            if (level(get(m, from), max) != want)
                continue;
            while (i < m->first[row + 1] &&
                   m->r->expert[i].expert == m->r->expert[i - 1].expert + 1 &&
                   level(get(m, i), max) == want)
                i++;
            if (!open)
                fprintf(f, "<path class=\"h%d\" d=\"", want);
            open = true;
            fprintf(f, "M%d %zuh%zu", m->r->expert[from].expert, row, i - from);
        }
    if (open)
        fputs("\"/>\n", f);
}

static void layer_of(FILE *f, const struct map *m, const char *class,
                     struct mp_val (*get)(const struct map *, size_t), double max)
{
    fprintf(f, "<g class=\"%s\" transform=\"translate(0 .5)\">\n", class);
    for (int l = 1; l <= LEVELS; l++)
        level_path(f, m, get, max, l);
    fputs("</g>\n", f);
}

static void scale(FILE *f, const char *class, const char *zero, const char *half, const char *full)
{
    fprintf(f, "<div class=\"scale %s\"><span><i></i> %s</span> <span>some</span><b>", class, zero);
    for (int l = 1; l <= LEVELS; l++)
        fprintf(f, "<i class=\"h%d\"></i>", l);
    fprintf(f, "</b> <span>%s (middle of the scale: %s)</span></div>\n", full, half);
}

static void scales(FILE *f, const struct map *m)
{
    enum mp_basis basis = m->r->n_expert ? m->r->expert[0].seconds.basis : MP_UNKNOWN;
    char a[RP_FIG], b[RP_FIG];

    rp_fmt_count(a, (struct mp_val){m->max_tokens / 4, MP_MEASURED});
    rp_fmt_count(b, (struct mp_val){m->max_tokens, MP_MEASURED});
    fputs("<div class=\"load\">", f);
    scale(f, "", "no token", a, b);
    fputs("</div><div class=\"time\">", f);
    rp_fmt_seconds(a, (struct mp_val){m->max_s / 4, basis});
    rp_fmt_seconds(b, (struct mp_val){m->max_s, basis});
    scale(f, "", "none", a, b);
    if (basis == MP_APPORTIONED)
        fputs("<p class=\"sub\">~ One kernel ran all experts of a layer: its time is shared out by "
              "tokens.</p>",
              f);
    fputs("</div>\n", f);
}

static void row_labels(FILE *f, const struct map *m)
{
    size_t every = m->n_row / 16 + 1;

    fputs("<div class=\"rows\" aria-hidden=\"true\">", f);
    for (size_t row = 0; row < m->n_row; row += every)
        fprintf(f, "<span style=\"top:%.2f%%\">%d</span>",
                ((double)row + .5) * 100 / (double)m->n_row, m->r->expert[m->first[row]].layer);
    fputs("</div>", f);
}

static void column_labels(FILE *f, const struct map *m)
{
    int every = (int)html_tick(m->n_column, 8);

    every = every < 1 ? 1 : every;
    fputs("<div class=\"ticks\" aria-hidden=\"true\">", f);
    for (int e = 0; e < m->n_column * 0.88; e += every)
        fprintf(f, "<span style=\"left:%.2f%%\">%d</span>", (e + .5) * 100 / m->n_column, e);
    fputs("<span class=\"end\" style=\"left:100%\">expert</span></div>\n", f);
}

static void drawing(FILE *f, const struct map *m, size_t page)
{
    int height = (int)(m->n_row * (m->n_row <= 16 ? 18 : m->n_row <= 48 ? 10 : 6));

    height = height < 36 ? 36 : height;
    fprintf(f, "<div class=\"heat\" data-page=\"%zu\" data-columns=\"%d\">\n", page, m->n_column);
    row_labels(f, m);
    fprintf(f, "<div class=\"stretch\" style=\"height:%dpx\">", height);
    svg_open(f, "map", m->n_column, (double)m->n_row, true, "Load and time by layer and expert",
             "Layers from top to bottom, experts from left to right; brighter is more. The tables "
             "below name the extremes, the data at the end of the page hold every value.");
    layer_of(f, m, "load", tokens_of, m->max_tokens);
    layer_of(f, m, "time", time_of, m->max_s);
    fputs("<rect class=\"mark\" width=\"1\" height=\"1\"/><rect class=\"mark\" width=\"1\" "
          "height=\"1\"/></svg></div>\n",
          f);
    column_labels(f, m);
    scales(f, m);
    fputs("<p class=\"read\" aria-live=\"polite\"></p></div>\n", f);
}

/* ---- tables ----------------------------------------------------------------------------------------- */

static void ratio_cell(FILE *f, struct mp_val v)
{
    char fig[RP_FIG];

    snprintf(fig, sizeof fig, "%.2f", v.v);
    html_cell(f, v, fig);
}

static void layer_row(FILE *f, const struct rp_report *r, const struct rp_layer *l)
{
    static const enum mp_phase column[] = {MP_PHASE_ATTENTION, MP_PHASE_EXPERT, MP_PHASE_ROUTER,
                                           MP_PHASE_DISPATCH, MP_PHASE_COMBINE};
    struct mp_val v = {l->total_s, MP_MEASURED};
    char fig[RP_FIG];

    fprintf(f, "<tr><td class=\"n\" data-v=\"%d\">%d</td>", l->layer, l->layer);
    html_seconds(f, html_per_step(r, v));
    for (size_t i = 0; i < countof(column); i++)
        html_seconds(f, html_per_step(r, (struct mp_val){l->seconds[column[i]], MP_MEASURED}));
    ratio_cell(f, l->max_vio_step);
    v = (struct mp_val){l->n_dead, l->n_expert ? MP_MEASURED : MP_UNKNOWN};
    html_cell(f, v, rp_fmt_count(fig, v));
    fputs("</tr>\n", f);
}

static void layer_table(FILE *f, const struct rp_report *r)
{
    if (r->n_layer == 0)
        return;
    fprintf(
        f,
        "<details%s><summary>Layers, %zu</summary><div class=\"scroll\"><table "
        "class=\"sort\"><caption>Per step, mean. MaxVio: by how much the busiest expert exceeds "
        "the mean, within a step. Idle: experts without a token.</caption><thead><tr><th "
        "class=\"n\">layer</th><th class=\"n\">all</th><th class=\"n\">attention</th><th "
        "class=\"n\">experts</th><th class=\"n\">router</th><th class=\"n\">dispatch</th><th "
        "class=\"n\">combine</th><th class=\"n\">MaxVio</th><th class=\"n\">idle "
        "experts</th></tr></thead><tbody>\n",
        r->n_layer <= 12 ? " open" : "", r->n_layer);
    for (size_t i = 0; i < r->n_layer; i++)
        layer_row(f, r, &r->layer[i]);
    fputs("</tbody></table></div></details>\n", f);
}

static int by_tokens(const void *a, const void *b)
{
    const struct rp_expert *x = *(const struct rp_expert *const *)a,
                           *y = *(const struct rp_expert *const *)b;

    if (x->tokens.v != y->tokens.v)
        return x->tokens.v < y->tokens.v ? 1 : -1;
    return x < y ? -1 : x > y;
}

static void expert_rows(FILE *f, const struct rp_report *r, const struct rp_expert **e, size_t n)
{
    char fig[RP_FIG];

    for (size_t i = 0; i < n; i++) {
        struct mp_val tokens = html_per_step(r, e[i]->tokens);

        fprintf(f, "<tr><td class=\"n\">%d</td><td class=\"n\">%d</td>", e[i]->layer, e[i]->expert);
        html_cell(f, tokens, rp_fmt_count(fig, tokens));
        html_seconds(f, html_per_step(r, e[i]->seconds));
        html_seconds(f, html_per_step(r, e[i]->shared_seconds));
        fprintf(f, "<td>%s</td></tr>\n", mp_basis_name(e[i]->seconds.basis));
    }
}

static void expert_table(FILE *f, const struct rp_report *r)
{
    const struct rp_expert **sorted = calloc(r->n_expert + 1, sizeof *sorted);
    size_t n = 0;

    for (size_t i = 0; sorted && i < r->n_expert; i++)
        if (r->expert[i].tokens.basis != MP_UNKNOWN)
            sorted[n++] = &r->expert[i];
    if (n) {
        qsort(sorted, n, sizeof *sorted, by_tokens);
        fprintf(
            f,
            "<details><summary>The %zu busiest of %zu experts</summary><div "
            "class=\"scroll\"><table class=\"sort\"><caption>Per step, mean</caption><thead><tr>"
            "<th class=\"n\">layer</th><th class=\"n\">expert</th><th class=\"n\">tokens</th>"
            "<th class=\"n\">its kernels</th><th class=\"n\">share of dispatch and "
            "combine</th><th>time is</th></tr></thead><tbody>\n",
            n < 20 ? n : 20, n);
        expert_rows(f, r, sorted, n < 20 ? n : 20);
        fputs("</tbody></table></div></details>\n", f);
    }
    free(sorted);
}

static void one_map(struct rp_html *h, size_t page)
{
    const struct rp_report *r = h->page[page].report;
    struct map m;

    html_page_head(h, page, 3);
    if (map_make(&m, r))
        return;
    if (m.n_row && r->step.count && (m.max_tokens > 0 || m.max_s > 0)) {
        fputs("<figure aria-label=\"Experts, layer by layer\">\n", h->f);
        fprintf(h->f,
                "<input type=\"radio\" name=\"pick%zu\" id=\"load%zu\" class=\"pick\" checked> "
                "<label for=\"load%zu\">tokens</label> <input type=\"radio\" name=\"pick%zu\" "
                "id=\"pick%zu\" class=\"pick-time\"> <label for=\"pick%zu\">time</label>\n",
                page, page, page, page, page, page);
        drawing(h->f, &m, page);
        fputs("</figure>\n", h->f);
    } else {
        fputs("<p>" RP_DASH " tokens per expert are not known</p>\n", h->f);
    }
    free(m.first);
    layer_table(h->f, r);
    expert_table(h->f, r);
}

void html_heat(struct rp_html *h)
{
    html_section(h, "experts", "Experts, layer by layer",
                 "Tokens and kernel time a step, mean. An even row is a balanced router; grey "
                 "cells got nothing.");
    for (size_t i = 0; i < h->n; i++)
        one_map(h, i);
    fputs("</section>\n", h->f);
}
