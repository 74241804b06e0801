/* Kernels by name, and how much of their time found a phase. The guest's own kernels are not in the
 * table (report/sums.c leaves them out), so they are in neither figure. */
#include "report/analyze_part.h"

#include <stdlib.h>
#include <string.h>

struct by_name {
    uint64_t n, total_ns, phase_ns[MP_PHASE_COUNT];
    uint32_t min_ns, max_ns, id;
};

struct collect {
    struct by_name *name; /* (cap), by id */
    size_t cap;
    uint64_t all_ns, other_ns;
    struct mp_err *err;
};

#define NAME_MAX_ID 65536u /* the guest's table holds 8192 */

static int on_kernel(void *arg, const struct rp_kernel *k)
{
    struct collect *c = arg;
    struct by_name *row;

    c->all_ns += k->total_ns;
    if (k->phase == MP_PHASE_OTHER)
        c->other_ns += k->total_ns;
    if (k->name >= NAME_MAX_ID)
        return MP_OK;
    if (k->name >= c->cap) {
        size_t cap = (size_t)k->name + 256;
        struct by_name *grown = realloc(c->name, cap * sizeof *grown);

        if (!grown)
            return mp_fail(c->err, MP_ENOMEM, "no memory for the kernels");
        memset(grown + c->cap, 0, (cap - c->cap) * sizeof *grown);
        c->name = grown;
        c->cap = cap;
    }
    row = &c->name[k->name];
    row->id = k->name;
    row->min_ns = row->n == 0 || k->min_ns < row->min_ns ? k->min_ns : row->min_ns;
    row->max_ns = k->max_ns > row->max_ns ? k->max_ns : row->max_ns;
    row->n += k->n;
    row->total_ns += k->total_ns;
    row->phase_ns[k->phase] += k->total_ns;
    return MP_OK;
}

static int by_total(const void *a, const void *b)
{
    const struct by_name *x = a, *y = b;

    if (x->total_ns != y->total_ns)
        return x->total_ns < y->total_ns ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

static enum mp_phase main_phase(const struct by_name *row)
{
    int at = 0;

    for (int i = 1; i < MP_PHASE_COUNT; i++)
        if (row->phase_ns[i] > row->phase_ns[at])
            at = i;
    return (enum mp_phase)at;
}

static int top_fill(struct rp_report *r, struct rp_profile *p, const struct collect *c)
{
    for (size_t i = 0; i < c->cap && i < RP_TOP_KERNELS && c->name[i].n; i++) {
        const struct by_name *row = &c->name[i];
        struct rp_top_kernel *k = &r->kernel[r->n_kernel];

        *k = (struct rp_top_kernel){
            .name = strdup(rp_get_name(p, row->id)),
            .phase = main_phase(row),
            .n = row->n,
            .seconds = (double)row->total_ns * 1e-9,
            .ratio = (double)row->total_ns / (double)c->all_ns,
            .mean_s = (double)row->total_ns / (double)row->n * 1e-9,
            .min_s = row->min_ns * 1e-9,
            .max_s = row->max_ns * 1e-9,
        };
        if (!k->name)
            return MP_ENOMEM;
        r->n_kernel++;
    }
    return MP_OK;
}

int rp_analyze_kernels(struct rp_report *r, struct rp_profile *p, unsigned blocks,
                       struct mp_err *err)
{
    struct collect c = {.err = err};
    int rc = MP_OK;

    for (int b = 0; rc == MP_OK && b < RP_BLOCK_COUNT; b++)
        if (blocks >> b & 1)
            rc = rp_each_kernel(p, b, on_kernel, &c, err);
    r->kernel = calloc(RP_TOP_KERNELS, sizeof *r->kernel);
    if (rc == MP_OK && !r->kernel)
        rc = mp_fail(err, MP_ENOMEM, "no memory for the kernels");
    if (rc == MP_OK && c.all_ns) {
        if (c.cap)
            qsort(c.name, c.cap, sizeof *c.name, by_total);
        r->coverage.kernel_s = (double)c.all_ns * 1e-9;
        r->coverage.attributed =
            (struct mp_val){(double)(c.all_ns - c.other_ns) / (double)c.all_ns, MP_MEASURED};
        if (top_fill(r, p, &c))
            rc = mp_fail(err, MP_ENOMEM, "no memory for the kernels");
    }
    free(c.name);
    return rc;
}
