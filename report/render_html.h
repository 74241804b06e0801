/* The report as one HTML file: no request to anywhere, readable without scripts, printable.
 *
 * What the page shows beyond rp_report (one step's timeline, clocks) is collected while the profile is
 * open, in bounded memory. Errors: MP_ENOMEM, MP_EIO, and what reading a profile gives.
 */
#ifndef RP_RENDER_HTML_H
#define RP_RENDER_HTML_H

#include <stdio.h>

#include "report/compare.h"

struct rp_html_data; /* opaque */

int rp_html_data_new(struct rp_html_data **data, struct rp_profile *p, const struct rp_report *r,
                     struct mp_err *err);
void rp_html_data_free(struct rp_html_data *data);

/* One profile of the page. */
struct rp_page {
    const struct rp_report *report;
    const struct rp_html_data *data; /* may be NULL */
};

/* Two profiles are shown as before and after, unless they are ranks of one job; compare is of these two,
 * or NULL. */
int rp_render_html(FILE *out, const struct rp_page *page, size_t n,
                   const struct rp_compare *compare, struct mp_err *err);
/* Whether these would be shown as before and after. */
bool rp_html_is_pair(const struct rp_page *page, size_t n);

#endif
