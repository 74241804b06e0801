/* Adapters in the CPU reference: gradients against central differences, against weights with the adapter added in, in the
 * layout that PEFT stores, and what is refused. */
#include "tests/unit/kernels_fixture.h"

enum { RU = 3, RD = 5 };

/* Adapters as PEFT keeps them: A (E*R, in), B (out, R*E), the expert fastest. gate_a is there for adapters apart. */
struct adapters {
    double gate_a[E * RU * H], up_a[E * RU * H], up_b[2 * I * RU * E], down_a[E * RD * I],
        down_b[H * RD * E];
};

struct fixture {
    struct moe m;
    struct adapters w, d; /* values and gradients */
    struct mk_lora lora;
    struct mk_lora_grad dlora;
};

/* The A of one parameter, and rows of its B: every step-th from first. */
static struct mk_matrix peft_a(double *a, int rank, int in)
{
    return (struct mk_matrix){a, NULL, 0, (int64_t)rank * in, in, 1};
}

static struct mk_matrix peft_b(double *b, int rank, int first, int step)
{
    return (struct mk_matrix){b + (int64_t)first * rank * E, NULL, 0, 1,
                              (int64_t)step * rank * E,      E};
}

/* gate and up rows of B one after the other, or alternating. */
static void describe(struct fixture *f, bool interleaved, bool apart)
{
    int up = interleaved ? 1 : I, step = interleaved ? 2 : 1;

    f->lora = (struct mk_lora){.size = sizeof f->lora,
                               .dtype = MK_FP64,
                               .up_rank = RU,
                               .down_rank = RD,
                               .apart = apart,
                               .up_scale = 2,
                               .down_scale = .5f,
                               .gate_a = peft_a(f->w.gate_a, RU, H),
                               .up_a = peft_a(f->w.up_a, RU, H),
                               .gate_b = peft_b(f->w.up_b, RU, 0, step),
                               .up_b = peft_b(f->w.up_b, RU, up, step),
                               .down_a = peft_a(f->w.down_a, RD, I),
                               .down_b = peft_b(f->w.down_b, RD, 0, 1)};
    f->dlora = (struct mk_lora_grad){.size = sizeof f->dlora,
                                     .dtype = MK_FP64,
                                     .gate_a = peft_a(f->d.gate_a, RU, H),
                                     .up_a = peft_a(f->d.up_a, RU, H),
                                     .gate_b = peft_b(f->d.up_b, RU, 0, step),
                                     .up_b = peft_b(f->d.up_b, RU, up, step),
                                     .down_a = peft_a(f->d.down_a, RD, I),
                                     .down_b = peft_b(f->d.down_b, RD, 0, 1)};
    f->m.p.lora = &f->lora;
}

static void fixture_init(struct fixture *f, uint32_t act)
{
    uint64_t state = 11 + act;

    memset(f, 0, sizeof *f);
    moe_init(&f->m, act);
    f->m.p.gate_bias = f->m.p.up_bias = f->m.p.down_bias = (struct mk_vector){0};
    f->m.p.act_limit = 4.f; /* an adapter's product is larger */
    fill((double *)&f->w, sizeof f->w / sizeof(double), 1, &state);
    describe(f, false, false);
    free(f->m.saved);
    assert_int_equal(mk_plan(&f->m.plan, &f->m.p), MK_OK);
    f->m.saved = malloc(f->m.plan.saved.bytes * 2); /* room for any of the adapters' shapes */
}

/* What is saved follows from the adapters, which the tests change. */
static void forward_anew(struct fixture *f)
{
    assert_int_equal(mk_plan(&f->m.plan, &f->m.p), MK_OK);
    forward(&f->m, 0);
}

static int backward(struct fixture *f, uint32_t accumulate)
{
    struct mk_backward a = {.size = sizeof a,
                            .dx = f->m.dx,
                            .dx_stride = H,
                            .dscore = f->m.dscore,
                            .dscore_stride = K,
                            .dweight_dtype = MK_FP64,
                            .accumulate = accumulate,
                            .dout = f->m.dout,
                            .dout_stride = H,
                            .saved = f->m.saved,
                            .problem = &f->m.p,
                            .dlora = &f->dlora};

    return mk_ref_backward(&a);
}

