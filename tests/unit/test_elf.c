/* Finding mapped objects and redirecting their imports, on the stand-in libtorch, which is bound at once
 * and read-only after (full RELRO), as the real one is. */
#include "injector/elf.h"

#include "tests/mock/mock_load.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct mock mock;
static int n_subscribed;

static int my_subscribe(void **subscriber, cupti_callback_fn fn, void *user)
{
    (void)fn;
    (void)user;
    *subscriber = &n_subscribed;
    n_subscribed++;
    return CUPTI_OK;
}

static int my_unsubscribe(void *subscriber)
{
    return subscriber == &n_subscribed ? CUPTI_OK : -1;
}

static void test_not_mapped(void **state)
{
    const struct inj_patch none[] = {{"cuptiSubscribe", NULL}};
    char path[256];

    (void)state;
    assert_null(inj_elf_mapped("libtorch_cpu.so"));
    assert_null(inj_elf_mapped_path("libcupti.so", path, sizeof path));
    assert_int_equal(inj_elf_patch("libtorch_cpu.so", none, 1), MP_EGONE);
}

static void test_mapped(void **state)
{
    char path[1024];
    void *lib;

    (void)state;
    mock_load_torch(&mock);
    mock_load_cupti(&mock);
    lib = inj_elf_mapped_path("libtorch_cpu.so", path, sizeof path);
    assert_non_null(lib);
    assert_non_null(strstr(path, "mock/libtorch_cpu.so"));
    assert_non_null(dlsym(lib, "cuptiActivityEnable")); /* of the instance that it is bound to */
    assert_non_null(inj_elf_mapped("libcupti.so"));
    assert_null(inj_elf_mapped("libtorch_cuda.so"));
    assert_null(inj_elf_mapped("ibcupti.so"));
}

static void test_redirect(void **state)
{
    const struct inj_patch patch[] = {
        {"cuptiSubscribe", (void *)my_subscribe},
        {"cuptiUnsubscribe", (void *)my_unsubscribe},
        {"cuptiNotImported", (void *)my_subscribe},
    };

    (void)state;
    assert_int_equal(mock.kineto_start(), 0); /* the slot has been used before */
    mock.kineto_stop();
    assert_int_equal(inj_elf_patch("libtorch_cpu.so", patch, countof(patch)), 2);
    assert_int_equal(inj_elf_patch("libtorch_cpu.so", patch, countof(patch)),
                     0); /* nothing left to do */
    assert_int_equal(mock.kineto_start(), 0);
    assert_int_equal(n_subscribed, 1);
    assert_null(mock.cupti()->subscriber);
    mock.kineto_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_not_mapped),
                                       cmocka_unit_test(test_mapped),
                                       cmocka_unit_test(test_redirect)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
