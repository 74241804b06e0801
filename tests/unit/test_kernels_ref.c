/* The CPU reference of the kernels: gradients against central differences, layouts against each other, refusals. */
#include "tests/unit/kernels_fixture.h"

/* With everything that can get a gradient. */
struct fixture {
    struct moe m;
    double dgate_up[E * 2 * I * H], ddown[E * H * I];
    double dgate_b[E * I], dup_b[E * I], ddown_b[E * H];
};

static void fixture_init(struct fixture *f, uint32_t act)
{
    memset(f, 0, sizeof *f);
    moe_init(&f->m, act);
}

static void backward(struct fixture *f, uint32_t accumulate)
{
    struct mk_backward a = {.size = sizeof a,
                            .dx = f->m.dx,
                            .dx_stride = H,
                            .dscore = f->m.dscore,
                            .dscore_stride = K,
                            .dgate = {f->dgate_up, NULL, 0, 2 * I * H, H, 1},
                            .dup = {f->dgate_up + I * H, NULL, 0, 2 * I * H, H, 1},
                            .ddown = {f->ddown, NULL, 0, H * I, I, 1},
                            .dgate_bias = {f->dgate_b, I, 1},
                            .dup_bias = {f->dup_b, I, 1},
                            .ddown_bias = {f->ddown_b, H, 1},
                            .dweight_dtype = MK_FP64,
                            .accumulate = accumulate,
                            .dout = f->m.dout,
                            .dout_stride = H,
                            .saved = f->m.saved,
                            .problem = &f->m.p};
    assert_int_equal(mk_ref_backward(&a), MK_OK);
}

static void check_act(uint32_t act)
{
    struct fixture f;

    fixture_init(&f, act);
    forward(&f.m, 0);
    backward(&f, 0);
    check_gradient(&f.m, f.m.x, f.m.dx, T * H, 1e-6);
    check_gradient(&f.m, f.m.score, f.m.dscore, T * K,
                   0.25); /* the loss is linear in it; exact in float */
    check_gradient(&f.m, f.m.gate_up, f.dgate_up, E * 2 * I * H, 1e-6);
    check_gradient(&f.m, f.m.down, f.ddown, E * H * I, 1e-3);
    check_gradient(&f.m, f.m.gate_b, f.dgate_b, E * I, 1e-6);
    check_gradient(&f.m, f.m.up_b, f.dup_b, E * I, 1e-6);
    check_gradient(&f.m, f.m.down_b, f.ddown_b, E * H, 1e-3);
    free(f.m.saved);
}

static void test_gradients(void **state)
{
    (void)state;
    for (uint32_t act = 0; act < MK_ACT_COUNT; act++)
        check_act(act);
}

static void test_accumulate(void **state)
{
    struct fixture f;
    double once[E * H * I];

    (void)state;
    fixture_init(&f, MK_ACT_SWIGLU);
    forward(&f.m, 0);
    backward(&f, 0);
    memcpy(once, f.ddown, sizeof once);
    backward(&f, 1);
    for (int i = 0; i < E * H * I; i++)
        assert_true(f.ddown[i] == 2 * once[i]);
    free(f.m.saved);
}

/* Moves gate and up of every expert to (row, col) strides of another layout. */
static void relayout(double *to, const double *from, struct mk_problem *p, int64_t row, int64_t col,
                     int64_t up_at)
{
    for (int e = 0; e < E; e++)
        for (int half = 0; half < 2; half++)
            for (int i = 0; i < I; i++)
                for (int h = 0; h < H; h++)
                    to[e * 2 * I * H + half * up_at + i * row + h * col] =
                        from[(e * 2 + half) * I * H + i * H + h];
    p->gate = (struct mk_matrix){to, NULL, 0, 2 * I * H, row, col};
    p->up = (struct mk_matrix){to + up_at, NULL, 0, 2 * I * H, row, col};
}

