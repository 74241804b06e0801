/* CUPTI switched on and off, refused, held by somebody, and shared with a profiler that the job starts.
 * The tracer keeps its state for the life of a process, so each case runs in a child of its own. */
#include "injector/tracer.h"

#include "injector/activity.h"
#include "injector/count.h"
#include "injector/cuda_api.h"
#include "injector/cupti_api.h"
#include "injector/decode.h"
#include "injector/launch.h"
#include "injector/other.h"
#include "tests/unit/child_fixture.h"
#include "tests/unit/guest_fixture.h"

static struct mock mock;
static unsigned n_seen;
static uint32_t last_corr;

static void see(void *arg, const uint8_t *record)
{
    struct inj_activity a;

    (void)arg;
    CHECK(inj_decode(&a, record));
    n_seen++;
    last_corr = a.corr;
}

/* Records that have come to the guest since the last call. */
static unsigned ours(void)
{
    n_seen = 0;
    inj_tracer_flush();
    inj_tracer_drain(see, NULL);
    return n_seen;
}

static void kernels(uint32_t n)
{
    static uint32_t corr;

    for (uint32_t i = 0; i < n; i++, corr++)
        mock.kernel(corr + 1, "some_kernel", 1000 + corr, 1001 + corr);
}

static bool launch_is_seen(void)
{
    struct launch_params p = {.f = (void *)0x100};
    uint64_t before = inj_launch_count();

    mock.call(CB_cuLaunchKernel, &p, "some_kernel", 1);
    return inj_launch_count() == before + 1;
}

static void wait_for_resume(void)
{
    for (int i = 0; i < 40 && inj_other_poll() != 2; i++)
        usleep(50000);
    CHECK(!inj_other_aside());
}

/* ---- on ------------------------------------------------------------------------------------------------ */

static void start_with(uint32_t version)
{
    struct mp_err err = {0};

    mock.cupti()->version = version;
    CHECK(inj_tracer_start(&err) == MP_OK);
    CHECK(cupti.version == version);
    CHECK(strstr(cupti.path, "mock/libcupti.so.13"));
    CHECK(mock.cupti()->kinds == (1u << ACT_CONCURRENT_KERNEL | 1u << ACT_MEMCPY |
                                  1u << ACT_MEMCPY_P2P | 1u << ACT_MEMSET));
    CHECK(launch_is_seen());
    for (unsigned cbid = 0; cbid < CB_MAX; cbid++)
        CHECK(mock.cupti()->callback_on[cbid] == inj_launch_wants(cbid));
    kernels(5000); /* more than one buffer */
    CHECK(ours() == 5000);
    CHECK(last_corr == 5000);
    CHECK(inj_activity_starved() == 0 && inj_activity_dropped() == 0);
}

static void cupti_12_4(void)
{
    start_with(22);
}

static void cupti_12_8(void)
{
    start_with(26);
}

static void cupti_13_0(void)
{
    start_with(130001);
}

static void cupti_13_1(void)
{
    start_with(130100);
}

static void test_versions(void **state)
{
    (void)state;
    in_child(cupti_12_4);
    in_child(cupti_12_8);
    in_child(cupti_13_0);
    in_child(cupti_13_1);
}

/* An agent that does not come: no buffer is left, CUPTI is told so, each record is counted. */
static void starved(void)
{
    struct mp_err err;
    uint32_t n = INJ_BUFFER_MAX * (INJ_BUFFER_BYTES / 216) + 1000;

    CHECK(inj_tracer_start(&err) == MP_OK);
    kernels(n);
    CHECK(inj_activity_starved() > 0);
    CHECK(ours() + mock.cupti()->dropped + inj_activity_dropped() == n);
    kernels(10);
    CHECK(ours() == 10);
}

static void test_no_buffer_left(void **state)
{
    (void)state;
    in_child(starved);
}

/* ---- refused --------------------------------------------------------------------------------------------- */

static void nothing_was_touched(void)
{
    CHECK(mock.cupti()->kinds == 0);
    CHECK(mock.cupti()->n_register == 0);
    CHECK(!mock.cupti()->subscriber);
}

/* Its buffer callbacks must stay its own: registering ours would take its records away. */
static void held_by_name(void)
{
    struct mp_err err = {0};

    strcpy(mock.cupti()->holder, "Nsight Systems");
    CHECK(inj_tracer_start(&err) == MP_EBUSY);
    CHECK(strstr(err.msg, "Nsight Systems"));
    nothing_was_touched();
}

static void held_by_unknown(void)
{
    struct mp_err err = {0};

    mock.cupti()->version = 26;
    strcpy(mock.cupti()->holder, "somebody");
    CHECK(inj_tracer_start(&err) == MP_EBUSY);
    CHECK(strstr(err.msg, "another profiler"));
    nothing_was_touched();
}

static void no_driver(void)
{
    struct mp_err err = {0};

    mock.cupti()->subscribe_result = 999;
    CHECK(inj_tracer_start(&err) == MP_ENOTSUP);
    CHECK(strstr(err.msg, "CUPTI_ERROR_UNKNOWN (999)"));
    nothing_was_touched();
}

