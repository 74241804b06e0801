/* What views draw on: a grid of (character, style). No terminal in it, so that a test can read it.
 *
 * Coordinates of the drawing functions are relative to a rectangle and clipped to it: a view cannot
 * reach outside the place that layout gave it. Text from outside may hold anything; only printable
 * characters become cells.
 */
#ifndef DASH_CELLS_H
#define DASH_CELLS_H

#include "profiler/core/base.h"
#include "profiler/core/phase.h"

#include <stdio.h>

struct dash_rect {
    int x, y, w, h;
};

#define DASH_HEAT_LEVELS 8 /* 0 nothing .. 7 far above the mean */

/* What a cell means; theme.c says how that looks. */
enum dash_style {
    DASH_NORMAL = 0,
    DASH_DIM,
    DASH_BOLD,
    DASH_TITLE, /* section rules */
    DASH_BAR,   /* header and footer lines */
    DASH_TAB,   /* the screen shown, in the tab line */
    DASH_GOOD,
    DASH_WARN,
    DASH_BAD,
    DASH_SELECTED,
    DASH_CHART,
    DASH_HEAT,                                 /* + level */
    DASH_PHASE = DASH_HEAT + DASH_HEAT_LEVELS, /* + enum mp_phase */
    DASH_IDLE = DASH_PHASE + MP_PHASE_COUNT,
    DASH_STYLE_COUNT
};

struct dash_cell {
    uint32_t ch; /* 0: right half of the wide character before it */
    uint32_t style;
};

struct dash_cells {
    int w, h;
    bool ascii;             /* no character above 0x7e */
    bool mono;              /* no colours: what a colour would say is said by letters */
    struct dash_cell *cell; /* (h, w) */
};

/* Blank grid; MP_ENOMEM, or MP_EINVAL outside 1..4096 a side. */
int dash_cells_init(struct dash_cells *c, int w, int h);
void dash_cells_release(struct dash_cells *c);
void dash_cells_clear(struct dash_cells *c);

/* Each returns the column after what it drew. */
int dash_put(struct dash_cells *c, struct dash_rect r, int x, int y, enum dash_style style,
             const char *text);
int dash_putf(struct dash_cells *c, struct dash_rect r, int x, int y, enum dash_style style,
              const char *fmt, ...) __attribute__((format(printf, 6, 7)));
/* One character, n times. */
int dash_put_ch(struct dash_cells *c, struct dash_rect r, int x, int y, enum dash_style style,
                uint32_t ch, int n);

/* Ends before column `end`: figures align by columns, where printf would count bytes. Returns end. */
int dash_put_to(struct dash_cells *c, struct dash_rect r, int end, int y, enum dash_style style,
                const char *text);

/* Puts text in at most w columns, with an ellipsis when it was longer. Returns the column after. */
int dash_put_fit(struct dash_cells *c, struct dash_rect r, int x, int y, int w,
                 enum dash_style style, const char *text);

/* Text over several rows of r from row y on, broken at any column; returns the row after. */
int dash_put_wrap(struct dash_cells *c, struct dash_rect r, int y, enum dash_style style,
                  const char *text);

/* The same, broken between words where there are any. */
int dash_put_words(struct dash_cells *c, struct dash_rect r, int y, enum dash_style style,
                   const char *text);

int dash_words_rows(const char *text, int w); /* the rows that it takes */

/* Restyles n cells of one row. */
void dash_restyle(struct dash_cells *c, struct dash_rect r, int x, int y, int n,
                  enum dash_style style);

/* A section's first row: a rule with its title in it. */
void dash_rule(struct dash_cells *c, struct dash_rect r, const char *title);

/* Rows as UTF-8 lines without trailing blanks; from row `y0`, `n` rows. */
void dash_cells_print(const struct dash_cells *c, int y0, int n, FILE *out);

/* Styles as letters, one a cell, for goldens. */
void dash_cells_print_styles(const struct dash_cells *c, FILE *out);

#endif
