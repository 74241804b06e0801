/* Forward → backward: which scope made which autograd node.
 *
 * PyTorch gives every autograd node a sequence number from a counter of the thread that runs the
 * forward. The forward thread notes (counter, scope) whenever its scope changes; later a backward
 * thread that runs node `seq` finds the scope in which the node was made: the last note at or below
 * seq. That reaches every backward kernel, weight gradients included, without a hook in the graph.
 *
 * One log a forward thread: written by it alone, read by any thread. Old notes are overwritten; a
 * lookup below the oldest note kept answers "unknown", never a wrong scope.
 */
#ifndef MP_SEQLOG_H
#define MP_SEQLOG_H

#include "profiler/core/base.h"

#include <stdatomic.h>

/* Whose code runs: a module's that is a part (attention, norm, head); a layer's own, before, between and
 * after its parts; the model's own, outside of all layers. In the last two `phase` is a guess, that of the
 * part before, and in the last one the layer is none or a guess too. */
enum mp_whose { MP_WHOSE_PART = 0, MP_WHOSE_LAYER, MP_WHOSE_MODEL };

/* A context: where time belongs. */
struct mp_ctx {
    int16_t layer;  /* -1 none */
    int16_t expert; /* -1 none */
    uint8_t phase;  /* enum mp_phase */
    uint8_t ends;   /* of no part: phase in which its forward ended; 0 unknown */
    uint8_t whose;  /* enum mp_whose */
};

struct mp_seqnote {
    uint64_t seq; /* of the next node to be made when the scope changed */
    struct mp_ctx ctx;
};

/* 2^16 notes = 1 MiB: five micro-batches of a 48-layer, 128-expert eager loop */
#define MP_SEQLOG_LOG2 16
#define MP_SEQLOG_CAP  (1u << MP_SEQLOG_LOG2)

struct mp_seqlog {
    /* Notes ever; release after the note; pairs with acquire in mp_seqlog_find. */
    _Atomic uint64_t n;
    struct mp_seqnote note[MP_SEQLOG_CAP];
};

/* Owner thread: from node seq on, nodes belong to ctx. Two notes for one seq: the later one holds. A seq
 * below the last note's counts as that: what stands is never rewritten, and notes stay sorted. */
void mp_seqlog_put(struct mp_seqlog *log, uint64_t seq, struct mp_ctx ctx);

/* Owner thread: another ctx for the note that begins at seq, if there is one, before anybody looks for it. */
void mp_seqlog_amend(struct mp_seqlog *log, uint64_t seq, struct mp_ctx ctx);

/* Any thread: context of node seq; false when it is older than the log or the log is empty.
 * *hint: where the caller's last lookup ended, 0 at first; backward runs downwards, so the next
 * answer is near and the search costs a step or two. */
bool mp_seqlog_find(const struct mp_seqlog *log, uint64_t seq, uint64_t *hint, struct mp_ctx *out);

#endif
