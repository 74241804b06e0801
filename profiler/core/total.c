/* Sums of cells over steps. Owner: one thread. */
#include "profiler/core/cellmap.h"
#include "profiler/core/step_open.h"

#include <stdlib.h>

struct mp_total {
    struct mp_cellmap map;
    struct mp_cell *sum;    /* (n_sum) by id */
    struct mp_cell *sorted; /* (n_sorted) borrowed by callers */
    size_t n_sum, cap_sorted;
};

struct mp_total *mp_total_new(void)
{
    return calloc(1, sizeof(struct mp_total));
}

void mp_total_free(struct mp_total *t)
{
    if (!t)
        return;
    mp_cellmap_release(&t->map);
    free(t->sum);
    free(t->sorted);
    free(t);
}

static int add_cell(struct mp_total *t, const struct mp_cell *c)
{
    uint64_t key = mp_cell_key(c->layer, c->phase, c->pass, c->expert, c->basis);
    uint32_t known = t->map.n, id;
    struct mp_cell *sum;

    if (mp_reserve((void **)&t->sum, &t->n_sum, known + 1, sizeof *t->sum) != 0)
        return MP_ENOMEM;
    id = mp_cellmap_id(&t->map, key);
    if (id >= MP_CELL_CAP)
        return MP_ENOMEM;
    sum = &t->sum[id];
    if (id >= known) {
        *sum = (struct mp_cell){0};
        mp_cell_from_key(sum, key);
    }
    sum->n = sum->n > UINT32_MAX - c->n ? UINT32_MAX : sum->n + c->n;
    sum->booked_ns += c->booked_ns;
    sum->raw_ns += c->raw_ns;
    return 0;
}

int mp_total_add(struct mp_total *t, const struct mp_step *step)
{
    int rc = 0;

    for (uint32_t i = 0; i < step->n_cell; i++)
        if (add_cell(t, &step->cell[i]) != 0)
            rc = MP_ENOMEM;
    return rc;
}

const struct mp_cell *mp_total_cells(struct mp_total *t, size_t *n)
{
    const uint32_t *order = mp_cellmap_order(&t->map);

    *n = 0;
    if (!order || mp_reserve((void **)&t->sorted, &t->cap_sorted, t->map.n ? t->map.n : 1,
                             sizeof *t->sorted) != 0)
        return NULL;
    for (uint32_t i = 0; i < t->map.n; i++)
        t->sorted[i] = t->sum[order[i]];
    *n = t->map.n;
    return t->sorted;
}
