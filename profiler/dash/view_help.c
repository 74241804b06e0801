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

static int n_lines(void)
{
    size_t n;

    dash_keys_help(&n);
    return (int)(n + countof(words)) + 1;
}

static struct dash_extent extent(const struct dash_model *m, const struct dash_job *job,
                                 const struct dash_layout *l)
{
    int h = l->slot[DASH_SLOT_HELP].h;

    (void)m;
    (void)job;
    return (struct dash_extent){n_lines() > h ? n_lines() - h + 1 : 1, 0, h};
}

static void draw(const struct dash_model *m, const struct dash_job *job,
                 const struct dash_layout *l, struct dash_cells *c)
{
    struct dash_rect r = l->slot[DASH_SLOT_HELP];
    int y = -m->ui.row[DASH_HELP];
    size_t n;
    const struct dash_key_help *key = dash_keys_help(&n);

    (void)job;
    for (size_t i = 0; i < n; i++, y++) {
        if (!key[i].text) {
            dash_put(c, r, 1, y, DASH_BOLD, key[i].keys);
            continue;
        }
        dash_put(c, r, 3, y, DASH_NORMAL, key[i].keys);
        dash_put_fit(c, r, 3 + KEYS_W, y, r.w - 4 - KEYS_W, DASH_DIM, key[i].text);
    }
    dash_put(c, r, 1, y++, DASH_BOLD, "Words");
    for (size_t i = 0; i < countof(words); i++)
        dash_put_fit(c, r, 3, y++, r.w - 4, DASH_DIM, words[i]);
}

const struct dash_view dash_view_help = {
    .name = "Help",
    .hint = "j k scroll  Esc back",
    .extent = extent,
    .draw = draw,
};
