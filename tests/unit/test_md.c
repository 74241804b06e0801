/* Markdown of made-up jobs: goldens, never more than 60 lines, tables whole, nothing that calls or breaks. */
#include "tests/html/renders.h"

#include "report/render_md.h"

static char *md_of(struct shown *s, size_t n)
{
    struct rp_report *r[12];
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    for (size_t i = 0; i < n; i++)
        r[i] = s[i].r;
    assert_int_equal(rp_render_md(f, r, n, NULL), MP_OK);
    fclose(f);
    return text;
}

/* Lines of a table have the same number of columns; a | of a name would show. */
static void holds(const char *text)
{
    size_t columns = 0, lines = count_of(text, "\n");

    assert_true(lines <= 60);
    assert_true(strlen(text) < 65536);
    assert_null(strstr(text, "@"));
    assert_null(strstr(text, "<script"));
    for (const char *p = text; *p; p += strcspn(p, "\n") + 1) {
        char line[4096];
        size_t n;

        snprintf(line, sizeof line, "%.*s", (int)strcspn(p, "\n"), p);
        n = line[0] == '|' ? count_of(line, "|") : 0;
        if (columns && n)
            assert_int_equal(n, columns);
        columns = n;
    }
    assert_int_equal(count_of(text, "<details>"), count_of(text, "</details>"));
}

static void jobs(void **state)
{
    static const struct {
        const char *golden;
        struct made made;
    } job[] = {
        {"md_eager.md", {.steps = 7, .layers = 2, .experts = 16}},
        {"md_hostile.md", {.steps = 6, .layers = 2, .experts = 8, .hostile = true}},
        {"md_empty.md", {.steps = 0, .layers = 1, .experts = 4}},
        {NULL, {.steps = 1, .layers = 1, .experts = 4}},
        {NULL, {.steps = 6, .layers = 2, .experts = 8, .no_routing = true}},
    };

    (void)state;
    for (size_t i = 0; i < countof(job); i++) {
        struct shown s;
        char *text;

        shown_make(&s, job[i].made);
        text = md_of(&s, 1);
        holds(text);
        if (job[i].golden)
            golden(job[i].golden, text);
        free(text);
        shown_release(&s);
    }
}

static void several(void **state)
{
    struct shown s[12];
    char *text;

    (void)state;
    for (int i = 0; i < 12; i++)
        shown_make(&s[i], (struct made){.steps = 6, .layers = 1, .experts = 4, .grouped = i % 2});
    text = md_of(s, 2);
    holds(text);
    golden("md_pair.md", text);
    free(text);
    text = md_of(s, 12);
    holds(text);
    free(text);
    for (int i = 0; i < 12; i++)
        shown_release(&s[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(jobs), cmocka_unit_test(several)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
