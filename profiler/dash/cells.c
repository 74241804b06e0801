/* The grid. Every write goes through set_cell, which clips, filters and keeps wide characters whole. */
#include "profiler/dash/cells.h"

#include "profiler/dash/utf8.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define SIDE_MAX 4096

int dash_cells_init(struct dash_cells *c, int w, int h)
{
    memset(c, 0, sizeof *c);
    if (w < 1 || h < 1 || w > SIDE_MAX || h > SIDE_MAX)
        return MP_EINVAL;
    c->cell = malloc((size_t)w * (size_t)h * sizeof *c->cell);
    if (!c->cell)
        return MP_ENOMEM;
    c->w = w;
    c->h = h;
    dash_cells_clear(c);
    return MP_OK;
}

void dash_cells_release(struct dash_cells *c)
{
    free(c->cell);
    memset(c, 0, sizeof *c);
}

void dash_cells_clear(struct dash_cells *c)
{
    for (size_t i = 0; i < (size_t)c->w * (size_t)c->h; i++)
        c->cell[i] = (struct dash_cell){' ', DASH_NORMAL};
}

/* The cell at (x, y) of r, or NULL when it is clipped away. */
static struct dash_cell *cell_at(struct dash_cells *c, struct dash_rect r, int x, int y)
{
    int col = r.x + x, row = r.y + y;

    if (x < 0 || y < 0 || x >= r.w || y >= r.h || col < 0 || row < 0 || col >= c->w || row >= c->h)
        return NULL;
    return &c->cell[(size_t)row * (size_t)c->w + (size_t)col];
}

/* Overwriting half of a wide character leaves no half behind. */
static void mend(struct dash_cells *c, struct dash_cell *at)
{
    size_t col = (size_t)(at - c->cell) % (size_t)c->w;

    if (at->ch == 0 && col > 0)
        at[-1].ch = ' ';
    if (col + 1 < (size_t)c->w && at[1].ch == 0)
        at[1].ch = ' ';
}

static void set_cell(struct dash_cells *c, struct dash_cell *at, enum dash_style style, uint32_t ch)
{
    mend(c, at);
    *at = (struct dash_cell){ch, style};
}

/* Draws one character if all of it fits; returns the columns it takes. */
static int put_char(struct dash_cells *c, struct dash_rect r, int x, int y, enum dash_style style,
                    uint32_t ch)
{
    int width = dash_char_width(ch);
    struct dash_cell *at, *second;

    if (width == 0)
        return 0;
    if (c->ascii) {
        ch = (uint32_t)dash_char_ascii(ch);
        width = 1;
    }
    at = cell_at(c, r, x, y);
    second = width == 2 ? cell_at(c, r, x + 1, y) : NULL;
    if (!at)
        return width;
    if (width == 2 && !second) {
        set_cell(c, at, style, ' ');
        return width;
    }
    set_cell(c, at, style, ch);
    if (second) {
        set_cell(c, second, style, ' ');
        at->ch = ch;
        second->ch = 0;
    }
    return width;
}

int dash_put(struct dash_cells *c, struct dash_rect r, int x, int y, enum dash_style style,
             const char *text)
{
    uint32_t ch;

    while (x < r.w && (ch = dash_utf8_next(&text)))
        x += put_char(c, r, x, y, style, ch);
    return x;
}

int dash_putf(struct dash_cells *c, struct dash_rect r, int x, int y, enum dash_style style,
              const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return dash_put(c, r, x, y, style, text);
}

int dash_put_ch(struct dash_cells *c, struct dash_rect r, int x, int y, enum dash_style style,
                uint32_t ch, int n)
{
    for (; n > 0 && x < r.w; n--)
        x += put_char(c, r, x, y, style, ch);
    return x;
}

int dash_put_to(struct dash_cells *c, struct dash_rect r, int end, int y, enum dash_style style,
                const char *text)
{
    int width = dash_text_width(text);

    dash_put(c, r, width < end ? end - width : 0, y, style, text);
    return end;
}

int dash_put_fit(struct dash_cells *c, struct dash_rect r, int x, int y, int w,
                 enum dash_style style, const char *text)
{
    struct dash_rect part = r;

