/* Views as text: every screen of a made-up job against tests/golden/top_*, and hostile jobs at hostile
 * sizes. UPDATE_GOLDEN=1 writes the goldens anew; the diff is the review. */
#include "tests/unit/dash_fixture.h"

#include <math.h>
#include <time.h>

#include "tests/mock/golden.h"

static const char *const screen_name[DASH_SCREEN_COUNT] = {
    "overview", "experts", "kernels", "timeline", "log", "ab", "help"};

static char *draw(struct dash_model *m, int w, int h, bool ascii, bool styles)
{
    struct dash_cells c;
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    assert_non_null(f);
    assert_int_equal(dash_cells_init(&c, w, h), MP_OK);
    c.ascii = ascii;
    c.mono = !styles;
    dash_frame(m, &c);
    if (styles)
        dash_cells_print_styles(&c, f);
    else
        dash_cells_print(&c, 0, h, f);
    fclose(f);
    dash_cells_release(&c);
    return text;
}

/* The screen shown, in three forms. */
static void check_one(struct dash_model *m, const char *name, int w, int h)
{
    static const char *const kind[] = {"", "_ascii", "_styles"};

    for (int k = 0; k < 3; k++) {
        char path[128], *got = draw(m, w, h, k == 1, k == 2);

        snprintf(path, sizeof path, "top_%s_%dx%d%s.txt", name, w, h, kind[k]);
        golden_check(path, got);
        free(got);
    }
}

static void check_screens(struct dash_model *m, int w, int h)
{
    for (int screen = 0; screen < DASH_SCREEN_COUNT; screen++) {
        m->ui.screen = (enum dash_screen)screen;
        if (dash_frame_has(m, m->ui.screen))
            check_one(m, screen_name[screen], w, h);
    }
}

static void screens_are_as_agreed(void **state)
{
    struct dash_model *m = fx_model((struct fx_shape){.layers = 24, .experts = 64, .steps = 90});

    (void)state;
    m->ui.row[DASH_EXPERTS] = 5;
    m->ui.col[DASH_EXPERTS] = 5;
    m->ui.row[DASH_KERNELS] = 2;
    m->ui.expanded = true;
    m->ui.col[DASH_TIMELINE] = 200;
    check_screens(m, 80, 24);
    check_screens(m, 132, 43);
    fx_free(m);
}

/* A before/after has its screen, among the tabs only where there is one. */
static void a_before_after_has_its_screen(void **state)
{
    struct dash_model *m = fx_model((struct fx_shape){.layers = 2, .experts = 4, .steps = 3});
    char *got;

    (void)state;
    fx_keys(m, "6");
    assert_int_equal(m->ui.screen, DASH_OVERVIEW);
    fx_ab(&m->job[0]->ab);
    fx_keys(m, "6");
    assert_int_equal(m->ui.screen, DASH_AB);
    m->ui.row[DASH_AB] = 1;
    check_one(m, "ab", 80, 24);
    m->ui.row[DASH_AB] = 3;
    check_one(m, "ab", 132, 43);
    m->job[0]->ab.is_running = false;
    snprintf(m->job[0]->ab.end, sizeof m->job[0]->ab.end, "stopped in block 9 of 20");
    got = draw(m, 80, 24, false, false);
    assert_non_null(strstr(got, "ended early: stopped in block 9 of 20"));
    free(got);
    m->job[0]->ab.is_known = false; /* another job was chosen */
    got = draw(m, 80, 24, false, false);
    assert_null(strstr(got, "A/B"));
    assert_int_equal(m->ui.screen, DASH_OVERVIEW);
    free(got);
    fx_free(m);
}

static void a_question_stands_over_the_screen(void **state)
{
    struct dash_model *m = fx_model((struct fx_shape){.layers = 2, .experts = 4, .steps = 3});
    char *got;

    (void)state;
    m->ui.dialog =
        (struct dash_dialog){DASH_ASK, DASH_ORDER_SWAP_ON, "Swap the experts",
                             "Run the experts of process 4711 (all 24 layers; now eager) through "
                             "moeprof's kernels? First both get one step's own activations."};
    got = draw(m, 80, 24, true, false);
    golden_check("top_question_80x24.txt", got);
    free(got);
    got = draw(m, 30, 8, true, false); /* the compact form asks too */
    assert_non_null(strstr(got, "y yes   n no"));
    free(got);
    fx_free(m);
}

