/* Dense numbers for cells: (layer, phase, pass, expert, basis) -> 0, 1, 2 .. in order of first sight.
 * A training meets the same cells every step, so this grows for a few steps and then only looks up.
 * Owner: one thread. */
#ifndef MP_CELLMAP_H
#define MP_CELLMAP_H

#include "profiler/core/step.h"

/* 61 layers x 256 experts x 3 passes are 47 k; a million is a broken stream. */
#define MP_CELL_CAP (1u << 20)

struct mp_cellmap {
    uint64_t *key;   /* (n) by id; the order of keys is the order of cells */
    uint32_t *slot;  /* (n_slot) id + 1, 0 free; n_slot is a power of two */
    uint32_t *order; /* (n_order) ids by ascending key */
    uint32_t n, n_key, n_slot, n_order;
};

void mp_cellmap_release(struct mp_cellmap *m);

/* Cell fields outside their range are taken as none, other, forward and unknown. */
uint64_t mp_cell_key(int layer, unsigned phase, unsigned pass, int expert, unsigned basis);
void mp_cell_from_key(struct mp_cell *cell, uint64_t key);

/* Id of key, a new one if need be; MP_CELL_CAP when full or out of memory. */
uint32_t mp_cellmap_id(struct mp_cellmap *m, uint64_t key);

/* Ids by ascending key, (m->n) of them; borrowed until the next new id; NULL when out of memory. */
const uint32_t *mp_cellmap_order(struct mp_cellmap *m);

#endif
