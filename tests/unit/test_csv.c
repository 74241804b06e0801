/* CSV of made-up jobs: goldens of the small files; every file parses as RFC 4180 and is rectangular. */
#include "tests/html/renders.h"

#include "report/render_csv.h"

static const char *const file[] = {"steps", "phases", "layers", "experts", "kernels"};

/* Columns of the record at *p, which moves behind it. */
static size_t record(const char **p)
{
    size_t n = 1;
    bool quoted = false;

    for (; **p; (*p)++) {
        if (**p == '"')
            quoted = !quoted;
        else if (!quoted && **p == ',')
            n++;
        else if (!quoted && (*p)[0] == '\r' && (*p)[1] == '\n')
            break;
        else
            assert_true(quoted || ((unsigned char)**p >= ' ' && **p != '\n'));
    }
    assert_true(**p == '\r' && !quoted);
    *p += 2;
    return n;
}

static void check(const struct made *made, const char *golden_prefix)
{
    char dir[] = "/tmp/moeprof-csv-XXXXXX";
    struct shown s;
    struct mp_err err = {0};

    shown_make(&s, *made);
    assert_non_null(mkdtemp(dir));
    if (rp_render_csv(dir, s.p, s.r, &err))
        fail_msg("%s", err.msg);
    for (size_t i = 0; i < countof(file); i++) {
        char path[128], *text;
        const char *p;
        size_t columns;

        snprintf(path, sizeof path, "%s/%s.csv", dir, file[i]);
        text = text_of(path);
        p = text;
        columns = record(&p);
        while (*p)
            assert_int_equal(record(&p), columns);
        if (golden_prefix) {
            snprintf(path, sizeof path, "%s_%s.csv", golden_prefix, file[i]);
            golden(path, text);
        }
        free(text);
        snprintf(path, sizeof path, "%s/%s.csv", dir, file[i]);
        unlink(path);
    }
    rmdir(dir);
    shown_release(&s);
}

static void jobs(void **state)
{
    (void)state;
    check(&(struct made){.steps = 6, .layers = 1, .experts = 4}, "csv");
    check(&(struct made){.steps = 6, .layers = 2, .experts = 8, .hostile = true}, NULL);
    check(&(struct made){.steps = 6, .layers = 2, .experts = 8, .no_routing = true}, NULL);
    check(&(struct made){.steps = 0, .layers = 1, .experts = 4}, NULL);
}

static void failures(void **state)
{
    struct shown s;
    struct mp_err err;

    (void)state;
    shown_make(&s, (struct made){.steps = 1, .layers = 1, .experts = 4});
    assert_int_equal(rp_render_csv("/nonexistent/a/b", s.p, s.r, &err), MP_EIO);
    assert_non_null(strstr(err.msg, "/nonexistent/a/b"));
    shown_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(jobs), cmocka_unit_test(failures)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
