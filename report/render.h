/* The renderers: each puts finished reports on a stream. Figures come from analyze.h; nothing is
 * computed here but units. Errors: MP_ENOTSUP (JSON without jansson), MP_ENOMEM, MP_EIO. */
#ifndef RP_RENDER_H
#define RP_RENDER_H

#include <stdio.h>

#include "report/analyze.h"

#define RP_REPORT_SCHEMA 1 /* report/schema/report.schema.json */

/* 100 columns, UTF-8, for people. */
int rp_render_text(FILE *out, const struct rp_report *r, struct mp_err *err);

struct rp_ab;

/* An array of n reports, or the first alone. ab: the before/after of each or NULL; NULL: of none. */
int rp_render_json(FILE *out, struct rp_report *const *r, struct rp_ab *const *ab, size_t n,
                   bool is_array, struct mp_err *err);

#endif
