/* Comparisons of made-up runs against tests/golden/compare_*, and what must hold of any. */
#include "report/compare_part.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "report/layout.h"
#include "tests/mock/fake_profile.h"
#include "tests/mock/golden.h"

static char dir[64], path[2][96];

struct pair {
    struct rp_profile *p[2];
    struct rp_report *r[2];
    struct rp_compare *c;
};

static void pair_open(struct pair *x)
{
    struct mp_err err = {0};

    for (int i = 0; i < 2; i++) {
        assert_int_equal(rp_profile_open(&x->p[i], path[i], &err), MP_OK);
        assert_int_equal(rp_analyze(&x->r[i], x->p[i], i ? "b.moeprof" : "a.moeprof",
                                    &(struct rp_options){0}, &err),
                         MP_OK);
    }
    if (rp_compare(&x->c, x->r, x->p, &err))
        fail_msg("%s", err.msg);
}

static void pair_make(struct pair *x, const struct fake_profile *a, const struct fake_profile *b)
{
    fake_profile_make(path[0], a);
    fake_profile_make(path[1], b);
    pair_open(x);
}

static void pair_free(struct pair *x)
{
    rp_compare_free(x->c);
    for (int i = 0; i < 2; i++) {
        rp_report_free(x->r[i]);
        rp_profile_close(x->p[i], NULL);
    }
}

static char *rendered(int (*render)(FILE *, const struct rp_compare *, struct mp_err *),
                      const struct rp_compare *c)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    assert_int_equal(render(f, c, NULL), MP_OK);
    fclose(f);
    return text;
}

static void golden_pair(const char *name, const struct fake_profile *a,
                        const struct fake_profile *b)
{
    char file[64], *text;
    struct pair x;

    pair_make(&x, a, b);
    text = rendered(rp_render_compare_text, x.c);
    golden_lines(text, RP_WIDTH);
    snprintf(file, sizeof file, "compare_%s.txt", name);
    golden_check(file, text);
    free(text);
    text = rendered(rp_render_compare_md, x.c);
    assert_true(golden_lines(text, 1000) <= 60);
    snprintf(file, sizeof file, "compare_%s.md", name);
    golden_check(file, text);
    free(text);
#if HAVE_JANSSON
    text = rendered(rp_render_compare_json, x.c);
    snprintf(file, sizeof file, "compare_%s.json", name);
    golden_check(file, text);
    free(text);
#endif
    pair_free(&x);
}

static const struct fake_profile eager = {.steps = 20, .layers = 2, .experts = 64},
                                 grouped = {.steps = 16,
                                            .layers = 2,
                                            .experts = 64,
                                            .grouped = true},
                                 other = {.steps = 9,
                                          .layers = 3,
                                          .experts = 64,
                                          .checkpoint = true,
                                          .tokens = 2048,
                                          .gpu = "NVIDIA H200"},
                                 bare = {.steps = 8, .layers = 1, .experts = 4, .no_spec = true},
                                 one = {.steps = 1, .layers = 2, .experts = 64};

static void goldens(void **state)
{
    (void)state;
    golden_pair("backend", &eager, &grouped);
    golden_pair("worse", &grouped, &eager);
    golden_pair("unlike", &eager, &other);
    golden_pair("no_model", &bare, &bare);
    golden_pair("one_step", &eager, &one);
}

static void verdicts(void **state)
{
    struct pair x;

    (void)state;
    pair_make(&x, &eager, &eager);
    assert_int_equal(x.c->verdict, RP_SAME);
    assert_int_equal(x.c->n_difference, 0);
    assert_int_equal(x.c->n_worse, 0);
    assert_true(fabs(x.c->speedup.value - 1) < 1e-12 && x.c->test.p > 0.9);
    pair_free(&x);

    pair_make(&x, &eager, &grouped);
    assert_int_equal(x.c->verdict, RP_FASTER);
    assert_int_equal(x.c->unit, RP_WORK_FLOP);
    assert_int_equal(x.c->n_difference, 1);
    assert_int_equal(x.c->n_grave, 0);
    /* the ratio of rates is that of the MFU */
    assert_true(fabs(x.c->speedup.value * x.r[0]->mfu.mfu.v / x.r[1]->mfu.mfu.v - 1) < 1e-9);
    assert_int_equal(x.c->n_worse, 1);
    assert_string_equal(x.c->worse[0].key, "device_memory_bytes_max");
    pair_free(&x);

    pair_make(&x, &grouped, &eager);
    assert_int_equal(x.c->verdict, RP_SLOWER);
    assert_true(x.c->n_worse >= 4);
    pair_free(&x);

    pair_make(&x, &eager, &one);
    assert_int_equal(x.c->verdict, RP_INCONCLUSIVE);
    assert_false(x.c->is_known);
    pair_free(&x);

    pair_make(&x, &eager, &bare); /* known on one side only: by useful tokens */
    assert_int_equal(x.c->unit, RP_WORK_USEFUL);
    pair_free(&x);
}

