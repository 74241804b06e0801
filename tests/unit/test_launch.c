/* The launch callback: from a driver call to a note that says where the work belongs. Scopes, the argument
 * scan, the filter, threads; test_launch_backward.c has the rest. */
#include "tests/unit/launch_fixture.h"

#include "injector/sample.h"

#include <errno.h>
#include <pthread.h>

/* ---- before torch is believed ------------------------------------------------------------------- */

static void test_no_torch(void **state)
{
    (void)state;
    assert_false(inj_torch_trusted());
    assert_int_equal(inj_torch_init(), MP_ENOTSUP);
    expect(launch(add), -1, -1, MP_PHASE_OTHER, MP_PASS_FORWARD);
    inj_scope_enter(1, 3, MP_PHASE_ATTENTION);
    expect(launch(add), 3, -1, MP_PHASE_ATTENTION, MP_PASS_FORWARD);
    inj_scope_leave(1);
}

/* ---- forward --------------------------------------------------------------------------------------- */

static void test_forward_scope(void **state)
{
    struct inj_note n;

    (void)state;
    inj_micro_begin();
    n = launch(add);
    expect(n, -1, -1, MP_PHASE_EMBED, MP_PASS_FORWARD);
    assert_int_equal(n.counts, 1);
    assert_int_equal(n.kclass, MP_KC_ELEMENTWISE);
    assert_int_equal(n.corr, next_corr - 1);
    in_layer(3, MP_PHASE_ATTENTION);
    expect(launch(add), 3, -1, MP_PHASE_ATTENTION, MP_PASS_FORWARD);
    inj_scope_leave(2);
    expect(launch(add), 3, -1, MP_PHASE_ATTENTION, MP_PASS_FORWARD); /* the residual add */
    inj_scope_enter(2, 3, MP_PHASE_EXPERT);
    inj_scope_leave(2);
    expect(launch(add), 3, -1, MP_PHASE_COMBINE, MP_PASS_FORWARD);
    inj_scope_leave(1);
    inj_micro_end();
    expect(launch(add), -1, -1, MP_PHASE_LOSS, MP_PASS_FORWARD);
}

/* What a layer makes before its first part, a mask say, is for its attention; a weight tells more. */
static void test_layer_begins(void **state)
{
    (void)state;
    inj_micro_begin();
    inj_scope_enter(1, 3, MP_PHASE_OTHER);
    expect(launch(add), 3, -1, MP_PHASE_ATTENTION, MP_PASS_FORWARD);
    expect(launch_word(gemm, GATE), 3, -1, MP_PHASE_ROUTER, MP_PASS_FORWARD);
    inj_scope_leave(1);
    inj_scope_enter(1, -1, MP_PHASE_OTHER);
    expect(launch(add), -1, -1, MP_PHASE_OTHER, MP_PASS_FORWARD);
    inj_scope_leave(1);
    inj_micro_end();
}

/* Scopes that an exception never left end with the next one at or above their depth. */
static void test_scope_never_left(void **state)
{
    (void)state;
    inj_micro_begin();
    in_layer(3, MP_PHASE_ATTENTION);
    inj_scope_enter(1, 4, MP_PHASE_NORM);
    expect(launch(add), 4, -1, MP_PHASE_NORM, MP_PASS_FORWARD);
    inj_scope_leave(2); /* not open */
    inj_scope_leave(-1);
    inj_scope_enter(INJ_DEPTH_MAX, 9, MP_PHASE_NORM);
    inj_scope_enter(-1, 9, MP_PHASE_NORM);
    expect(launch(add), 4, -1, MP_PHASE_NORM, MP_PASS_FORWARD);
    inj_scope_enter(5, 6, MP_PHASE_ROUTER); /* those between were not hooked */
    expect(launch(add), 6, -1, MP_PHASE_ROUTER, MP_PASS_FORWARD);
    inj_micro_end();
}

/* ---- arguments -------------------------------------------------------------------------------------- */

