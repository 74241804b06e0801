/* Raw records in the profile: a chunk is up to RP_CHUNK_MAX consecutive ring records as one
 * zstd-compressed block of columns. Pure: bytes in, bytes out; no file, no state between calls.
 *
 * Layout (little-endian): "MPC1", u32 n records, u32 n events, then one zstd frame. Its content:
 * kind[n], then the event columns, then the 7 remaining words of the records that are no events.
 * A column of w-byte numbers is stored as w planes of bytes, lowest first: what rarely changes
 * compresses to nothing, and the noise stays in few planes.
 */
#ifndef RP_CHUNK_H
#define RP_CHUNK_H

#include "profiler/core/event.h"

#define RP_CHUNK_MAX 65536u

/* Bytes that *out of rp_chunk_pack must hold for n records. */
size_t rp_chunk_bound(size_t n);

/* Packs n (1..RP_CHUNK_MAX) records; *out_bytes is the capacity before, the size after.
 * Errors: MP_EINVAL, MP_ENOMEM, MP_EFULL (capacity), MP_ENOTSUP (built without zstd). */
int rp_chunk_pack(uint8_t *out, size_t *out_bytes, const union mp_record *record, size_t n,
                  struct mp_err *err);

/* Unpacks into record[cap]; *n is how many. Any bytes may come in: what is no chunk is MP_EFORMAT. */
int rp_chunk_unpack(union mp_record *record, size_t cap, size_t *n, const uint8_t *blob,
                    size_t bytes, struct mp_err *err);

/* The same idea for a plain row of counts (tokens per expert): planes, then zstd.
 * unpack wants exactly n counts. */
size_t rp_counts_bound(size_t n);
int rp_counts_pack(uint8_t *out, size_t *out_bytes, const uint32_t *count, size_t n,
                   struct mp_err *err);
int rp_counts_unpack(uint32_t *count, size_t n, const uint8_t *blob, size_t bytes,
                     struct mp_err *err);

#endif
