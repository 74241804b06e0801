/* What shm.c (guest) and shm_read.c (readers) share. Not for others.
 *
 * Shared words are stored with release and loaded with acquire, one by one: free on x86, and a reader
 * that saw any word of record w then also sees the head that was published before w was written,
 * which tells it that the record under it is gone. No fence, so ThreadSanitizer can check it. */
#ifndef MP_SHM_PART_H
#define MP_SHM_PART_H

#include "profiler/core/shm.h"

#include <string.h>

#define MP_PATH_BYTES 4096
#define MP_RING_MASK  (MP_RING_CAP - 1)

MP_STATIC_ASSERT((MP_RING_CAP & MP_RING_MASK) == 0, "slots are found by a mask");

typedef uint64_t __attribute__((may_alias)) mp_word;

MP_STATIC_ASSERT(offsetof(struct mp_shm, spec) % sizeof(mp_word) == 0,
                 "the description moves in words");
MP_STATIC_ASSERT(offsetof(struct mp_shm, log) % sizeof(mp_word) == 0, "log rows move in words");
MP_STATIC_ASSERT(sizeof(struct mp_log_row) % sizeof(mp_word) == 0, "log rows move in words");
MP_STATIC_ASSERT(MP_SPEC_CAP % sizeof(mp_word) == 0, "the description moves in words");

/* What mp_reader_name and the table itself call the index that stands for all names too many. */
#define MP_NAME_FULL "(name table full)"

/* dst is shared and word-aligned, with room for bytes rounded up to a word. */
static inline void mp_words_put(void *dst, const void *src, size_t bytes)
{
    mp_word *to = dst;

    for (size_t done = 0; done < bytes; done += sizeof(mp_word)) {
        size_t part = bytes - done < sizeof(mp_word) ? bytes - done : sizeof(mp_word);
        uint64_t w = 0;

        memcpy(&w, (const char *)src + done, part);
        __atomic_store_n(to++, w, __ATOMIC_RELEASE);
    }
}

static inline void mp_words_take(void *dst, const void *src, size_t bytes)
{
    const mp_word *from = src;

    for (size_t done = 0; done < bytes; done += sizeof(mp_word)) {
        size_t part = bytes - done < sizeof(mp_word) ? bytes - done : sizeof(mp_word);
        uint64_t w = __atomic_load_n(from++, __ATOMIC_ACQUIRE);

        memcpy((char *)dst + done, &w, part);
    }
}

/* DIR/leaf into out (MP_PATH_BYTES). */
int mp_path_join(char *out, size_t out_bytes, const char *dir, const char *leaf,
                 struct mp_err *err);
/* DIR/PID.shm into out (MP_PATH_BYTES). */
int mp_shm_path(char *out, const char *dir, int pid, struct mp_err *err);

/* Field 22 of /proc/PID/stat; 0 when there is no such process or only its zombie. */
uint64_t mp_process_start(int pid);

#endif
