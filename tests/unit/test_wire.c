/* The wire format: what is packed comes back, and no bytes from outside do harm. */
#include "profiler/core/wire.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct mp_msg full = {
    .kind = MP_WIRE_PARITY,
    .id = 0xfedcba98u,
    .code = MP_WIRE_EPARITY,
    .step = 77,
    .layer = -1,
    .flags = 0x80000001u,
    .value = {1.5, -0.0, 1e300, 3},
    .name = "dgate_up",
    .text = "layer 3: \xc3\xa9 differs",
};

static void test_round_trip(void **state)
{
    uint8_t frame[MP_WIRE_MAX];
    struct mp_msg back;
    size_t n = mp_wire_pack(frame, &full);

    (void)state;
    memset(&back, 0xee, sizeof back);
    assert_int_equal(mp_wire_unpack(&back, frame, n), n);
    assert_int_equal(back.version, MP_WIRE_VERSION);
    assert_int_equal(back.kind, full.kind);
    assert_int_equal(back.id, full.id);
    assert_int_equal(back.code, full.code);
    assert_int_equal(back.step, full.step);
    assert_int_equal(back.layer, full.layer);
    assert_int_equal(back.flags, full.flags);
    assert_memory_equal(back.value, full.value, sizeof full.value);
    assert_string_equal(back.name, full.name);
    assert_string_equal(back.text, full.text);
}

static void test_every_prefix_waits(void **state)
{
    uint8_t frame[MP_WIRE_MAX];
    struct mp_msg back;
    size_t n = mp_wire_pack(frame, &full);

    (void)state;
    for (size_t k = 0; k < n; k++)
        assert_int_equal(mp_wire_unpack(&back, frame, k), 0);
}

static void test_long_texts_are_cut_between_characters(void **state)
{
    uint8_t frame[MP_WIRE_MAX];
    struct mp_msg m = {.kind = MP_WIRE_DONE}, back;

    (void)state;
    for (size_t i = 0; i + 1 < sizeof m.text; i += 2)
        memcpy(m.text + i, "\xc3\xa9", 2); /* no NUL at all in the field */
    memset(m.name, 'n', sizeof m.name);
    assert_true(mp_wire_pack(frame, &m) <= MP_WIRE_MAX);
    assert_true(mp_wire_unpack(&back, frame, sizeof frame) > 0);
    assert_int_equal(strlen(back.name), sizeof m.name - 1);
    assert_int_equal(strlen(back.text), sizeof m.text - 2); /* 399 would be half a character */
}

static void test_control_characters_do_not_pass(void **state)
{
    uint8_t frame[MP_WIRE_MAX];
    struct mp_msg m = {.kind = MP_WIRE_DONE, .text = "a\033[2Jb\x7f\n"}, back;

    (void)state;
    mp_wire_pack(frame, &m);
    assert_true(mp_wire_unpack(&back, frame, sizeof frame) > 0);
    assert_string_equal(back.text, "a?[2Jb??");
}

static void test_appended_fields_are_skipped(void **state)
{
    uint8_t frame[MP_WIRE_MAX];
    struct mp_msg back;
    size_t n = mp_wire_pack(frame, &full);

    (void)state;
    memset(frame + n, 0xab, 8);
    frame[0] = (uint8_t)(frame[0] + 8);
    assert_int_equal(mp_wire_unpack(&back, frame, n + 8), n + 8);
    assert_string_equal(back.text, full.text);
}

static void test_bad_lengths(void **state)
{
    uint8_t frame[MP_WIRE_MAX];
    struct mp_msg back;
    size_t n = mp_wire_pack(frame, &full), name = 4 + 56;

    (void)state;
    frame[2] = 1; /* 64 KiB and more to come */
    assert_int_equal(mp_wire_unpack(&back, frame, n), MP_EFORMAT);
    frame[2] = 0;
    frame[name] = 0xff; /* the name runs into the text and beyond */
    assert_int_equal(mp_wire_unpack(&back, frame, n), MP_EFORMAT);
    mp_wire_pack(frame, &full);
    frame[name + 2] = 0; /* NUL within a text */
    assert_int_equal(mp_wire_unpack(&back, frame, n), MP_EFORMAT);
    memset(frame, 0, sizeof frame);
    assert_int_equal(mp_wire_unpack(&back, frame, sizeof frame), MP_EFORMAT);
}

/* The fuzz target: any bytes, and damaged good ones. */
static void test_any_bytes(void **state)
{
    uint8_t *bytes = malloc(MP_WIRE_MAX); /* exactly: the sanitizer sees a read beyond */
    struct mp_msg back;
    unsigned seed = 5;

    (void)state;
    for (int round = 0; round < 200000; round++) {
        size_t n = (size_t)rand_r(&seed) % (MP_WIRE_MAX + 1);
        int used;

        if (round & 1)
            mp_wire_pack(bytes, &full);
        for (int k = 0; k < (round & 1 ? 3 : 40); k++)
            bytes[(size_t)rand_r(&seed) % (round & 1 ? 90 : MP_WIRE_MAX)] = (uint8_t)rand_r(&seed);
        used = mp_wire_unpack(&back, bytes, n);
        assert_true(used == 0 || used == MP_EFORMAT || (used > 0 && (size_t)used <= n));
        if (used > 0) {
            assert_true(memchr(back.name, 0, sizeof back.name) &&
                        memchr(back.text, 0, sizeof back.text));
            assert_non_null(mp_wire_kind_name(back.kind));
        }
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest test[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_every_prefix_waits),
        cmocka_unit_test(test_long_texts_are_cut_between_characters),
        cmocka_unit_test(test_control_characters_do_not_pass),
        cmocka_unit_test(test_appended_fields_are_skipped),
        cmocka_unit_test(test_bad_lengths),
        cmocka_unit_test(test_any_bytes),
    };

    return cmocka_run_group_tests(test, NULL, NULL);
}
