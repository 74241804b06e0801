/* The box over a screen: a question, what is under way, or what came of it. */
#include "profiler/dash/utf8.h"
#include "profiler/dash/view.h"

#define BOX_W 76

const char *dash_dialog_hint(enum dash_dialog_kind kind)
{
    static const char *const text[] = {
        [DASH_NO_DIALOG] = "",
        [DASH_ASK] = "y yes   n no",
        [DASH_BUSY] = "Esc takes it back",
        [DASH_SAY] = "Enter",
    };

    return text[kind];
}

struct dash_rect dash_dialog_rect(const struct dash_dialog *d, int w, int h)
{
    int box_w = w - 4 < BOX_W ? w - 4 : BOX_W, rows = dash_words_rows(d->text, box_w - 2);
    int box_h = rows + 2 < h - 3 ? rows + 2 : h - 3;

    return (struct dash_rect){(w - box_w) / 2, h - 2 - box_h, box_w, box_h};
}

void dash_dialog_draw(const struct dash_dialog *d, struct dash_rect r, struct dash_cells *c)
{
    struct dash_rect text = {r.x + 1, r.y + 1, r.w - 2, r.h - 2};

    for (int y = 0; y < r.h; y++)
        dash_put_ch(c, r, 0, y, y == 0 ? DASH_TAB : DASH_BAR, ' ', r.w);
    dash_put_fit(c, r, 1, 0, r.w - 2, DASH_TAB, d->title);
    dash_put_words(c, text, 0, DASH_BAR, d->text);
    dash_put_to(c, r, r.w - 1, r.h - 1, DASH_BAR, dash_dialog_hint(d->kind));
}
