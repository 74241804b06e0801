/* The report as Markdown for a pull-request comment: at most 60 lines, whatever the profile. */
#ifndef RP_RENDER_MD_H
#define RP_RENDER_MD_H

#include <stdio.h>

#include "report/analyze.h"

/* A column a profile, two as before and after. Errors: MP_EIO. */
int rp_render_md(FILE *out, struct rp_report *const *r, size_t n, struct mp_err *err);

#endif
