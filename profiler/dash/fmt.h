/* Figures as people read them. Unknown is an en dash, never 0; an apportioned or modelled figure carries "~",
 * as in the report.
 * Pure. Each writes into the caller's buffer and returns it.
 */
#ifndef DASH_FMT_H
#define DASH_FMT_H

#include "profiler/core/base.h"

#define DASH_FMT_BYTES 32
#define DASH_UNKNOWN   "\xe2\x80\x93"

/* 0.179 → "17.9 %" */
const char *dash_fmt_frac(char out[DASH_FMT_BYTES], struct mp_val frac);
/* "1.234 s", "12.3 ms", "45.1 µs", "870 ns" */
const char *dash_fmt_ns(char out[DASH_FMT_BYTES], struct mp_val ns);
/* 32100 → "32.1 k"; unit, which may be "", comes after the prefix: "32.1 kT/s" */
const char *dash_fmt_si(char out[DASH_FMT_BYTES], struct mp_val v, const char *unit);
/* "71.2 GiB" */
const char *dash_fmt_bytes(char out[DASH_FMT_BYTES], struct mp_val bytes);
/* Plain number with `decimals` and a unit after it. */
const char *dash_fmt_num(char out[DASH_FMT_BYTES], struct mp_val v, int decimals, const char *unit);

/* A measured value; NAN is unknown. */
struct mp_val dash_measured(double v);

#endif
