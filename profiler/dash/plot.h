/* Lines, bars and heat over plain arrays. Knows nothing of training; pure.
 * Where the grid has no colours, letters and heights say what colours would.
 */
#ifndef DASH_PLOT_H
#define DASH_PLOT_H

#include "profiler/dash/cells.h"

/* Bars of value[0..n-1], newest last, at the right edge of r; scaled lo..hi over r.h rows.
 * NAN leaves a gap. More values than columns: the newest are shown. */
void dash_plot_line(struct dash_cells *c, struct dash_rect r, enum dash_style style,
                    const double *value, size_t n, double lo, double hi);

/* Least and greatest finite value; false when there is none. */
bool dash_plot_range(const double *value, size_t n, double *lo, double *hi);

/* Whole columns for each part, in proportion: they sum to `width` exactly (to 0 when all parts are 0)
 * and each is less than one column off. */
void dash_plot_split(int *column, const uint64_t *part, size_t n, int width);

struct dash_segment {
    uint64_t size;
    enum dash_style style;
    char letter;       /* says which one it is where there are no colours */
    const char *label; /* drawn when it fits */
};

/* One stacked bar over the whole width of r, in its first `r.h` rows. */
void dash_plot_stack(struct dash_cells *c, struct dash_rect r, const struct dash_segment *segment,
                     size_t n);

/* Level of a value relative to its mean: 0 for nothing, 4 around the mean, 7 from four times on;
 * -1 for NAN. */
int dash_heat_level(double over_mean);

/* One cell of a heat map; level -1 is blank. */
void dash_plot_heat(struct dash_cells *c, struct dash_rect r, int x, int y, int level);

/* The legend of levels 0..7, from x on; returns the column after. */
int dash_plot_heat_legend(struct dash_cells *c, struct dash_rect r, int x, int y);

#endif
