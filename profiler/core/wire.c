/* See wire.h. Linked into guest and tool; no allocation, no system call. */
#include "profiler/core/wire.h"

#include <string.h>

#define HEAD_BYTES  4u
#define FIXED_BYTES (2u + 2 + 4 + 4 + 4 + 4 + 4 + 4 * 8)

MP_STATIC_ASSERT(HEAD_BYTES + FIXED_BYTES + 4 + MP_WIRE_NAME_CAP + MP_WIRE_TEXT_CAP <= MP_WIRE_MAX,
                 "every message fits a frame");

static const char *const kind_name[MP_WIRE_KIND_END] = {
    [MP_WIRE_HELLO] = "hello",     [MP_WIRE_STATUS] = "status",     [MP_WIRE_SWAP] = "swap",
    [MP_WIRE_CHECK] = "check",     [MP_WIRE_MEMORY] = "memory",     [MP_WIRE_CANCEL] = "cancel",
    [MP_WIRE_TRACE] = "trace",     [MP_WIRE_STATE] = "state",       [MP_WIRE_ARM] = "arm",
    [MP_WIRE_LAYER] = "layer",     [MP_WIRE_PARITY] = "parity",     [MP_WIRE_DONE] = "done",
    [MP_WIRE_SWAPPED] = "swapped", [MP_WIRE_REVERTED] = "reverted", [MP_WIRE_LOSS] = "loss",
    [MP_WIRE_COSINE] = "cosine",
};

static uint8_t *put(uint8_t *at, uint64_t v, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)(v >> (8 * i));
    return at + bytes;
}

static uint64_t get(const uint8_t **at, size_t bytes)
{
    uint64_t v = 0;

    for (size_t i = 0; i < bytes; i++)
        v |= (uint64_t)(*at)[i] << (8 * i);
    *at += bytes;
    return v;
}

/* Bytes of text that fit into cap with its NUL, never half a character. */
static size_t fitting(const char *text, size_t cap)
{
    size_t n = strnlen(text, cap);

    if (n < cap)
        return n;
    n = cap - 1;
    while (n && ((uint8_t)text[n] & 0xc0) == 0x80)
        n--;
    return n;
}

static uint8_t *put_text(uint8_t *at, const char *text, size_t cap)
{
    size_t n = fitting(text, cap);

    at = put(at, n, 2);
    memcpy(at, text, n);
    return at + n;
}

size_t mp_wire_pack(uint8_t out[MP_WIRE_MAX], const struct mp_msg *msg)
{
    uint8_t *at = out + HEAD_BYTES;
    uint64_t bits;

    at = put(at, msg->version ? msg->version : MP_WIRE_VERSION, 2);
    at = put(at, msg->kind, 2);
    at = put(at, msg->id, 4);
    at = put(at, (uint32_t)msg->code, 4);
    at = put(at, msg->step, 4);
    at = put(at, (uint32_t)msg->layer, 4);
    at = put(at, msg->flags, 4);
    for (size_t i = 0; i < countof(msg->value); i++) {
        memcpy(&bits, &msg->value[i], sizeof bits);
        at = put(at, bits, 8);
    }
    at = put_text(at, msg->name, sizeof msg->name);
    at = put_text(at, msg->text, sizeof msg->text);
    put(out, (uint64_t)(at - out) - HEAD_BYTES, HEAD_BYTES);
    return (size_t)(at - out);
}

static bool get_text(char *out, size_t cap, const uint8_t **at, const uint8_t *end)
{
    size_t n;

    if (end - *at < 2)
        return false;
    n = (size_t)get(at, 2);
    if (n >= cap || n > (size_t)(end - *at) || memchr(*at, 0, n))
        return false;
    memcpy(out, *at, n);
    out[n] = '\0';
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)out[i] < 0x20 || out[i] == 0x7f)
            out[i] = '?';
    *at += n;
    return true;
}

int mp_wire_unpack(struct mp_msg *out, const uint8_t *bytes, size_t n)
{
    const uint8_t *at = bytes, *end;
    uint64_t length, bits;

    if (n < HEAD_BYTES)
        return 0;
    length = get(&at, HEAD_BYTES);
    if (length < FIXED_BYTES + 4 || length > MP_WIRE_MAX - HEAD_BYTES)
        return MP_EFORMAT;
    if (n - HEAD_BYTES < length)
        return 0;
    end = at + length;
    out->version = (uint16_t)get(&at, 2);
    out->kind = (uint16_t)get(&at, 2);
    out->id = (uint32_t)get(&at, 4);
    out->code = (int32_t)get(&at, 4);
    out->step = (uint32_t)get(&at, 4);
    out->layer = (int32_t)get(&at, 4);
    out->flags = (uint32_t)get(&at, 4);
    for (size_t i = 0; i < countof(out->value); i++) {
        bits = get(&at, 8);
        memcpy(&out->value[i], &bits, sizeof bits);
    }
    if (!get_text(out->name, sizeof out->name, &at, end) ||
        !get_text(out->text, sizeof out->text, &at, end))
        return MP_EFORMAT;
    return (int)(HEAD_BYTES + length);
}

const char *mp_wire_kind_name(unsigned kind)
{
    return kind < MP_WIRE_KIND_END && kind_name[kind] ? kind_name[kind] : "?";
}
