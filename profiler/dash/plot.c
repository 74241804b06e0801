/* Block elements in UTF-8, plain characters otherwise. */
#include "profiler/dash/plot.h"

#include "profiler/dash/utf8.h"

#include <math.h>
#include <string.h>

#define SEGMENT_MAX 64
#define LOWER_BLOCK 0x2580u /* + 1..8 eighths */

/* A column's fill of one row, 1..8 eighths. */
static uint32_t fill_char(const struct dash_cells *c, int eighths)
{
    static const char ascii[] = "..--==##";

    return c->ascii ? (uint32_t)ascii[eighths - 1] : LOWER_BLOCK + (uint32_t)eighths;
}

static void plot_column(struct dash_cells *c, struct dash_rect r, int x, enum dash_style style,
                        double frac)
{
    int full = r.h > 1 ? 8 * r.h : 7; /* a line of one row does not grow into the one above it */
    int eighths = (int)lround(fmin(fmax(frac, 0), 1) * full);

    if (eighths < 1)
        eighths = 1; /* the least value is still a value */
    for (int y = r.h - 1; y >= 0 && eighths > 0; y--, eighths -= 8)
        dash_put_ch(c, r, x, y, style, fill_char(c, eighths < 8 ? eighths : 8), 1);
}

void dash_plot_line(struct dash_cells *c, struct dash_rect r, enum dash_style style,
                    const double *value, size_t n, double lo, double hi)
{
    size_t shown = r.w < 0 ? 0 : n < (size_t)r.w ? n : (size_t)r.w;

    for (size_t i = 0; i < shown; i++) {
        double v = value[n - shown + i];

        if (isfinite(v))
            plot_column(c, r, r.w - (int)(shown - i), style, hi > lo ? (v - lo) / (hi - lo) : 0.5);
    }
}

bool dash_plot_range(const double *value, size_t n, double *lo, double *hi)
{
    bool any = false;

    for (size_t i = 0; i < n; i++) {
        if (!isfinite(value[i]))
            continue;
        *lo = any ? fmin(*lo, value[i]) : value[i];
        *hi = any ? fmax(*hi, value[i]) : value[i];
        any = true;
    }
    return any;
}

void dash_plot_split(int *column, const uint64_t *part, size_t n, int width)
{
    long double total = 0, sum = 0;
    int before = 0;

    for (size_t i = 0; i < n; i++)
        total += part[i];
    for (size_t i = 0; i < n; i++) {
        int edge;

        sum += part[i];
        edge = total > 0 ? (int)(sum * width / total + 0.5L) : 0;
        column[i] = edge - before;
        before = edge;
    }
}

static void put_segment(struct dash_cells *c, struct dash_rect r, const struct dash_segment *s)
{
    int label_y = r.h / 2, label_w = dash_text_width(s->label);

    for (int y = 0; y < r.h; y++)
        dash_put_ch(c, r, 0, y, s->style, c->mono ? (uint32_t)s->letter : ' ', r.w);
    if (label_w + 2 <= r.w) {
        int x = c->mono ? 1 : (r.w - label_w) / 2;

        if (c->mono && label_w + 4 <= r.w)
            dash_putf(c, r, x, label_y, s->style, " %s ", s->label);
        else
            dash_put(c, r, x, label_y, s->style, s->label);
    } else if (r.w > 0 && !c->mono) {
        dash_put_ch(c, r, 0, label_y, s->style, (uint32_t)s->letter, 1);
    }
}

void dash_plot_stack(struct dash_cells *c, struct dash_rect r, const struct dash_segment *segment,
                     size_t n)
{
    uint64_t part[SEGMENT_MAX] = {0};
    int column[SEGMENT_MAX], x = 0;

    n = n < SEGMENT_MAX ? n : SEGMENT_MAX;
    for (size_t i = 0; i < n; i++)
        part[i] = segment[i].size;
    dash_plot_split(column, part, n, r.w);
    for (size_t i = 0; i < n; i++) {
        if (column[i] > 0)
            put_segment(c, (struct dash_rect){r.x + x, r.y, column[i], r.h}, &segment[i]);
        x += column[i];
    }
}

int dash_heat_level(double over_mean)
{
    static const double below[] = {0.25, 0.5, 0.8, 1.25, 2, 4};

    if (!isfinite(over_mean))
        return -1;
    if (over_mean <= 0)
        return 0;
    for (size_t i = 0; i < countof(below); i++)
        if (over_mean < below[i])
            return (int)i + 1;
    return 7;
}

void dash_plot_heat(struct dash_cells *c, struct dash_rect r, int x, int y, int level)
{
    static const char ascii[] = "_.:-=+*@";

    if (level < 0)
        return;
    if (c->ascii)
        dash_put_ch(c, r, x, y, (enum dash_style)(DASH_HEAT + level), (uint32_t)ascii[level], 1);
    else if (level == 0)
        dash_put_ch(c, r, x, y, DASH_HEAT, 0xb7, 1);
    else
        dash_put_ch(c, r, x, y, (enum dash_style)(DASH_HEAT + level),
                    c->mono ? LOWER_BLOCK + (uint32_t)level + (level == 7) : ' ', 1);
}

int dash_plot_heat_legend(struct dash_cells *c, struct dash_rect r, int x, int y)
{
    static const char *const text[DASH_HEAT_LEVELS] = {"none ", "<¼ ",  "<½ ", "<.8 ",
                                                       "even ", ">1¼ ", ">2 ", ">4×"};
    static const char *const ascii[DASH_HEAT_LEVELS] = {"none ", "<.25 ",  "<.5 ", "<.8 ",
                                                        "even ", ">1.25 ", ">2 ",  ">4x"};

    for (int i = 0; i < DASH_HEAT_LEVELS; i++) {
        dash_plot_heat(c, r, x, y, i);
        x = dash_put(c, r, x + 1, y, DASH_DIM, c->ascii ? ascii[i] : text[i]);
    }
    return x;
}
