/* Tokens of micro-batches: counted from their tensors on the host, and made into records together with what
 * the host knows by itself. Private to count.c, which has the same counted on the GPU. */
#ifndef INJ_COUNT_TOKENS_H
#define INJ_COUNT_TOKENS_H

#include "injector/count.h"

/* As the kernel writes them. */
struct inj_sums {
    uint64_t useful, trainable, segments, longest, pairs[4]; /* pairs by window */
};
MP_STATIC_ASSERT(sizeof(struct inj_sums) == 8 * 8, "laid out as the kernel writes it");

/* What the host knows of the micro-batches whose tokens are counted from tensors. */
struct inj_known {
    uint64_t processed, batch, head_rows, segments, pairs_processed[4];
    uint32_t window[4];
    int n_window;
    uint32_t n_micro; /* counted in this step */
    bool has_labels;
    bool head_unknown;     /* some micro-batch did not say: as processed */
    bool segments_unknown; /* some did not say: the count's answer holds */
};

/* Training thread. Adds what tensors on the host say. */
void inj_sums_add(struct inj_sums *s, const struct inj_mask *m);
/* Training thread. Adds what is known without looking into them, and of the running micro-batch. */
void inj_known_add(struct inj_known *k, const struct inj_mask *m);

/* Any thread. The records of counted tokens; where they go differs: outbox on the training thread, ring on
 * the agent's. */
void inj_tokens_emit(const struct inj_known *k, const struct inj_sums *s, uint32_t step,
                     inj_put_fn put, void *arg);

#endif
