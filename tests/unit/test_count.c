/* Counting tokens: the host's counts, and the GPU's through a stand-in driver that runs the two kernels
 * on host memory and notices every access outside of what was allocated. Order matters: the tables are
 * laid out once a process. */
#include "injector/count.h"

#include "injector/cuda_api.h"
#include "tests/unit/child_fixture.h"
#include "tests/unit/guest_fixture.h"

#define LAYERS  3
#define EXPERTS 6

static struct mock mock;
static union mp_record got[4096];
static size_t n_got;

static void keep(void *arg, const union mp_record *record)
{
    (void)arg;
    if (n_got < countof(got))
        got[n_got++] = *record;
}

static int collect(uint32_t *oldest)
{
    n_got = 0;
    return inj_count_collect(keep, NULL, oldest);
}

static unsigned tokens_of(uint32_t step, int layer, int expert)
{
    for (size_t i = 0; i < n_got; i++) {
        const struct mp_routing *r = &got[i].routing;

        if (r->kind == MP_ROUTING && r->step == step && r->layer == layer && expert >= r->expert0 &&
            expert < r->expert0 + r->n)
            return r->count[expert - r->expert0];
    }
    return UINT32_MAX;
}

static void nothing_waits(void)
{
    uint32_t oldest;

    assert_int_equal(collect(&oldest), 0);
}

/* ---- layout ----------------------------------------------------------------------------------------- */

static const int64_t index64[] = {0, 5, 5, 2, -1, 6, 1ll << 40, 5};
static const int32_t index32[] = {1, 1, -7, 6, 4};

/* No experts at all (a dense model): tokens are counted, routing is refused. */
static void dense(void)
{
    static const uint8_t mask[4] = {1, 1, 1, 0};
    const struct inj_mask m = {.mask = mask, .mask_bytes = 1, .rows = 1, .cols = 4};
    uint32_t oldest;

    CHECK(inj_count_route(0, index64, 8, 8, false, NULL) == MP_EINVAL);
    CHECK(inj_count_mask(&m, true, NULL) == MP_OK);
    inj_count_step(0, NULL);
    CHECK(collect(&oldest) == 0 && n_got == 1);
    CHECK(got[0].micro.kind == MP_MICRO && got[0].micro.useful == 3 && got[0].micro.processed == 4);
    CHECK(mock.cuda()->n_illegal == 0);
}

/* The first count comes while the job captures a graph: no memory is asked for, which would end it; the next one counts. */
static void first_in_capture(void)
{
    inj_count_layer(0, EXPERTS);
    mock.cuda()->capturing = 1;
    CHECK(inj_count_route(0, index64, 8, 8, true, NULL) == MP_ENOTSUP);
    CHECK(mock.cuda()->n_spoiled == 0 && mock.cuda()->n_alloc == 0);
    mock.cuda()->capturing = 0;
    CHECK(inj_count_route(0, index64, 8, 8, true, NULL) == MP_OK);
    CHECK(!inj_thread_self()->own);
}

/* The driver has no memory left: a code, host counts go on, and nobody asks again. */
static void no_memory(void)
{
    uint32_t oldest;

    inj_count_layer(0, EXPERTS);
    mock.cuda()->fail_alloc = 1;
    CHECK(inj_count_route(0, index64, 8, 8, true, NULL) == MP_ENOTSUP);
    mock.cuda()->fail_alloc = 0;
    CHECK(inj_count_route(0, index64, 8, 8, true, NULL) == MP_ENOTSUP);
    CHECK(!inj_thread_self()->own);
    CHECK(mock.cuda()->n_alloc == 0);
    inj_count_step(0, NULL);
    CHECK(collect(&oldest) == 0 && n_got == 0);
    inj_count_expert(0, 1, 4);
    inj_count_step(1, NULL);
    CHECK(collect(&oldest) == 0 && tokens_of(1, 0, 1) == 4);
}

static void test_in_children(void **state)
{
    (void)state;
    in_child(dense);
    in_child(first_in_capture);
    in_child(no_memory);
}

static void test_layout(void **state)
{
    (void)state;
    for (int layer = 0; layer < LAYERS; layer++)
        inj_count_layer(layer, EXPERTS);
    inj_count_layer(-1, 4);
    inj_count_layer(1, 0);
    inj_count_step(0, NULL); /* nothing was counted */
    nothing_waits();
    assert_int_equal(n_got, 0);
}

/* ---- routing ------------------------------------------------------------------------------------------- */

