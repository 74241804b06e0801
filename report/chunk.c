/* Columns of records and back. Runs in the recorder and in every reader of a profile.
 *
 * Prediction, so that the planes hold little: a start is coded as the gap to the end of the event
 * before it, a duration as the difference to the last one of the same kernel, a lag as the difference
 * to the last lag. One table says which column is coded how; both directions walk it.
 * All arithmetic is unsigned and wraps, so hostile bytes give nonsense records, never a fault.
 */
#include "report/chunk.h"

#if HAVE_ZSTD
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define CHUNK_MAGIC "MPC1"
#define HEAD_BYTES  12u
#define NAME_SLOTS  8192u
#define LEVEL       3 /* 9 gains 4 % of size for 3 times the CPU: mock MoE stream, 2026-11 */

/* Its kind and its columns are as long. */
static const size_t RECORD_BYTES = sizeof(union mp_record);

enum coding {
    PLAIN,
    GAP,       /* to the end of the event before */
    SAME_NAME, /* to the last value of the same kernel name */
    PREVIOUS   /* to the value of the event before */
};

struct column {
    uint8_t offset, width, coding;
};

#define COLUMN(field, coding)                                                                      \
    {                                                                                              \
        offsetof(struct mp_event, field), sizeof(((struct mp_event *)0)->field), coding            \
    }

/* Order matters: a prediction may use only columns above it and records before it. */
static const struct column event_column[] = {
    COLUMN(name, PLAIN),  COLUMN(dur_ns, SAME_NAME), COLUMN(start_ns, GAP), COLUMN(step, PLAIN),
    COLUMN(layer, PLAIN), COLUMN(expert, PLAIN),     COLUMN(phase, PLAIN),  COLUMN(pass, PLAIN),
    COLUMN(basis, PLAIN), COLUMN(lag_us, PREVIOUS),  COLUMN(stream, PLAIN), COLUMN(flags, PLAIN),
};

/* Every other record: its bytes as words, the kind (offset 24) left out. */
static const struct column other_column[] = {
    {0, 4, PLAIN},  {4, 4, PLAIN},  {8, 4, PLAIN},  {12, 4, PLAIN}, {16, 4, PLAIN},
    {20, 4, PLAIN}, {25, 1, PLAIN}, {26, 2, PLAIN}, {28, 4, PLAIN},
};

static bool is_event(uint8_t kind)
{
    return kind >= MP_KERNEL && kind <= MP_OVERHEAD;
}

/* ---- numbers ------------------------------------------------------------------------------------ */

static uint64_t mask(unsigned width)
{
    return width == 8 ? UINT64_MAX : (1ull << (8 * width)) - 1;
}

/* Small differences of either sign become small numbers, within `width` bytes. */
static uint64_t zigzag(uint64_t delta, unsigned width)
{
    uint64_t sign = (delta >> (8 * width - 1)) & 1;

    return ((delta << 1) ^ (0 - sign)) & mask(width);
}

static uint64_t unzigzag(uint64_t z, unsigned width)
{
    return ((z >> 1) ^ (0 - (z & 1))) & mask(width);
}

static uint64_t field_get(const union mp_record *r, const struct column *c)
{
    uint64_t v = 0;

    memcpy(&v, (const uint8_t *)r + c->offset, c->width);
    return v;
}

static void field_set(union mp_record *r, const struct column *c, uint64_t v)
{
    memcpy((uint8_t *)r + c->offset, &v, c->width);
}

static uint64_t guess(const struct column *c, const union mp_record *r, size_t i,
                      const uint32_t *last)
{
    switch (c->coding) {
    case GAP:
        return i ? r[i - 1].event.start_ns + r[i - 1].event.dur_ns : 0;
    case PREVIOUS:
        return i ? field_get(&r[i - 1], c) : 0;
    default:
        return last[r[i].event.name % NAME_SLOTS];
    }
}

/* ---- one column: n numbers <-> `width` planes of n bytes ---------------------------------------- */

static void column_pack(uint8_t *plane, const struct column *c, const union mp_record *r, size_t n)
{
    uint32_t last[NAME_SLOTS] = {0};

    for (size_t i = 0; i < n; i++) {
        uint64_t v = field_get(&r[i], c);
        uint64_t z = c->coding == PLAIN ? v : zigzag(v - guess(c, r, i, last), c->width);

        for (unsigned b = 0; b < c->width; b++)
            plane[b * n + i] = (uint8_t)(z >> (8 * b));
        if (c->coding == SAME_NAME)
            last[r[i].event.name % NAME_SLOTS] = (uint32_t)v;
    }
}

