/* What the render_trace_*.c files share. Private to them. */
#ifndef RP_RENDER_TRACE_PART_H
#define RP_RENDER_TRACE_PART_H

#include "report/render_trace.h"

#include "report/events.h"

int trace_perfetto(FILE *out, struct rp_profile *p, const struct rp_report *r, unsigned index,
                   struct mp_err *err);
int trace_chrome(FILE *out, struct rp_profile *p, const struct rp_report *r, struct mp_err *err);

/* Short kernel names by id, made upon first use. */
struct trace_names {
    struct rp_profile *p;
    char **name; /* (cap) by id; NULL: not asked for yet */
    size_t cap;
};

/* Never NULL; "?" for what is unknown or finds no memory. */
const char *trace_name(struct trace_names *n, uint32_t id);
void trace_names_release(struct trace_names *n);

#endif
