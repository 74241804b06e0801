/* ref_route.h: routing on the CPU, in the layout of plan.h. */
#ifndef KERNELS_REF_ROUTE_H
#define KERNELS_REF_ROUTE_H

#include "kernels/plan.h"

struct mk_ref_route {
    int32_t *offset, *row_token, *row_choice, *choice_row, *n_tile;
    float *row_score;
    struct mk_tile *tile, *fit_tile;
};

/* Pointers into a saved buffer. */
struct mk_ref_route mk_ref_route_at(void *saved, const struct mk_saved_layout *at);

/* Sorts the choices by expert, stable. */
void mk_ref_route(struct mk_ref_route *r, const struct mk_problem *p);

#endif
