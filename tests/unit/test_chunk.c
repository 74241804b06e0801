/* Chunks: what goes in comes out; a realistic stream stays within the promised bytes; no bytes from
 * outside can do harm (deterministic mutations of real chunks, checked by asan and ubsan builds). */
#include "report/chunk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "profiler/core/phase.h"

static uint64_t rng_state;

static uint32_t rnd(void)
{
    rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(rng_state >> 33);
}

/* An eager MoE step as CUPTI tells it: per-expert GEMMs with noise in gaps, durations (32 ns ticks)
 * and lags, layer after layer; routing records and a step mark behind it. */
static size_t stream_make(union mp_record *r, size_t n)
{
    uint64_t now = 1790000000000000000ull;
    uint32_t step = 0;
    size_t i = 0;

    memset(r, 0, n * sizeof *r);
    rng_state = 7;
    while (i < n) {
        for (int layer = 0; layer < 8 && i < n; layer++)
            for (int k = 0; k < 128 * 12 && i < n; k++) {
                struct mp_event *e = &r[i++].event;

                e->start_ns = now + 960 + 32 * (rnd() % 48);
                e->dur_ns = 3200 + 64 * (uint32_t)(k % 12) + 32 * (rnd() % 12);
                now = e->start_ns + e->dur_ns;
                e->name = (uint32_t)(k % 12 + 20);
                e->step = step;
                e->layer = (int16_t)layer;
                e->expert = (int16_t)(k / 12);
                e->kind = MP_KERNEL;
                e->phase = MP_PHASE_EXPERT;
                e->basis = MP_MEASURED;
                e->lag_us = (uint16_t)(40 + rnd() % 30);
                e->stream = 7;
                e->flags = MP_FLAG_POINTER;
            }
        for (int x = 0; x < 128 && i < n; x += 4, i++) {
            r[i].routing = (struct mp_routing){
                .step = step, .expert0 = (int16_t)x, .kind = MP_ROUTING, .n = 4};
            for (int k = 0; k < 4; k++)
                r[i].routing.count[k] = 200 + rnd() % 100;
        }
        if (i < n)
            r[i++].mark = (struct mp_step_mark){.end_ns = now, .step = step, .kind = MP_STEP};
        step++;
    }
    return n;
}

static uint8_t *pack(const union mp_record *r, size_t n, size_t *bytes)
{
    uint8_t *blob = malloc(*bytes = rp_chunk_bound(n));

    assert_non_null(blob);
    assert_int_equal(rp_chunk_pack(blob, bytes, r, n, NULL), MP_OK);
    return blob;
}

static void round_trip(void **state)
{
    static const size_t sizes[] = {1, 2, 3, 1000, 13000, RP_CHUNK_MAX};
    union mp_record *r = calloc(RP_CHUNK_MAX, sizeof *r), *back = calloc(RP_CHUNK_MAX, sizeof *r);

    (void)state;
    for (size_t k = 0; k < countof(sizes); k++) {
        size_t n = stream_make(r, sizes[k]), got, bytes;
        uint8_t *blob = pack(r, n, &bytes);

        assert_int_equal(rp_chunk_unpack(back, RP_CHUNK_MAX, &got, blob, bytes, NULL), MP_OK);
        assert_int_equal(got, n);
        assert_memory_equal(r, back, n * sizeof *r);
        free(blob);
    }
    free(r);
    free(back);
}

/* Any 32 bytes are a record as far as packing goes: extremes and unknown kinds come back unchanged. */
static void random_records(void **state)
{
    enum { N = 5000 };
    union mp_record *r = calloc(N, sizeof *r), *back = calloc(N, sizeof *r);
    size_t got, bytes;
    uint8_t *blob;

    (void)state;
    rng_state = 11;
    for (size_t i = 0; i < N * sizeof *r; i++)
        ((uint8_t *)r)[i] = (uint8_t)rnd();
    for (size_t i = 0; i < N; i++)
        r[i].head.kind %= MP_KIND_COUNT + 1;
    blob = pack(r, N, &bytes);
    assert_int_equal(rp_chunk_unpack(back, N, &got, blob, bytes, NULL), MP_OK);
    assert_memory_equal(r, back, N * sizeof *r);
    free(blob);
    free(r);
    free(back);
}

/* The goal in numbers of design.md: at most 12 bytes a kernel event in the file. */
static void small_enough(void **state)
{
    union mp_record *r = calloc(RP_CHUNK_MAX, sizeof *r);
    size_t bytes, n = stream_make(r, RP_CHUNK_MAX);
    uint8_t *blob = pack(r, n, &bytes);

    (void)state;
    print_message("%.2f bytes a record\n", (double)bytes / (double)n);
    assert_true(bytes < 8 * n);
    free(blob);
    free(r);
}

static void refuses(void **state)
{
    union mp_record r[4] = {0}, back[4];
    size_t got, bytes;
    uint8_t *blob = pack(r, 4, &bytes);
    struct mp_err err;

    (void)state;
    assert_int_equal(rp_chunk_pack(blob, &bytes, r, 0, &err), MP_EINVAL);
    for (size_t cut = 0; cut < bytes; cut++)
        assert_int_equal(rp_chunk_unpack(back, 4, &got, blob, cut, &err), MP_EFORMAT);
    assert_int_equal(rp_chunk_unpack(back, 3, &got, blob, bytes, &err), MP_EFORMAT);
    free(blob);
}

static void mutate(uint8_t *b, size_t bytes)
{
    for (unsigned k = 1 + rnd() % 4; k > 0; k--)
        switch (rnd() % 3) {
        case 0:
            b[rnd() % bytes] = (uint8_t)rnd();
            break;
        case 1:
            b[rnd() % bytes] ^= (uint8_t)(1u << rnd() % 8);
            break;
        default:
            b[rnd() % (bytes < 24 ? bytes : 24)] = (uint8_t)(rnd() % 2 ? 255 : 0);
        }
}

static void fuzz(void **state)
{
    enum { N = 600 };
    union mp_record *r = calloc(N, sizeof *r), *back = calloc(N, sizeof *r);
    size_t bytes, got;
    uint8_t *blob, *bad;

    (void)state;
    stream_make(r, N);
    blob = pack(r, N, &bytes);
    bad = malloc(bytes);
    rng_state = 13;
    for (int round = 0; round < 20000; round++) {
        size_t len = rnd() % 8 ? bytes : rnd() % bytes;

        memcpy(bad, blob, bytes);
        mutate(bad, bytes);
        rp_chunk_unpack(back, N, &got, bad, len, NULL);
        rp_counts_unpack((uint32_t *)back, N, bad + 12, len > 12 ? len - 12 : 0, NULL);
    }
    free(bad);
    free(blob);
    free(r);
    free(back);
}

static void counts(void **state)
{
    uint32_t in[128], out[128];
    uint8_t blob[1024];
    size_t bytes = sizeof blob;

    (void)state;
    for (unsigned i = 0; i < 128; i++)
        in[i] = i == 5 ? UINT32_MAX : i * 37;
    assert_true(rp_counts_bound(128) <= sizeof blob);
    assert_int_equal(rp_counts_pack(blob, &bytes, in, 128, NULL), MP_OK);
    assert_int_equal(rp_counts_unpack(out, 128, blob, bytes, NULL), MP_OK);
    assert_memory_equal(in, out, sizeof in);
    assert_int_equal(rp_counts_unpack(out, 127, blob, bytes, NULL), MP_EFORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),   cmocka_unit_test(random_records),
        cmocka_unit_test(small_enough), cmocka_unit_test(refuses),
        cmocka_unit_test(fuzz),         cmocka_unit_test(counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
