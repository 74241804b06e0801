/* Fixed-size rows, linear probing, doubling at half full. Own table rather than uthash because it sees
 * every kernel event: one cache line and no allocation a hit. */
#include "report/kernel_sum.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_CAP 1024u

static uint64_t key_of(const struct rp_kernel *k)
{
    return (uint64_t)k->name << 32 | (uint64_t)(uint16_t)k->layer << 16 | (uint64_t)k->phase << 8 |
           k->pass;
}

static struct rp_kernel *find(const struct rp_kernel_sum *s, const struct rp_kernel *k)
{
    uint64_t key = key_of(k);
    size_t i = (key * 0x9e3779b97f4a7c15ull >> 20) & (s->cap - 1);

    while (s->slot[i].n && key_of(&s->slot[i]) != key)
        i = (i + 1) & (s->cap - 1);
    return &s->slot[i];
}

static int grow(struct rp_kernel_sum *s)
{
    struct rp_kernel_sum bigger = {.cap = s->cap ? s->cap * 2 : FIRST_CAP, .used = s->used};

    bigger.slot = calloc(bigger.cap, sizeof *bigger.slot);
    if (!bigger.slot)
        return MP_ENOMEM;
    for (size_t i = 0; i < s->cap; i++)
        if (s->slot[i].n)
            *find(&bigger, &s->slot[i]) = s->slot[i];
    free(s->slot);
    *s = bigger;
    return MP_OK;
}

void rp_kernel_sum_release(struct rp_kernel_sum *s)
{
    free(s->slot);
    *s = (struct rp_kernel_sum){0};
}

void rp_kernel_sum_clear(struct rp_kernel_sum *s)
{
    if (s->used)
        memset(s->slot, 0, s->cap * sizeof *s->slot);
    s->used = 0;
}

int rp_kernel_sum_add(struct rp_kernel_sum *s, const struct rp_kernel *k)
{
    struct rp_kernel *row;

    if (k->n == 0)
        return MP_OK;
    if (s->used * 2 >= s->cap && grow(s))
        return MP_ENOMEM;
    row = find(s, k);
    if (row->n == 0) {
        *row = *k;
        s->used++;
        return MP_OK;
    }
    row->n += k->n;
    row->total_ns += k->total_ns;
    row->min_ns = k->min_ns < row->min_ns ? k->min_ns : row->min_ns;
    row->max_ns = k->max_ns > row->max_ns ? k->max_ns : row->max_ns;
    return MP_OK;
}

int rp_kernel_sum_merge(struct rp_kernel_sum *to, const struct rp_kernel_sum *from)
{
    int rc = MP_OK;

    for (size_t i = 0; rc == MP_OK && i < from->cap; i++)
        rc = rp_kernel_sum_add(to, &from->slot[i]);
    return rc;
}
