/* The page of made-up jobs: a golden, and what must hold of every page: balanced elements, nothing from
 * outside, nothing of a name unescaped, bars that sum to the step, bounded size. */
#include "tests/html/renders.h"

#include <math.h>

static const struct made small = {.steps = 7, .layers = 2, .experts = 4, .checkpoint = true};

static char *page_of(struct shown *s, size_t n)
{
    struct rp_page page[4];
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    struct mp_err err = {0};

    for (size_t i = 0; i < n; i++)
        page[i] = (struct rp_page){s[i].r, s[i].data};
    if (rp_render_html(f, page, n, NULL, &err))
        fail_msg("%s", err.msg);
    fclose(f);
    return text;
}

/* Style and script are files of their own: not in the golden. */
static void cut(char *text, const char *open, const char *close)
{
    char *from = strstr(text, open), *to = from ? strstr(from, close) : NULL;

    assert_non_null(to);
    memmove(from + strlen(open), to, strlen(to) + 1);
}

static void golden_page(void **state)
{
    struct shown s;
    char *text;

    (void)state;
    shown_make(&s, small);
    text = page_of(&s, 1);
    cut(text, "<style>", "</style>");
    cut(text, "</main>\n<script>", "</script>\n</body>");
    golden("html_small.html", text);
    free(text);
    shown_release(&s);
}

/* ---- what holds of every page ------------------------------------------------------------------- */

/* Elements that have an end close in order; attributes are quoted. A stack machine over the tags. */
static void balanced(const char *text)
{
    static const char *const empty[] = {"meta", "input", "br", "rect", "path", "line", "circle"};
    char stack[64][16];
    int depth = 0;

    for (const char *p = text; (p = strchr(p, '<')) != NULL; p++) {
        char name[16] = "";
        bool is_empty = false, is_end = p[1] == '/';

        if (p[1] == '!')
            continue;
        sscanf(p + 1 + is_end, "%15[a-z0-9]", name);
        for (size_t i = 0; i < countof(empty); i++)
            is_empty |= strcmp(name, empty[i]) == 0;
        if (is_empty && !is_end && strncmp(strchr(p, '>'), "><title>", 8) != 0)
            continue;
        if (is_end) {
            assert_true(depth > 0);
            if (strcmp(stack[--depth], name) != 0)
                fail_msg("</%s> ends <%s>", name, stack[depth]);
        } else {
            assert_true(depth < 63);
            strcpy(stack[depth++], name);
        }
        if (strcmp(name, "script") == 0 && !is_end)
            p = strstr(p, "</script") - 1;
        if (strcmp(name, "style") == 0 && !is_end)
            p = strstr(p, "</style") - 1;
    }
    assert_int_equal(depth, 0);
}

static void holds(const char *text)
{
    balanced(text);
    assert_int_equal(count_of(text, "://"), 1); /* the script's name of the SVG namespace */
    assert_int_equal(count_of(text, "src="), 0);
    assert_int_equal(count_of(text, "@import"), 0);
    assert_int_equal(count_of(text, "<link"), 0);
    assert_int_equal(count_of(text, "<script"), 3); /* two of data, one of code */
    assert_int_equal(count_of(text, "</script"), 3);
    assert_int_equal(count_of(text, "default-src 'none'"), 1);
    assert_int_equal(count_of(text, "\"nan") + count_of(text, " nan ") + count_of(text, "-nan") +
                         count_of(text, "\"inf\"") + count_of(text, ">nan"),
                     0);
    assert_int_equal(count_of(text, "role=\"img\""), count_of(text, "<desc>"));
}

static void every_page(void **state)
{
    static const struct made job[] = {
        {.steps = 7, .layers = 2, .experts = 4, .checkpoint = true},
        {.steps = 6, .layers = 3, .experts = 16, .grouped = true},
        {.steps = 6, .layers = 2, .experts = 8, .hostile = true},
        {.steps = 6, .layers = 2, .experts = 8, .no_routing = true},
        {.steps = 1, .layers = 1, .experts = 4},
        {.steps = 0, .layers = 1, .experts = 4},
    };

    (void)state;
    for (size_t i = 0; i < countof(job); i++) {
        struct shown s;
        char *text;

        shown_make(&s, job[i]);
        text = page_of(&s, 1);
        holds(text);
        if (job[i].hostile)
            assert_true(count_of(text, "&lt;/script&gt;&lt;script&gt;alert(1)") > 3);
        free(text);
        shown_release(&s);
    }
}

/* A before/after inside the run: its own headline, a dot a block, a bar an arm. */
static void arms(void **state)
{
    struct shown s;
    char *text;

    (void)state;
    shown_make(&s, (struct made){.layers = 2, .experts = 16, .ab_blocks = 6});
    text = page_of(&s, 1);
    holds(text);
    assert_non_null(strstr(text, "the work a second (95&nbsp;% interval"));
    assert_non_null(strstr(text, "inside this run"));
    assert_int_equal(count_of(text, "class=\"parts\""), 3);
    assert_int_equal(count_of(text, "r=\"5\""), 12);
    free(text);
    shown_release(&s);
}

static void pair_and_ranks(void **state)
{
    struct shown s[3];
    char *text;

    (void)state;
    shown_make(&s[0], (struct made){.steps = 7, .layers = 2, .experts = 8});
    shown_make(&s[1], (struct made){.steps = 7, .layers = 2, .experts = 8, .grouped = true});
    shown_make(&s[2], (struct made){.steps = 0, .layers = 2, .experts = 8});
    text = page_of(s, 2);
    holds(text);
    assert_non_null(strstr(text, "MFU went from"));
    assert_non_null(strstr(text, "before: eager"));
    assert_non_null(strstr(text, "after: grouped_mm"));
    free(text);
    text = page_of(s, 3);
    holds(text);
    assert_null(strstr(text, "before:"));
    free(text);
    text = page_of(s + 1, 2); /* one of them holds nothing */
    holds(text);
    free(text);
    for (int i = 0; i < 3; i++)
        shown_release(&s[i]);
}

/* The boxes of a bar touch each other and end where the axis does. */
static void bar_sums(void **state)
{
    struct shown s;
    char *text;
    double at = 0;

    (void)state;
    shown_make(&s, small);
    text = page_of(&s, 1);
    for (const char *p = strstr(text, "svg class=\"parts\""), *end = strstr(p, "</svg>");
         (p = strstr(p, "<rect")) != NULL && p < end; p++) {
        double x, width;

        assert_int_equal(sscanf(strstr(p, " x="), " x=\"%lf\" y=\"0\" width=\"%lf\"", &x, &width),
                         2);
        assert_true(fabs(x - at) < 0.02);
        at = x + width;
    }
    assert_true(fabs(at - 1000) < 0.05);
    free(text);
    shown_release(&s);
}

/* 94 layers of 1024 experts: as wide as models get. */
static void wide(void **state)
{
    struct shown s;
    char *text;

    (void)state;
    shown_make(&s, (struct made){.steps = 4, .layers = 94, .experts = 1024, .grouped = true});
    text = page_of(&s, 1);
    holds(text);
    assert_true(strlen(text) < 5000000);
    free(text);
    shown_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_page),    cmocka_unit_test(every_page), cmocka_unit_test(arms),
        cmocka_unit_test(pair_and_ranks), cmocka_unit_test(bar_sums),   cmocka_unit_test(wide)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
