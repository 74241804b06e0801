/* Cells and UTF-8: nothing is drawn outside its rectangle, nothing that is not printable becomes a
 * cell, whatever the bytes. */
#include "profiler/dash/cells.h"
#include "profiler/dash/fmt.h"
#include "profiler/dash/utf8.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void row_text(const struct dash_cells *c, int y, char out[256])
{
    FILE *f = fmemopen(out, 256, "w");

    assert_non_null(f);
    dash_cells_print(c, y, 1, f);
    fclose(f);
    out[strcspn(out, "\n")] = 0;
}

static void decodes_only_what_is_well_formed(void **state)
{
    static const struct {
        const char *bytes;
        uint32_t ch;
        int used;
    } row[] = {
        {"a", 'a', 1},
        {"\xc2\xb5", 0xb5, 2},
        {"\xe2\x80\x93", 0x2013, 3},
        {"\xf0\x9f\x98\x80", 0x1f600, 4},
        {"\xc0\xaf", DASH_BAD_CHAR, 1},     /* overlong */
        {"\xed\xa0\x80", DASH_BAD_CHAR, 1}, /* surrogate */
        {"\xe2\x80", DASH_BAD_CHAR, 1},     /* cut in the middle */
        {"\xff", DASH_BAD_CHAR, 1},
        {"\xf4\x90\x80\x80", DASH_BAD_CHAR, 1},
    };

    (void)state;
    for (size_t i = 0; i < countof(row); i++) {
        const char *s = row[i].bytes;

        assert_int_equal(dash_utf8_next(&s), row[i].ch);
        assert_int_equal(s - row[i].bytes, row[i].used);
    }
}

/* What is typed before a bad byte and after it all comes through. */
static void bytes_that_come_one_by_one(void **state)
{
    static const struct {
        const char *bytes, *taken;
    } row[] = {
        {"q", "q"},
        {"a\xc2\xb5\xe2\x80\x93\xf0\x9f\x98\x80z", "a\xc2\xb5\xe2\x80\x93\xf0\x9f\x98\x80z"},
        {"\xffq", "q"},
        {"\xff\xfe\x80\xc0q", "q"},
        {"\xe2\x80q", "q"},                     /* cut in the middle */
        {"\xf0\x9f\xc2\xb5q", "\xc2\xb5q"},     /* by another character */
        {"\xed\xa0\x80\xe0\x80\x80q", "q"},     /* surrogate, overlong */
        {"\xf4\x90\x80\x80\x80\x80q\xc2", "q"}, /* beyond the last */
    };

    (void)state;
    for (size_t i = 0; i < countof(row); i++) {
        struct dash_utf8_feed f = {.n = 0};
        char taken[40] = "";
        size_t n = 0;

        for (const char *s = row[i].bytes; *s; s++) {
            uint32_t ch = dash_utf8_feed(&f, (unsigned char)*s);

            n += ch ? dash_utf8_put(taken + n, ch) : 0;
        }
        assert_string_equal(taken, row[i].taken);
    }
}

static void encodes_what_it_decodes(void **state)
{
    (void)state;
    for (uint32_t ch = 1; ch < 0x110000; ch += ch < 0x3000 ? 1 : 97) {
        char bytes[5] = "";
        const char *s = bytes;

        if (ch >= 0xd800 && ch <= 0xdfff)
            continue;
        bytes[dash_utf8_put(bytes, ch)] = 0;
        assert_int_equal(dash_utf8_next(&s), ch);
        assert_int_equal(*s, 0);
    }
}

/* Random bytes into random rectangles: what is outside stays blank, what is inside is printable. */
static void hostile_bytes_stay_inside(void **state)
{
    struct dash_cells c;
    uint32_t rng = 1;

    (void)state;
    assert_int_equal(dash_cells_init(&c, 40, 8), MP_OK);
    for (int round = 0; round < 3000; round++) {
        char text[64];
        struct dash_rect r = {(int)(rng >> 8 & 31), (int)(rng >> 13 & 7), (int)(rng >> 16 & 15),
                              (int)(rng >> 20 & 3)};

        for (size_t i = 0; i + 1 < sizeof text; i++) {
            rng = rng * 1664525u + 1013904223u;
            text[i] = (char)(rng >> 24);
        }
        text[sizeof text - 1] = 0;
        c.ascii = round & 1;
        dash_cells_clear(&c);
        dash_put(&c, r, (int)(rng & 7) - 3, 0, DASH_BAD, text);
        dash_put_wrap(&c, r, (int)(rng & 3) - 1, DASH_BAD, text);
        dash_put_fit(&c, r, 1, 1, 5, DASH_BAD, text);
        for (int y = 0; y < c.h; y++)
            for (int x = 0; x < c.w; x++) {
                const struct dash_cell *cell = &c.cell[y * c.w + x];
                bool inside = x >= r.x && x < r.x + r.w && y >= r.y && y < r.y + r.h;

                assert_true(cell->ch == 0 || dash_char_width(cell->ch) > 0);
                assert_true(!c.ascii || (cell->ch >= 0x20 && cell->ch < 0x7f));
                assert_true(inside || (cell->ch == ' ' && cell->style == DASH_NORMAL));
                if (cell->ch == 0)
                    assert_int_equal(dash_char_width(c.cell[y * c.w + x - 1].ch), 2);
            }
    }
    dash_cells_release(&c);
}