static void data(void **state)
{
    struct fake_profile fewer = eager;
    struct pair x;

    (void)state;
    pair_make(&x, &eager, &grouped);
    assert_true(x.c->data.n_common >= 12 && x.c->data.n_same == x.c->data.n_common);
    assert_true(x.c->data.moved.basis == MP_MEASURED && x.c->data.moved.v == 0);
    pair_free(&x);

    fewer.tokens = 4095;
    pair_make(&x, &eager, &fewer);
    assert_int_equal(x.c->data.n_same, 0);
    assert_true(x.c->data.moved.basis == MP_MEASURED && x.c->data.moved.v > 0);
    pair_free(&x);

    pair_make(&x, &eager, &one); /* its one step is recorded in part */
    assert_int_equal(x.c->data.n_common, 0);
    assert_int_equal(x.c->data.moved.basis, MP_UNKNOWN);
    pair_free(&x);
}

/* A GPU that is held back is not the same machine; what is unknown on both sides is no difference. */
static void gpu_settings(void **state)
{
    struct rp_gpu_facts g = RP_GPU_FACTS_UNKNOWN, back;
    struct rp_profile *p;
    struct pair x;

    (void)state;
    strcpy(g.driver, "580.65.06");
    g.power_limit_mw = 700000;
    g.mig = 0;
    for (int i = 0; i < 2; i++) {
        fake_profile_make(path[i], &eager);
        assert_int_equal(rp_profile_append(&p, path[i], NULL), MP_OK);
        assert_int_equal(rp_gpu_put(p, "gpu_", &g, NULL), MP_OK);
        rp_gpu_get(&back, p, "gpu_");
        assert_string_equal(back.driver, g.driver);
        assert_true(back.power_limit_mw == g.power_limit_mw && back.mig == 0 && back.ecc == -1);
        rp_profile_close(p, NULL);
        g.power_limit_mw = 500000;
    }
    pair_open(&x);
    assert_int_equal(x.c->n_difference, 1);
    assert_string_equal(x.c->difference[0].name, "power limit");
    assert_true(x.c->difference[0].is_grave);
    assert_string_equal(x.c->difference[0].side[1], "500 W");
    pair_free(&x);
}

static void what_tracing_adds(void **state)
{
    struct rp_report r = {.step.median_s = {1.05, MP_MEASURED}, .untraced_s = {1.0, MP_MEASURED}};

    (void)state;
    assert_true(fabs(rp_compare_tracing(&r).v - 0.05) < 1e-12);
    r.untraced_s.basis = MP_UNKNOWN;
    assert_int_equal(rp_compare_tracing(&r).basis, MP_UNKNOWN);
}

/* A model's name goes into a pull request: it may not end the cell, nor begin HTML. */
static void markdown_is_safe(void **state)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    (void)state;
    rp_md_text(f, "a|b <img src=x> `c` *d* \n&");
    fclose(f);
    assert_string_equal(text, "a\\|b &lt;img src=x> \\`c\\` \\*d\\*  &amp;");
    free(text);
}

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/moeprof-compare-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    for (int i = 0; i < 2; i++)
        snprintf(path[i], sizeof path[i], "%s/%d.moeprof", dir, i);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path[0]);
    unlink(path[1]);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(goldens, setup, teardown),
        cmocka_unit_test_setup_teardown(verdicts, setup, teardown),
        cmocka_unit_test_setup_teardown(data, setup, teardown),
        cmocka_unit_test_setup_teardown(gpu_settings, setup, teardown),
        cmocka_unit_test(what_tracing_adds),
        cmocka_unit_test(markdown_is_safe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