static void check_routed(uint32_t step)
{
    static const unsigned want0[EXPERTS] = {1, 0, 1, 0, 0, 3}, want2[EXPERTS] = {0, 2, 0, 0, 1, 0};

    for (int e = 0; e < EXPERTS; e++) {
        assert_int_equal(tokens_of(step, 0, e), want0[e]);
        assert_int_equal(tokens_of(step, 2, e), want2[e]);
        assert_int_equal(tokens_of(step, 1, e), UINT32_MAX); /* not routed: nothing is said of it */
    }
}

/* Both widths; sentinels of expert parallelism and nonsense are dropped, here and there alike. */
static void route_both(uint32_t step, bool on_gpu)
{
    assert_int_equal(inj_count_route(0, index64, 8, countof(index64), on_gpu, NULL), MP_OK);
    assert_int_equal(inj_count_route(2, index32, 4, countof(index32), on_gpu, NULL), MP_OK);
    assert_int_equal(inj_count_route(LAYERS, index32, 4, 5, on_gpu, NULL), MP_EINVAL);
    assert_int_equal(inj_count_route(-1, index32, 4, 5, on_gpu, NULL), MP_EINVAL);
    assert_int_equal(inj_count_route(0, index64, 8, 0, on_gpu, NULL), MP_OK);
    inj_count_step(step, NULL);
    nothing_waits();
    check_routed(step);
}

static void test_route_host(void **state)
{
    (void)state;
    route_both(1, false);
}

/* The first count on the GPU makes the buffer; its address must be read after that (it was 0 once, and
 * the job died of an illegal address). */
static void test_route_gpu_first(void **state)
{
    (void)state;
    assert_int_equal(mock.cuda()->n_alloc, 0);
    route_both(2, true);
    assert_int_equal(mock.cuda()->n_illegal, 0);
    assert_true(mock.cuda()->n_alloc > 0);
    assert_false(inj_thread_self()->own);
}

/* Nothing of a step is left in the next one; host and GPU counts add up. */
static void test_steps_are_apart(void **state)
{
    (void)state;
    route_both(3, true);
    inj_count_expert(0, 5, 10);
    inj_count_expert(0, EXPERTS, 1);
    inj_count_expert(-1, 0, 1);
    assert_int_equal(inj_count_route(0, index64, 8, countof(index64), true, NULL), MP_OK);
    inj_count_step(4, NULL);
    nothing_waits();
    assert_int_equal(tokens_of(4, 0, 5), 13);
    assert_int_equal(tokens_of(4, 2, 1), UINT32_MAX);
    inj_count_step(5, NULL);
    nothing_waits();
    assert_int_equal(n_got, 0);
}

static void test_many_blocks(void **state)
{
    static int64_t index[20000];

    (void)state;
    for (size_t i = 0; i < countof(index); i++)
        index[i] = (int64_t)(i % 7) - 1; /* one in seven is a sentinel */
    assert_int_equal(inj_count_route(1, index, 8, countof(index), true, NULL), MP_OK);
    inj_count_step(6, NULL);
    nothing_waits();
    for (int e = 0; e < EXPERTS; e++)
        assert_int_equal(tokens_of(6, 1, e), 20000 / 7);
}

/* ---- not arrived, too many, refused ------------------------------------------------------------------------ */

static void test_order_of_arrival(void **state)
{
    uint32_t oldest = 0;

    (void)state;
    inj_count_route(0, index64, 8, 8, true, NULL);
    inj_count_step(10, NULL);
    inj_count_expert(0, 1, 2);
    inj_count_step(11, NULL); /* known at once, but later than step 10 */
    mock.cuda()->busy = 2;
    assert_int_equal(collect(&oldest), 1);
    assert_int_equal(oldest, 10);
    assert_int_equal(n_got, 0);
    assert_int_equal(collect(&oldest), 1);
    assert_int_equal(collect(&oldest), 0);
    assert_int_equal(tokens_of(10, 0, 5), 3);
    assert_int_equal(tokens_of(11, 0, 1), 2);
}

static void test_slots_used_up(void **state)
{
    struct mp_shm *shm = atomic_load(&inj.shm);
    uint64_t said = atomic_load(&shm->n_log);

    (void)state;
    for (uint32_t step = 20; step < 60; step++) {
        inj_count_expert(0, 1, step);
        inj_count_step(step, NULL);
    }
    assert_true(atomic_load(&shm->n_log) > said);
    nothing_waits();
    for (uint32_t step = 20; step < 36; step++)
        assert_int_equal(tokens_of(step, 0, 1), step);
    assert_int_equal(tokens_of(36, 0, 1), UINT32_MAX);
    inj_count_expert(0, 1, 7); /* and goes on */
    inj_count_step(60, NULL);
    nothing_waits();
    assert_int_equal(tokens_of(60, 0, 1), 7);
}

