/* What the guest knows of each application thread: its scope stack, its forward log, its outbox.
 *
 * Slots come from a pool mapped when the guest wakes, so that a launch never allocates. A slot is
 * owned by its thread; only the outbox's tail belongs to the agent. The slot of a thread that has ended
 * keeps its forward log, for backward passes that come after, until the pool has no new slot left.
 */
#ifndef INJ_THREAD_H
#define INJ_THREAD_H

#include "injector/guest.h"
#include "profiler/core/corr.h"
#include "profiler/core/seqlog.h"

#define INJ_THREAD_MAX 64 /* threads that launch or run modules at one time; torch uses 2 to 4 */
#define INJ_DEPTH_MAX  8  /* nesting of scopes: root, layer, block, child */
/* 32768 notes: 0.5 s at 57 k launches/s, the agent comes 5 times a second. */
#define INJ_OUTBOX_LOG2 15
#define INJ_OUTBOX_CAP  (1u << INJ_OUTBOX_LOG2)

#define INJ_NOTE_LAUNCH 128 /* kind of a struct inj_note; other kinds are finished mp_records */

struct inj_note { /* a launch, on its way to the agent */
    uint64_t time_ns;
    uint32_t corr;
    int16_t layer, expert;
    uint32_t step;
    uint8_t phase, pass, kclass, flags;
    uint8_t kind;   /* INJ_NOTE_LAUNCH */
    uint8_t counts; /* 1: a kernel launch, which must get a record; 0: a copy or memset */
    uint8_t pad[6];
};

struct inj_thread {
    struct mp_ctx stack[INJ_DEPTH_MAX];
    int depth; /* scopes open; the running one is stack[depth - 1] */
    bool in_optimizer;
    bool own;                    /* the guest itself is calling CUDA */
    bool root;                   /* runs the root module's forward */
    bool ran_node;               /* has run autograd nodes; without root: an autograd thread */
    _Atomic bool known;          /* torch_id was read; release after it */
    _Atomic bool free;           /* its thread has ended */
    uint64_t torch_id;           /* at::RecordFunction::currentThreadId of this thread */
    uint64_t node_seq, node_tid; /* node of the last lookup, and its answer */
    struct mp_ctx node_ctx;
    bool replays;         /* a layer was entered while a node ran, and is not left */
    uint64_t replay_seq;  /* that node */
    uint8_t region;       /* in code of no part: phase of the kernel or the part before; 0 none */
    uint64_t region_seq;  /* next node when that code began */
    uint64_t noted_seq;   /* of the newest note in the log */
    uint64_t wrapper_seq; /* node of the checkpoint around the running layer; 0 none */
    bool node_found;
    bool node_select; /* gradient of tensor[i] */
    uint64_t hint;
    _Atomic uint64_t head; /* notes written; release; pairs with the agent's acquire */
    _Atomic uint64_t tail; /* notes taken */
    union mp_record outbox[INJ_OUTBOX_CAP];
    struct mp_seqlog log;
};

/* Agent, once, before any callback is enabled. MP_ENOMEM. */
int inj_thread_init(void);

/* The calling thread's slot; NULL when the pool is used up (counted as lost). */
struct inj_thread *inj_thread_self(void);

/* Slot i of those in use; NULL beyond the last. */
struct inj_thread *inj_thread_at(unsigned i);

/* The slot whose thread has that torch id, or NULL. */
struct inj_thread *inj_thread_by_torch_id(uint64_t id);

/* Owner thread: from node seq on, nodes that it makes belong to ctx (seqlog.h). */
void inj_thread_log(struct inj_thread *t, uint64_t seq, struct mp_ctx ctx);

/* Owner thread: posts one record; false when the outbox is full. */
bool inj_thread_post(struct inj_thread *t, const void *record32);

/* Agent: takes up to n notes. */
size_t inj_thread_take(struct inj_thread *t, union mp_record *out, size_t n);

/* Notes that found no outbox or a full one. */
uint64_t inj_thread_lost(void);

#endif