static void test_kernel_params(void **state)
{
    struct inj_note n;

    (void)state;
    inj_micro_begin();
    in_layer(3, MP_PHASE_EXPERT);
    n = launch_word(gemm, STACK + 6 * SLICE);
    expect(n, 3, 6, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    assert_true(n.flags & MP_FLAG_POINTER);
    n = launch_word(add, STACK + 2 * SLICE); /* an elementwise kernel takes no weight: carried on */
    expect(n, 3, 6, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    assert_false(n.flags & MP_FLAG_POINTER);
    n = launch_word(grouped, STACK); /* all experts at once: layer proven, no expert */
    expect(n, 3, -1, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    assert_true(n.flags & MP_FLAG_POINTER);
    inj_micro_end();
}

static void test_extra(void **state)
{
    uint64_t buffer[215] = {0};
    size_t bytes = sizeof buffer;
    void *extra[] = {(void *)EXTRA_SIZE, &bytes, (void *)EXTRA_POINTER, buffer, (void *)EXTRA_END};
    struct launch_ex_params p = {.f = (void *)(uintptr_t)gemm, .extra = extra};

    (void)state;
    inj_micro_begin();
    in_layer(3, MP_PHASE_EXPERT);
    buffer[102] = STACK + 3 * SLICE; /* as seen in cuBLAS: offset 816 of 1720 bytes */
    call(CB_cuLaunchKernelEx, &p, gemm);
    expect(guest_note(), 3, 3, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    extra[0] = (void *)EXTRA_END;
    call(CB_cuLaunchKernelEx, &p, gemm);
    expect(guest_note(), 3, 3, MP_PHASE_EXPERT,
           MP_PASS_FORWARD); /* no arguments: expert 3 goes on */
    inj_micro_end();
}

/* Words that were left over from another launch name another layer: what follows them still counts. */
static void test_stale_word(void **state)
{
    uint64_t block[16] = {ONE, HEAD, STACK + 7 * SLICE + 8, STACK + 2 * SLICE};
    void *kernel_params[] = {block};
    struct launch_params p = {.f = (void *)(uintptr_t)gemm, .kernel_params = kernel_params};

    (void)state;
    inj_micro_begin();
    in_layer(3, MP_PHASE_EXPERT);
    call(CB_cuLaunchKernel, &p, gemm);
    expect(guest_note(), 3, 2, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    block[3] = 0;
    inj_scope_enter(2, 3, MP_PHASE_ATTENTION);
    call(CB_cuLaunchKernel, &p, gemm);
    expect(guest_note(), 3, -1, MP_PHASE_ATTENTION, MP_PASS_FORWARD);
    inj_micro_end();
}

static void test_weight_outside_scopes(void **state)
{
    (void)state;
    inj_micro_end();
    expect(launch_word(gemm, ONE), 4, 5, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    expect(launch_word(gemm, HEAD), -1, -1, MP_PHASE_LM_HEAD, MP_PASS_FORWARD);
    expect(launch_word(triton, GATE), 3, -1, MP_PHASE_ROUTER, MP_PASS_FORWARD);
}

/* Layers that are no modules, or a model compiled as a whole: weights say which layer runs, and which phase. */
static void test_layer_without_scope(void **state)
{
    (void)state;
    inj_micro_begin();
    expect(launch(triton), -1, -1, MP_PHASE_EMBED, MP_PASS_FORWARD);
    expect(launch_word(gemm, GATE), 3, -1, MP_PHASE_ROUTER, MP_PASS_FORWARD);
    expect(launch(gather), 3, -1, MP_PHASE_DISPATCH, MP_PASS_FORWARD);
    expect(launch_word(grouped, STACK), 3, -1, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    expect(launch(triton), 3, -1, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    expect(launch_word(gemm, ONE), 4, 5, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    expect(launch(triton), 4, -1, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    expect(launch_word(gemm, HEAD), -1, -1, MP_PHASE_LM_HEAD, MP_PASS_FORWARD);
    expect(launch(triton), -1, -1, MP_PHASE_LOSS, MP_PASS_FORWARD);
    inj_scope_enter(1, -1, MP_PHASE_NORM);
    inj_scope_leave(1);
    expect(launch(triton), -1, -1, MP_PHASE_LOSS, MP_PASS_FORWARD);
    inj_micro_end();
}

/* In a part the part says, and a layer's weight in a part that is in no layer is a word left over. */
static void test_part_and_weight(void **state)
{
    (void)state;
    inj_micro_begin();
    in_layer(3, MP_PHASE_ROUTER);
    expect(launch_word(grouped, STACK), 3, -1, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    inj_scope_enter(2, 3, MP_PHASE_ATTENTION);
    expect(launch_word(triton, GATE), 3, -1, MP_PHASE_ATTENTION, MP_PASS_FORWARD);
    inj_scope_enter(1, -1, MP_PHASE_LM_HEAD);
    expect(launch_word(gemm, STACK), -1, -1, MP_PHASE_LM_HEAD, MP_PASS_FORWARD);
    inj_micro_end();
}

/* A block whose loop runs inline, without a module of its own: the weight turns its scope into expert. */
static void test_inline_loop(void **state)
{
    (void)state;
    inj_micro_begin();
    in_layer(3, MP_PHASE_ROUTER);
    expect(launch_word(gemm, STACK + 4 * SLICE), 3, 4, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    inj_micro_end();
}

static void test_cooperative_has_no_extra(void **state)
{
    struct { /* the cooperative launch's block ends before `extra` */
        struct launch_params p;
    } block = {.p = {.f = (void *)(uintptr_t)gemm, .extra = (void **)8}};

    (void)state;
    call(CB_cuLaunchCooperativeKernel, &block.p, gemm);
    assert_int_equal(guest_note().counts, 1);
}

static void test_ranges_replaced(void **state)
{
    const struct mp_range moved = {.base = 0x5000,
                                   .bytes = 8 * 16,
                                   .n_slice = 8,
                                   .layer = 3,
                                   .expert = -1,
                                   .phase = MP_PHASE_EXPERT};

    (void)state;
    inj_micro_begin();
    in_layer(3, MP_PHASE_EXPERT);
    inj_launch_set_ranges(mp_ranges_new(&moved, 1));
    expect(launch_word(gemm, 0x5000 + 16), 3, 1, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    inj_scope_enter(2, 3, MP_PHASE_EXPERT);
    expect(launch_word(gemm, STACK + SLICE), 3, -1, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    inj_launch_set_ranges(mp_ranges_new(NULL, 0));
    expect(launch_word(gemm, 0x5000), 3, -1, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    inj_launch_set_ranges(mp_ranges_new(weights, countof(weights)));
    inj_micro_end();
}

/* ---- between steps ---------------------------------------------------------------------------------------- */

static void test_optimizer_and_stages(void **state)
{
    union mp_record mark[2];
    uint32_t step = atomic_load(&inj.step);

    (void)state;
    inj_micro_begin();
    inj_micro_end();
    inj_optimizer_begin();
    expect(launch(adam), -1, -1, MP_PHASE_OPTIMIZER, MP_PASS_UPDATE);
    expect(launch_word(gemm, STACK), -1, -1, MP_PHASE_OPTIMIZER,
           MP_PASS_UPDATE); /* parameters everywhere */
    inj_optimizer_end();
    assert_int_equal(launch(add).step, step);
    inj_step_end(false);
    assert_int_equal(guest_outbox(mark, 2), 1);
    assert_int_equal(mark[0].head.kind, MP_STEP);
    assert_int_equal(mark[0].mark.step, step);
    expect(launch(add), -1, -1, MP_PHASE_OTHER, MP_PASS_FORWARD);
    assert_int_equal(launch(add).step, step + 1);
    inj_step_end(false);
    assert_int_equal(guest_outbox(mark, 2), 1);
    assert_int_equal(mark[0].mark.n_micro, 0);
}

static void test_own_launches(void **state)
{
    struct inj_note n;
    uint64_t before = inj_launch_count();

    (void)state;
    inj_thread_self()->own = true;
    n = launch_word(gemm, STACK);
    inj_thread_self()->own = false;
    expect(n, -1, -1, MP_PHASE_OTHER, MP_PASS_FORWARD);
    assert_true(n.flags & MP_FLAG_OWN);
    assert_int_equal(inj_launch_count(), before);
}

/* ---- the filter ----------------------------------------------------------------------------------------------- */

static void test_copies_and_graphs(void **state)
{
    struct inj_note n;

    (void)state;
    inj_micro_begin();
    in_layer(3, MP_PHASE_EXPERT);
    call(CB_cuMemcpyDtoDAsync_v2, NULL, NULL);
    n = guest_note();
    expect(n, 3, -1, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    assert_int_equal(n.counts, 0);
    call(CB_cuGraphLaunch, NULL, NULL);
    assert_int_equal(guest_note().counts, 0);
    inj_micro_end();
}

static void test_wanted_calls_and_no_others(void **state)
{
    union mp_record r[2];
    unsigned n = 0;

    (void)state;
    for (uint32_t cbid = 0; cbid < CB_MAX; cbid++) {
        struct launch_params p = {.f = (void *)(uintptr_t)add};
        struct launch_ex_params ex = {.f = (void *)(uintptr_t)add};
        bool is_ex = cbid == CB_cuLaunchKernelEx || cbid == CB_cuLaunchKernelEx_ptsz;

        call(cbid, is_ex ? (void *)&ex : &p, add);
        assert_int_equal(guest_outbox(r, 2), inj_launch_wants(cbid));
        n += inj_launch_wants(cbid);
    }
    assert_int_equal(n, 32);
}

static void test_filtered(void **state)
{
    struct launch_params p = {.f = (void *)(uintptr_t)add};
    struct cupti_callback info = {.params = &p, .symbol_name = add, .correlation = 1};
    union mp_record r;

    (void)state;
    inj_launch_callback(NULL, 2, CB_cuLaunchKernel, &info);
    inj_launch_callback(NULL, DOMAIN_DRIVER, 1, &info);
    inj_launch_callback(NULL, DOMAIN_DRIVER, CB_MAX, &info);
    inj_launch_callback(NULL, DOMAIN_DRIVER, UINT32_MAX, &info);
    atomic_store(&inj.life, INJ_DEAD);
    inj_launch_callback(NULL, DOMAIN_DRIVER, CB_cuLaunchKernel, &info);
    atomic_store(&inj.life, INJ_ALIVE);
    atomic_store(&inj_tracing, true);
    assert_int_equal(guest_outbox(&r, 1), 0);
}

static void test_errno_is_kept(void **state)
{
    (void)state;
    errno = ENOTTY;
    launch(add);
    assert_int_equal(errno, ENOTTY);
}

/* A handle without a name, and one that got another kernel after its module was unloaded. */
static void test_odd_handles(void **state)
{
    struct launch_params p = {.f = (void *)0x7000};

    (void)state;
    call(CB_cuLaunchKernel, &p, NULL);
    assert_int_equal(guest_note().kclass, MP_KC_UNKNOWN);
    call(CB_cuLaunchKernel, &p, gemm);
    assert_int_equal(guest_note().kclass, MP_KC_GEMM);
    call(CB_cuLaunchKernel, &p, NULL);
    guest_note();
    p.f = (void *)0x7010;
    call(CB_cuLaunchKernel, &p, gemm);
    guest_note();
    call(CB_cuLaunchKernel, &p, add);
    assert_int_equal(guest_note().kclass, MP_KC_ELEMENTWISE);
}

/* Parameters are asked for once a kernel; more kernels than the table holds work all the same. */
static void test_many_kernels(void **state)
{
    unsigned before;

    (void)state;
    launch(gemm);
    before = mock.cuda()->n_query_param;
    launch(gemm);
    assert_int_equal(mock.cuda()->n_query_param, before);
    for (uintptr_t h = 1; h < 6000; h++) {
        struct launch_params p = {.f = (void *)(h << 8)};

        call(CB_cuLaunchKernel, &p, gemm);
        assert_int_equal(guest_note().kclass, MP_KC_GEMM);
    }
}

static void test_full_outbox_is_counted(void **state)
{
    struct launch_params p = {.f = (void *)(uintptr_t)add};
    static union mp_record r[1024];
    uint64_t lost = inj_thread_lost();

    (void)state;
    for (unsigned i = 0; i < INJ_OUTBOX_CAP + 10; i++)
        call(CB_cuLaunchKernel, &p, add);
    assert_int_equal(inj_thread_lost() - lost, 10);
    while (guest_outbox(r, 1024))
        continue;
}

/* ---- threads ------------------------------------------------------------------------------------------------------ */

static void *one_launch(void *arg)
{
    struct launch_params p = {.f = (void *)(uintptr_t)add};

    (void)arg;
    call(CB_cuLaunchKernel, &p, add);
    assert_int_equal(inj_thread_self() ? inj_thread_self()->depth : 0, 0);
    inj_scope_enter(0, 1, MP_PHASE_NORM);
    return NULL;
}

/* A job that makes new threads all the time: the slots of those that ended are used again, and nothing
 * that the old one was sticks to the new one. */
static void test_threads_come_and_go(void **state)
{
    uint64_t lost = inj_thread_lost();
    struct inj_thread *t;

    (void)state;
    for (size_t i = 0; i < 5 * INJ_THREAD_MAX; i++) {
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, one_launch, NULL), 0);
        pthread_join(thread, NULL);
    }
    assert_int_equal(inj_thread_lost(), lost);
    for (unsigned i = 0; (t = inj_thread_at(i)); i++) {
        static union mp_record r[64];

        while (t != inj_thread_self() && inj_thread_take(t, r, 64))
            continue;
    }
}

static pthread_barrier_t all_here;

static void *one_launch_among_many(void *arg)
{
    one_launch(arg);
    pthread_barrier_wait(&all_here);
    return NULL;
}

/* Threads beyond the pool are counted as lost, and nothing else happens. */
static void test_pool_exhausted(void **state)
{
    pthread_t thread[INJ_THREAD_MAX + 4];
    uint64_t lost = inj_thread_lost();
    unsigned n = 0;

    (void)state;
    pthread_barrier_init(&all_here, NULL, countof(thread));
    for (size_t i = 0; i < countof(thread); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, one_launch_among_many, NULL), 0);
    for (size_t i = 0; i < countof(thread); i++)
        pthread_join(thread[i], NULL);
    while (inj_thread_at(n))
        n++;
    assert_int_equal(n, INJ_THREAD_MAX);
    assert_true(inj_thread_lost() > lost);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_torch),
        cmocka_unit_test(test_self_check),
        cmocka_unit_test(test_forward_scope),
        cmocka_unit_test(test_layer_begins),
        cmocka_unit_test(test_scope_never_left),
        cmocka_unit_test(test_kernel_params),
        cmocka_unit_test(test_extra),
        cmocka_unit_test(test_stale_word),
        cmocka_unit_test(test_weight_outside_scopes),
        cmocka_unit_test(test_layer_without_scope),
        cmocka_unit_test(test_part_and_weight),
        cmocka_unit_test(test_inline_loop),
        cmocka_unit_test(test_cooperative_has_no_extra),
        cmocka_unit_test(test_ranges_replaced),
        cmocka_unit_test(test_optimizer_and_stages),
        cmocka_unit_test(test_own_launches),
        cmocka_unit_test(test_copies_and_graphs),
        cmocka_unit_test(test_wanted_calls_and_no_others),
        cmocka_unit_test(test_filtered),
        cmocka_unit_test(test_errno_is_kept),
        cmocka_unit_test(test_odd_handles),
        cmocka_unit_test(test_many_kernels),
        cmocka_unit_test(test_full_outbox_is_counted),
        cmocka_unit_test(test_threads_come_and_go),
        cmocka_unit_test(test_pool_exhausted),
    };

    return cmocka_run_group_tests(tests, launch_up, guest_down);
}
