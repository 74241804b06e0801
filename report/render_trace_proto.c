#include "report/render_trace_proto.h"

#include <string.h>

#define TEXT_MAX 512

static void varint(struct proto *p, uint64_t v)
{
    while (v >= 0x80) {
        p->byte[p->n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    p->byte[p->n++] = (uint8_t)v;
}

void proto_uint(struct proto *p, unsigned field, uint64_t v)
{
    varint(p, field << 3);
    varint(p, v);
}

void proto_double(struct proto *p, unsigned field, double v)
{
    varint(p, field << 3 | 1);
    memcpy(p->byte + p->n, &v, sizeof v); /* little-endian, as the profile is */
    p->n += sizeof v;
}

void proto_text(struct proto *p, unsigned field, const char *text)
{
    size_t n = strnlen(text, TEXT_MAX);

    varint(p, field << 3 | 2);
    varint(p, n);
    memcpy(p->byte + p->n, text, n);
    p->n += n;
}

size_t proto_begin(struct proto *p, unsigned field)
{
    varint(p, field << 3 | 2);
    p->n += 2;
    return p->n;
}

void proto_end(struct proto *p, size_t at)
{
    size_t n = p->n - at;

    p->byte[at - 2] = (uint8_t)(n | 0x80);
    p->byte[at - 1] = (uint8_t)(n >> 7);
}

void proto_drain(struct proto *p, bool all)
{
    if (!all && p->n + PROTO_SPARE < PROTO_BUFFER)
        return;
    fwrite(p->byte, 1, p->n, p->out);
    p->n = 0;
}
