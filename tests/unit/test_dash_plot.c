/* Plots: bars sum to the width exactly, gaps stay gaps, levels are monotone. */
#include "profiler/dash/plot.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void split_sums_to_the_width(void **state)
{
    uint32_t rng = 3;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        uint64_t part[17], total = 0;
        int column[17], width, sum = 0;
        size_t n = 1 + rng % 17;

        for (size_t i = 0; i < n; i++) {
            rng = rng * 1664525u + 1013904223u;
            part[i] = rng & 0x400 ? 0 : (uint64_t)(rng >> 8) << (rng & 31);
            total += part[i];
        }
        width = (int)(rng >> 20 & 511);
        dash_plot_split(column, part, n, width);
        for (size_t i = 0; i < n; i++) {
            double exact = total ? (double)part[i] / (double)total * width : 0;

            assert_true(column[i] >= 0 && fabs(column[i] - exact) < 1.0001);
            assert_true(part[i] || !column[i]);
            sum += column[i];
        }
        assert_int_equal(sum, total ? width : 0);
    }
}

static void print_rows(const struct dash_cells *c, char out[512])
{
    FILE *f = fmemopen(out, 512, "w");

    assert_non_null(f);
    dash_cells_print(c, 0, c->h, f);
    fclose(f);
}

static void line_shows_newest_at_the_right(void **state)
{
    static const double v[] = {9, 9, 0, NAN, 2, 4, 8};
    struct dash_cells c;
    char text[512] = "";

    (void)state;
    assert_int_equal(dash_cells_init(&c, 5, 1), MP_OK);
    dash_plot_line(&c, (struct dash_rect){0, 0, 5, 1}, DASH_CHART, v, countof(v), 0, 8);
    print_rows(&c, text);
    assert_string_equal(text, "▁ ▂▄▇\n"); /* not into the row above */
    c.ascii = true;
    dash_cells_clear(&c);
    dash_plot_line(&c, (struct dash_rect){0, 0, 5, 1}, DASH_CHART, v, countof(v), 0, 8);
    print_rows(&c, text);
    assert_string_equal(text, ". .-#\n");
    dash_cells_release(&c);
}

static void line_fills_several_rows(void **state)
{
    static const double v[] = {1, 2, 3, 4};
    struct dash_cells c;
    char text[512] = "";

    (void)state;
    assert_int_equal(dash_cells_init(&c, 6, 2), MP_OK);
    dash_plot_line(&c, (struct dash_rect){0, 0, 6, 2}, DASH_CHART, v, 4, 0, 4);
    print_rows(&c, text);
    assert_string_equal(text, "    ▄█\n  ▄███\n");
    dash_plot_line(&c, (struct dash_rect){0, 0, 0, 0}, DASH_CHART, v, 4, 0,
                   4); /* no room is no fault */
    dash_cells_release(&c);
}

static void stack_tells_its_parts_without_colour(void **state)
{
    static const struct dash_segment s[] = {{60, DASH_PHASE, 'E', "expert"},
                                            {25, DASH_PHASE + 1, 'A', "attention"},
                                            {0, DASH_PHASE, 'x', "none"},
                                            {15, DASH_IDLE, '.', "idle"}};
    struct dash_cells c;
    char text[512] = "";

    (void)state;
    assert_int_equal(dash_cells_init(&c, 20, 1), MP_OK);
    c.mono = true;
    dash_plot_stack(&c, (struct dash_rect){0, 0, 20, 1}, s, countof(s));
    print_rows(&c, text);
    assert_string_equal(text, "E expert EEEAAAAA...\n");
    dash_cells_release(&c);
}

static void levels_are_monotone(void **state)
{
    int before = 0;

    (void)state;
    assert_int_equal(dash_heat_level(NAN), -1);
    assert_int_equal(dash_heat_level(INFINITY), -1);
    assert_int_equal(dash_heat_level(0), 0);
    assert_int_equal(dash_heat_level(1), 4);
    assert_int_equal(dash_heat_level(100), 7);
    for (double v = 0; v < 10; v += 0.01) {
        assert_true(dash_heat_level(v) >= before);
        before = dash_heat_level(v);
    }
}

int main(void)
{
    const struct CMUnitTest test[] = {
        cmocka_unit_test(split_sums_to_the_width),
        cmocka_unit_test(line_shows_newest_at_the_right),
        cmocka_unit_test(line_fills_several_rows),
        cmocka_unit_test(stack_tells_its_parts_without_colour),
        cmocka_unit_test(levels_are_monotone),
    };

    return cmocka_run_group_tests(test, NULL, NULL);
}
