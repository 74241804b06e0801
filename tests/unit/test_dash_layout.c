/* Layout: at every size nothing overlaps, nothing leaves the screen, nothing that must show is empty. */
#include "profiler/dash/layout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Rows that a slot needs to say anything; 0: it may be absent. */
static const int need[DASH_SCREEN_COUNT][DASH_SLOT_COUNT] = {
    [DASH_OVERVIEW] =
        {[DASH_SLOT_MFU] = 5, [DASH_SLOT_STEP] = 4, [DASH_SLOT_GPU] = 4, [DASH_SLOT_GUEST] = 4},
    [DASH_EXPERTS] = {[DASH_SLOT_MAP] = 4, [DASH_SLOT_WORST] = 4, [DASH_SLOT_EXPERT] = 4},
    [DASH_KERNELS] = {[DASH_SLOT_TABLE] = 5},
    [DASH_TIMELINE] = {[DASH_SLOT_STRIP] = 6, [DASH_SLOT_DETAIL] = 3},
    [DASH_LOG] = {[DASH_SLOT_ENV] = 4, [DASH_SLOT_LOG] = 3},
    [DASH_AB] = {[DASH_SLOT_ARMS] = 4, [DASH_SLOT_BLOCKS] = 3, [DASH_SLOT_VERDICT] = 5},
    [DASH_HELP] = {[DASH_SLOT_HELP] = 10},
};

static int overlap(struct dash_rect a, struct dash_rect b)
{
    return a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
}

static void check_slots(const struct dash_layout *l, int w, int h)
{
    for (int i = 0; i < DASH_SLOT_COUNT; i++) {
        struct dash_rect r = l->slot[i];

        assert_true(r.w >= 0 && r.h >= 0);
        if (r.w == 0 || r.h == 0)
            continue;
        assert_true(r.x >= 0 && r.y >= 0 && r.x + r.w <= w && r.y + r.h <= h);
        for (int k = 0; k < i; k++)
            assert_false(l->slot[k].w > 0 && l->slot[k].h > 0 && overlap(r, l->slot[k]));
    }
}

static void check_needs(const struct dash_layout *l, int w)
{
    for (int i = 0; i < DASH_SLOT_COUNT; i++) {
        if (need[l->screen][i] == 0)
            continue;
        assert_true(l->slot[i].h >= need[l->screen][i]);
        assert_true(l->slot[i].w >= (w - 2) / 2 || l->slot[i].w >= 40);
    }
    assert_int_equal(l->slot[DASH_SLOT_HEADER].h, 1);
    assert_int_equal(l->slot[DASH_SLOT_TABS].h, 1);
    assert_int_equal(l->slot[DASH_SLOT_FOOTER].h, 1);
}

static void holds_at_every_size(void **state)
{
    struct dash_layout l;

    (void)state;
    for (int w = 1; w <= 300; w++)
        for (int h = 1; h <= 100; h++)
            for (int screen = 0; screen < DASH_SCREEN_COUNT; screen++)
                for (int n_job = 0; n_job < 4; n_job++)
                    for (int expanded = 0; expanded < 2; expanded++) {
                        dash_layout(&l, (enum dash_screen)screen, w, h, n_job, expanded);
                        check_slots(&l, w, h);
                        if (l.size == DASH_FULL)
                            check_needs(&l, w);
                        else
                            assert_true(l.slot[DASH_SLOT_COMPACT].w == w &&
                                        l.slot[DASH_SLOT_COMPACT].h == h);
                        assert_int_equal(l.size == DASH_FULL, w >= 60 && h >= 16);
                    }
}

/* All rows of the body belong to some slot: no dead bands. */
static void wastes_no_row(void **state)
{
    struct dash_layout l;

    (void)state;
    for (int h = 16; h <= 100; h++)
        for (int w = 60; w <= 300; w += 7)
            for (int screen = 0; screen < DASH_SCREEN_COUNT; screen++) {
                dash_layout(&l, (enum dash_screen)screen, w, h, 3, true);
                for (int y = 0; y < h; y++) {
                    int covered = 0;

                    for (int i = 0; i < DASH_SLOT_COUNT; i++)
                        covered |=
                            l.slot[i].w > 0 && y >= l.slot[i].y && y < l.slot[i].y + l.slot[i].h;
                    assert_true(covered);
                }
            }
}

int main(void)
{
    const struct CMUnitTest test[] = {
        cmocka_unit_test(holds_at_every_size),
        cmocka_unit_test(wastes_no_row),
    };

    return cmocka_run_group_tests(test, NULL, NULL);
}
