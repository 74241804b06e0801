/* The model: what was fed can be asked for, pausing freezes what is seen and nothing else, selection
 * stays in range whatever is pressed. */
#include "tests/unit/dash_fixture.h"

#include <math.h>

static const struct fx_shape small = {.layers = 4, .experts = 16, .steps = 10};

static void counts_what_was_fed(void **state)
{
    struct dash_model *m = fx_model(small);
    const struct dash_job *job = dash_model_job(m, NULL);
    uint64_t booked = 0;
    size_t n;

    (void)state;
    assert_int_equal(job->n_step, 10);
    assert_int_equal(job->n_skipped, 1); /* the partial one at the end */
    assert_int_equal(job->last.step, 9);
    for (int p = 0; p < MP_PHASE_COUNT; p++)
        booked += dash_step_phase_ns(&job->last, (enum mp_phase)p);
    assert_int_equal(booked + job->last.idle_ns, job->last.window_ns);
    assert_true(fabs(dash_job_mean_mfu(job, DASH_OURS, &n).v - 0.185) < 0.005);
    assert_int_equal(n, 8); /* the first two are warm-up */
    assert_int_equal(job->experts.n_layer, 4);
    assert_int_equal(job->experts.n_expert, 16);
    assert_true(dash_job_value(job, DASH_M_COVERAGE).v > 0.98);
    fx_free(m);
}

static void experts_window_forgets_exactly(void **state)
{
    struct dash_model *m = fx_model((struct fx_shape){.layers = 2, .experts = 8, .steps = 130});
    const struct dash_experts *e = &dash_model_job(m, NULL)->experts;
    struct fx f = {.shape = {.layers = 2, .experts = 8}};

    (void)state;
    assert_int_equal(dash_experts_depth(e), 120);
    for (uint32_t row = 0; row < 2; row++)
        for (uint32_t x = 0; x < 8; x++)
            assert_int_equal((long)dash_experts_value(e, DASH_LOAD, row, x),
                             120 * (long)fx_tokens(&f, (int)row, (int)x));
    assert_int_equal(dash_experts_dead(e, 0), 1);
    assert_int_equal(dash_experts_dead(e, 1), 0);
    assert_true(isnan(dash_experts_value(e, DASH_LOAD, 0, 8)));
    assert_true(isnan(dash_experts_value(e, DASH_LOAD, 2, 0)));
    fx_free(m);
}

/* A kernel that serves all experts is shared out to the nanosecond, and says so. */
static void grouped_time_is_apportioned(void **state)
{
    struct dash_model *m =
        fx_model((struct fx_shape){.layers = 3, .experts = 16, .steps = 4, .grouped = true});
    const struct dash_job *job = dash_model_job(m, NULL);
    double sum = 0;

    (void)state;
    for (uint32_t row = 0; row < 3; row++) {
        assert_int_equal(job->experts.basis[row], MP_APPORTIONED);
        for (uint32_t x = 0; x < 16; x++) {
            double v[8];
            size_t n = dash_experts_history(&job->experts, DASH_TIME, row, x, v, 8);

            assert_int_equal(n, 4);
            sum += v[n - 1];
        }
    }
    assert_int_equal((long)sum, dash_step_phase_ns(&job->last, MP_PHASE_EXPERT));
    fx_free(m);
}

static void timeline_sums_to_the_window(void **state)
{
    struct dash_model *m = fx_model(small);
    const struct dash_timeline *t = &dash_model_job(m, NULL)->timeline;
    uint64_t sum = 0;

    (void)state;
    assert_true(t->valid);
    assert_int_equal(t->step, 9);
    for (uint32_t i = 0; i < DASH_BINS; i++) {
        uint64_t in_bin = t->bin[i].idle_ns;

        for (int p = 0; p < MP_PHASE_COUNT; p++)
            in_bin += t->bin[i].phase_ns[p];
        assert_int_equal(in_bin, dash_timeline_bin_ns(t, i + 1) - dash_timeline_bin_ns(t, i));
        sum += in_bin;
    }
    assert_int_equal(sum, t->window_ns);
    fx_free(m);
}

