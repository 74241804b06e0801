/* Open addressing in both tables: the one that counts and the one that answers. */
#include "profiler/dash/kernels.h"

#include "profiler/core/phase.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAP 1024u
#define SEVERAL   (-2)

void dash_kernels_release(struct dash_kernels *k)
{
    for (size_t i = 0; i < DASH_NAME_CAP; i++)
        free(k->name[i]);
    free(k->row);
    memset(k, 0, sizeof *k);
}

int dash_kernels_copy(struct dash_kernels *out, const struct dash_kernels *k)
{
    *out = *k;
    memset(out->name, 0, sizeof out->name);
    out->row = k->cap ? malloc(k->cap * sizeof *k->row) : NULL;
    if (k->cap && !out->row) {
        out->cap = out->used = 0;
        return MP_ENOMEM;
    }
    if (k->cap)
        memcpy(out->row, k->row, k->cap * sizeof *k->row);
    for (size_t i = 0; i < DASH_NAME_CAP; i++)
        if (k->name[i])
            out->name[i] = strdup(k->name[i]);
    return MP_OK;
}

/* ---- counting ------------------------------------------------------------------------------- */

static uint32_t hash(uint32_t name, int layer, uint32_t phase)
{
    uint64_t x = (uint64_t)name << 32 | (uint32_t)(uint16_t)layer << 8 | phase;

    x *= 0x9e3779b97f4a7c15ull; /* 2^64 / golden ratio: spreads neighbours */
    return (uint32_t)(x >> 32);
}

static struct dash_kernel *find(const struct dash_kernels *k, uint32_t name, int16_t layer,
                                uint8_t phase)
{
    uint32_t i = hash(name, layer, phase);

    for (;; i++) {
        struct dash_kernel *row = &k->row[i & (k->cap - 1)];

        if (!row->used || (row->name == name && row->layer == layer && row->phase == phase))
            return row;
    }
}

static bool grow(struct dash_kernels *k)
{
    struct dash_kernels bigger = {.cap = k->cap ? k->cap * 2 : FIRST_CAP};

    bigger.row = calloc(bigger.cap, sizeof *bigger.row);
    if (!bigger.row)
        return false;
    for (uint32_t i = 0; i < k->cap; i++)
        if (k->row[i].used)
            *find(&bigger, k->row[i].name, k->row[i].layer, k->row[i].phase) = k->row[i];
    free(k->row);
    k->row = bigger.row;
    k->cap = bigger.cap;
    return true;
}

void dash_kernels_clear(struct dash_kernels *k)
{
    if (k->row)
        memset(k->row, 0, k->cap * sizeof *k->row);
    k->used = 0;
    k->n = k->ns = k->n_over = k->n_step = 0;
}

void dash_kernels_add(struct dash_kernels *k, uint32_t name, int16_t layer, uint8_t phase,
                      uint32_t ns)
{
    struct dash_kernel *row;

    k->n++;
    k->ns += ns;
    if (k->used * 2 >= k->cap && k->cap < DASH_KERNEL_CAP * 2)
        grow(k);
    if (k->cap == 0)
        return;
    row = find(k, name, layer, phase);
    if (!row->used && (k->used >= DASH_KERNEL_CAP || k->used + 1 >= k->cap)) {
        k->n_over++;
        return;
    }
    k->used += !row->used;
    row->used = true;
    row->name = name;
    row->layer = layer;
    row->phase = phase;
    row->n++;
    row->ns += ns;
    row->max_ns = ns > row->max_ns ? ns : row->max_ns;
}

bool dash_kernels_wants_name(const struct dash_kernels *k, uint32_t i)
{
    return i < DASH_NAME_CAP && !k->name[i];
}

void dash_kernels_set_name(struct dash_kernels *k, uint32_t i, const char *name)
{
    if (dash_kernels_wants_name(k, i))
        k->name[i] = strdup(name);
}

const char *dash_kernels_name(const struct dash_kernels *k, uint32_t i)
{
    return i < DASH_NAME_CAP && k->name[i] ? k->name[i] : "?";
}

/* ---- answering ------------------------------------------------------------------------------ */

static bool contains(const char *text, const char *word, size_t n)
{
    for (; *text; text++)
        if (strncasecmp(text, word, n) == 0)
            return true;
    return false;
}

/* "L12": the layer a word asks for, or -1. */
static long layer_word(const char *word, size_t n)
{
    char *end;
    long layer;

    if (n < 2 || (word[0] != 'L' && word[0] != 'l') || !isdigit((unsigned char)word[1]))
        return -1;
    layer = strtol(word + 1, &end, 10);
    return end == word + n ? layer : -1;
}