static void column_unpack(union mp_record *r, size_t n, const uint8_t *plane,
                          const struct column *c)
{
    uint32_t last[NAME_SLOTS] = {0};

    for (size_t i = 0; i < n; i++) {
        uint64_t v = 0;

        for (unsigned b = 0; b < c->width; b++)
            v |= (uint64_t)plane[b * n + i] << (8 * b);
        if (c->coding != PLAIN)
            v = guess(c, r, i, last) + unzigzag(v, c->width);
        field_set(&r[i], c, v);
        if (c->coding == SAME_NAME)
            last[r[i].event.name % NAME_SLOTS] = (uint32_t)v;
    }
}

static size_t columns_pack(uint8_t *at, const struct column *c, size_t n_column,
                           const union mp_record *r, size_t n)
{
    size_t used = 0;

    for (size_t k = 0; k < n_column; k++) {
        column_pack(at + used, &c[k], r, n);
        used += c[k].width * n;
    }
    return used;
}

static size_t columns_unpack(union mp_record *r, size_t n, const uint8_t *at,
                             const struct column *c, size_t n_column)
{
    size_t used = 0;

    for (size_t k = 0; k < n_column; k++) {
        column_unpack(r, n, at + used, &c[k]);
        used += c[k].width * n;
    }
    return used;
}

/* ---- chunk -------------------------------------------------------------------------------------- */

static void put32(uint8_t *at, uint32_t v)
{
    memcpy(at, &v, 4);
}

static uint32_t get32(const uint8_t *at)
{
    uint32_t v;

    memcpy(&v, at, 4);
    return v;
}

static int compress(uint8_t *out, size_t *out_bytes, const uint8_t *raw, size_t raw_bytes,
                    struct mp_err *err)
{
    size_t got = ZSTD_compress(out, *out_bytes, raw, raw_bytes, LEVEL);

    if (ZSTD_isError(got))
        return mp_fail(err, MP_EFULL, "cannot compress records: %s", ZSTD_getErrorName(got));
    *out_bytes = got;
    return MP_OK;
}

static int decompress(uint8_t *raw, size_t raw_bytes, const uint8_t *in, size_t bytes,
                      struct mp_err *err)
{
    if (ZSTD_getFrameContentSize(in, bytes) != raw_bytes ||
        ZSTD_decompress(raw, raw_bytes, in, bytes) != raw_bytes)
        return mp_fail(err, MP_EFORMAT, "compressed records are damaged");
    return MP_OK;
}

/* Copies events to the front of `sorted`, others behind them, each in order; kinds to kind[]. */
static size_t partition(union mp_record *sorted, uint8_t *kind, const union mp_record *record,
                        size_t n)
{
    size_t n_event = 0, event = 0, other;

    for (size_t i = 0; i < n; i++)
        n_event += is_event(kind[i] = record[i].head.kind);
    other = n_event;
    for (size_t i = 0; i < n; i++)
        sorted[is_event(kind[i]) ? event++ : other++] = record[i];
    return n_event;
}

static void merge(union mp_record *record, const union mp_record *sorted, const uint8_t *kind,
                  size_t n, size_t n_event)
{
    size_t event = 0, other = n_event;

    for (size_t i = 0; i < n; i++) {
        record[i] = sorted[is_event(kind[i]) ? event++ : other++];
        record[i].head.kind = kind[i];
    }
}

size_t rp_chunk_bound(size_t n)
{
    return HEAD_BYTES + ZSTD_compressBound(n * RECORD_BYTES);
}

int rp_chunk_pack(uint8_t *out, size_t *out_bytes, const union mp_record *record, size_t n,
                  struct mp_err *err)
{
    union mp_record *sorted;
    uint8_t *raw;
    size_t n_event, used, room;
    int rc;

    if (n == 0 || n > RP_CHUNK_MAX || *out_bytes < HEAD_BYTES)
        return mp_fail(err, MP_EINVAL, "a chunk holds 1 to %u records, not %zu", RP_CHUNK_MAX, n);
    sorted = malloc(n * sizeof *sorted);
    raw = malloc(n * RECORD_BYTES);
    if (!sorted || !raw) {
        rc = mp_fail(err, MP_ENOMEM, "no memory to pack %zu records", n);
        goto out;
    }
    n_event = partition(sorted, raw, record, n);
    used = n;
    used += columns_pack(raw + used, event_column, countof(event_column), sorted, n_event);
    used += columns_pack(raw + used, other_column, countof(other_column), sorted + n_event,
                         n - n_event);
    memcpy(out, CHUNK_MAGIC, 4);
    put32(out + 4, (uint32_t)n);
    put32(out + 8, (uint32_t)n_event);
    room = *out_bytes - HEAD_BYTES;
    rc = compress(out + HEAD_BYTES, &room, raw, used, err);
    *out_bytes = room + HEAD_BYTES;
out:
    free(sorted);
    free(raw);
    return rc;
}

