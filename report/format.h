/* Figures as text, for people: unit chosen, unknown as an en dash. Each returns `out`. */
#ifndef RP_FORMAT_H
#define RP_FORMAT_H

#include "profiler/core/base.h"

#define RP_FIG  24 /* room for any figure */
#define RP_DASH "–"

/* 1.532 s, 62.9 ms, 41.2 µs. */
const char *rp_fmt_seconds(char out[RP_FIG], struct mp_val v);
/* 18.4 %; apportioned and modelled figures get a ~ in front. */
const char *rp_fmt_percent(char out[RP_FIG], struct mp_val v);
/* 61 954 */
const char *rp_fmt_count(char out[RP_FIG], struct mp_val v);
/* 3.11 G, 850 M */
const char *rp_fmt_si(char out[RP_FIG], struct mp_val v);

/* Columns that a UTF-8 text takes; every code point counts as one. */
size_t rp_columns(const char *text);
/* text cut to at most `columns`, with an ellipsis when cut. */
const char *rp_cut(char *out, size_t out_bytes, const char *text, size_t columns);

#endif
