/* What keys ask for that reaches beyond the display: a swap, a report, the end of a before/after. Keys only
 * leave an order in the model; here it is carried out, and asked about first where it changes a job. */
#ifndef DASH_ORDER_H
#define DASH_ORDER_H

#include "profiler/dash/model.h"
#include "profiler/dash/swap.h"
#include "profiler/dash/write.h"

struct dash_orders {
    const char *dir; /* job directory */
    bool readonly;   /* no order that could change a job */
    struct dash_swap swap;
    struct dash_write write;
};

/* Takes the model's order, goes on with what is under way. True when the display changed.
 * now_ns: CLOCK_MONOTONIC. */
bool dash_orders_run(struct dash_orders *o, struct dash_model *m, uint64_t now_ns);
void dash_orders_end(struct dash_orders *o);

#endif
