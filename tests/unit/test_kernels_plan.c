/* The kernels' plan: parts of the caller's buffers are apart, aligned and inside, whatever the shape; sizes hold at the ends
 * of the ranges; a missing pointer is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernels/plan.h"

struct part {
    size_t at, bytes;
};

static uint64_t state = 3;

static int32_t pick(int32_t low, int32_t high)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return low + (int32_t)((state >> 33) % (uint64_t)(high - low + 1));
}

static int by_place(const void *a, const void *b)
{
    const struct part *x = a, *y = b;
    return x->at != y->at ? (x->at > y->at) - (x->at < y->at)
                          : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static void check_parts(struct part *part, size_t n, size_t bytes)
{
    size_t end = 0;

    qsort(part, n, sizeof *part, by_place);
    for (size_t i = 0; i < n; i++) {
        assert_true(part[i].at % 256 == 0);
        assert_true(part[i].at >= end);
        end = part[i].at + part[i].bytes;
    }
    assert_true(end <= bytes);
}

#define CHECK(bytes, ...)                                                                          \
    do {                                                                                           \
        struct part list[] = {__VA_ARGS__};                                                        \
        check_parts(list, sizeof list / sizeof *list, (bytes));                                    \
    } while (0)

static void check_saved(const struct mk_saved_layout *at, const struct mk_plan *plan,
                        const struct mk_problem *p, size_t pre)
{
    size_t n = (size_t)plan->n_row, low = n * mk_dtype_bytes(p->dtype);

    CHECK(at->bytes, {at->pre, pre}, {at->offset, ((size_t)p->n_expert + 1) * 4},
          {at->row_token, n * 4}, {at->row_choice, n * 4}, {at->choice_row, n * 4},
          {at->row_score, n * 4}, {at->low_up, low * (size_t)plan->low_up},
          {at->low_down, low * (size_t)plan->low_down},
          {at->tile, (size_t)plan->max_tile * sizeof(struct mk_tile)},
          {at->fit_tile, (size_t)plan->max_tile * sizeof(struct mk_tile)}, {at->n_tile, 8});
}

static void check_workspaces(const struct mk_plan *plan, const struct mk_problem *p)
{
    size_t n = (size_t)plan->n_row, elt = mk_dtype_bytes(p->dtype), e = (size_t)p->n_expert,
           h = (size_t)p->hidden, i = (size_t)p->inter;
    size_t up = (size_t)plan->low_up * elt, down = (size_t)plan->low_down * elt,
           half = (size_t)plan->n_half;
    const struct mk_forward_layout *f = &plan->forward;
    const struct mk_backward_layout *b = &plan->backward;

    CHECK(f->bytes, {f->count, (size_t)plan->n_chunk * e * 4}, {f->act, n * i * elt},
          {f->expert_out, n * h * elt}, {f->lora.up_a, e * up * h},
          {f->lora.up_b, e * up * i * half}, {f->lora.down_a, e * down * i},
          {f->lora.down_b, e * down * h});
    CHECK(b->bytes, {b->scaled_act, n * i * elt}, {b->dpre, n * i * half * elt},
          {b->dx_row, n * h * elt}, {b->dscore_part, n * (size_t)plan->n_dscore_part * 4},
          {b->lora.up_a, e * up * h}, {b->lora.up_b, e * up * i * half},
          {b->lora.down_a, e * down * i}, {b->lora.down_b, e * down * h}, {b->dlow_up, n * up},
          {b->dlow_down, n * down}, {b->scaled_low, n * down});
}

/* Every tile that routing could list finds its place: all experts one row more than a multiple of a tile. */
static void check_tiles(const struct mk_plan *plan, const struct mk_problem *p)
{
    int64_t busy = p->n_expert < plan->n_row ? p->n_expert : plan->n_row;

    assert_true(plan->max_tile >= busy + (plan->n_row - busy) / MK_TILE_M);
    assert_true((int64_t)plan->n_chunk * plan->chunk >= plan->n_row);
    assert_true(((int64_t)plan->n_chunk - 1) * plan->chunk < plan->n_row || plan->n_chunk == 1);
    assert_true(plan->chunk % MK_ROUTE_CHUNK == 0 && plan->n_chunk <= MK_ROUTE_BLOCK);
}