/* A step's counts are on their way while the job captures a graph: the agent's look may not end the capture, which it would
 * from any thread. Nor may a step's end put its copy into the graph. */
static void test_collect_during_capture(void **state)
{
    (void)state;
    assert_int_equal(inj_count_route(0, index64, 8, 8, true, NULL), MP_OK);
    inj_count_step(65, NULL);
    mock.cuda()->capturing = 1;
    nothing_waits();
    assert_int_equal(mock.cuda()->n_spoiled, 0);
    assert_true(n_got > 0);
    mock.cuda()->capturing = 0;
    assert_int_equal(inj_count_route(0, index64, 8, 8, true, NULL), MP_OK);
    mock.cuda()->capturing = 1;
    inj_count_step(66, NULL);
    mock.cuda()->capturing = 0;
    assert_int_equal(mock.cuda()->n_taken, 0);
    nothing_waits();
}

static void test_capture_and_failures(void **state)
{
    struct mp_shm *shm = atomic_load(&inj.shm);
    uint64_t said = atomic_load(&shm->n_log);

    (void)state;
    mock.cuda()->capturing = 1;
    assert_int_equal(inj_count_route(0, index64, 8, 8, true, NULL), MP_ENOTSUP);
    mock.cuda()->capturing = 0;
    mock.cuda()->fail_launch = 1;
    assert_int_equal(inj_count_route(0, index64, 8, 8, true, NULL), MP_ENOTSUP);
    mock.cuda()->fail_launch = 0;
    inj_count_step(70, NULL);
    mock.cuda()->fail_copy = 1; /* counted, but never to be had: said, not shown as 0 */
    assert_int_equal(inj_count_route(0, index64, 8, 8, true, NULL), MP_OK);
    inj_count_step(71, NULL);
    mock.cuda()->fail_copy = 0;
    nothing_waits();
    assert_int_equal(n_got, 0);
    assert_true(atomic_load(&shm->n_log) > said);
    route_both(72, true);
    assert_false(inj_thread_self()->own);
}

/* ---- tokens ----------------------------------------------------------------------------------------------------- */

#define ROWS 3
#define COLS 8

