/* The step from the whole to its parts, top down: step, layers and what is outside of them, phases,
 * experts. Widths are time, so every row adds up to the one above it. What is narrower than MIN is not
 * drawn; the row of experts ends in the sum of those. */
#include "report/render_html_part.h"

#include <stdlib.h>

#define ROW      24.0
#define MIN      0.04 /* of HTML_WIDTH units; 1/25 of a pixel on a wide screen, seen when zoomed in */
#define DRAW_MAX 6000 /* expert blocks in a page */

struct block {
    double at, width; /* seconds a step */
    int row;
    const char *color; /* class behind c- */
    char label[48], title[96];
};

struct icicle {
    struct rp_html *h;
    const struct rp_report *r;
    double total_s;
    size_t n_expert_drawn;
};

static double units(const struct icicle *c, double seconds)
{
    return seconds / c->total_s * HTML_WIDTH;
}

static void block(struct icicle *c, const struct block *b)
{
    FILE *f = c->h->f;
    double x = units(c, b->at), w = units(c, b->width), y = b->row * ROW;
    char fig[RP_FIG], percent[RP_FIG];

    if (w < MIN)
        return;
    fprintf(f,
            "<g data-l=\"%s\"><title>%s: %s, %s of the step</title><rect class=\"c%s c-%s\" "
            "x=\"%.3f\" y=\"%.0f\" width=\"%.3f\" height=\"%.0f\"/>",
            b->label, b->title, rp_fmt_seconds(fig, (struct mp_val){b->width, MP_MEASURED}),
            rp_fmt_percent(percent, (struct mp_val){b->width / c->total_s, MP_MEASURED}),
            w > 3                   ? " edge"
            : c->n_expert_drawn % 2 ? " odd"
                                    : "",
            b->color, x, y, w, ROW - 1);
    if (w > (double)rp_columns(b->label) * 6.6 + 6)
        fprintf(f, "<text class=\"c-%s on\" x=\"%.2f\" y=\"%.0f\">%s</text>", b->color, x + 4,
                y + 15, b->label);
    fputs("</g>\n", f);
}

/* ---- experts of a layer ----------------------------------------------------------------------------- */

static int by_time(const void *a, const void *b)
{
    const struct rp_expert *x = *(const struct rp_expert *const *)a,
                           *y = *(const struct rp_expert *const *)b;

    if (x->seconds.v != y->seconds.v)
        return x->seconds.v < y->seconds.v ? 1 : -1;
    return x < y ? -1 : x > y;
}

/* The experts of layer l with known time, busiest first; malloced. */
static const struct rp_expert **sorted_of(const struct rp_report *r, int l, size_t *n)
{
    size_t from = 0, to;
    const struct rp_expert **e;

    *n = 0;
    while (from < r->n_expert && r->expert[from].layer != l)
        from++;
    for (to = from; to < r->n_expert && r->expert[to].layer == l;)
        to++;
    e = calloc(to - from + 1, sizeof *e);
    for (size_t i = from; e && i < to; i++)
        if (r->expert[i].seconds.basis != MP_UNKNOWN && r->expert[i].seconds.v > 0)
            e[(*n)++] = &r->expert[i];
    if (e)
        qsort(e, *n, sizeof *e, by_time);
    return e;
}

static void experts(struct icicle *c, int l, double at, double width)
{
    size_t n, i;
    const struct rp_expert **e = sorted_of(c->r, l, &n);
    double end = at + width;

    for (i = 0; e && i < n && c->n_expert_drawn < DRAW_MAX; i++) {
        struct block b = {.at = at, .row = 3, .color = "expert"};
        bool shared = e[i]->seconds.basis == MP_APPORTIONED;

        b.width = html_per_step(c->r, e[i]->seconds).v;
        if (units(c, b.width) < MIN || b.at + b.width > end * (1 + 1e-9))
            break;
        snprintf(b.label, sizeof b.label, "%s%d", shared ? "~" : "", e[i]->expert);
        snprintf(b.title, sizeof b.title, "layer %d, expert %d%s", l, e[i]->expert,
                 shared ? ", time shared out by tokens" : "");
        block(c, &b);
        c->n_expert_drawn++;
        at += b.width;
    }
    if (i < n || n == 0) {
        struct block b = {.at = at, .width = end - at, .row = 3, .color = "expert"};

        snprintf(b.label, sizeof b.label, n ? "%zu more" : "all", n - i);
        snprintf(b.title, sizeof b.title,
                 n ? "layer %d, %zu more experts" : "layer %d, all experts", l, n - i);
        block(c, &b);
    }
    free(e);
}

