/* What the compare*.c files share. Private to them. */
#ifndef RP_COMPARE_PART_H
#define RP_COMPARE_PART_H

#include "report/compare.h"

/* Fills figure[] and phase[]. */
void rp_compare_rows(struct rp_compare *c);

/* Reads both profiles' steps once more. Errors: MP_ENOMEM and of reading. */
int rp_compare_data(struct rp_same_data *out, struct rp_profile *const p[2], struct mp_err *err);

/* Of the run's own traced and untraced steps: known only where it had both. */
struct mp_val rp_compare_tracing(const struct rp_report *r);

void rp_compare_note(struct rp_compare *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* "before" and "after", with the experts' implementations where they differ. */
void rp_compare_names(char out[2][64], const struct rp_compare *c);

#endif
