/* Which format, and the names both need. */
#include "report/render_trace_part.h"

#include <stdlib.h>
#include <string.h>

#include "report/demangle.h"
#include "report/utf8.h"

#define NAME_MAX_ID 65536u /* the guest's table holds 8192 */

static bool names_grow(struct trace_names *n, uint32_t id)
{
    size_t cap = (size_t)id + 256;
    char **grown = realloc(n->name, cap * sizeof *grown);

    if (!grown)
        return false;
    memset(grown + n->cap, 0, (cap - n->cap) * sizeof *grown);
    n->name = grown;
    n->cap = cap;
    return true;
}

static char *name_shown(char *out, size_t bytes, struct rp_profile *p, uint32_t id)
{
    rp_kernel_name(out, bytes, rp_get_name(p, id));
    return out;
}

const char *trace_name(struct trace_names *n, uint32_t id)
{
    char shown[RP_KERNEL_NAME];

    if (id >= NAME_MAX_ID || (id >= n->cap && !names_grow(n, id)))
        return "?";
    if (!n->name[id])
        n->name[id] = strdup(rp_utf8_clean(name_shown(shown, sizeof shown, n->p, id)));
    return n->name[id] ? n->name[id] : "?";
}

void trace_names_release(struct trace_names *n)
{
    for (size_t i = 0; i < n->cap; i++)
        free(n->name[i]);
    free(n->name);
}

int rp_render_trace(FILE *out, enum rp_trace_format format, struct rp_profile *p,
                    const struct rp_report *r, unsigned index, struct mp_err *err)
{
    return format == RP_TRACE_CHROME ? trace_chrome(out, p, r, err)
                                     : trace_perfetto(out, p, r, index, err);
}
