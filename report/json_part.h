/* What the JSON renderers share: figures with their unknowns, texts, the way out. Private to them. */
#ifndef RP_JSON_PART_H
#define RP_JSON_PART_H

#include <stdio.h>

#include "report/ab.h"

int rp_json_missing(struct mp_err *err); /* built without jansson */

#if HAVE_JANSSON
#include <jansson.h>

json_t *rp_json_value(struct mp_val v);
json_t *rp_json_known(double v, bool is_known);
json_t *rp_json_text(const char *t); /* null for "" and for what is not UTF-8 */
json_t *rp_json_interval(const struct rp_interval *in, bool is_known); /* value, low, high */
json_t *rp_json_steady(const struct rp_steady *s);
json_t *rp_json_series(const double *v, size_t n);
json_t *rp_json_notes(const char *note, size_t stride, size_t n);
/* A whole before/after: the document of ab.schema.json. NULL: no memory. */
json_t *rp_json_ab(const struct rp_ab *ab);

/* Writes and releases a document; what: "the report". NULL: no memory for it. */
int rp_json_write(FILE *f, json_t *document, const char *what, struct mp_err *err);
#endif

#endif