static const uint8_t mask_bool[ROWS * COLS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                               1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
static const int64_t position[ROWS * COLS] = {0, 1, 2, 3, 0, 1, 2, 0, 0, 1, 2, 3,
                                              4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
static int64_t labels[ROWS * COLS], mask64[ROWS * COLS];
static int32_t mask32[ROWS * COLS];
static float mask_f32[ROWS * COLS];

static void fill_masks(void)
{
    for (int i = 0; i < ROWS * COLS; i++) {
        labels[i] = i % 3 ? 7 : -100;
        mask64[i] = mask_bool[i] ? 1ll << 33 : 0; /* not seen by who reads half of it */
        mask32[i] = mask_bool[i];
        mask_f32[i] = mask_bool[i] ? 1.0f : -0.0f;
    }
}

/* By definition: token i attends to j <= i of its row and segment, at most `window` of them. */
static uint64_t pairs_by_hand(const int64_t *pos, bool masked, uint32_t window)
{
    uint64_t n = 0;

    for (int row = 0; row < ROWS; row++)
        for (int i = 0; i < COLS; i++) {
            int at = row * COLS + i, first = pos ? i - (int)pos[at] : 0;

            for (int j = first; j <= i && (!masked || mask_bool[at]); j++)
                n += !window || i - j < (int)window;
        }
    return n;
}

static void check_tokens(const union mp_record *r, size_t n, const struct inj_mask *m)
{
    bool masked = m->mask != NULL;

    assert_int_equal(n, 3);
    assert_int_equal(r[0].micro.kind, MP_MICRO);
    assert_int_equal(r[0].micro.processed, ROWS * COLS);
    assert_int_equal(r[0].micro.useful, masked ? 13 : 24);
    assert_int_equal(r[0].micro.trainable, m->labels ? 16 : UINT32_MAX);
    assert_int_equal(r[0].micro.batch, ROWS);
    assert_int_equal(r[0].micro.basis, MP_MEASURED);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(r[1 + k].pairs.kind, MP_PAIRS);
        assert_int_equal(r[1 + k].pairs.window, m->window[k]);
        assert_int_equal(r[1 + k].pairs.useful,
                         pairs_by_hand(m->position_ids, masked, m->window[k]));
        assert_int_equal(r[1 + k].pairs.processed, pairs_by_hand(NULL, false, m->window[k]));
    }
    if (masked) {
        assert_int_equal(r[0].micro.n_segment, m->position_ids ? 4 : 2);
        assert_int_equal(r[1].pairs.max_len, m->position_ids ? 5 : 8);
    }
}

static void test_masks(void **state)
{
    const struct inj_mask kind[] = {
        {.mask = mask_bool, .mask_bytes = 1},
        {.mask = mask64, .mask_bytes = 8},
        {.mask = mask32, .mask_bytes = 4},
        {.mask = mask_f32, .mask_bytes = 4, .mask_float = true},
        {.mask = mask64, .mask_bytes = 8, .position_ids = position},
        {.mask = mask_bool, .mask_bytes = 1, .labels = labels},
        {.labels = labels},
    };
    uint32_t step = 100;

    (void)state;
    fill_masks();
    for (size_t i = 0; i < countof(kind); i++) {
        struct inj_mask m = kind[i];
        union mp_record r[8];

        m.rows = ROWS;
        m.cols = COLS;
        m.window[1] = 3;
        m.n_window = 2;
        assert_int_equal(inj_count_mask(&m, false, NULL), MP_OK);
        check_tokens(r, guest_outbox(r, countof(r)), &m);
        assert_int_equal(inj_count_mask(&m, true, NULL), MP_OK);
        inj_count_step(step++, NULL);
        nothing_waits();
        check_tokens(got, n_got, &m);
        assert_int_equal(got[0].micro.step, step - 1);
    }
    assert_int_equal(mock.cuda()->n_illegal, 0);
}

/* Several micro-batches counted on the GPU become one record; what one of them did not know, none knows. */
static void test_micro_batches_add_up(void **state)
{
    const struct inj_mask m = {
        .mask = mask_bool, .mask_bytes = 1, .rows = ROWS, .cols = COLS, .n_window = 1};
    struct mp_micro known = {
        .processed = 24, .useful = UINT32_MAX, .head_rows = 10, .n_segment = 5};

    (void)state;
    for (int i = 0; i < 3; i++) {
        inj_count_micro(&known);
        assert_int_equal(inj_count_mask(&m, true, NULL), MP_OK);
    }
    inj_count_flush(); /* nothing open */
    inj_count_step(200, NULL);
    nothing_waits();
    assert_int_equal(n_got, 2);
    assert_int_equal(got[0].micro.processed, 72);
    assert_int_equal(got[0].micro.useful, 39);
    assert_int_equal(got[0].micro.head_rows, 30);
    assert_int_equal(got[0].micro.n_segment, 15);
    known.head_rows = UINT32_MAX;
    inj_count_micro(&known);
    inj_count_mask(&m, true, NULL);
    known.head_rows = 10;
    inj_count_micro(&known);
    inj_count_mask(&m, true, NULL);
    inj_count_step(201, NULL);
    nothing_waits();
    assert_int_equal(got[0].micro.head_rows, UINT32_MAX);
}

/* A micro-batch that nobody could count is published as it is, marked as modelled; never as zero. */
static void test_flush_of_unknown(void **state)
{
    struct mp_micro m = {
        .processed = 64, .useful = UINT32_MAX, .n_segment = UINT16_MAX, .batch = 2};
    union mp_record r[4];

    (void)state;
    inj_count_micro(&m);
    m.processed = 0; /* the next one: nothing known at all */
    inj_count_micro(&m);
    inj_count_flush();
    inj_count_flush();
    assert_int_equal(guest_outbox(r, countof(r)), 2);
    assert_int_equal(r[0].micro.useful, 64);
    assert_int_equal(r[0].micro.basis, MP_MODELLED);
    assert_int_equal(r[0].micro.n_segment, 2);
    assert_int_equal(r[1].micro.basis, MP_UNKNOWN);
}

static int up(void **state)
{
    mock_load_cuda(&mock);
    mock.cuda()->silent = true;
    return guest_up(state) || inj_cuda_find();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_children),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_route_host),
        cmocka_unit_test(test_route_gpu_first),
        cmocka_unit_test(test_steps_are_apart),
        cmocka_unit_test(test_many_blocks),
        cmocka_unit_test(test_order_of_arrival),
        cmocka_unit_test(test_slots_used_up),
        cmocka_unit_test(test_capture_and_failures),
        cmocka_unit_test(test_collect_during_capture),
        cmocka_unit_test(test_masks),
        cmocka_unit_test(test_micro_batches_add_up),
        cmocka_unit_test(test_flush_of_unknown),
    };

    return cmocka_run_group_tests(tests, up, guest_down);
}
