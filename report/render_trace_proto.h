/* Protobuf's wire format, as far as a trace needs it: fields are appended to a buffer that goes to a
 * stream when it is nearly full. A nested message reserves two bytes for its length and fills them in at
 * its end (a varint may be padded), so nothing is copied. */
#ifndef RP_RENDER_TRACE_PROTO_H
#define RP_RENDER_TRACE_PROTO_H

#include <stdio.h>

#include "profiler/core/base.h"

#define PROTO_BUFFER 65536
#define PROTO_SPARE  8192 /* a packet is shorter than this, and so its length has 14 bits */

struct proto {
    FILE *out;
    size_t n;
    uint8_t byte[PROTO_BUFFER];
};

void proto_uint(struct proto *p, unsigned field, uint64_t v);
void proto_double(struct proto *p, unsigned field, double v);
void proto_text(struct proto *p, unsigned field, const char *text);
/* begin answers what end wants. */
size_t proto_begin(struct proto *p, unsigned field);
void proto_end(struct proto *p, size_t at);
/* Between packets: writes out what is there, if there is little room left. */
void proto_drain(struct proto *p, bool all);

#endif