static void escape_sequences_lose_their_teeth(void **state)
{
    struct dash_cells c;
    char text[256];

    (void)state;
    assert_int_equal(dash_cells_init(&c, 40, 1), MP_OK);
    dash_put(&c, (struct dash_rect){0, 0, 40, 1}, 0, 0, DASH_NORMAL,
             "a\033[31mb\x9b"
             "2Jc\r\n\td\xe2\x80\xae"
             "e");
    row_text(&c, 0, text);
    assert_string_equal(text, "a[31mb\xef\xbf\xbd"
                              "2Jcde");
    dash_cells_release(&c);
}

static void wide_characters_stay_whole(void **state)
{
    struct dash_cells c;
    struct dash_rect r = {0, 0, 5, 1};
    char text[256];

    (void)state;
    assert_int_equal(dash_cells_init(&c, 5, 1), MP_OK);
    dash_put(&c, r, 0, 0, DASH_NORMAL,
             "\xe4\xb8\xad\xe6\x96\x87\xe5\xad\x97"); /* three wide in five columns */
    row_text(&c, 0, text);
    assert_string_equal(text, "\xe4\xb8\xad\xe6\x96\x87");
    dash_put(&c, r, 1, 0, DASH_NORMAL, "x"); /* over the right half of the first */
    row_text(&c, 0, text);
    assert_string_equal(text, " x\xe6\x96\x87");
    dash_cells_release(&c);
}

static void fits_and_aligns_by_columns(void **state)
{
    struct dash_cells c;
    struct dash_rect r = {0, 0, 12, 1};
    char text[256];

    (void)state;
    assert_int_equal(dash_cells_init(&c, 12, 1), MP_OK);
    dash_put_fit(&c, r, 0, 0, 6, DASH_NORMAL, "abcdefghij");
    dash_put_to(&c, r, 12, 0, DASH_NORMAL, "\xe2\x80\x93");
    row_text(&c, 0, text);
    assert_string_equal(text, "abcde\xe2\x80\xa6     \xe2\x80\x93");
    dash_cells_release(&c);
    assert_int_equal(dash_cells_init(&c, 0, 1), MP_EINVAL);
    assert_int_equal(dash_cells_init(&c, 1, 5000), MP_EINVAL);
}

static void without_blanks(char *out, const char *text)
{
    do
        if (*text != ' ')
            *out++ = *text;
    while (*text++);
}

/* Rows of words: none is wider than asked, no character but blanks gets lost, as many as were counted. */
static void words_wrap(void **state)
{
    static const char text[] = "First both get one step's own activations, \xc2\xb5s and "
                               "averyveryverylongwordthatfitsnowhere \xe4\xb8\xad\xe6\x96\x87.";
    char row[256];

    (void)state;
    for (int w = 2; w < 100; w++) {
        struct dash_cells c;
        struct dash_rect r = {1, 0, w, 80};
        char all[512] = "", want[512] = "";
        int n = dash_words_rows(text, w);

        assert_int_equal(dash_cells_init(&c, w + 2, 80), MP_OK);
        assert_int_equal(dash_put_words(&c, r, 0, DASH_NORMAL, text), n);
        for (int y = 0; y < n; y++) {
            row_text(&c, y, row);
            assert_true(dash_text_width(row) <= w + 1);
            assert_true(row[1] != ' ');
            strcat(all, row);
        }
        without_blanks(all, all);
        without_blanks(want, text);
        assert_string_equal(all, want);
        dash_cells_release(&c);
    }
}

static void figures_read_well(void **state)
{
    char b[DASH_FMT_BYTES];

    (void)state;
    assert_string_equal(dash_fmt_frac(b, dash_measured(0.1794)), "17.9 %");
    assert_string_equal(dash_fmt_frac(b, (struct mp_val){0.5, MP_APPORTIONED}), "~50.0 %");
    assert_string_equal(dash_fmt_frac(b, (struct mp_val){0, MP_UNKNOWN}), DASH_UNKNOWN);
    assert_string_equal(dash_fmt_frac(b, dash_measured(NAN)), DASH_UNKNOWN);
    assert_string_equal(dash_fmt_ns(b, dash_measured(0)), "0 ns");
    assert_string_equal(dash_fmt_ns(b, dash_measured(1234567890)), "1.23 s");
    assert_string_equal(dash_fmt_ns(b, dash_measured(999499)), "999 µs");
    assert_string_equal(dash_fmt_ns(b, dash_measured(999500)), "1.00 ms");
    assert_string_equal(dash_fmt_ns(b, dash_measured(12.3e6)), "12.3 ms");
    assert_string_equal(dash_fmt_si(b, dash_measured(32100), "tok/s"), "32.1 ktok/s");
    assert_string_equal(dash_fmt_si(b, dash_measured(7), ""), "7");
    assert_string_equal(dash_fmt_si(b, dash_measured(999.6), ""), "1.00 k");
    assert_string_equal(dash_fmt_si(b, dash_measured(989.4e12), "FLOP/s"), "989 TFLOP/s");
    assert_string_equal(dash_fmt_bytes(b, dash_measured(61.25 * (1 << 30))), "61.2 GiB");
}

int main(void)
{
    const struct CMUnitTest test[] = {
        cmocka_unit_test(decodes_only_what_is_well_formed),
        cmocka_unit_test(bytes_that_come_one_by_one),
        cmocka_unit_test(encodes_what_it_decodes),
        cmocka_unit_test(hostile_bytes_stay_inside),
        cmocka_unit_test(escape_sequences_lose_their_teeth),
        cmocka_unit_test(wide_characters_stay_whole),
        cmocka_unit_test(fits_and_aligns_by_columns),
        cmocka_unit_test(words_wrap),
        cmocka_unit_test(figures_read_well),
    };

    return cmocka_run_group_tests(test, NULL, NULL);
}
