/* The launch callback behind the forward: which expert runs on, which node of the backward belongs where,
 * checkpoints that replay, and the autograd engine's own thread. */
#include "tests/unit/launch_fixture.h"

#include <pthread.h>

/* ---- the expert that runs ----------------------------------------------------------------------------- */

static void test_carry_forward(void **state)
{
    (void)state;
    at_seq(1000);
    inj_micro_begin();
    in_layer(3, MP_PHASE_EXPERT);
    expect(launch(gather), 3, -1, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    at_seq(1001); /* the product's node was made just before its launch */
    expect(launch_word(gemm, STACK + 2 * SLICE), 3, 2, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    expect(launch(add), 3, 2, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    expect(launch(scatter), 3, 2, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    expect(launch(gather), 3, -1, MP_PHASE_EXPERT, MP_PASS_FORWARD); /* the next expert's rows */
    at_seq(1005);
    expect(launch_word(gemm, STACK + 7 * SLICE), 3, 7, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    inj_micro_end();
}

/* The ModuleList's loop says which expert by itself, empty experts included. */
static void test_module_list(void **state)
{
    (void)state;
    inj_micro_begin();
    in_layer(3, MP_PHASE_ROUTER);
    inj_scope_expert(3, 6);
    expect(launch(gemm), 3, 6, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    inj_micro_end();
    inj_scope_expert(3, 6); /* outside all scopes: nothing to set */
}

/* ---- backward ------------------------------------------------------------------------------------------- */

/* Forward: attention from node base, experts from base + 10, expert 4's product is base + 12, 5's + 16. */
static uint64_t base = 1900;

static void forward_graph(void)
{
    base += 100;
    at_seq(base);
    inj_micro_begin();
    in_layer(3, MP_PHASE_ATTENTION);
    at_seq(base + 10);
    inj_scope_enter(2, 3, MP_PHASE_EXPERT);
    at_seq(base + 13);
    launch_word(gemm, STACK + 4 * SLICE);
    at_seq(base + 17);
    launch_word(gemm, STACK + 5 * SLICE);
    at_seq(base + 20);
    inj_scope_leave(2);
    inj_scope_leave(1);
    inj_micro_end();
}

static struct inj_note backward(const void *const *type, uint64_t seq, uint64_t tid,
                                const char *name, uint64_t word)
{
    struct mock_node node = {.vtable = type, .seq = seq, .tid = tid};
    struct inj_note n;

    run_node(&node);
    n = launch_word(name, word);
    end_node();
    return n;
}

static void test_backward_by_node(void **state)
{
    (void)state;
    forward_graph();
    expect(backward(mm_type, base + 5, 1, gemm, 0), 3, -1, MP_PHASE_ATTENTION, MP_PASS_BACKWARD);
    expect(backward(mm_type, base + 12, 1, gemm, 0), 3, 4, MP_PHASE_EXPERT, MP_PASS_BACKWARD);
    expect(backward(mm_type, base + 14, 1, add, 0), 3, 4, MP_PHASE_EXPERT, MP_PASS_BACKWARD);
    expect(backward(mm_type, base + 16, 1, gemm, 0), 3, 5, MP_PHASE_EXPERT, MP_PASS_BACKWARD);
    expect(backward(mm_type, base + 11, 1, gemm, STACK + SLICE), 3, 1, MP_PHASE_EXPERT,
           MP_PASS_BACKWARD);
    expect(backward(mm_type, base + 12, 99, gemm, 0), -1, -1, MP_PHASE_OTHER,
           MP_PASS_BACKWARD); /* nobody's node */
    expect(backward(mm_type, 1, 1, gemm, 0), -1, -1, MP_PHASE_OTHER,
           MP_PASS_BACKWARD); /* older than the log */
    expect(backward(mm_type, 1, 1, gemm, ONE), 4, 5, MP_PHASE_EXPERT,
           MP_PASS_BACKWARD); /* but the weight tells */
}

static void test_backward_special_nodes(void **state)
{
    (void)state;
    forward_graph();
    expect(backward(mm_type, UINT64_MAX, 0, add, 0), -1, -1, MP_PHASE_GRADIENT, MP_PASS_BACKWARD);
    expect(backward(select_type, base + 13, 1, add, 0), 3, -1, MP_PHASE_GRADIENT, MP_PASS_BACKWARD);
    expect(backward(mm_type, base + 12, 1, gemm, 0), 3, 4, MP_PHASE_EXPERT, MP_PASS_BACKWARD);
    expect(backward(select_type, base + 6, 1, copy, 0), 3, -1, MP_PHASE_ATTENTION,
           MP_PASS_BACKWARD);
    expect(backward(mm_type, base + 12, 1, copy, 0), 3, -1, MP_PHASE_EXPERT, MP_PASS_BACKWARD);
    expect(backward(mm_type, base + 12, 1, gather, 0), 3, 4, MP_PHASE_EXPERT, MP_PASS_BACKWARD);
}

/* A checkpoint's node begins to replay layer 3, building a graph. */
static void begin_replay(struct mock_node *outer)
{
    *outer = (struct mock_node){.vtable = mul_type, .seq = base + 5, .tid = 1};
    forward_graph();
    run_node(outer);
    mock.torch()->grad = true;
    at_seq(base + 50);
    inj_scope_enter(1, 3, MP_PHASE_OTHER);
}

/* A checkpoint replays the forward inside a node: the thread's own scopes hold, and build a graph again. */
static void test_recompute(void **state)
{
    struct mock_node outer;

    (void)state;
    begin_replay(&outer);
    inj_scope_enter(2, 3, MP_PHASE_EXPERT);
    at_seq(base + 51);
    expect(launch_word(gemm, STACK + 6 * SLICE), 3, 6, MP_PHASE_EXPERT, MP_PASS_RECOMPUTE);
    at_seq(base + 60);
    inj_scope_leave(1);
    mock.torch()->grad = false;
    expect(launch(add), 3, -1, MP_PHASE_ATTENTION, MP_PASS_BACKWARD);
    end_node();
    expect(backward(mm_type, base + 50, 1, gemm, 0), 3, 6, MP_PHASE_EXPERT, MP_PASS_BACKWARD);
    inj_micro_end();
}

/* In the replay an autograd.Function or a compiled region runs, whose forward makes no graph. A backward
 * within it is one all the same, and so is what the node does when the replay is over. */
static void test_recompute_without_graph(void **state)
{
    struct mock_node outer, inner = {.vtable = mul_type, .seq = base + 12, .tid = 1};

    (void)state;
    begin_replay(&outer);
    mock.torch()->grad = false;
    expect(launch_word(triton, GATE), 3, -1, MP_PHASE_ROUTER, MP_PASS_RECOMPUTE);
    inj_scope_enter(2, 3, MP_PHASE_EXPERT);
    expect(launch_word(gemm, STACK + 6 * SLICE), 3, 6, MP_PHASE_EXPERT, MP_PASS_RECOMPUTE);
    run_node(&inner);
    expect(launch(gemm), 3, 4, MP_PHASE_EXPERT, MP_PASS_BACKWARD);
    run_node(&outer);
    inj_scope_leave(2);
    expect(launch(add), 3, -1, MP_PHASE_COMBINE, MP_PASS_RECOMPUTE);
    inj_scope_leave(1);
    expect(launch(add), 3, -1, MP_PHASE_ATTENTION, MP_PASS_BACKWARD);
    end_node();
    inj_micro_end();
}

/* Products with frozen weights make no node: the expert must not be written over a node made before. */
static void test_frozen_makes_no_node(void **state)
{
    (void)state;
    at_seq(5000);
    inj_micro_begin();
    in_layer(3, MP_PHASE_ATTENTION);
    at_seq(5005); /* nodes 5000..5004 are attention's */
    inj_scope_enter(2, 3, MP_PHASE_EXPERT);
    launch_word(gemm, STACK + 2 * SLICE); /* next node is still 5005 */
    at_seq(5010);
    inj_micro_end();
    expect(backward(mm_type, 5004, 1, gemm, 0), 3, -1, MP_PHASE_ATTENTION, MP_PASS_BACKWARD);
    expect(backward(mm_type, 5005, 1, gemm, 0), 3, 2, MP_PHASE_EXPERT, MP_PASS_BACKWARD);
}

/* ---- a layer that runs as one compiled region ------------------------------------------------------------- */

/* The forward of layer 3 in one region, node `seq`; entered with or without a graph. */
static void region(uint64_t seq, bool graph)
{
    at_seq(seq);
    inj_micro_begin();
    inj_scope_enter(1, -1, MP_PHASE_ATTENTION); /* rotary */
    inj_scope_leave(1);
    mock.torch()->grad = graph;
    inj_scope_enter(1, 3, MP_PHASE_OTHER);
    at_seq(seq + 1); /* the region's node is made before it launches anything */
    /* before any weight is read */
    expect(launch(triton), 3, -1, MP_PHASE_ATTENTION, MP_PASS_FORWARD);
    expect(launch_word(triton, GATE), 3, -1, MP_PHASE_ROUTER, MP_PASS_FORWARD);
    expect(launch(add), 3, -1, MP_PHASE_ROUTER, MP_PASS_FORWARD);
    expect(launch(gather), 3, -1, MP_PHASE_DISPATCH, MP_PASS_FORWARD);
    expect(launch_word(triton, STACK), 3, -1, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    expect(launch(triton), 3, -1, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    inj_scope_leave(1);
    mock.torch()->grad = true;
    inj_micro_end();
}

static void region_backward(uint64_t seq)
{
    struct mock_node node = {.vtable = mul_type, .seq = seq, .tid = 1};

    run_node(&node);
    expect(launch(triton), 3, -1, MP_PHASE_EXPERT, MP_PASS_BACKWARD); /* where the forward ended */
    expect(launch_word(triton, GATE), 3, -1, MP_PHASE_ROUTER, MP_PASS_BACKWARD);
    expect(launch(add), 3, -1, MP_PHASE_ROUTER, MP_PASS_BACKWARD);
    expect(launch(grouped), 3, -1, MP_PHASE_EXPERT, MP_PASS_BACKWARD);
    end_node();
}

static void test_region(void **state)
{
    (void)state;
    region(5200, true);
    region_backward(5200);
    region(5300, false);
    region_backward(5300);
    expect(backward(mul_type, 5301, 1, add, 0), -1, -1, MP_PHASE_LOSS,
           MP_PASS_BACKWARD); /* after it */
}

/* A checkpoint's first forward makes no node: what its own node runs outside of the replay is not the layer's. */
static void test_region_without_graph(void **state)
{
    (void)state;
    at_seq(5400);
    inj_micro_begin();
    mock.torch()->grad = false;
    inj_scope_enter(1, 3, MP_PHASE_OTHER);
    launch_word(triton, STACK);
    inj_scope_leave(1);
    mock.torch()->grad = true;
    at_seq(5401);
    expect(backward(mul_type, 5400, 1, add, 0), -1, -1, MP_PHASE_EMBED, MP_PASS_BACKWARD);
    inj_micro_end();
}

/* A checkpoint's node, made just before the layer is entered without a graph, is the layer's. */
static void test_region_wrapped(void **state)
{
    (void)state;
    at_seq(5500);
    inj_micro_begin();
    mock.torch()->grad = false;
    at_seq(5501);
    inj_scope_enter(1, 3, MP_PHASE_OTHER);
    launch_word(triton, STACK);
    inj_scope_leave(1);
    at_seq(5502);
    inj_scope_enter(1, 4, MP_PHASE_OTHER); /* the next one; its adapters' code counts nodes */
    at_seq(5504);
    launch_word(triton, ONE);
    inj_scope_enter(2, 4, MP_PHASE_EXPERT);
    inj_scope_leave(2);
    inj_scope_leave(1);
    mock.torch()->grad = true;
    inj_micro_end();
    expect(backward(mul_type, 5500, 1, add, 0), 3, -1, MP_PHASE_EXPERT, MP_PASS_BACKWARD);
    expect(backward(mul_type, 5501, 1, add, 0), 4, -1, MP_PHASE_COMBINE, MP_PASS_BACKWARD);
    expect(backward(mul_type, 5504, 1, add, 0), -1, -1, MP_PHASE_LOSS, MP_PASS_BACKWARD);
}

/* A layer of which only the experts are called as a module: what stands before and after them. */
static void test_region_around_a_part(void **state)
{
    (void)state;
    at_seq(5600);
    inj_micro_begin();
    inj_scope_enter(1, 3, MP_PHASE_OTHER);
    at_seq(5601);
    expect(launch_word(triton, GATE), 3, -1, MP_PHASE_ROUTER, MP_PASS_FORWARD);
    inj_scope_enter(2, 3, MP_PHASE_EXPERT);
    at_seq(5602);
    expect(launch(grouped), 3, -1, MP_PHASE_EXPERT, MP_PASS_FORWARD);
    inj_scope_leave(2);
    at_seq(5603);
    expect(launch(triton), 3, -1, MP_PHASE_COMBINE, MP_PASS_FORWARD);
    expect(launch_word(triton, GATE), 3, -1, MP_PHASE_ROUTER, MP_PASS_FORWARD); /* read again */
    expect(launch(add), 3, -1, MP_PHASE_ROUTER, MP_PASS_FORWARD);
    inj_scope_leave(1);
    inj_micro_end();
    expect(backward(mul_type, 5602, 1, add, 0), 3, -1, MP_PHASE_ROUTER, MP_PASS_BACKWARD);
    expect(backward(mul_type, 5601, 1, grouped, 0), 3, -1, MP_PHASE_EXPERT, MP_PASS_BACKWARD);
    expect(backward(mul_type, 5600, 1, add, 0), 3, -1, MP_PHASE_ROUTER, MP_PASS_BACKWARD);
}

/* A model compiled as a whole is one node; the head's backward comes first. */
static void test_model_in_one_node(void **state)
{
    struct mock_node node = {.vtable = mul_type, .seq = 5700, .tid = 1};

    (void)state;
    at_seq(5700);
    inj_micro_begin();
    at_seq(5701);
    launch_word(triton, GATE);
    launch_word(gemm, HEAD);
    launch(triton);
    inj_micro_end();
    run_node(&node);
    expect(launch(triton), -1, -1, MP_PHASE_LOSS, MP_PASS_BACKWARD);
    expect(launch_word(gemm, HEAD), -1, -1, MP_PHASE_LM_HEAD, MP_PASS_BACKWARD);
    expect(launch(gemm), -1, -1, MP_PHASE_LM_HEAD, MP_PASS_BACKWARD); /* of its weight */
    expect(launch_word(grouped, STACK), 3, -1, MP_PHASE_EXPERT, MP_PASS_BACKWARD);
    expect(launch(triton), 3, -1, MP_PHASE_EXPERT, MP_PASS_BACKWARD);
    expect(launch_word(gemm, ONE), 4, 5, MP_PHASE_EXPERT, MP_PASS_BACKWARD);
    end_node();
}

/* ---- the autograd thread ------------------------------------------------------------------------------ */

static void *engine(void *arg)
{
    struct mock_node node = {.vtable = mm_type, .seq = base + 12, .tid = 1};

    (void)arg;
    mock.torch()->grad = false;
    mock.torch()->thread_id = 2;
    expect(launch(add), -1, -1, MP_PHASE_LOSS, MP_PASS_FORWARD); /* before its first node */
    mock.torch()->node = &node;
    expect(launch(gemm), 3, 4, MP_PHASE_EXPERT, MP_PASS_BACKWARD);
    mock.torch()->node = NULL;
    expect(launch(add), 3, -1, MP_PHASE_EXPERT, MP_PASS_BACKWARD); /* sums up at one input */
    return NULL;
}

static void test_engine_thread(void **state)
{
    pthread_t thread;

    (void)state;
    base = 5900;
    forward_graph();
    assert_int_equal(pthread_create(&thread, NULL, engine, NULL), 0);
    pthread_join(thread, NULL);
    expect(launch(add), -1, -1, MP_PHASE_GRADIENT,
           MP_PASS_FORWARD); /* clipping, on the main thread */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_self_check),
        cmocka_unit_test(test_carry_forward),
        cmocka_unit_test(test_module_list),
        cmocka_unit_test(test_backward_by_node),
        cmocka_unit_test(test_backward_special_nodes),
        cmocka_unit_test(test_recompute),
        cmocka_unit_test(test_recompute_without_graph),
        cmocka_unit_test(test_frozen_makes_no_node),
        cmocka_unit_test(test_region),
        cmocka_unit_test(test_region_without_graph),
        cmocka_unit_test(test_region_wrapped),
        cmocka_unit_test(test_region_around_a_part),
        cmocka_unit_test(test_model_in_one_node),
        cmocka_unit_test(test_engine_thread),
    };

    return cmocka_run_group_tests(tests, launch_up, guest_down);
}