    if (w <= 0)
        return x;
    if (x + w < part.w)
        part.w = x + w;
    if (dash_text_width(text) <= part.w - x)
        return dash_put(c, part, x, y, style, text);
    dash_put(c, part, x, y, style, text);
    dash_put_ch(c, part, part.w - 1, y, style, 0x2026, 1);
    return part.w;
}

int dash_put_wrap(struct dash_cells *c, struct dash_rect r, int y, enum dash_style style,
                  const char *text)
{
    int x = 0;
    uint32_t ch;

    while (y < r.h && (ch = dash_utf8_next(&text))) {
        if (x + dash_char_width(ch) > r.w) {
            x = 0;
            y++;
        }
        x += put_char(c, r, x, y, style, ch);
    }
    return x ? y + 1 : y;
}

/* Bytes of text that go into one row of w columns: up to a blank where one is in reach. */
static size_t row_bytes(const char *text, int w)
{
    const char *at = text, *blank = NULL, *before = text;
    int x = 0;

    while (*at && x <= w) {
        if (*at == ' ')
            blank = at;
        before = at;
        x += dash_char_width(dash_utf8_next(&at));
    }
    if (x <= w)
        return (size_t)(at - text);
    if (blank && blank > text)
        return (size_t)(blank - text);
    return before > text ? (size_t)(before - text) : (size_t)(at - text);
}

static const char *next_row(const char *text, int w)
{
    text += row_bytes(text, w);
    while (*text == ' ')
        text++;
    return text;
}

int dash_words_rows(const char *text, int w)
{
    int n = 0;

    for (; *text && w > 0; n++)
        text = next_row(text, w);
    return n;
}

int dash_put_words(struct dash_cells *c, struct dash_rect r, int y, enum dash_style style,
                   const char *text)
{
    while (*text && r.w > 0 && y < r.h) {
        size_t n = row_bytes(text, r.w);
        char row[1024];

        snprintf(row, sizeof row, "%.*s", (int)n, text);
        dash_put(c, r, 0, y++, style, row);
        text = next_row(text, r.w);
    }
    return y;
}

void dash_restyle(struct dash_cells *c, struct dash_rect r, int x, int y, int n,
                  enum dash_style style)
{
    for (; n > 0; n--, x++) {
        struct dash_cell *at = cell_at(c, r, x, y);

        if (at)
            at->style = style;
    }
}

void dash_rule(struct dash_cells *c, struct dash_rect r, const char *title)
{
    int x = dash_put_ch(c, r, 0, 0, DASH_TITLE, 0x2500, 1);

    x = dash_put(c, r, x, 0, DASH_TITLE, " ");
    x = dash_put_fit(c, r, x, 0, r.w - x - 1, DASH_TITLE, title);
    x = dash_put(c, r, x, 0, DASH_TITLE, " ");
    dash_put_ch(c, r, x, 0, DASH_TITLE, 0x2500, r.w - x);
}

void dash_cells_print(const struct dash_cells *c, int y0, int n, FILE *out)
{
    for (int y = y0; y < y0 + n && y < c->h; y++) {
        const struct dash_cell *row = &c->cell[(size_t)y * (size_t)c->w];
        int end = c->w;

        while (end > 0 && row[end - 1].ch == ' ')
            end--;
        for (int x = 0; x < end; x++) {
            char bytes[4];

            if (row[x].ch)
                fwrite(bytes, 1, dash_utf8_put(bytes, row[x].ch), out);
        }
        fputc('\n', out);
    }
}

void dash_cells_print_styles(const struct dash_cells *c, FILE *out)
{
    static const char letter[] = ".dbtBTgwxsc01234567ABCDEFGHIJKLMNOPQ";

    MP_STATIC_ASSERT(sizeof letter - 1 == DASH_STYLE_COUNT, "a letter a style");
    for (int y = 0; y < c->h; y++) {
        for (int x = 0; x < c->w; x++)
            fputc(letter[c->cell[(size_t)y * (size_t)c->w + (size_t)x].style], out);
        fputc('\n', out);
    }
}