static void no_kernels(void)
{
    struct mp_err err = {0};

    mock.cupti()->enable_result = 35;
    CHECK(inj_tracer_start(&err) == MP_ENOTSUP);
    CHECK(strstr(err.msg, "refuses to record kernels"));
    CHECK(!mock.cupti()->subscriber); /* others may have it */
    CHECK(!launch_is_seen());
}

static void no_buffers(void)
{
    struct mp_err err = {0};

    mock.cupti()->register_result = 1;
    CHECK(inj_tracer_start(&err) == MP_ENOTSUP);
    CHECK(strstr(err.msg, "buffer callbacks"));
    CHECK(!mock.cupti()->subscriber && mock.cupti()->kinds == 0);
    CHECK(mock.kineto_start() == 1); /* goes to CUPTI itself: nothing is redirected */
}

static void test_refused(void **state)
{
    (void)state;
    in_child(held_by_name);
    in_child(held_by_unknown);
    in_child(no_driver);
    in_child(no_kernels);
    in_child(no_buffers);
}

/* ---- beside another profiler -------------------------------------------------------------------------------- */

/* It gets its records, all of them and only in its time, and we go on after it; again and again. */
static void kineto_twice(void)
{
    struct mp_err err;
    struct mock_kineto_seen seen;
    static const int64_t index[1];

    CHECK(inj_tracer_start(&err) == MP_OK);
    for (int session = 0; session < 2; session++) {
        kernels(100);
        CHECK(mock.kineto_start() == 0);
        CHECK(inj_other_aside());
        CHECK(inj_other_poll() == 1);
        inj_count_layer(0, 4);
        CHECK(inj_count_route(0, index, 8, 1, true, NULL) ==
              MP_EBUSY); /* it would see our kernels */
        kernels(1000);
        CHECK(ours() == 100);
        seen = mock.kineto_stop();
        CHECK(seen.kernels == 1000 && seen.others == 0 && seen.unknown_buffers == 0 &&
              seen.refused == 0);
        CHECK(seen.out_of_window == 0); /* its clock is set while nothing of ours is on */
        kernels(7);                     /* in between: nobody's, and so it is said */
        wait_for_resume();
        kernels(50);
        CHECK(ours() == 50);
        CHECK(launch_is_seen());
    }
}

/* What it switches off after it has ended, or that it never switched on, is not taken from us. */
static void kineto_disables_again(void)
{
    struct mp_err err;

    CHECK(inj_tracer_start(&err) == MP_OK);
    CHECK(mock.kineto_start() == 0);
    mock.kineto_stop();
    wait_for_resume();
    CHECK(mock.kineto_disable(ACT_CONCURRENT_KERNEL) == 0);
    kernels(20);
    CHECK(ours() == 20);
    CHECK(!inj_other_aside());
}

/* CUPTI may keep a buffer of ours when asked to flush, and put the other's records into it. */
static void buffer_in_flight(void)
{
    struct mp_err err;
    struct mock_kineto_seen seen;

    CHECK(inj_tracer_start(&err) == MP_OK);
    kernels(1);
    mock.cupti()->keeps_on_flush = true;
    CHECK(mock.kineto_start() == 0);
    kernels(500);
    mock.cupti()->keeps_on_flush = false;
    seen = mock.kineto_stop();
    CHECK(seen.kernels == 501 && seen.unknown_buffers == 0);
    CHECK(ours() == 0);
    wait_for_resume();
    kernels(3);
    CHECK(ours() == 3);
}

/* It works on what the CPU did for as long as it likes before it fetches what the GPU did. */
static void kineto_fetches_late(void)
{
    struct mp_err err;
    uint64_t before_ns = inj_now_ns();

    CHECK(inj_tracer_start(&err) == MP_OK);
    CHECK(mock.kineto_start() == 0);
    CHECK(inj_other_poll() == 1);
    kernels(300);
    mock.kineto_disable(ACT_CONCURRENT_KERNEL);
    mock.kineto_disable(ACT_MEMCPY);
    usleep(700000);
    CHECK(inj_other_poll() == 0 && inj_other_aside());
    CHECK(mock.kineto_stop().kernels == 300);
    wait_for_resume();
    CHECK(mock.cupti()->clock &&
          mock.cupti()->clock() > before_ns); /* stamps are in our clock again */
}

/* It begins when nothing of ours runs yet, and before our start: CUPTI is its own then. */
static void kineto_first(void)
{
    struct mp_err err = {0};

    CHECK(mock.kineto_start() == 0);
    strcpy(mock.cupti()->holder, "Kineto");
    CHECK(inj_tracer_start(&err) == MP_EBUSY);
    CHECK(strstr(err.msg, "Kineto"));
    kernels(30);
    CHECK(mock.kineto_stop().kernels == 30);
}

static void test_beside_kineto(void **state)
{
    (void)state;
    in_child(kineto_twice);
    in_child(kineto_disables_again);
    in_child(buffer_in_flight);
    in_child(kineto_fetches_late);
    in_child(kineto_first);
}