static void test_parts(void **unused)
{
    (void)unused;
    for (int i = 0; i < 2000; i++) {
        struct mk_lora lora = {.size = sizeof lora,
                               .dtype = MK_FP32,
                               .up_rank = pick(0, 128),
                               .down_rank = pick(0, 128),
                               .up_scale = 1,
                               .down_scale = 1};
        struct mk_problem p = {.size = sizeof p,
                               .n_token = pick(0, 1) * pick(1, 70000),
                               .hidden = 8 * pick(1, 900),
                               .inter = 8 * pick(1, 900),
                               .n_expert = pick(1, 1024),
                               .dtype = (uint32_t)pick(MK_BF16, MK_FP16),
                               .index_dtype = MK_INT64,
                               .act = (uint32_t)pick(0, MK_ACT_COUNT - 1)};
        struct mk_plan plan;

        p.top_k = pick(1, p.n_expert < 16 ? p.n_expert : 16);
        lora.apart = p.act != MK_ACT_RELU2 && pick(0, 1);
        p.lora = pick(0, 1) ? &lora : NULL;
        assert_int_equal(mk_plan(&plan, &p), MK_OK);
        check_saved(&plan.saved, &plan, &p,
                    (size_t)plan.n_row * (size_t)plan.n_half * (size_t)p.inter * 2);
        check_saved(&plan.saved_inference, &plan, &p, 0);
        check_workspaces(&plan, &p);
        check_tiles(&plan, &p);
    }
}

/* The largest problems: sizes are what 64 bits give. */
static void test_ends_of_ranges(void **unused)
{
    struct mk_problem p = {.size = sizeof p,
                           .n_token = INT32_MAX - 65536,
                           .hidden = 16384,
                           .inter = 16384,
                           .n_expert = 1024,
                           .top_k = 1,
                           .index_dtype = MK_INT32};
    struct mk_plan plan;

    (void)unused;
    assert_int_equal(mk_plan(&plan, &p), MK_OK);
    assert_true(plan.saved.bytes > (size_t)p.n_token * 2 * 16384 * 2);
    assert_true(plan.max_tile > 0 && plan.n_chunk > 0);
    p.n_token++;
    assert_int_equal(mk_plan(&plan, &p), MK_ESHAPE);
    p.n_token = (INT32_MAX - 65536) / 1024;
    p.top_k = 1024;
    assert_int_equal(mk_plan(&plan, &p), MK_OK);
    p.n_token += 64;
    assert_int_equal(mk_plan(&plan, &p), MK_ESHAPE);
}

static void test_missing_pointers(void **unused)
{
    int there;
    struct mk_lora lora = {.size = sizeof lora,
                           .up_rank = 4,
                           .down_rank = 4,
                           .up_a.base = &there,
                           .down_a.base = &there};
    struct mk_problem good = {.n_token = 1,
                              .x = &there,
                              .index = &there,
                              .score = &there,
                              .gate.base = &there,
                              .up.base = &there,
                              .down.base = &there,
                              .lora = &lora};

    (void)unused;
    assert_int_equal(mk_check_pointers(&good), MK_OK); /* an absent B adds nothing */
#define MISSING(field)                                                                             \
    do {                                                                                           \
        struct mk_problem bad = good;                                                              \
        bad.field = NULL;                                                                          \
        assert_int_equal(mk_check_pointers(&bad), MK_EBUFFER);                                     \
    } while (0)
    MISSING(x);
    MISSING(index);
    MISSING(score);
    MISSING(gate.base);
    MISSING(up.base);
    MISSING(down.base);
    good.n_token = 0;
    good.x = good.index = good.score = NULL;
    assert_int_equal(mk_check_pointers(&good), MK_OK);
    lora.down_a.base = NULL;
    assert_int_equal(mk_check_pointers(&good), MK_EBUFFER);
    lora.down_rank = 0;
    assert_int_equal(mk_check_pointers(&good), MK_OK);
    lora.apart = 1;
    assert_int_equal(mk_check_pointers(&good), MK_EBUFFER); /* gate's own A */
    good.act = MK_ACT_RELU2;
    good.gate.base = NULL;
    assert_int_equal(mk_check_pointers(&good), MK_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_ends_of_ranges),
        cmocka_unit_test(test_missing_pointers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
