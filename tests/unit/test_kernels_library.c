/* The kernels' library as a user loads it, on a machine that may have no GPU: one symbol, a table, the CPU path through it. */
#include <dlfcn.h>
#include <libgen.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/moe_kernels.h"

static const struct mk_api *api; /* NULL where the library was not built */

static void need_library(void)
{
    if (!api)
        skip();
}

static void test_table(void **state)
{
    (void)state;
    need_library();
    assert_int_equal(api->version, MK_API_VERSION);
    assert_int_equal(api->size, sizeof *api);
    for (int code = MK_OK; code >= MK_ENOTSUP; code--)
        assert_string_not_equal(api->strerror(code), api->strerror(-99));
}

static void test_cpu_path(void **state)
{
    enum { H = 8, I = 8, E = 2 };
    float x[H], up[E * I * H], down[E * H * I], out[H], score = .5f;
    int64_t index = 1;
    struct mk_sizes sizes;
    struct mk_problem p = {.size = sizeof p,
                           .target = MK_TARGET_CPU,
                           .n_token = 1,
                           .hidden = H,
                           .inter = I,
                           .n_expert = E,
                           .top_k = 1,
                           .dtype = MK_FP32,
                           .index_dtype = MK_INT64,
                           .score_dtype = MK_FP32,
                           .act = MK_ACT_RELU2,
                           .x = x,
                           .index = &index,
                           .score = &score,
                           .x_stride = H,
                           .index_stride = 1,
                           .score_stride = 1,
                           .up = {up, NULL, 0, I * H, H, 1},
                           .down = {down, NULL, 0, H * I, I, 1}};

    (void)state;
    need_library();
    for (int i = 0; i < H; i++)
        x[i] = 1;
    for (int i = 0; i < E * I * H; i++)
        up[i] = down[i] = i < I * H ? 100 : .25f; /* only expert 1 is chosen */
    assert_int_equal(api->sizes(&sizes, &p), MK_OK);
    void *saved = malloc(sizes.saved_bytes);
    struct mk_forward f = {.size = sizeof f,
                           .out = out,
                           .out_stride = H,
                           .saved = saved,
                           .saved_bytes = sizes.saved_bytes,
                           .problem = &p};
    assert_int_equal(api->forward(&f, NULL), MK_OK);
    for (int i = 0; i < H; i++)
        assert_true(out[i] == .5f * 8 * 4 * .25f); /* (8 * 0.25)^2 = 4, times 0.25 over 8 columns */
    f.size = 1;
    assert_int_equal(api->forward(&f, NULL), MK_EVERSION);
    f.size = sizeof f;
    p.size = offsetof(struct mk_problem, lora); /* a caller from before there were adapters */
    p.lora = (const struct mk_lora *)&score;    /* beyond what it knows: not looked at */
    assert_int_equal(api->forward(&f, NULL), MK_OK);
    p.size = sizeof p + 8;
    assert_int_equal(api->forward(&f, NULL), MK_EVERSION);
    free(saved);
}

/* Asking for a CUDA path needs no device: without one there is simply none. */
static void test_choose(void **state)
{
    struct mk_problem p = {.size = sizeof p,
                           .n_token = 1,
                           .hidden = 8,
                           .inter = 8,
                           .n_expert = 2,
                           .top_k = 1,
                           .index_dtype = MK_INT64};
    size_t n = 0;

    (void)state;
    need_library();
    (void)api->choose("forward", 0, &p);
    (void)api->choose("backward", 0, &p);
    while (api->row(n))
        assert_non_null(api->row(n++)->name);
    assert_true(n < 100);
}

/* The library lies in the build folder, this program in its unit/. */
static void load(const char *self)
{
    char path[4096], copy[4096];
    const struct mk_api *(*get)(uint32_t);
    void *lib;

    snprintf(copy, sizeof copy, "%s", self);
    snprintf(path, sizeof path, "%.4000s/../libmoeprof_kernels.so", dirname(copy));
    lib = dlopen(path, RTLD_NOW);
    if (!lib)
        return;
    *(void **)&get = dlsym(lib, "mk_get_api");
    if (!get)
        exit(1);
    api = get(MK_API_VERSION);
    if (!api || get(MK_API_VERSION + 1))
        exit(1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_table),
                                       cmocka_unit_test(test_cpu_path),
                                       cmocka_unit_test(test_choose)};

    (void)argc;
    load(argv[0]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