/* Grouped experts: times carry "~"; two jobs: both are listed. */
static void marks_what_is_apportioned(void **state)
{
    struct dash_model *m =
        fx_model((struct fx_shape){.layers = 6, .experts = 16, .steps = 5, .grouped = true});
    struct dash_job *other = dash_model_open(m, 9, 99);
    char *got;

    (void)state;
    other->alive = false;
    snprintf(other->title, sizeof other->title, "python other.py");
    m->ui.screen = DASH_EXPERTS;
    m->ui.expert_metric = DASH_TIME;
    got = draw(m, 100, 20, false, false);
    golden_check("top_experts_grouped_100x20.txt", got);
    free(got);
    m->ui.screen = DASH_OVERVIEW;
    got = draw(m, 100, 30, false, false);
    golden_check("top_overview_two_jobs_100x30.txt", got);
    free(got);
    fx_free(m);
}

static void says_what_is_missing(void **state)
{
    struct dash_model *m = fx_model((struct fx_shape){
        .layers = 2, .experts = 4, .steps = 1, .no_routing = true, .grouped = true});
    struct dash_job *job = m->job[0];
    char *got;

    (void)state;
    job->figures.mfu[0].basis = MP_UNKNOWN;
    dash_ring_push(&job->ring[DASH_M_MFU], NAN);
    snprintf(job->figures.why_not, sizeof job->figures.why_not,
             "no MFU: this GPU is not in the table of peaks");
    job->figures.convention[0] = 0;
    job->gauges = (struct dash_gauges){0};
    got = draw(m, 80, 24, false, false);
    assert_non_null(strstr(got, "MFU –"));
    assert_non_null(strstr(got, "not in the table of peaks"));
    assert_non_null(strstr(got, "clock     –"));
    assert_null(strstr(got, "MFU 0"));
    free(got);
    m->ui.screen = DASH_EXPERTS;
    got = draw(m, 80, 24, false, false);
    assert_non_null(strstr(got, "No routing was seen"));
    free(got);
    fx_free(m);
}

static void waits_for_a_job(void **state)
{
    struct dash_model m;
    char *got;

    (void)state;
    dash_model_init(&m);
    snprintf(m.notice, sizeof m.notice, "No training runs under moeprof.");
    for (int screen = 0; screen < DASH_SCREEN_COUNT; screen++) {
        m.ui.screen = (enum dash_screen)screen;
        got = draw(&m, 80, 24, false, false);
        assert_true(screen == DASH_HELP || strstr(got, "No training runs"));
        free(got);
    }
    dash_model_release(&m);
}

static void hostile_strings(struct dash_job *job)
{
    static const char evil[] = "\033]0;owned\007\033[2J\x9b"
                               "31m\xff\xfe\xe2\x80<script>\xe2\x80\xae\r\n\t%s%n";
    char long_name[3000];

    memset(long_name, '<', sizeof long_name);
    long_name[sizeof long_name - 1] = 0;
    snprintf(job->title, sizeof job->title, "%s%s", evil, evil);
    snprintf(job->gpu_name, sizeof job->gpu_name, "%s", evil);
    snprintf(job->why, sizeof job->why, "%s", evil);
    snprintf(job->backend, sizeof job->backend, "%s", evil);
    snprintf(job->figures.convention, sizeof job->figures.convention, "%s", evil);
    snprintf(job->feature[0].why, sizeof job->feature[0].why, "%s", evil);
    memset(job->log[0].text, 'x', sizeof job->log[0].text); /* not terminated */
    snprintf(job->log[1].text, sizeof job->log[1].text, "%s", evil);
    dash_job_fact(job, evil, evil);
    fx_ab(&job->ab);
    snprintf(job->ab.end, sizeof job->ab.end, "%s", evil);
    for (int i = 0; i < 4; i++)
        snprintf(job->ab.arm[i].name, sizeof job->ab.arm[i].name, "%s", evil);
    snprintf(job->ab.arm[1].sentence, sizeof job->ab.arm[1].sentence, "%s", evil);
    job->ab.arm[1].low = NAN;
    job->ab.arm[1].high = 1e300;
    dash_kernels_set_name(&job->kernels, 50, evil);
    dash_kernels_set_name(&job->kernels, 51, long_name);
    for (uint32_t i = 50; i < 53; i++)
        dash_kernels_add(&job->kernels, i, -1, 0, UINT32_MAX);
}