/* ---- rows ----------------------------------------------------------------------------------------- */

static void phase_block(struct icicle *c, int row, const char *where, enum mp_phase p, double at,
                        double seconds)
{
    struct block b = {.at = at, .width = seconds, .row = row, .color = mp_phase_name(p)};

    snprintf(b.label, sizeof b.label, "%s", html_phase(p));
    snprintf(b.title, sizeof b.title, "%s%s", where, html_phase(p));
    block(c, &b);
}

static double layer(struct icicle *c, const struct rp_layer *l, double at)
{
    double seconds = html_per_step(c->r, (struct mp_val){l->total_s, MP_MEASURED}).v, x = at;
    struct block b = {.at = at, .width = seconds, .row = 1, .color = "layer"};
    char where[32];

    snprintf(where, sizeof where, "layer %d, ", l->layer);
    snprintf(b.label, sizeof b.label, c->r->n_layer <= 12 ? "layer %d" : "%d", l->layer);
    snprintf(b.title, sizeof b.title, "layer %d", l->layer);
    block(c, &b);
    for (int p = 0; p < MP_PHASE_COUNT; p++) {
        double s = html_per_step(c->r, (struct mp_val){l->seconds[p], MP_MEASURED}).v;

        phase_block(c, 2, where, (enum mp_phase)p, x, s);
        if (p == MP_PHASE_EXPERT && s > 0)
            experts(c, l->layer, x, s);
        x += s;
    }
    return at + seconds;
}

/* Time of a phase that no layer has. */
static double outside(const struct rp_report *r, enum mp_phase p)
{
    double all = html_phase_s(r, p), in = 0;

    for (size_t i = 0; i < r->n_layer; i++)
        in += r->layer[i].seconds[p];
    all -= html_per_step(r, (struct mp_val){in, MP_MEASURED}).v;
    return all > 0 ? all : 0;
}

static void rows(struct icicle *c)
{
    double at = 0;
    struct block b = {
        .width = c->total_s, .row = 0, .color = "layer", .label = "step", .title = "step"};

    block(c, &b);
    for (size_t i = 0; i < c->r->n_layer; i++)
        at = layer(c, &c->r->layer[i], at);
    for (int p = MP_PHASE_OTHER; p < MP_PHASE_COUNT; p++) {
        double s = outside(c->r, (enum mp_phase)p);

        phase_block(c, 1, "outside of layers, ", (enum mp_phase)p, at, s);
        at += s;
    }
    b = (struct block){.at = at,
                       .width = html_per_step(c->r, c->r->idle_s).v,
                       .row = 1,
                       .color = "idle",
                       .label = "idle",
                       .title = "GPU idle"};
    block(c, &b);
}

void html_icicle(struct rp_html *h)
{
    html_section(
        h, "parts", "From the step to its parts",
        "Width is time; each row adds up to the one above it: step, layers, phases, experts "
        "(busiest first). With scripts on, a click widens a block, and the top one brings "
        "all back.");
    for (size_t i = 0; i < h->n; i++) {
        struct icicle c = {.h = h, .r = h->page[i].report};

        html_page_head(h, i, 3);
        c.total_s = c.r->step.mean_s.v;
        if (c.r->step.count == 0 || c.total_s <= 0) {
            fputs("<p>" RP_DASH " no whole step</p>\n", h->f);
            continue;
        }
        fputs(
            "<figure class=\"scroll\" tabindex=\"0\" aria-label=\"From the step to its parts\">\n",
            h->f);
        svg_open(h->f, "icicle", HTML_WIDTH, 4 * ROW, false, "Time by layer, phase and expert",
                 "The tables of phases, layers and experts above have the same figures.");
        rows(&c);
        fputs("</svg></figure>\n", h->f);
    }
    fputs("</section>\n", h->f);
}