static void check_case(uint32_t act, bool interleaved, bool apart)
{
    struct fixture f;

    fixture_init(&f, act);
    describe(&f, interleaved, apart);
    forward_anew(&f);
    assert_int_equal(backward(&f, 0), MK_OK);
    check_gradient(&f.m, f.m.x, f.m.dx, T * H, 1e-6);
    check_gradient(&f.m, f.m.score, f.m.dscore, T * K,
                   0.25); /* the loss is linear in it; exact in float */
    check_gradient(&f.m, (double *)&f.w, (const double *)&f.d, sizeof f.w / sizeof(double),
                   1e-6); /* an unused A: 0 both ways */
    free(f.m.saved);
}

static void test_gradients(void **state)
{
    (void)state;
    check_case(MK_ACT_SWIGLU, false, false);
    check_case(MK_ACT_SWIGLU, true, false);
    check_case(MK_ACT_GEGLU_TANH, false, true);
    check_case(MK_ACT_CLAMPED_GLU, true, true);
}

/* The adapter's product added into one weight: row, column strides of the weight; its A and B. */
static void merge(double *w, int64_t expert, int n_out, int n_in, const double *a, const double *b,
                  int rank, int first, double scale)
{
    for (int e = 0; e < E; e++)
        for (int o = 0; o < n_out; o++)
            for (int i = 0; i < n_in; i++)
                for (int r = 0; r < rank; r++)
                    w[e * expert + (int64_t)(first + o) * n_in + i] +=
                        scale * b[((int64_t)(first + o) * rank + r) * E + e] *
                        a[((int64_t)e * rank + r) * n_in + i];
}

/* delta as PEFT writes it, einsum("o r e, e r i -> e o i") * scaling, in the weights gives the same output and dx. */
static void test_equals_merged_weights(void **state)
{
    struct fixture f;
    double out[T * H], dx[T * H];

    (void)state;
    fixture_init(&f, MK_ACT_SWIGLU);
    forward_anew(&f);
    assert_int_equal(backward(&f, 0), MK_OK);
    memcpy(out, f.m.out, sizeof out);
    memcpy(dx, f.m.dx, sizeof dx);
    merge(f.m.gate_up, 2 * I * H, 2 * I, H, f.w.up_a, f.w.up_b, RU, 0, 2);
    merge(f.m.down, H * I, H, I, f.w.down_a, f.w.down_b, RD, 0, .5);
    f.m.p.lora = NULL;
    f.dlora = (struct mk_lora_grad){0};
    forward_anew(&f);
    struct mk_backward a = {.size = sizeof a,
                            .dx = f.m.dx,
                            .dx_stride = H,
                            .dweight_dtype = MK_FP64,
                            .dout = f.m.dout,
                            .dout_stride = H,
                            .saved = f.m.saved,
                            .problem = &f.m.p};
    assert_int_equal(mk_ref_backward(&a), MK_OK);
    for (int i = 0; i < T * H; i++) {
        assert_true(fabs(out[i] - f.m.out[i]) < 1e-11 * (1 + fabs(out[i])));
        assert_true(fabs(dx[i] - f.m.dx[i]) < 1e-10 * (1 + fabs(dx[i])));
    }
    free(f.m.saved);
}

/* An absent B adds nothing and an absent rank needs no pointers. */
static void test_absent_parts(void **state)
{
    struct fixture f;
    double want[T * H];

    (void)state;
    fixture_init(&f, MK_ACT_SWIGLU);
    f.m.p.lora = NULL;
    forward_anew(&f);
    memcpy(want, f.m.out, sizeof want);
    f.m.p.lora = &f.lora;
    f.lora.gate_b.base = f.lora.up_b.base = f.lora.down_b.base = NULL;
    forward_anew(&f);
    assert_memory_equal(f.m.out, want, sizeof want);
    f.lora = (struct mk_lora){.size = sizeof f.lora, .dtype = MK_FP64};
    forward_anew(&f);
    assert_memory_equal(f.m.out, want, sizeof want);
    free(f.m.saved);
}

