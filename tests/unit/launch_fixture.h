/* What the tests of the launch callback share: stand-ins for torch and the driver, a few weights, and
 * launches that say what they became. */
#ifndef TESTS_LAUNCH_FIXTURE_H
#define TESTS_LAUNCH_FIXTURE_H

#include "injector/launch.h"

#include "injector/cuda_api.h"
#include "injector/scope.h"
#include "injector/torch_abi.h"
#include "profiler/core/kname.h"
#include "profiler/core/phase.h"
#include "tests/unit/guest_fixture.h"

static struct mock mock;
static _Atomic uint32_t next_corr = 1;

MOCK_NODE_TYPE(mul_type, "N5torch8autograd9generated12MulBackward0E");
MOCK_NODE_TYPE(mm_type, "N5torch8autograd9generated11MmBackward0E");
MOCK_NODE_TYPE(select_type, "N5torch8autograd9generated15SelectBackward0E");

static const char gemm[] = "nvjet_sm90_tst_64x8",
                  add[] = "at::native::vectorized_elementwise_kernel<add>",
                  gather[] = "at::native::vectorized_gather_kernel",
                  scatter[] = "indexFuncLargeIndex_add",
                  grouped[] = "cutlass::gemm::GroupProblemShape",
                  adam[] = "multi_tensor_apply_kernel", triton[] = "triton_poi_fused_0",
                  copy[] = "direct_copy_kernel";

enum { GATE = 0x10000, STACK = 0x100000, SLICE = 0x1000, ONE = 0x900000, HEAD = 0xa00000 };

static const struct mp_range weights[] = {
    {.base = GATE, .bytes = 0x100, .layer = 3, .expert = -1, .phase = MP_PHASE_ROUTER},
    {.base = STACK,
     .bytes = 8 * SLICE,
     .n_slice = 8,
     .layer = 3,
     .expert = -1,
     .phase = MP_PHASE_EXPERT},
    {.base = ONE, .bytes = 0x1000, .layer = 4, .expert = 5, .phase = MP_PHASE_EXPERT},
    {.base = HEAD, .bytes = 0x1000, .layer = -1, .expert = -1, .phase = MP_PHASE_LM_HEAD},
};

static inline void call(uint32_t cbid, const void *params, const char *name)
{
    struct cupti_callback info = {
        .site = SITE_ENTER, .params = params, .symbol_name = name, .correlation = next_corr++};

    inj_launch_callback(NULL, DOMAIN_DRIVER, cbid, &info);
    info.site = SITE_EXIT;
    inj_launch_callback(NULL, DOMAIN_DRIVER, cbid, &info);
}

/* One kernel with one parameter of 128 bytes, whose word 5 is `word`; its handle is its name's address. */
static inline struct inj_note launch_word(const char *name, uint64_t word)
{
    uint64_t block[16] = {1, 2, 3, 4, 5, word};
    void *kernel_params[] = {block};
    struct launch_params p = {.f = (void *)(uintptr_t)name, .kernel_params = kernel_params};

    call(CB_cuLaunchKernel, &p, name);
    return guest_note();
}

static inline struct inj_note launch(const char *name)
{
    return launch_word(name, 0);
}

static inline void expect(struct inj_note n, int layer, int expert, enum mp_phase phase,
                          enum mp_pass pass)
{
    assert_int_equal(n.layer, layer);
    assert_int_equal(n.expert, expert);
    assert_string_equal(mp_phase_name(n.phase), mp_phase_name(phase));
    assert_string_equal(mp_pass_name(n.pass), mp_pass_name(pass));
}

static inline void run_node(struct mock_node *node)
{
    mock.torch()->node = node;
    mock.torch()->grad = false; /* the backward proper builds no graph */
}

static inline void end_node(void)
{
    mock.torch()->node = NULL;
    mock.torch()->grad = true;
    assert_int_equal(mock.torch()->use_count, 1); /* the guest gave its reference back */
}

/* Node numbers are never used twice; each test has its hundred. */
static inline void at_seq(uint64_t seq)
{
    mock.torch()->next_seq = seq;
}

static inline void in_layer(int layer, enum mp_phase phase)
{
    inj_scope_enter(1, layer, MP_PHASE_OTHER);
    inj_scope_enter(2, layer, (int)phase);
}

/* The first test: from here on torch is believed. */
static inline void test_self_check(void **state)
{
    struct mock_node node = {.vtable = mul_type, .seq = 41, .tid = 1};

    (void)state;
    mock_load_torch(&mock);
    mock_load_cuda(&mock);
    assert_int_equal(inj_torch_init(), MP_OK);
    assert_int_equal(inj_cuda_find(), MP_OK);
    mock.torch()->thread_id = 1;
    mock.torch()->next_seq = 500;
    run_node(&node);
    assert_true(inj_torch_check(41, true));
    end_node();
    assert_true(inj_torch_trusted());
}

static inline int launch_up(void **state)
{
    if (guest_up(state))
        return -1;
    inj_launch_set_ranges(mp_ranges_new(weights, countof(weights)));
    return 0;
}

#endif
