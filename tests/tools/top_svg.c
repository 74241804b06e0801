/* A screen of `moeprof top` as a picture: replays a profile to its end and draws the cells as SVG.
 * Usage: top_svg PROFILE SCREEN COLUMNS ROWS > FILE.svg    (SCREEN: 1 .. 6, as the keys) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/dash/keys.h"
#include "profiler/dash/replay.h"
#include "profiler/dash/theme.h"
#include "profiler/dash/utf8.h"
#include "profiler/dash/view.h"

#define CELL_W 8.4 /* of a 14 px monospace font; textLength holds every font to it */
#define CELL_H 18
#define PAD    10

/* Of the 256 colours' cube and greys; -1: the picture's own. */
static const char *rgb(char out[32], int colour, const char *own)
{
    static const int level[] = {0, 95, 135, 175, 215, 255};
    int c = colour - 16;

    if (colour < 16)
        return own;
    if (colour < 232)
        snprintf(out, 32, "#%02x%02x%02x", level[c / 36], level[c / 6 % 6], level[c % 6]);
    else
        snprintf(out, 32, "#%06x", 0x010101 * (8 + 10 * (colour - 232)));
    return out;
}

static void head(const struct dash_cells *c)
{
    double w = c->w * CELL_W + 2 * PAD, h = c->h * CELL_H + 2 * PAD;
    char b[32];

    printf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
           "height=\"%.0f\">\n"
           "<style>text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans "
           "Mono',monospace;white-space:pre}\n",
           w, h, w, h);
    for (int i = 0; i < DASH_STYLE_COUNT; i++) {
        struct dash_look look = dash_look(DASH_THEME_DARK, (enum dash_style)i, 256);

        printf(".f%d{fill:%s%s}", i, rgb(b, look.fg, "#d7d7d7"),
               look.attr & DASH_ATTR_BOLD ? ";font-weight:700" : "");
        if (look.bg >= 16)
            printf(".b%d{fill:%s}", i, rgb(b, look.bg, ""));
    }
    printf("</style>\n<rect width=\"100%%\" height=\"100%%\" rx=\"8\" fill=\"#161616\"/>\n");
}

static bool is_block(uint32_t ch)
{
    return ch > 0x2580 && ch <= 0x2588;
}

static void rect(double x, double y, double w, double h, char kind, int style)
{
    printf("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" class=\"%c%d\"/>\n", PAD + x,
           PAD + y, w, h, kind, style);
}

static void text(const struct dash_cell *cell, int n, int x, int y)
{
    while (n > 0 && cell[n - 1].ch == ' ')
        n--;
    for (; n > 0 && cell->ch == ' '; n--, x++)
        cell++;
    if (n == 0)
        return;
    printf("<text x=\"%.1f\" y=\"%.1f\" textLength=\"%.1f\" lengthAdjust=\"spacingAndGlyphs\" "
           "class=\"f%d\">",
           PAD + x * CELL_W, PAD + y * CELL_H + 13.5, n * CELL_W, (int)cell->style);
    for (int i = 0; i < n; i++) {
        char bytes[4];
        uint32_t ch = cell[i].ch;

        if (ch == '<' || ch == '>' || ch == '&')
            printf("&#%u;", ch);
        else if (ch)
            fwrite(bytes, 1, dash_utf8_put(bytes, ch), stdout);
    }
    puts("</text>");
}

/* Cells of one style, and of one shape: bars and rules are drawn, so that no font leaves gaps in them. */
static int run(const struct dash_cell *row, int w, int x, int y)
{
    uint32_t style = row[x].style, ch = row[x].ch;
    bool drawn = is_block(ch) || ch == 0x2500;
    int n = 1;

    while (x + n < w && row[x + n].style == style &&
           (drawn ? row[x + n].ch == ch : !is_block(row[x + n].ch) && row[x + n].ch != 0x2500))
        n++;
    if (dash_look(DASH_THEME_DARK, (enum dash_style)style, 256).bg >= 16)
        rect(x * CELL_W, y * CELL_H, n * CELL_W, CELL_H, 'b', (int)style);
    if (is_block(ch))
        rect(x * CELL_W, (y + 1) * CELL_H - CELL_H * (ch - 0x2580) / 8.0, n * CELL_W,
             CELL_H * (ch - 0x2580) / 8.0, 'f', (int)style);
    else if (drawn)
        rect(x * CELL_W, y * CELL_H + 8.5, n * CELL_W, 1, 'f', (int)style);
    else
        text(row + x, n, x, y);
    return x + n;
}

int main(int argc, char **argv)
{
    struct dash_model *m = malloc(sizeof *m);
    struct dash_replay *r;
    struct dash_cells c;
    struct mp_err err = {.msg = "usage: top_svg PROFILE SCREEN COLUMNS ROWS"};

    if (!m)
        return 1;
    dash_model_init(m);
    if (argc != 5 || dash_cells_init(&c, atoi(argv[3]), atoi(argv[4])) ||
        dash_replay_open(&r, argv[1], m, &err) || dash_replay_run(r, 1, NULL, NULL, &err)) {
        fprintf(stderr, "top_svg: %s\n", err.msg);
        return 1;
    }
    dash_key_press(m, (unsigned char)argv[2][0]);
    dash_frame(m, &c);
    head(&c);
    for (int y = 0; y < c.h; y++)
        for (int x = 0; x < c.w;)
            x = run(&c.cell[y * c.w], c.w, x, y);
    puts("</svg>");
    dash_replay_close(r);
    dash_cells_release(&c);
    dash_model_release(m);
    free(m);
    return 0;
}
