/* The guest's input, written down: option trace=FILE of MOEPROF (for tests). What crosses the guest's
 * border in a real run (scope operations, launches with the facts that torch and the driver told, range
 * tables, raw activity records, counts) goes to a file that tests/mock/replay.c feeds through the same
 * code again, without a GPU.
 *
 * Application threads post notes of 32 bytes to their outbox, before the effect that they describe; the
 * agent writes the file. A launch neither allocates nor locks, traced or not.
 *
 * File: struct inj_trace_item, then `bytes` of payload, over and over. Pointers to names stand as they
 * are; a NAME item comes before the first use of each.
 */
#ifndef INJ_TRACE_H
#define INJ_TRACE_H

#include "injector/cupti_abi.h"
#include "injector/thread.h"
#include "profiler/core/ranges.h"

#define INJ_TRACE_MAGIC 0x3143525450454f4dull /* "MOEPTRC1" */

enum inj_trace_tag {
    INJ_TRACE_HEAD = 1, /* struct inj_trace_head */
    INJ_TRACE_NAME,     /* u64 pointer, then the text, no NUL */
    INJ_TRACE_NOTE,     /* a thread's note: one of the structs below */
    INJ_TRACE_POSTED,   /* a thread's union mp_record (micro-batch, pairs) as it was published */
    INJ_TRACE_COUNTED,  /* the agent's union mp_record (routing, tokens) */
    INJ_TRACE_RANGES,   /* u64 time_ns, then struct mp_range of the new table; thread: who set it */
    INJ_TRACE_ROUND,    /* struct inj_trace_round: the agent empties buffers */
    INJ_TRACE_ACTIVITY  /* one activity record, as CUPTI made it */
};

struct inj_trace_item {
    uint16_t tag;    /* enum inj_trace_tag */
    uint16_t thread; /* slot, of notes */
    uint32_t bytes;
};

struct inj_trace_head {
    uint64_t magic;
    uint32_t cupti_version;
    uint32_t pad;
};

struct inj_trace_round {
    uint64_t time_ns;
    uint64_t n_mark; /* step marks that had been taken from outboxes before it */
};

/* Kinds in the outbox, beside INJ_NOTE_LAUNCH. */
enum {
    INJ_TRACE_KIND = 192,
    INJ_TRACE_SCOPE = INJ_TRACE_KIND, /* struct inj_trace_scope */
    INJ_TRACE_LAUNCH,                 /* struct inj_trace_launch, then _FACTS, then _WORDS */
    INJ_TRACE_FACTS,                  /* struct inj_trace_facts */
    INJ_TRACE_WORDS,                  /* struct inj_trace_words, any number */
    INJ_TRACE_SET_RANGES              /* struct inj_trace_scope with `table` */
};

enum inj_trace_op {
    INJ_OP_ENTER = 0,
    INJ_OP_LEAVE,
    INJ_OP_EXPERT,
    INJ_OP_MICRO_BEGIN,
    INJ_OP_MICRO_END,
    INJ_OP_OPTIMIZER_BEGIN,
    INJ_OP_OPTIMIZER_END,
    INJ_OP_STEP_END
};

enum inj_trace_flag {
    INJ_TRACED_TORCH = 1, /* torch was trusted: the facts below hold */
    INJ_TRACED_GRAD = 2,
    INJ_TRACED_NODE = 4,   /* a node ran */
    INJ_TRACED_SELECT = 8, /* of class SelectBackward0 */
    INJ_TRACED_OWN = 16,   /* the guest's own launch */
    INJ_TRACED_EXTRA = 32  /* arguments came as one buffer */
};

struct inj_trace_scope {
    uint64_t time_ns;
    union {
        struct {
            uint32_t next_seq, node_seq;
        };
        uint64_t table; /* of SET_RANGES: its address */
    };
    uint32_t torch_id;
    int16_t layer, arg; /* phase or expert */
    uint8_t kind, flags;
    uint8_t op; /* enum inj_trace_op */
    int8_t depth;
    uint32_t step; /* that runs */
};

struct inj_trace_launch {
    uint64_t time_ns;
    uint64_t handle;
    uint32_t corr;
    uint16_t cbid;
    uint8_t pad[2];
    uint8_t kind, flags;
    uint8_t rest[6];
};

struct inj_trace_facts {
    uint64_t name; /* address of the symbol's name; 0 none */
    uint64_t node_seq;
    uint32_t node_tid;
    uint32_t next_seq;
    uint8_t kind;
    uint8_t pad[3];
    uint32_t torch_id;
};

struct inj_trace_words { /* argument words that fall into [lo, hi) of the range table, in order */
    uint64_t word[2];
    uint32_t n;
    uint32_t pad;
    uint8_t kind;
    uint8_t rest[7];
};

MP_STATIC_ASSERT(sizeof(struct inj_trace_scope) == 32 && sizeof(struct inj_trace_launch) == 32 &&
                     sizeof(struct inj_trace_facts) == 32 && sizeof(struct inj_trace_words) == 32,
                 "notes are outbox records");
MP_STATIC_ASSERT(offsetof(struct inj_trace_scope, kind) == 24 &&
                     offsetof(struct inj_trace_launch, kind) == 24 &&
                     offsetof(struct inj_trace_facts, kind) == 24 &&
                     offsetof(struct inj_trace_words, kind) == 24,
                 "kind has one place");

/* Set before any thread of the job can reach the guest; cleared by the agent when the file fails. */
extern _Atomic bool inj_trace_wanted;

static inline bool inj_trace_on(void)
{
    return __builtin_expect(atomic_load_explicit(&inj_trace_wanted, memory_order_relaxed), 0);
}

/* ---- application threads; each before the effect ------------------------------------------------ */

void inj_trace_scope(enum inj_trace_op op, int depth, int layer, int arg);
void inj_trace_set_ranges(const struct mp_ranges *r);
void inj_trace_launch(struct inj_thread *t, uint32_t cbid, void *handle,
                      const struct cupti_callback *info, bool extra);
void inj_trace_words(struct inj_thread *t, const struct mp_ranges *r, const void *bytes, size_t n);

/* ---- agent ---------------------------------------------------------------------------------------- */

/* Creates the file (never an existing one) and writes its head. MP_EIO with a sentence; tracing ends. */
int inj_trace_open(const char *path, uint32_t cupti_version, struct mp_err *err);

/* One record from thread `slot`'s outbox; launch notes, which are no input, are skipped. */
void inj_trace_take(unsigned slot, const union mp_record *record);
void inj_trace_counted(const union mp_record *record);
void inj_trace_round(void);

/* `valid_bytes` of buffer as next_record (CUPTI's) walks them. */
void inj_trace_buffer(uint8_t *buffer, size_t valid_bytes,
                      int (*next_record)(uint8_t *buffer, size_t valid_bytes, uint8_t **record));

/* Writes what is pending. */
void inj_trace_flush(void);

#endif
