/* What the analyze_*.c files share. Private to them. */
#ifndef RP_ANALYZE_PART_H
#define RP_ANALYZE_PART_H

#include "report/analyze.h"

#define RP_ACC_LAYERS 512 /* deepest models known have 128 */

/* Sums over a set of steps. */
struct rp_acc {
    uint32_t n, first, last, incomplete;
    double *seconds; /* (n) */
    size_t cap;
    uint64_t window_ns, idle_ns, kernel_ns, own_ns;
    uint64_t useful, processed, trainable;
    bool useful_known, processed_known, trainable_known;
    enum mp_basis useful_basis;
    uint64_t booked_ns[MP_PHASE_COUNT][MP_PASS_COUNT], ops[MP_PHASE_COUNT][MP_PASS_COUNT];
    double vio_sum[RP_ACC_LAYERS]; /* per step MaxVio, by layer */
    uint32_t vio_n[RP_ACC_LAYERS];
};

void rp_note(struct rp_report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Facts from meta and the model description. */
int rp_analyze_run(struct rp_report *r, struct rp_profile *p, struct mp_err *err);
/* Layers, experts and imbalance of a set of blocks (bits). */
int rp_analyze_experts(struct rp_report *r, struct rp_profile *p, unsigned blocks,
                       const struct rp_acc *acc, struct mp_err *err);
/* Kernels by name, and coverage. */
int rp_analyze_kernels(struct rp_report *r, struct rp_profile *p, unsigned blocks,
                       struct mp_err *err);

/* MFU over the steps, in the order in which they come. */
struct rp_mfu_work; /* opaque */
int rp_mfu_work_new(struct rp_mfu_work **w, struct rp_report *r, struct rp_profile *p,
                    const struct rp_options *o, struct mp_err *err);
int rp_mfu_work_add(struct rp_mfu_work *w, const struct mp_step *step, struct mp_err *err);
void rp_mfu_work_fill(struct rp_mfu_work *w, struct rp_report *r);
void rp_mfu_work_free(struct rp_mfu_work *w);

/* (busiest - mean) / mean; unknown without tokens. */
struct mp_val rp_max_vio(const uint64_t *tokens, size_t n);

#endif
