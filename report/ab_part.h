/* What the ab*.c files share. Private to them. */
#ifndef RP_AB_PART_H
#define RP_AB_PART_H

#include "report/ab.h"

void rp_ab_note(struct rp_ab *ab, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The arm whose block traced that step, or -1. */
int rp_ab_arm_of(const struct rp_ab_record *r, uint32_t step);

/* Whole, watched: its phases may be summed. */
bool rp_ab_is_attributed(const struct mp_step *s);

/* Time of each layer's experts by arm, from the raw records. */
int rp_ab_layers(struct rp_ab *ab, struct rp_profile *p, struct mp_err *err);

/* What data the arm saw, and what watching it costs. Behind rp_ab_arm.step. Errors: MP_ENOMEM. */
int rp_ab_arm_data(struct rp_ab_arm *a, const struct rp_ab_record *r, unsigned arm,
                   const struct rp_step_list *l);
/* What moeprof itself costs, as far as the run shows it. */
void rp_ab_cost_text(char *out, size_t n, const struct rp_ab *ab);

/* Fills the rows, what got worse, and the notes. */
void rp_ab_rows(struct rp_ab *ab);

/* How the GPU was set and who else was on it; "" when nothing is known. */
void rp_ab_gpu_text(char *out, size_t n, const struct rp_gpu_facts *g);
void rp_ab_training_text(char *out, size_t n, const struct rp_report *r);
void rp_ab_setup_notes(struct rp_ab *ab);

/* Sentences that text and Markdown share. */
void rp_ab_method_text(char *out, size_t n, const struct rp_ab *ab, unsigned arm);

#endif
