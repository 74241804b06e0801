/* The report as tables for spreadsheets and data frames: RFC 4180, a header line, base units, unknown is
 * empty. steps.csv, phases.csv, layers.csv, experts.csv, kernels.csv in one folder. */
#ifndef RP_RENDER_CSV_H
#define RP_RENDER_CSV_H

#include "report/analyze.h"

/* Makes the folder where it is missing; its parent must exist. Errors: MP_EIO, and what reading gives. */
int rp_render_csv(const char *dir, struct rp_profile *p, const struct rp_report *r,
                  struct mp_err *err);

#endif