static bool matches(const struct dash_kernels *k, const struct dash_kernel *row, const char *filter)
{
    while (filter && *filter) {
        size_t n;
        long layer;

        filter += strspn(filter, " ");
        n = strcspn(filter, " ");
        layer = layer_word(filter, n);
        if (layer >= 0 ? row->layer != layer
                       : n && !contains(dash_kernels_name(k, row->name), filter, n) &&
                             !contains(mp_phase_name((enum mp_phase)row->phase), filter, n))
            return false;
        filter += n;
    }
    return true;
}

static void merge(struct dash_kernel_row *to, const struct dash_kernel *from)
{
    if (to->n == 0) {
        *to = (struct dash_kernel_row){from->name, from->layer, from->phase, 0, 0, 0};
    } else {
        to->name = to->name == from->name ? to->name : DASH_NAME_CAP;
        to->layer = to->layer == from->layer ? to->layer : SEVERAL;
        to->phase = to->phase == from->phase ? to->phase : -1;
    }
    to->n += from->n;
    to->ns += from->ns;
    to->max_ns = from->max_ns > to->max_ns ? from->max_ns : to->max_ns;
}

static uint64_t group_key(enum dash_group group, const struct dash_kernel *row)
{
    switch (group) {
    case DASH_BY_NAME:
        return row->name;
    case DASH_BY_LAYER:
        return (uint64_t)(row->layer + 1);
    case DASH_BY_PHASE:
        return row->phase;
    case DASH_BY_ALL:
    case DASH_GROUP_COUNT:
        break;
    }
    return (uint64_t)row->name << 32 | (uint64_t)(uint16_t)row->layer << 8 | row->phase;
}

struct slot {
    uint64_t key;
    uint32_t row; /* + 1; 0: free */
};

/* The answer's row for key, made on first sight. */
static uint32_t row_for(struct slot *slot, uint32_t cap, uint64_t key, uint32_t *n_row)
{
    uint32_t i = (uint32_t)(key * 0x9e3779b97f4a7c15ull >> 32);

    for (;; i++) {
        struct slot *s = &slot[i & (cap - 1)];

        if (!s->row) {
            s->key = key;
            s->row = ++*n_row;
        }
        if (s->key == key)
            return s->row - 1;
    }
}

struct order {
    const struct dash_kernels *k;
    const struct dash_query *q;
};

static int compare_u64(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

/* Least first. */
static int compare_by(const struct order *o, const struct dash_kernel_row *a,
                      const struct dash_kernel_row *b)
{
    switch (o->q->sort) {
    case DASH_SORT_CALLS:
        return compare_u64(a->n, b->n);
    case DASH_SORT_MEAN:
        return compare_u64(a->ns / a->n, b->ns / b->n);
    case DASH_SORT_MAX:
        return compare_u64(a->max_ns, b->max_ns);
    case DASH_SORT_NAME:
        return strcmp(dash_kernels_name(o->k, b->name), dash_kernels_name(o->k, a->name));
    case DASH_SORT_TIME:
    case DASH_SORT_COUNT:
        break;
    }
    return compare_u64(a->ns, b->ns);
}

static int compare_rows(const void *pa, const void *pb, void *arg)
{
    const struct dash_kernel_row *a = pa, *b = pb;
    const struct order *o = arg;
    int by = compare_by(o, a, b);

    if (by)
        return o->q->reverse ? by : -by;
    if (a->name != b->name) /* a total order: equal rows must not dance */
        return a->name < b->name ? -1 : 1;
    return a->layer != b->layer ? a->layer - b->layer : a->phase - b->phase;
}

int dash_kernels_query(const struct dash_kernels *k, const struct dash_query *q,
                       struct dash_kernel_row **out)
{
    struct dash_kernel_row *row = calloc(k->used + 1, sizeof *row);
    struct slot *slot = calloc(k->cap + 1, sizeof *slot);
    struct order order = {k, q};
    uint32_t n = 0;

    *out = row;
    if (!row || !slot) {
        free(row);
        free(slot);
        *out = NULL;
        return MP_ENOMEM;
    }
    for (uint32_t i = 0; i < k->cap; i++)
        if (k->row[i].used && matches(k, &k->row[i], q->filter))
            merge(&row[row_for(slot, k->cap, group_key(q->group, &k->row[i]), &n)], &k->row[i]);
    free(slot);
    qsort_r(row, n, sizeof *row, compare_rows, &order);
    return (int)n;
}

const char *dash_group_name(enum dash_group group)
{
    static const char *const name[DASH_GROUP_COUNT] = {"name", "layer", "phase",
                                                       "name, layer and phase"};

    return name[(unsigned)group < DASH_GROUP_COUNT ? group : 0];
}

const char *dash_sort_name(enum dash_sort sort)
{
    static const char *const name[DASH_SORT_COUNT] = {"time", "calls", "mean", "max", "name"};

    return name[(unsigned)sort < DASH_SORT_COUNT ? sort : 0];
}
