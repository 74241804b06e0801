/* A figure of several sides (before and after, or arms) with its unit and which way is better: what the
 * comparison and the before/after share, in all formats. */
#ifndef RP_FIGURE_H
#define RP_FIGURE_H

#include <stdio.h>

#include "report/format.h"

#define RP_SIDES 8

enum rp_unit {
    RP_UNIT_SECONDS = 0,
    RP_UNIT_RATIO, /* shown as percent */
    RP_UNIT_COUNT,
    RP_UNIT_BYTES,
    RP_UNIT_HERTZ,
    RP_UNIT_WATT,
    RP_UNIT_CELSIUS,
    RP_UNIT_PLAIN,
};

struct rp_figure {
    const char *key, *name; /* in JSON; for people */
    enum rp_unit unit;
    int better;     /* 1 more, -1 less, 0 neither */
    double least;   /* a difference below it is never worth a word, in the unit */
    bool is_detail; /* left out of a comment on a pull request */
    struct mp_val v[RP_SIDES];
};

/* Unknown unless is_known. */
struct mp_val rp_measured(double v, bool is_known);
struct mp_val rp_scaled(struct mp_val v, double by);

const char *rp_figure_text(char out[RP_FIG], enum rp_unit unit, struct mp_val v);

/* v[to] / v[from] - 1; unknown when either is, or when from is 0. */
struct mp_val rp_figure_change(const struct rp_figure *f, int from, int to);
/* "+12.3 %", "−4.0 %", "–". */
const char *rp_change_text(char out[RP_FIG], struct mp_val change);

/* Whether `to` is worse than `from` by more than tolerance (fraction) and more than f->least. */
bool rp_figure_is_worse(const struct rp_figure *f, int from, int to, double tolerance);

/* Rows of text: name, a column a side, and for two sides the change. Rows without any figure are left out. */
void rp_figures_head(FILE *f, const char *title, const char *const *side, int n_side);
void rp_figures_text(FILE *f, const struct rp_figure *row, size_t n, int n_side);

/* The same as the body of a GitHub table. Names are escaped. */
void rp_figures_md_head(FILE *f, const char *title, const char *const *side, int n_side);
void rp_figures_md(FILE *f, const struct rp_figure *row, size_t n, int n_side);

/* Text into a cell of a table: | and control characters do not end it, < does not begin HTML. */
void rp_md_text(FILE *f, const char *text);
/* The same between two pieces of Markdown. */
void rp_md_line(FILE *f, const char *before, const char *text, const char *after);

#endif
