/* A trace (injector/trace.h) read back: its operations in the order of time, ready to be done again. */
#ifndef TESTS_MOCK_REPLAY_FILE_H
#define TESTS_MOCK_REPLAY_FILE_H

#include "injector/trace.h"

#define REPLAY_WORDS 64 /* argument words in weight ranges that one launch may have */

struct replay_op {
    uint64_t time_ns;
    uint32_t order;      /* in the file */
    uint16_t thread;     /* slot; of ROUND none */
    uint16_t tag;        /* enum inj_trace_tag: NOTE, POSTED, RANGES, ROUND */
    const uint8_t *data; /* payload */
    uint32_t bytes;
    uint32_t n_word;
    const struct inj_trace_facts *facts; /* of a launch */
    uint64_t *word;                      /* (n_word) */
    size_t activity, n_activity;         /* of a round: records that it delivered */
};

struct replay_activity {
    uint8_t *record; /* its kernel name points into names[] */
    uint32_t bytes;
};

struct replay_name {
    uint64_t address; /* in the recorded process */
    char *text;
};

struct replay_file {
    uint8_t *bytes;
    size_t n_bytes;
    uint32_t cupti_version;
    struct replay_op *op;
    size_t n_op;
    struct replay_activity *activity;
    size_t n_activity;
    struct replay_name *name;
    size_t n_name;
    union mp_record *counted; /* routing and tokens that the agent published, in order */
    size_t n_counted;
};

/* A trace as it is, or compressed by zstd. Exits with a sentence when it is not one. */
void replay_read(struct replay_file *f, const char *path);

/* The text at that recorded address; NULL for 0. */
const char *replay_text(const struct replay_file *f, uint64_t address);

/* Compresses the file at `from` into `to`. */
int replay_pack(const char *from, const char *to);

#endif
