/* What the stats*.c files share. Private to them. */
#ifndef RP_STATS_PART_H
#define RP_STATS_PART_H

#include "report/stats.h"

/* MP_OK when all n are finite and there are at least n_min. */
int rp_sample_check(const double *x, size_t n, size_t n_min);

/* Sorted copy, malloced; NULL without memory. */
double *rp_sorted(const double *x, size_t n);

/* Of a sorted series, 0 <= p <= 1, n >= 1. */
double rp_sorted_quantile(const double *x, size_t n, double p);

/* Sorts x in place and takes its median. */
double rp_median_in_place(double *x, size_t n);

#endif