static void queries_group_filter_and_sort(void **state)
{
    struct dash_model *m = fx_model(small);
    const struct dash_kernels *k = &dash_model_job(m, NULL)->kernels;
    struct dash_query q = {.group = DASH_BY_ALL, .sort = DASH_SORT_TIME};
    struct dash_kernel_row *row;
    uint64_t n_all = 0, ns_all = 0;
    int n;

    (void)state;
    for (int group = 0; group < DASH_GROUP_COUNT; group++) {
        uint64_t calls = 0, ns = 0;

        q.group = (enum dash_group)group;
        n = dash_kernels_query(k, &q, &row);
        assert_true(n > 0);
        for (int i = 0; i < n; i++) {
            calls += row[i].n;
            ns += row[i].ns;
            assert_true(i == 0 || row[i].ns <= row[i - 1].ns);
        }
        n_all = n_all ? n_all : calls;
        ns_all = ns_all ? ns_all : ns;
        assert_int_equal(calls, n_all);
        assert_int_equal(ns, ns_all);
        free(row);
    }
    assert_int_equal(n_all, k->n);
    q = (struct dash_query){DASH_BY_ALL, DASH_SORT_NAME, false, "expert L2"};
    n = dash_kernels_query(k, &q, &row);
    assert_int_equal(n, 1);
    assert_int_equal(row[0].layer, 2);
    free(row);
    q.filter = "NVJET";
    n = dash_kernels_query(k, &q, &row);
    assert_int_equal(n, 4 + 4 + 1); /* router and experts of four layers, lm_head */
    free(row);
    q.filter = "no such thing";
    assert_int_equal(dash_kernels_query(k, &q, &row), 0);
    free(row);
    fx_free(m);
}

static void pause_freezes_the_display_only(void **state)
{
    struct dash_model *m = fx_model(small);
    struct mp_step step = {.step = 77, .window_ns = 1000, .idle_ns = 1000};
    struct dash_figures none = {.mfu = {{0, MP_UNKNOWN}}, .step_ns = 1000};
    uint64_t before;

    (void)state;
    fx_keys(m, " ");
    assert_true(m->paused);
    before = dash_model_job(m, NULL)->kernels.n;
    dash_kernels_add(&m->job[0]->kernels, 3, -1, 0, 5);
    dash_job_step(m->job[0], &step, &none, 1);
    assert_int_equal(dash_model_job(m, NULL)->kernels.n, before);
    assert_int_equal(dash_model_job(m, NULL)->last.step, 9);
    fx_keys(m, " ");
    assert_int_equal(dash_model_job(m, NULL)->kernels.n, before + 1);
    assert_int_equal(dash_model_job(m, NULL)->last.step, 77);
    assert_int_equal(dash_model_job(m, NULL)->figures.mfu[0].basis, MP_UNKNOWN);
    fx_free(m);
}

static void selection_survives_jobs_that_go(void **state)
{
    struct dash_model m;

    (void)state;
    dash_model_init(&m);
    assert_null(dash_model_job(&m, NULL));
    fx_keys(&m, "n]p[ jjkk ");
    for (int i = 1; i <= 3; i++)
        assert_non_null(dash_model_open(&m, (uint64_t)i, i));
    dash_model_select(&m, 1);
    assert_int_equal(dash_model_job(&m, NULL)->pid, 2);
    dash_model_drop(&m, 1);
    assert_int_equal(dash_model_job(&m, NULL)->pid, 2);
    dash_model_drop(&m, 2);
    assert_int_equal(dash_model_job(&m, NULL)->pid, 3);
    dash_model_drop(&m, 3);
    assert_null(dash_model_job(&m, NULL));
    for (int i = 0; i < 100; i++)
        dash_model_open(&m, 1000 + (uint64_t)i, i);
    assert_int_equal(m.n_job, DASH_JOB_MAX);
    dash_model_release(&m);
}

/* Any keys in any order, drawn at changing sizes: the selection is in range and nothing crashes. */
static void any_keys_are_fine(void **state)
{
    static const uint32_t special[] = {
        DASH_KEY_UP,        DASH_KEY_DOWN,    DASH_KEY_LEFT, DASH_KEY_RIGHT,
        DASH_KEY_PGUP,      DASH_KEY_PGDN,    DASH_KEY_HOME, DASH_KEY_END,
        DASH_KEY_TAB,       DASH_KEY_BACKTAB, DASH_KEY_ESC,  DASH_KEY_ENTER,
        DASH_KEY_BACKSPACE, DASH_KEY_F1,      DASH_KEY_F6,   0x4e2d};
    struct dash_model *m = fx_model(small);
    struct dash_cells c;
    uint32_t rng = 5;

    (void)state;
    for (int i = 0; i < 4000; i++) {
        rng = rng * 1664525u + 1013904223u;
        dash_key_press(m, rng & 0x100 ? special[(rng >> 12) % countof(special)]
                                      : 32 + (rng >> 12) % 95);
        if (i % 8)
            continue;
        assert_int_equal(dash_cells_init(&c, 1 + (int)(rng >> 9 & 127), 1 + (int)(rng >> 17 & 63)),
                         MP_OK);
        dash_frame(m, &c);
        dash_cells_release(&c);
        assert_true(m->ui.row[m->ui.screen] >= 0 && m->ui.top[m->ui.screen] >= 0);
    }
    fx_free(m);
}

