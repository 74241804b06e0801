/* Live jobs through real shared memory: this process plays the guest. What it publishes is shown; a ring
 * that laps is counted; what it scribbles over its own header harms nobody. */
#include "profiler/dash/live.h"
#include "profiler/dash/once.h"
#include "profiler/dash/view.h"
#include "tests/mock/fake_job.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char dir[64];
    struct mp_shm *shm;
    struct fake_job fake;
    struct dash_model m;
    struct dash_live *live;
};

static void put(void *arg, const union mp_record *record)
{
    mp_shm_put(arg, record);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    char *spec;

    assert_non_null(f);
    *state = f;
    snprintf(f->dir, sizeof f->dir, "/tmp/dash-live-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(mp_shm_create(&f->shm, f->dir, NULL), MP_OK);
    fake_init(&f->fake, put, f->shm);
    f->fake.n_layer = 3;
    f->fake.n_expert = 16;
    f->fake.now_ns = 1000000000u;
    for (int i = 0; i < FAKE_NAME_COUNT; i++)
        mp_shm_name_add(f->shm, fake_name[i]);
    snprintf(f->shm->gpu_name, sizeof f->shm->gpu_name, "NVIDIA H100 80GB HBM3");
    f->shm->gpu_cc = 90;
    f->shm->gpu_sm_count = 132;
    spec = fake_spec(&f->fake);
    if (spec)
        mp_shm_spec_set(f->shm, spec, strlen(spec));
    free(spec);
    dash_model_init(&f->m);
    f->live = dash_live_new(f->dir, NULL, 0);
    assert_non_null(f->live);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    dash_live_free(f->live);
    dash_model_release(&f->m);
    mp_shm_close(f->shm, f->dir, true);
    rmdir(f->dir);
    free(f);
    return 0;
}

static void look(struct fixture *f)
{
    f->m.now_ns += 1000000000u;
    dash_live_scan(f->live, &f->m);
    dash_live_drain(f->live, &f->m);
}

static void run(struct fixture *f, int steps)
{
    for (int i = 0; i < steps; i++)
        fake_step(&f->fake);
    mp_shm_flush(f->shm);
}

static void sleepers_are_not_shown(void **state)
{
    struct fixture *f = *state;
    int pid = (int)getpid();
    struct dash_live *asked;

    look(f);
    assert_int_equal(f->m.n_job, 0);
    assert_int_equal(dash_live_asleep(f->live), 1);
    asked = dash_live_new(f->dir, &pid, 1); /* unless asked for by PID */
    dash_live_scan(asked, &f->m);
    assert_int_equal(f->m.n_job, 1);
    assert_string_equal(dash_job_state(f->m.job[0]), "asleep");
    dash_live_free(asked);
}

static void shows_what_is_published(void **state)
{
    struct fixture *f = *state;
    const struct dash_job *job;

    atomic_store(&f->shm->state, MP_GUEST_RECORDING);
    mp_shm_log(f->shm, 1, "something to know");
    run(f, 6);
    look(f);
    job = dash_model_job(&f->m, NULL);
    assert_non_null(job);
    assert_int_equal(job->pid, getpid());
    assert_true(dash_job_is_live(job));
    assert_in_range(job->n_step, 4, 5);
    assert_int_equal(job->counters.n_lapped, 0);
    assert_int_equal(job->experts.n_layer, 3);
    assert_string_equal(dash_kernels_name(&job->kernels, FAKE_FLASH), fake_name[FAKE_FLASH]);
    assert_string_equal(job->log[0].text, "something to know");
    assert_int_equal(job->gauges.power_w.basis, MP_UNKNOWN); /* no gauge is valid: not 0 W */
    if (job->fact[0].label[0] && job->backend[0]) {          /* with jansson */
        assert_true(job->figures.mfu[DASH_OURS].v > 0);
        assert_true(job->figures.hfu.v >= job->figures.mfu[DASH_OURS].v);
        assert_string_equal(job->figures.why_not, "");
    }
    atomic_store(&f->shm->power_mw, 512000);
    atomic_store(&f->shm->gauges_valid, 4);
    atomic_store(&f->shm->state, MP_GUEST_ENDED);
    look(f);
    assert_int_equal((int)job->gauges.power_w.v, 512);
    assert_string_equal(dash_job_state(job), "ended");
}

/* A guest watches bursts: of the steps between there are rates, and the parts of the last that was watched. */
static void steps_between_bursts_have_rates(void **state)
{
    struct fixture *f = *state;
    const struct dash_job *job;
    uint32_t watched;
    double v[8];

    atomic_store(&f->shm->state, MP_GUEST_RECORDING);
    run(f, 4);
    f->fake.untraced = true;
    run(f, 6);
    look(f);
    job = dash_model_job(&f->m, NULL);
    watched = job->last.step;
    assert_in_range(watched, 1, 3);
    assert_true(job->last.window_ns > 0 && job->timeline.valid);
    assert_in_range(job->newest_step, 8, 9);
    assert_int_equal(dash_ring_copy(&job->ring[DASH_M_STEP_NS], v, 5), 5);
    for (int i = 0; i < 5; i++)
        assert_true(v[i] > 1e6 && v[i] < 1e9);
    assert_true(dash_job_value(job, DASH_M_USEFUL_S).v > 0);
    assert_true(job->ring[DASH_M_COVERAGE].n < job->ring[DASH_M_STEP_NS].n);
    if (job->backend[0]) { /* with jansson */
        assert_true(job->figures.mfu[DASH_OURS].v > 0);
        assert_true(job->figures.hfu.v >= job->figures.mfu[DASH_OURS].v);
    }
}

/* A pause in the looking on, longer than the ring holds: the loss is counted, the steps go on. */
static void counts_what_lapped(void **state)
{
    struct fixture *f = *state;
    const struct dash_job *job;
    uint64_t before;

    atomic_store(&f->shm->state, MP_GUEST_RECORDING);
    run(f, 3);
    look(f);
    job = dash_model_job(&f->m, NULL);
    before = job->n_step;
    while (atomic_load(&f->shm->head) < 2 * MP_RING_CAP)
        run(f, 20);
    look(f);
    assert_true(job->counters.n_lapped > 0);
    run(f, 4);
    look(f);
    assert_true(job->n_step > before);
    assert_true(job->last.step + 3 >= f->fake.step);
}

static void scribbles_harm_nobody(void **state)
{
    struct fixture *f = *state;
    unsigned char *bytes = (unsigned char *)&f->shm->state;
    size_t n = offsetof(struct mp_shm, head) - offsetof(struct mp_shm, state);
    uint32_t rng = 9;
    struct dash_cells c;

    atomic_store(&f->shm->state, MP_GUEST_RECORDING);
    run(f, 3);
    look(f);
    assert_int_equal(dash_cells_init(&c, 120, 40), MP_OK);
    for (int round = 0; round < 60; round++) {
        for (int i = 0; i < 20000; i++) {
            rng = rng * 1664525u + 1013904223u;
            bytes[rng % n] = (unsigned char)(rng >> 24);
        }
        for (size_t i = 0; i < 4096; i++) {
            rng = rng * 1664525u + 1013904223u;
            ((unsigned char *)&f->shm->ring[rng % MP_RING_CAP])[rng >> 27] =
                (unsigned char)(rng >> 8);
        }
        run(f, 1);
        look(f);
        f->m.ui.screen = (enum dash_screen)(round % DASH_SCREEN_COUNT);
        dash_frame(&f->m, &c);
        for (size_t i = 0; i < 120 * 40; i++)
            assert_true(c.cell[i].ch == 0 || c.cell[i].ch >= 0x20);
    }
    dash_cells_release(&c);
}

int main(void)
{
    const struct CMUnitTest test[] = {
        cmocka_unit_test_setup_teardown(sleepers_are_not_shown, set_up, tear_down),
        cmocka_unit_test_setup_teardown(shows_what_is_published, set_up, tear_down),
        cmocka_unit_test_setup_teardown(steps_between_bursts_have_rates, set_up, tear_down),
        cmocka_unit_test_setup_teardown(counts_what_lapped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(scribbles_harm_nobody, set_up, tear_down),
    };

    return cmocka_run_group_tests(test, NULL, NULL);
}
