/* Which steps are traced: bursts, a tool's wish, and what belongs to a traced step. */
#include "injector/cupti_api.h"
#include "injector/sample.h"
#include "injector/tracer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* A clock of its own, so that no other work on the machine shows: readings are a microsecond apart. */
static uint64_t clock_ns = 1000000000;

int clock_gettime(clockid_t id, struct timespec *ts)
{
    (void)id;
    clock_ns += 1000;
    ts->tv_sec = (time_t)(clock_ns / 1000000000);
    ts->tv_nsec = (long)(clock_ns % 1000000000);
    return 0;
}

static int nothing_callback(uint32_t on, void *sub, int domain, uint32_t cbid)
{
    (void)on;
    (void)sub;
    (void)domain;
    (void)cbid;
    return 0;
}

static int nothing_kind(int kind)
{
    (void)kind;
    return 0;
}

static int nothing_flush(uint32_t flags)
{
    (void)flags;
    return 0;
}

static int steps(char *out, int n)
{
    int traced = 0;

    for (int i = 0; i < n; i++) {
        out[i] = inj_sample_boundary() ? 'T' : '.';
        traced += out[i] == 'T';
        inj_sample_round(true);
    }
    out[n] = '\0';
    return traced;
}

/* The first steps are all traced, the running one and those after it; then bursts of the length asked for. */
static void test_bursts(void **state)
{
    char seen[64];

    (void)state;
    inj_sample_init(3, 2, 4);
    inj_sample_start();
    steps(
        seen,
        20); /* one more without: CUPTI is armed by the agent after the boundary that asks for it */
    assert_string_equal(seen, "TTTT.....TT.....TT..");
}

/* By time: traced steps are few, and fewer when they cost more. */
static void test_paced(void **state)
{
    char seen[401] = "";
    int traced;

    (void)state;
    inj_sample_start();
    for (int i = 0; i < 400; i++) {
        clock_ns += 1000000;
        steps(seen + i, 1);
    }
    assert_memory_equal(seen, "TTTTTTTTTTT......", 17);
    assert_non_null(strstr(seen, ".TTTT."));
    traced = 0;
    for (int i = 11; i < 400; i++)
        traced += seen[i] == 'T';
    assert_in_range(traced, 4, 389 / 12);
}

static void test_modes(void **state)
{
    char seen[64];

    (void)state;
    inj_sample_init(3, 2, 4);
    inj_sample_start();
    inj_sample_mode(INJ_SAMPLE_NEVER);
    assert_false(inj_sample_counts());
    steps(seen, 5);
    assert_string_equal(seen, "T....");
    inj_sample_mode(INJ_SAMPLE_ALWAYS);
    assert_true(inj_sample_counts());
    steps(seen, 5);
    assert_string_equal(seen, "..TTT"); /* CUPTI is armed after the first boundary */
    inj_sample_mode(INJ_SAMPLE_AUTO);
}

static void test_covers(void **state)
{
    char seen[64];
    uint64_t before = inj_now_ns();

    (void)state;
    inj_sample_mode(INJ_SAMPLE_AUTO);
    inj_sample_init(1, 1, 50);
    inj_sample_start();
    steps(seen, 4);
    assert_false(inj_sample_tracing());
    assert_true(inj_sample_covers(before));
    assert_false(inj_sample_covers(inj_now_ns()));
}

/* What ran while CUPTI was armed for a burst that has not begun may be delivered when that burst is over. */
static void test_delivered_late(void **state)
{
    char seen[64];
    uint64_t before;

    (void)state;
    inj_sample_mode(INJ_SAMPLE_AUTO);
    inj_sample_init(1, 1, 3);
    inj_sample_start();
    steps(seen, 5);
    before = inj_now_ns();
    steps(seen, 4);
    assert_non_null(strchr(seen, 'T'));
    assert_false(inj_sample_tracing());
    assert_false(inj_sample_covers(before));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paced), /* first: the default */
        cmocka_unit_test(test_bursts), cmocka_unit_test(test_modes),
        cmocka_unit_test(test_covers), cmocka_unit_test(test_delivered_late),
    };

    cupti.enable_callback = nothing_callback;
    cupti.enable = cupti.disable = nothing_kind;
    cupti.flush_all = nothing_flush;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