static void filter_is_typed_and_dropped(void **state)
{
    struct dash_model *m = fx_model(small);

    (void)state;
    fx_keys(m, "/nv");
    dash_key_press(m, 0xb5);
    assert_string_equal(m->ui.filter, "nvµ");
    dash_key_press(m, DASH_KEY_BACKSPACE);
    assert_string_equal(m->ui.filter, "nv");
    dash_key_press(m, DASH_KEY_ENTER);
    assert_false(m->ui.editing);
    fx_keys(m, "/q");
    assert_false(m->ui.quit);
    dash_key_press(m, DASH_KEY_ESC);
    assert_string_equal(m->ui.filter, "nv");
    fx_keys(m, "q");
    assert_true(m->ui.quit);
    fx_free(m);
}

/* A key that reaches beyond the display is an order; one that changes a job waits for a y. */
static void orders_are_asked_about(void **state)
{
    struct dash_model *m = fx_model(small);
    struct dash_dialog ask = {DASH_ASK, DASH_ORDER_SWAP_ON, "", "really?"};

    (void)state;
    fx_keys(m, "a");
    assert_int_equal(m->ui.order, DASH_ORDER_SWAP);
    fx_keys(m, "w");
    assert_int_equal(m->ui.order, DASH_ORDER_REPORT);
    m->ui.order = DASH_ORDER_NONE;
    fx_keys(m, "x"); /* means something on the A/B screen only */
    assert_int_equal(m->ui.order, DASH_ORDER_NONE);
    m->ui.dialog = ask;
    fx_keys(m, "3 aw\t");
    assert_int_equal(m->ui.screen, DASH_OVERVIEW);
    assert_int_equal(m->ui.order, DASH_ORDER_NONE);
    assert_int_equal(m->ui.dialog.kind, DASH_ASK);
    fx_keys(m, "n");
    assert_int_equal(m->ui.order, DASH_ORDER_CANCEL);
    m->ui.dialog = ask;
    fx_keys(m, "y");
    assert_int_equal(m->ui.order, DASH_ORDER_SWAP_ON);
    assert_int_equal(m->ui.dialog.kind, DASH_NO_DIALOG);
    m->ui.dialog.kind = DASH_SAY;
    dash_key_press(m, DASH_KEY_RESIZE);
    assert_int_equal(m->ui.dialog.kind, DASH_SAY);
    fx_keys(m, "3");
    assert_int_equal(m->ui.dialog.kind, DASH_NO_DIALOG);
    assert_int_equal(m->ui.screen, DASH_KERNELS);
    fx_free(m);
}

/* The box stays on the screen and above the footer, whatever it says. */
static void dialogs_fit_every_full_screen(void **state)
{
    struct dash_dialog d = {.kind = DASH_SAY};

    (void)state;
    for (size_t n = 0; n < sizeof d.text - 1; n += 37) {
        memset(d.text, n % 2 ? 'x' : ' ', n);
        for (int w = DASH_FULL_W; w <= 300; w += 3)
            for (int h = DASH_FULL_H; h <= 100; h += 3) {
                struct dash_rect r = dash_dialog_rect(&d, w, h);

                assert_true(r.x >= 0 && r.y >= 1 && r.w > 20 && r.h >= 2);
                assert_true(r.x + r.w <= w && r.y + r.h <= h - 1);
            }
    }
}

int main(void)
{
    const struct CMUnitTest test[] = {
        cmocka_unit_test(counts_what_was_fed),
        cmocka_unit_test(experts_window_forgets_exactly),
        cmocka_unit_test(grouped_time_is_apportioned),
        cmocka_unit_test(timeline_sums_to_the_window),
        cmocka_unit_test(queries_group_filter_and_sort),
        cmocka_unit_test(pause_freezes_the_display_only),
        cmocka_unit_test(selection_survives_jobs_that_go),
        cmocka_unit_test(any_keys_are_fine),
        cmocka_unit_test(filter_is_typed_and_dropped),
        cmocka_unit_test(orders_are_asked_about),
        cmocka_unit_test(dialogs_fit_every_full_screen),
    };

    return cmocka_run_group_tests(test, NULL, NULL);
}
