/* Help: the table of keys, and the marks that figures carry. */
#include "profiler/dash/keys.h"
#include "profiler/dash/view.h"

#define KEYS_W 18

static const char *const words[] = {
    "MFU: FLOPs that the model's definition asks for on useful tokens, over time and the GPU's "
    "dense peak.",
    "HFU: FLOPs that were executed, recomputation and padding included. HFU is never below MFU.",
    "MaxVio: the fullest expert of a layer over the mean, less 1. 0 is even.",
    "~ before a figure: shared out by token counts or modelled, not measured.  –: not known.",
    "Idle: nothing of the job ran on the GPU. Phases and idle sum to the step.",
};

/* Rows of the whole text in w columns; drawn from row y of r on, where c is not NULL. */
static int put_all(struct dash_cells *c, struct dash_rect r, int y, int w)
{
    int begin = y;
    size_t n;
    const struct dash_key_help *key = dash_keys_help(&n);

    for (size_t i = 0; i < n; i++, y++) {
        if (c && !key[i].text)
            dash_put(c, r, 1, y, DASH_BOLD, key[i].keys);
        if (!c || !key[i].text)
            continue;
        dash_put(c, r, 3, y, DASH_NORMAL, key[i].keys);
        dash_put_fit(c, r, 3 + KEYS_W, y, w - 4 - KEYS_W, DASH_DIM, key[i].text);
    }
    if (c)
        dash_put(c, r, 1, y, DASH_BOLD, "Words");
    y++;
    for (size_t i = 0; i < countof(words); i++) {
        if (c)
            dash_put_words(c, (struct dash_rect){r.x + 3, r.y, r.w - 4, r.h}, y, DASH_DIM,
                           words[i]);
        y += dash_words_rows(words[i], w - 4);
    }
    return y - begin;
}

static struct dash_extent extent(const struct dash_model *m, const struct dash_job *job,
                                 const struct dash_layout *l)
{
    struct dash_rect r = l->slot[DASH_SLOT_HELP];
    int n = put_all(NULL, r, 0, r.w);

    (void)m;
    (void)job;
    return (struct dash_extent){n > r.h ? n - r.h + 1 : 1, 0, r.h};
}

static void draw(const struct dash_model *m, const struct dash_job *job,
                 const struct dash_layout *l, struct dash_cells *c)
{
    struct dash_rect r = l->slot[DASH_SLOT_HELP];

    (void)job;
    put_all(c, r, -m->ui.row[DASH_HELP], r.w);
}

const struct dash_view dash_view_help = {
    .name = "Help",
    .hint = "j k scroll  Esc back",
    .extent = extent,
    .draw = draw,
};