/* ---- leaving and coming back --------------------------------------------------------------------------------- */

static void leave_at_boundary(void)
{
    struct mp_err err;

    inj.opts.leave = true;
    CHECK(inj_tracer_arm(false, &err) == MP_OK);
    ours();
    inj_tracer_offer();
    inj_tracer_leave(NULL);
}

static void come_back(void)
{
    struct mp_err err = {0};

    CHECK(inj_tracer_arm(true, &err) == MP_OK);
    CHECK(!inj_tracer_has_left());
    kernels(3000);
    CHECK(ours() == 3000);
    CHECK(launch_is_seen());
}

/* Nothing is left behind, not even when CUPTI keeps a buffer of ours each time; then all is as before. */
static void again_and_again(void)
{
    struct mp_err err;

    CHECK(inj_tracer_start(&err) == MP_OK);
    for (unsigned i = 1; i <= 2 * INJ_BUFFER_MAX; i++) {
        kernels(10);
        mock.cupti()->keeps_on_flush = true;
        leave_at_boundary();
        mock.cupti()->keeps_on_flush = false;
        CHECK(inj_tracer_has_left() && mock.cupti()->n_finalize == i);
        CHECK(!mock.cupti()->subscriber && !mock.cupti()->kinds && !launch_is_seen());
        CHECK(inj_tracer_move_ns() > 0);
        come_back();
    }
    CHECK(inj_activity_starved() == 0);
}

/* An offer that was not taken holds nothing up; a stream under capture must not be waited for. */
static void not_taken(void)
{
    struct mp_err err;

    CHECK(inj_tracer_start(&err) == MP_OK);
    inj_tracer_leave(NULL);
    mock.cuda()->capturing = 1;
    leave_at_boundary();
    mock.cuda()->capturing = 0;
    CHECK(mock.cupti()->n_finalize == 0);
    come_back();
    inj_tracer_offer(); /* not while it records */
    inj_tracer_leave(NULL);
    CHECK(mock.cupti()->n_finalize == 0);
}

static void somebody_took_it(void)
{
    struct mp_err err = {0};

    CHECK(inj_tracer_start(&err) == MP_OK);
    leave_at_boundary();
    strcpy(mock.cupti()->holder, "Nsight Compute");
    CHECK(inj_tracer_arm(true, &err) == MP_EBUSY && strstr(err.msg, "Nsight Compute"));
    inj_tracer_flush();
    CHECK(mock.cupti()->kinds == 0);
}

/* CUPTI 12.4 and graphs: finalizing has crashed there. */
static void old_cupti(void)
{
    struct mp_err err;

    mock.cupti()->version = 22;
    CHECK(inj_tracer_start(&err) == MP_OK);
    leave_at_boundary();
    CHECK(mock.cupti()->n_finalize == 0);
    come_back();
}

static void graphs(void)
{
    struct mp_err err;

    CHECK(inj_tracer_start(&err) == MP_OK);
    mock.call(CB_cuGraphLaunch, NULL, NULL, 1);
    leave_at_boundary();
    CHECK(mock.cupti()->n_finalize == 0);
}

/* Another profiler finds CUPTI as it would without us; its trace may hold names of CUPTI, which stays then. */
static void kineto_between(void)
{
    struct mp_err err;
    struct mock_kineto_seen seen;

    CHECK(inj_tracer_start(&err) == MP_OK);
    leave_at_boundary();
    CHECK(mock.kineto_start() == 0);
    kernels(400);
    seen = mock.kineto_stop();
    CHECK(seen.kernels == 400 && seen.unknown_buffers == 0 && seen.out_of_window == 0);
    CHECK(inj_other_poll() == 1);
    wait_for_resume();
    come_back();
    leave_at_boundary();
    CHECK(mock.cupti()->n_finalize == 1);
    come_back();
}

static void test_leaving(void **state)
{
    (void)state;
    in_child(again_and_again);
    in_child(not_taken);
    in_child(somebody_took_it);
    in_child(old_cupti);
    in_child(graphs);
    in_child(kineto_between);
}

/* ---- the driver ------------------------------------------------------------------------------------------------- */

/* Launches through the driver stand-in: one launch seen, one record delivered, each. */
static void through_the_driver(void)
{
    struct mp_err err;
    int seen = 0;

    CHECK(inj_tracer_start(&err) == MP_OK);
    for (int i = 0; i < 4000; i++)
        CHECK(cuda.launch((void *)0x1000, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL) == 0);
    seen = (int)ours();
    CHECK(seen == 4000 && inj_launch_count() == 4000);
}

static void test_exact_counts(void **state)
{
    (void)state;
    in_child(through_the_driver);
}

static int up(void **state)
{
    mock_load_torch(&mock);
    mock_load_cupti(&mock);
    mock_load_cuda(&mock);
    return guest_up(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions),     cmocka_unit_test(test_no_buffer_left),
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_beside_kineto),
        cmocka_unit_test(test_exact_counts), cmocka_unit_test(test_leaving),
    };

    return cmocka_run_group_tests(tests, up, guest_down);
}
