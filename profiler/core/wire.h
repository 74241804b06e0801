/* The control protocol between a tool and a guest: one message form for every kind, packed and unpacked here.
 *
 * Pure: bytes in, struct out. The transport is profiler/core/sock.h; what each kind means, and which fields it
 * uses, stands in injector/CONTROL.md. A frame is little-endian:
 *     u32 bytes that follow, u16 version, u16 kind, u32 id, i32 code, u32 step, i32 layer, u32 flags,
 *     f64 value[4], u16 length + name, u16 length + text
 * Bytes from outside are never believed: a length beyond MP_WIRE_MAX, text with a NUL or an overlong field is
 * MP_EFORMAT, and control characters in texts become '?'. A newer version may append fields; an older reader
 * skips them, and a HELLO of any version can be read.
 */
#ifndef MP_WIRE_H
#define MP_WIRE_H

#include "profiler/core/base.h"

#define MP_WIRE_VERSION  1u
#define MP_WIRE_MAX      1024u /* bytes of a whole frame */
#define MP_WIRE_NAME_CAP 64u   /* with the NUL */
#define MP_WIRE_TEXT_CAP 400u

enum mp_wire_kind {
    /* asked by the tool */
    MP_WIRE_HELLO = 1, /* first on every connection, and its answer */
    MP_WIRE_STATUS,    /* answered by STATE, ARM.., LAYER.., DONE */
    MP_WIRE_SWAP,      /* name: the arm; answered by PARITY, COSINE.. and DONE */
    MP_WIRE_CHECK,     /* name: the arm; parity alone: the same rows and DONE */
    MP_WIRE_MEMORY,    /* answered by DONE with value[] */
    MP_WIRE_CANCEL,    /* step: the id of a request that waits; answered by DONE for both */
    MP_WIRE_TRACE,     /* name: "on", "off", "auto"; answered by DONE */
    /* told by the guest */
    MP_WIRE_STATE = 32,
    MP_WIRE_ARM,
    MP_WIRE_LAYER,
    MP_WIRE_PARITY,
    MP_WIRE_DONE,     /* ends the answer to request `id` */
    MP_WIRE_SWAPPED,  /* notice, id 0, to every connection: another arm runs from `step` on */
    MP_WIRE_REVERTED, /* notice: the guest itself went back, `text` says why */
    MP_WIRE_LOSS,     /* row before MEMORY's DONE: loss and saved activations */
    MP_WIRE_COSINE,   /* row behind a layer's PARITY: its angle to the reference */
    MP_WIRE_KIND_END
};

enum mp_wire_flag {
    /* HELLO, tool: */
    MP_WIRE_LEASE = 1, /* when this connection ends, the job goes back to its own arm */
    /* HELLO, guest: what it can do */
    MP_WIRE_CAN_SWAP = 1, /* a model was found */
    MP_WIRE_CAN_MEMORY = 2,
    MP_WIRE_CAN_TRACE = 4, /* CUPTI can be paused and resumed at a step boundary */
    /* SWAP: */
    MP_WIRE_FRESH = 1,   /* run parity again although this arm has passed before */
    MP_WIRE_PARTIAL = 2, /* swap the layers that can be, leave the others; without it all must be */
    /* MEMORY: */
    MP_WIRE_RESET = 1, /* start the peaks anew */
    /* LAYER, ARM, PARITY, COSINE: */
    MP_WIRE_YES = 1,    /* can be swapped; is available; passed; repeats itself bit for bit */
    MP_WIRE_ACTIVE = 2, /* is swapped; runs now; the job's own arm repeats itself */
    MP_WIRE_TWICE = 4,  /* COSINE: both arms were run twice, so the other two flags hold */
};

/* `code` of DONE: an enum mp_code, or this one. */
#define MP_WIRE_EPARITY (-100)

struct mp_msg {
    uint16_t version, kind;
    uint32_t id;  /* chosen by the tool, not 0; 0: a notice */
    int32_t code; /* 0, or why not */
    uint32_t step;
    int32_t layer; /* -1: none */
    uint32_t flags;
    double value[4];
    char name[MP_WIRE_NAME_CAP];
    char text[MP_WIRE_TEXT_CAP];
};

/* Packs one message; overlong texts are cut at a UTF-8 border. Returns the bytes written (<= MP_WIRE_MAX). */
size_t mp_wire_pack(uint8_t out[MP_WIRE_MAX], const struct mp_msg *msg);

/* Reads one message from the front of n bytes. Returns the bytes taken, 0 when more must come first, or
 * MP_EFORMAT: the stream cannot be read on. */
int mp_wire_unpack(struct mp_msg *out, const uint8_t *bytes, size_t n);

/* "swap", "layer", ..; "?" for a kind that is not known. */
const char *mp_wire_kind_name(unsigned kind);

#endif
