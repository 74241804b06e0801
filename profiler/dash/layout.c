/* Each screen cuts its body with cut_top, cut_bottom, cut_left: what is cut off is gone from the rest,
 * which is why nothing can overlap. */
#include "profiler/dash/layout.h"

#include <string.h>

#define GAP 2 /* columns between neighbours */

static int least(int a, int b)
{
    return a < b ? a : b;
}

static int most(int a, int b)
{
    return a > b ? a : b;
}

static struct dash_rect cut_top(struct dash_rect *from, int h)
{
    struct dash_rect top = *from;

    top.h = least(h, from->h);
    from->y += top.h;
    from->h -= top.h;
    return top;
}

static struct dash_rect cut_bottom(struct dash_rect *from, int h)
{
    struct dash_rect bottom = *from;

    bottom.h = least(h, from->h);
    bottom.y = from->y + from->h - bottom.h;
    from->h -= bottom.h;
    return bottom;
}

/* Cuts w columns off at the left, and a gap after them. */
static struct dash_rect cut_left(struct dash_rect *from, int w)
{
    struct dash_rect left = *from;

    left.w = least(w, from->w);
    from->x += least(left.w + GAP, from->w);
    from->w = most(from->w - left.w - GAP, 0);
    return left;
}

/* Gives rows of *spare to *rows until it has `want`. */
static void grow(int *rows, int want, int *spare)
{
    int more = least(most(want - *rows, 0), *spare);

    *rows += more;
    *spare -= more;
}

static void overview(struct dash_layout *l, struct dash_rect body, int n_job)
{
    int mfu = 5, step = 4, box = 4, jobs = 0, phases = 0, history = 0;
    int spare = body.h - mfu - step - box;
    struct dash_rect row;

    grow(&mfu, 6, &spare);
    grow(&box, 6, &spare);
    grow(&step, 6, &spare);
    if (n_job > 1 && spare >= 2) /* a title alone would say nothing */
        grow(&jobs, least(n_job, 8) + 1, &spare);
    grow(&mfu, 8, &spare);
    if (spare >= 8)
        grow(&phases, 14, &spare);
    grow(&step, 8, &spare);
    grow(&mfu, 14, &spare);
    if (spare >= 5)
        grow(&history, 14, &spare);
    mfu += spare;
    l->slot[DASH_SLOT_MFU] = cut_top(&body, mfu);
    l->slot[DASH_SLOT_STEP] = cut_top(&body, step);
    l->slot[DASH_SLOT_PHASES] = phases ? cut_top(&body, phases) : (struct dash_rect){0, 0, 0, 0};
    row = cut_top(&body, history);
    if (history) {
        l->slot[DASH_SLOT_TOKENS] = cut_left(&row, (row.w - GAP) / 2);
        l->slot[DASH_SLOT_TIME] = row;
    }
    row = cut_top(&body, box);
    l->slot[DASH_SLOT_GPU] = cut_left(&row, (row.w - GAP) / 2);
    l->slot[DASH_SLOT_GUEST] = row;
    l->slot[DASH_SLOT_JOBS] = jobs ? body : (struct dash_rect){0, 0, 0, 0};
}

static void experts(struct dash_layout *l, struct dash_rect body)
{
    struct dash_rect side;

    if (body.w >= 110) {
        l->slot[DASH_SLOT_MAP] = cut_left(&body, body.w - 42 - GAP);
        l->slot[DASH_SLOT_WORST] = cut_top(&body, body.h / 2);
        l->slot[DASH_SLOT_EXPERT] = body;
        return;
    }
    side = cut_bottom(&body, most(body.h / 3, 5));
    l->slot[DASH_SLOT_MAP] = body;
    l->slot[DASH_SLOT_WORST] = cut_left(&side, (side.w - GAP) / 2);
    l->slot[DASH_SLOT_EXPERT] = side;
}

static void kernels(struct dash_layout *l, struct dash_rect body, bool expanded)
{
    if (expanded)
        l->slot[DASH_SLOT_DETAIL] = cut_bottom(&body, most(body.h / 3, 5));
    l->slot[DASH_SLOT_TABLE] = body;
}

static void timeline(struct dash_layout *l, struct dash_rect body)
{
    l->slot[DASH_SLOT_DETAIL] = cut_bottom(&body, body.h >= 18 ? 5 : 4);
    l->slot[DASH_SLOT_STRIP] = body;
}

static void log_screen(struct dash_layout *l, struct dash_rect body)
{
    if (body.w >= 110)
        l->slot[DASH_SLOT_ENV] = cut_left(&body, (body.w - GAP) / 2);
    else
        l->slot[DASH_SLOT_ENV] = cut_top(&body, body.h * 3 / 5);
    l->slot[DASH_SLOT_LOG] = body;
}

static void ab_screen(struct dash_layout *l, struct dash_rect body)
{
    l->slot[DASH_SLOT_ARMS] = cut_top(&body, least(most(body.h / 3, 4), 10));
    l->slot[DASH_SLOT_VERDICT] = cut_bottom(&body, least(most(body.h / 2, 5), 9));
    l->slot[DASH_SLOT_BLOCKS] = body;
}

void dash_layout(struct dash_layout *out, enum dash_screen screen, int w, int h, int n_job,
                 bool expanded)
{
    struct dash_rect body = {0, 0, w, h};

    memset(out, 0, sizeof *out);
    out->screen = screen;
    if (w < DASH_FULL_W || h < DASH_FULL_H) {
        out->size = w < DASH_COMPACT_W || h < DASH_COMPACT_H ? DASH_TINY : DASH_COMPACT;
        out->slot[DASH_SLOT_COMPACT] = body;
        return;
    }
    out->size = DASH_FULL;
    out->slot[DASH_SLOT_HEADER] = cut_top(&body, 1);
    out->slot[DASH_SLOT_TABS] = cut_top(&body, 1);
    out->slot[DASH_SLOT_FOOTER] = cut_bottom(&body, 1);
    switch (screen) {
    case DASH_OVERVIEW:
        overview(out, body, n_job);
        break;
    case DASH_EXPERTS:
        experts(out, body);
        break;
    case DASH_KERNELS:
        kernels(out, body, expanded);
        break;
    case DASH_TIMELINE:
        timeline(out, body);
        break;
    case DASH_LOG:
        log_screen(out, body);
        break;
    case DASH_AB:
        ab_screen(out, body);
        break;
    case DASH_HELP:
    case DASH_SCREEN_COUNT:
        out->slot[DASH_SLOT_HELP] = body;
        break;
    }
}