static void test_layouts_agree(void **state)
{
    struct fixture f;
    double other[E * 2 * I * H], want[T * H];
    int64_t offset[E];
    const int64_t row_col_up[][3] = {{2 * H, 1, H}, {1, 2 * I, I}, {2, 2 * I, 1}};

    (void)state;
    fixture_init(&f, MK_ACT_SWIGLU);
    forward(&f.m, 0);
    memcpy(want, f.m.out, sizeof want);
    for (size_t i = 0; i < 3; i++) {
        relayout(other, f.m.gate_up, &f.m.p, row_col_up[i][0], row_col_up[i][1], row_col_up[i][2]);
        forward(&f.m, 0);
        assert_memory_equal(f.m.out, want, sizeof want);
    }
    for (int e = 0; e < E; e++)
        offset[e] = e * 2 * I * H;
    relayout(other, f.m.gate_up, &f.m.p, H, 1, I * H);
    f.m.p.gate.expert_offset = f.m.p.up.expert_offset = offset;
    f.m.p.gate.stride_expert = f.m.p.up.stride_expert = -1; /* must not be used */
    forward(&f.m, 0);
    assert_memory_equal(f.m.out, want, sizeof want);
    free(f.m.saved);
}

static void test_fp32_is_near(void **state)
{
    struct fixture f;
    double want[T * H];

    (void)state;
    fixture_init(&f, MK_ACT_GEGLU_TANH);
    forward(&f.m, 0);
    memcpy(want, f.m.out, sizeof want);
    forward(&f.m, MK_FLAG_CPU_FP32);
    for (int i = 0; i < T * H; i++)
        assert_true(fabs(f.m.out[i] - want[i]) < 1e-4);
    free(f.m.saved);
}

static void test_no_tokens(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, MK_ACT_SWIGLU);
    f.m.p.n_token = 0;
    memset(f.ddown, 1, sizeof f.ddown);
    forward(&f.m, 0);
    backward(&f, 0);
    for (int i = 0; i < E * H * I; i++)
        assert_true(f.ddown[i] == 0);
    free(f.m.saved);
}

static void test_refusals(void **state)
{
    struct fixture f;
    struct mk_problem bad;
    struct mk_plan plan;

    (void)state;
    fixture_init(&f, MK_ACT_SWIGLU);
#define REFUSED(field, value, code)                                                                \
    bad = f.m.p, bad.field = (value), assert_int_equal(mk_plan(&plan, &bad), (code))
    REFUSED(size, 8, MK_EVERSION);
    REFUSED(hidden, 12, MK_ESHAPE);
    REFUSED(inter, 0, MK_ESHAPE);
    REFUSED(n_token, -1, MK_ESHAPE);
    REFUSED(n_token, INT32_MAX, MK_ESHAPE);
    REFUSED(n_expert, 1025, MK_ESHAPE);
    REFUSED(top_k, E + 1, MK_ESHAPE);
    REFUSED(dtype, MK_INT32, MK_EDTYPE);
    REFUSED(index_dtype, MK_BF16, MK_EDTYPE);
    REFUSED(act, MK_ACT_COUNT, MK_EACT);
    free(f.m.saved);
}

static void test_saved_is_minimal(void **state)
{
    struct mk_problem p = {.size = sizeof p,
                           .n_token = 32768,
                           .hidden = 2048,
                           .inter = 768,
                           .n_expert = 128,
                           .top_k = 8};
    struct mk_plan plan;
    const size_t n_row = 32768 * 8;

    (void)state;
    assert_int_equal(mk_plan(&plan, &(struct mk_problem){.size = sizeof p,
                                                         .n_token = 32768,
                                                         .hidden = 2048,
                                                         .inter = 768,
                                                         .n_expert = 128,
                                                         .top_k = 8,
                                                         .index_dtype = MK_INT64}),
                     MK_OK);
    assert_true(plan.saved.bytes <
                n_row * 2 * 768 * 2 + n_row * 17 + (1 << 17)); /* 4TKI and 16 bytes a choice */
}

static void test_elements_round_trip(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++)
        for (uint32_t dtype = MK_BF16; dtype <= MK_FP16; dtype++) {
            uint16_t in = (uint16_t)bits, out = 0;
            double v = mk_ref_get(&in, dtype, 0);
            mk_ref_put(&out, dtype, 0, v);
            if (!isnan(v))
                assert_int_equal(in, out);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),        cmocka_unit_test(test_accumulate),
        cmocka_unit_test(test_layouts_agree),    cmocka_unit_test(test_fp32_is_near),
        cmocka_unit_test(test_no_tokens),        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_saved_is_minimal), cmocka_unit_test(test_elements_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