static int head_check(size_t *n, size_t *n_event, size_t cap, const uint8_t *blob, size_t bytes,
                      struct mp_err *err)
{
    if (bytes < HEAD_BYTES || memcmp(blob, CHUNK_MAGIC, 4) != 0)
        return mp_fail(err, MP_EFORMAT, "not a chunk of records");
    *n = get32(blob + 4);
    *n_event = get32(blob + 8);
    if (*n == 0 || *n > RP_CHUNK_MAX || *n > cap || *n_event > *n)
        return mp_fail(err, MP_EFORMAT, "chunk claims %zu records, %zu events", *n, *n_event);
    return MP_OK;
}

int rp_chunk_unpack(union mp_record *record, size_t cap, size_t *n, const uint8_t *blob,
                    size_t bytes, struct mp_err *err)
{
    union mp_record *sorted;
    uint8_t *raw;
    size_t n_event = 0, events = 0, used;
    int rc = head_check(n, &n_event, cap, blob, bytes, err);

    if (rc)
        return rc;
    sorted = calloc(*n, sizeof *sorted);
    raw = malloc(*n * RECORD_BYTES);
    if (!sorted || !raw) {
        rc = mp_fail(err, MP_ENOMEM, "no memory to unpack %zu records", *n);
        goto out;
    }
    rc = decompress(raw, *n * RECORD_BYTES, blob + HEAD_BYTES, bytes - HEAD_BYTES, err);
    if (rc)
        goto out;
    for (size_t i = 0; i < *n; i++)
        events += is_event(raw[i]);
    if (events != n_event) {
        rc = mp_fail(err, MP_EFORMAT, "chunk claims %zu events, holds %zu", n_event, events);
        goto out;
    }
    used = *n;
    used += columns_unpack(sorted, n_event, raw + used, event_column, countof(event_column));
    columns_unpack(sorted + n_event, *n - n_event, raw + used, other_column, countof(other_column));
    merge(record, sorted, raw, *n, n_event);
out:
    free(sorted);
    free(raw);
    return rc;
}

/* ---- counts ------------------------------------------------------------------------------------- */

size_t rp_counts_bound(size_t n)
{
    return ZSTD_compressBound(n * 4);
}

int rp_counts_pack(uint8_t *out, size_t *out_bytes, const uint32_t *count, size_t n,
                   struct mp_err *err)
{
    uint8_t *raw = malloc(n * 4 + 1);
    int rc;

    if (!raw)
        return mp_fail(err, MP_ENOMEM, "no memory to pack %zu counts", n);
    for (size_t i = 0; i < n; i++)
        for (unsigned b = 0; b < 4; b++)
            raw[b * n + i] = (uint8_t)(count[i] >> (8 * b));
    rc = compress(out, out_bytes, raw, n * 4, err);
    free(raw);
    return rc;
}

int rp_counts_unpack(uint32_t *count, size_t n, const uint8_t *blob, size_t bytes,
                     struct mp_err *err)
{
    uint8_t *raw = malloc(n * 4 + 1);
    int rc;

    if (!raw)
        return mp_fail(err, MP_ENOMEM, "no memory to unpack %zu counts", n);
    rc = decompress(raw, n * 4, blob, bytes, err);
    for (size_t i = 0; rc == MP_OK && i < n; i++)
        count[i] = (uint32_t)raw[i] | (uint32_t)raw[n + i] << 8 | (uint32_t)raw[2 * n + i] << 16 |
                   (uint32_t)raw[3 * n + i] << 24;
    free(raw);
    return rc;
}

#else

#define NO_ZSTD "this moeprof was built without zstd: install libzstd-dev and run make again"

size_t rp_chunk_bound(size_t n)
{
    return n;
}

int rp_chunk_pack(uint8_t *out, size_t *out_bytes, const union mp_record *record, size_t n,
                  struct mp_err *err)
{
    (void)out, (void)out_bytes, (void)record, (void)n;
    return mp_fail(err, MP_ENOTSUP, NO_ZSTD);
}

int rp_chunk_unpack(union mp_record *record, size_t cap, size_t *n, const uint8_t *blob,
                    size_t bytes, struct mp_err *err)
{
    (void)record, (void)cap, (void)n, (void)blob, (void)bytes;
    return mp_fail(err, MP_ENOTSUP, NO_ZSTD);
}

size_t rp_counts_bound(size_t n)
{
    return n;
}

int rp_counts_pack(uint8_t *out, size_t *out_bytes, const uint32_t *count, size_t n,
                   struct mp_err *err)
{
    (void)out, (void)out_bytes, (void)count, (void)n;
    return mp_fail(err, MP_ENOTSUP, NO_ZSTD);
}

int rp_counts_unpack(uint32_t *count, size_t n, const uint8_t *blob, size_t bytes,
                     struct mp_err *err)
{
    (void)count, (void)n, (void)blob, (void)bytes;
    return mp_fail(err, MP_ENOTSUP, NO_ZSTD);
}

#endif
