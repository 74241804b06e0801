/* From scope and kernel class to a phase: the experts block, and what turns round in the backward. */
#include "profiler/core/attrib.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct {
    enum mp_phase scope;
    enum mp_kclass kclass;
    enum mp_pass pass;
    enum mp_phase want;
} row[] = {
    {MP_PHASE_EXPERT, MP_KC_GEMM, MP_PASS_FORWARD, MP_PHASE_EXPERT},
    {MP_PHASE_EXPERT, MP_KC_GROUPED, MP_PASS_BACKWARD, MP_PHASE_EXPERT},
    {MP_PHASE_EXPERT, MP_KC_ELEMENTWISE, MP_PASS_BACKWARD, MP_PHASE_EXPERT},
    {MP_PHASE_EXPERT, MP_KC_UNKNOWN, MP_PASS_FORWARD, MP_PHASE_EXPERT},
    {MP_PHASE_EXPERT, MP_KC_GATHER, MP_PASS_FORWARD, MP_PHASE_DISPATCH},
    {MP_PHASE_EXPERT, MP_KC_GATHER, MP_PASS_RECOMPUTE, MP_PHASE_DISPATCH},
    {MP_PHASE_EXPERT, MP_KC_GATHER, MP_PASS_BACKWARD, MP_PHASE_COMBINE},
    {MP_PHASE_EXPERT, MP_KC_SCATTER, MP_PASS_FORWARD, MP_PHASE_COMBINE},
    {MP_PHASE_EXPERT, MP_KC_SCATTER, MP_PASS_BACKWARD, MP_PHASE_DISPATCH},
    {MP_PHASE_EXPERT, MP_KC_COMM, MP_PASS_FORWARD, MP_PHASE_COMM},
    {MP_PHASE_ROUTER, MP_KC_GATHER, MP_PASS_FORWARD, MP_PHASE_ROUTER},
    {MP_PHASE_ATTENTION, MP_KC_GEMM, MP_PASS_BACKWARD, MP_PHASE_ATTENTION},
    {MP_PHASE_OTHER, MP_KC_ATTENTION, MP_PASS_BACKWARD, MP_PHASE_ATTENTION},
    {MP_PHASE_OTHER, MP_KC_FOREACH, MP_PASS_FORWARD, MP_PHASE_OPTIMIZER},
    {MP_PHASE_OTHER, MP_KC_GEMM, MP_PASS_FORWARD, MP_PHASE_OTHER},
    {MP_PHASE_GRADIENT, MP_KC_FOREACH, MP_PASS_FORWARD, MP_PHASE_GRADIENT},
};

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < countof(row); i++)
        if (mp_attrib_phase(row[i].scope, row[i].kclass, row[i].pass) != row[i].want)
            fail_msg("row %zu", i);
}

/* Whatever comes in, a phase comes out, and communication is always communication. */
static void test_closed(void **state)
{
    (void)state;
    for (int s = 0; s < MP_PHASE_COUNT; s++)
        for (int k = 0; k < MP_KC_COUNT; k++)
            for (int p = 0; p < MP_PASS_COUNT; p++) {
                int phase =
                    (int)mp_attrib_phase((enum mp_phase)s, (enum mp_kclass)k, (enum mp_pass)p);

                assert_in_range(phase, 0, MP_PHASE_COUNT - 1);
                assert_true(k != MP_KC_COMM || phase == MP_PHASE_COMM);
            }
}

/* Weights aside: what follows what in a layer that runs as one region. */
static void test_region(void **state)
{
    static const struct {
        enum mp_phase last;
        enum mp_kclass kclass;
        enum mp_phase want;
    } after[] = {
        {MP_PHASE_OTHER, MP_KC_UNKNOWN, MP_PHASE_OTHER},
        {MP_PHASE_OTHER, MP_KC_GROUPED, MP_PHASE_EXPERT},
        {MP_PHASE_ROUTER, MP_KC_GROUPED, MP_PHASE_EXPERT},
        {MP_PHASE_NORM, MP_KC_ATTENTION, MP_PHASE_ATTENTION},
        {MP_PHASE_NORM, MP_KC_GEMM, MP_PHASE_ATTENTION},
        {MP_PHASE_NORM, MP_KC_ELEMENTWISE, MP_PHASE_NORM},
        {MP_PHASE_ATTENTION, MP_KC_SOFTMAX, MP_PHASE_ATTENTION},
        {MP_PHASE_ROUTER, MP_KC_INDEXING, MP_PHASE_ROUTER},
        {MP_PHASE_ROUTER, MP_KC_GATHER, MP_PHASE_DISPATCH},
        {MP_PHASE_EXPERT, MP_KC_GATHER, MP_PHASE_EXPERT}, /* mp_attrib_phase tells those apart */
        {MP_PHASE_EXPERT, MP_KC_SOFTMAX, MP_PHASE_ROUTER},
        {MP_PHASE_LOSS, MP_KC_GEMM,
         MP_PHASE_LM_HEAD}, /* of a tied head, or of its weight's gradient */
        {MP_PHASE_LM_HEAD, MP_KC_GEMM, MP_PHASE_LM_HEAD},
        {MP_PHASE_LM_HEAD, MP_KC_UNKNOWN, MP_PHASE_LOSS},
    };

    (void)state;
    for (size_t i = 0; i < countof(after); i++)
        if (mp_attrib_region(after[i].last, after[i].kclass) != after[i].want)
            fail_msg("row %zu", i);
}

static void test_after(void **state)
{
    (void)state;
    assert_int_equal(mp_attrib_after(MP_PHASE_EXPERT, 3, 0), MP_PHASE_COMBINE);
    assert_int_equal(mp_attrib_after(MP_PHASE_LM_HEAD, 1, -1), MP_PHASE_LOSS);
    assert_int_equal(mp_attrib_after(MP_PHASE_NORM, 1, -1), MP_PHASE_LOSS);
    assert_int_equal(mp_attrib_after(MP_PHASE_NORM, 2, 0), MP_PHASE_NORM);
    assert_int_equal(mp_attrib_after(MP_PHASE_ATTENTION, 2, 0), MP_PHASE_ATTENTION);
}

static void test_before(void **state)
{
    (void)state;
    assert_int_equal(mp_attrib_before(MP_PHASE_OTHER, 1, 0), MP_PHASE_ATTENTION);
    assert_int_equal(mp_attrib_before(MP_PHASE_OTHER, 1, -1), MP_PHASE_OTHER);
    assert_int_equal(mp_attrib_before(MP_PHASE_OTHER, 2, 0), MP_PHASE_OTHER);
    assert_int_equal(mp_attrib_before(MP_PHASE_EMBED, 0, -1), MP_PHASE_EMBED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_closed),
                                       cmocka_unit_test(test_before), cmocka_unit_test(test_after),
                                       cmocka_unit_test(test_region)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
