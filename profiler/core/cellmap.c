/* Open addressing at most half full; a cell is found in one or two probes. */
#include "profiler/core/cellmap.h"

#include <stdlib.h>
#include <string.h>

void mp_cellmap_release(struct mp_cellmap *m)
{
    free(m->key);
    free(m->slot);
    free(m->order);
    memset(m, 0, sizeof *m);
}

uint64_t mp_cell_key(int layer, unsigned phase, unsigned pass, int expert, unsigned basis)
{
    uint64_t l = layer < 0 ? 0 : (uint64_t)layer + 1;
    uint64_t e = expert < 0 ? 0 : (uint64_t)expert + 1;
    uint64_t ph = phase < MP_PHASE_COUNT ? phase : (unsigned)MP_PHASE_OTHER;
    uint64_t pa = pass < MP_PASS_COUNT ? pass : (unsigned)MP_PASS_FORWARD;
    uint64_t b = basis < MP_BASIS_COUNT ? basis : (unsigned)MP_UNKNOWN;

    return l << 40 | ph << 32 | pa << 24 | e << 8 | b;
}

void mp_cell_from_key(struct mp_cell *cell, uint64_t key)
{
    cell->layer = (int16_t)((int)(key >> 40) - 1);
    cell->expert = (int16_t)((int)(key >> 8 & 0xffff) - 1);
    cell->phase = (uint8_t)(key >> 32);
    cell->pass = (uint8_t)(key >> 24);
    cell->basis = (uint8_t)key;
}

static uint32_t hash(uint64_t key)
{
    key *= 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio spreads neighbours */
    return (uint32_t)(key >> 32);
}

static void slot_insert(uint32_t *slot, uint32_t n_slot, uint64_t key, uint32_t id)
{
    uint32_t i = hash(key) & (n_slot - 1);

    while (slot[i])
        i = (i + 1) & (n_slot - 1);
    slot[i] = id + 1;
}

static int grow_slots(struct mp_cellmap *m)
{
    uint32_t n = m->n_slot ? 2 * m->n_slot : 1024;
    uint32_t *slot = calloc(n, sizeof *slot);

    if (!slot)
        return MP_ENOMEM;
    for (uint32_t id = 0; id < m->n; id++)
        slot_insert(slot, n, m->key[id], id);
    free(m->slot);
    m->slot = slot;
    m->n_slot = n;
    return 0;
}

static int grow_keys(struct mp_cellmap *m)
{
    uint32_t n = m->n_key ? 2 * m->n_key : 512;
    uint64_t *key = realloc(m->key, n * sizeof *key);

    if (!key)
        return MP_ENOMEM;
    m->key = key;
    m->n_key = n;
    return 0;
}

static uint32_t add(struct mp_cellmap *m, uint64_t key)
{
    if (m->n >= MP_CELL_CAP)
        return MP_CELL_CAP;
    if (m->n == m->n_key && grow_keys(m) != 0)
        return MP_CELL_CAP;
    if (2 * m->n >= m->n_slot && grow_slots(m) != 0)
        return MP_CELL_CAP;
    m->key[m->n] = key;
    slot_insert(m->slot, m->n_slot, key, m->n);
    return m->n++;
}

uint32_t mp_cellmap_id(struct mp_cellmap *m, uint64_t key)
{
    if (m->n_slot) {
        uint32_t mask = m->n_slot - 1;

        for (uint32_t i = hash(key) & mask; m->slot[i]; i = (i + 1) & mask)
            if (m->key[m->slot[i] - 1] == key)
                return m->slot[i] - 1;
    }
    return add(m, key);
}

static int by_key(const void *a, const void *b, void *arg)
{
    const uint64_t *key = arg;
    uint64_t x = key[*(const uint32_t *)a], y = key[*(const uint32_t *)b];

    return (x > y) - (x < y);
}

const uint32_t *mp_cellmap_order(struct mp_cellmap *m)
{
    uint32_t *order;

    if (m->n_order == m->n && m->order)
        return m->order;
    order = realloc(m->order, (m->n ? m->n : 1) * sizeof *order);
    if (!order)
        return NULL;
    m->order = order;
    for (uint32_t i = m->n_order; i < m->n; i++)
        order[i] = i;
    qsort_r(order, m->n, sizeof *order, by_key, m->key);
    m->n_order = m->n;
    return order;
}