static void check_printable(const char *text)
{
    for (; *text; text++)
        assert_true(*text == '\n' || ((unsigned char)*text >= 0x20 && *text != 0x7f));
}

static void hostile_jobs_at_hostile_sizes(void **state)
{
    static const int size[][2] = {{1, 1},   {1, 50},  {2, 3},   {20, 5},   {59, 16},
                                  {60, 16}, {61, 17}, {80, 24}, {110, 16}, {300, 100}};
    struct dash_model *m = fx_model((struct fx_shape){.layers = 3, .experts = 5, .steps = 1});

    (void)state;
    hostile_strings(m->job[0]);
    m->ui.dialog.kind = DASH_SAY;
    snprintf(m->ui.dialog.text, sizeof m->ui.dialog.text, "%s", m->job[0]->ab.end);
    for (size_t i = 0; i < countof(size); i++)
        for (int screen = 0; screen < DASH_SCREEN_COUNT; screen++)
            for (int ascii = 0; ascii < 2; ascii++) {
                char *got;

                m->ui.screen = (enum dash_screen)screen;
                got = draw(m, size[i][0], size[i][1], ascii, false);
                check_printable(got);
                free(got);
            }
    fx_free(m);
}

/* Few layers on a tall terminal: their rows grow, and the mark with them. */
static void few_layers_fill_a_tall_map(void **state)
{
    struct dash_model *m = fx_model((struct fx_shape){.layers = 4, .experts = 16, .steps = 5});

    (void)state;
    m->ui.screen = DASH_EXPERTS;
    m->ui.row[DASH_EXPERTS] = 2;
    m->ui.col[DASH_EXPERTS] = 3;
    check_one(m, "experts_tall", 100, 30);
    fx_free(m);
}

/* 1024 experts x 94 layers: all layers can be reached, and drawing takes no noticeable time. */
static void largest_model_is_drawn(void **state)
{
    struct dash_model *m =
        fx_model((struct fx_shape){.layers = 94, .experts = 1024, .steps = 2, .grouped = true});
    const struct dash_experts *e = &m->job[0]->experts;
    clock_t begin;
    char *got;

    (void)state;
    assert_int_equal(e->n_layer, 94);
    assert_int_equal(e->n_expert, 1024);
    m->ui.screen = DASH_EXPERTS;
    m->ui.row[DASH_EXPERTS] = 93;
    m->ui.col[DASH_EXPERTS] = 1023;
    begin = clock();
    got = draw(m, 250, 70, false, false);
    assert_true(clock() - begin < CLOCKS_PER_SEC / 5);
    assert_non_null(strstr(got, "L93"));
    assert_non_null(strstr(got, "Layer 93, expert 1023"));
    assert_non_null(strstr(got, "fullest of 6 a column"));
    free(got);
    fx_free(m);
}

int main(void)
{
    const struct CMUnitTest test[] = {
        cmocka_unit_test(screens_are_as_agreed),
        cmocka_unit_test(a_before_after_has_its_screen),
        cmocka_unit_test(a_question_stands_over_the_screen),
        cmocka_unit_test(marks_what_is_apportioned),
        cmocka_unit_test(says_what_is_missing),
        cmocka_unit_test(waits_for_a_job),
        cmocka_unit_test(hostile_jobs_at_hostile_sizes),
        cmocka_unit_test(few_layers_fill_a_tall_map),
        cmocka_unit_test(largest_model_is_drawn),
    };

    setenv("TZ", "UTC", 1);
    return cmocka_run_group_tests(test, NULL, NULL);
}