static void test_accumulate(void **state)
{
    struct fixture f;
    struct adapters once;

    (void)state;
    fixture_init(&f, MK_ACT_GEGLU_ERF);
    forward_anew(&f);
    assert_int_equal(backward(&f, 0), MK_OK);
    once = f.d;
    assert_int_equal(backward(&f, 1), MK_OK);
    for (size_t i = 0; i < sizeof once / sizeof(double); i++)
        assert_true(((double *)&f.d)[i] == 2 * ((double *)&once)[i]);
    for (int i = 0; i < RU * H; i++)
        assert_true(once.up_a[EMPTY * RU * H + i] == 0); /* the empty expert */
    free(f.m.saved);
}

/* One tensor an expert, found by offsets. */
static void test_offsets(void **state)
{
    struct fixture f;
    double want[T * H];
    int64_t offset[E];

    (void)state;
    fixture_init(&f, MK_ACT_SWIGLU);
    forward_anew(&f);
    memcpy(want, f.m.out, sizeof want);
    for (int e = 0; e < E; e++)
        offset[e] = e * RU * H;
    f.lora.up_a.expert_offset = offset;
    f.lora.up_a.stride_expert = -1; /* must not be used */
    forward_anew(&f);
    assert_memory_equal(f.m.out, want, sizeof want);
    free(f.m.saved);
}

static void test_refusals(void **state)
{
    struct fixture f;
    struct mk_plan plan;

    (void)state;
    fixture_init(&f, MK_ACT_SWIGLU);
    forward_anew(&f);
#define REFUSED(field, value, code)                                                                \
    do {                                                                                           \
        struct mk_lora keep = f.lora;                                                              \
        f.lora.field = (value);                                                                    \
        assert_int_equal(mk_plan(&plan, &f.m.p), (code));                                          \
        f.lora = keep;                                                                             \
    } while (0)
    REFUSED(size, 8, MK_EVERSION);
    REFUSED(up_rank, -1, MK_ESHAPE);
    REFUSED(down_rank, MK_MAX_RANK + 1, MK_ESHAPE);
    REFUSED(up_scale, NAN, MK_ESHAPE);
    REFUSED(dtype, MK_BF16, MK_EDTYPE);
    f.lora.up_a.base = NULL;
    assert_int_equal(mk_check_pointers(&f.m.p), MK_EBUFFER);
    f.lora.up_a.base = f.w.up_a;
    f.dlora.dtype = MK_BF16;
    assert_int_equal(backward(&f, 0), MK_EDTYPE);
    f.dlora.dtype = MK_FP64;
    f.m.p.lora = NULL;
    assert_int_equal(backward(&f, 0), MK_EBUFFER); /* gradients of adapters that are not there */
    f.m.p.lora = &f.lora;
    f.lora.apart = 1;
    f.m.p.act = MK_ACT_RELU2;
    assert_int_equal(mk_plan(&plan, &f.m.p), MK_EACT);
    free(f.m.saved);
}

/* Adapters cost what backward must keep: the rank a choice, twice. */
static void test_saved_bytes(void **state)
{
    struct mk_lora lora = {.size = sizeof lora, .dtype = MK_FP32, .up_rank = 16, .down_rank = 12};
    struct mk_problem p = {.size = sizeof p,
                           .n_token = 4096,
                           .hidden = 64,
                           .inter = 64,
                           .n_expert = 8,
                           .top_k = 2,
                           .index_dtype = MK_INT64};
    struct mk_plan with, without;

    (void)state;
    assert_int_equal(mk_plan(&without, &p), MK_OK);
    p.lora = &lora;
    assert_int_equal(mk_plan(&with, &p), MK_OK);
    assert_int_equal(with.saved.bytes - without.saved.bytes,
                     4096 * 2 * (16 + 16) * 2); /* 12 rounds up to 16 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),    cmocka_unit_test(test_equals_merged_weights),
        cmocka_unit_test(test_absent_parts), cmocka_unit_test(test_accumulate),
        cmocka_unit_test(test_offsets),      cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_saved_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
