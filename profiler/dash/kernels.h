/* Kernels by (name, layer, phase): calls and time of the steps that closed, or, before the first one
 * has, of what was seen so far.
 *
 * The table holds what the records say; rows for the screen are made by a query (group, filter, sort),
 * so that a change of order costs no history. Names are interned here and outlive the guest's file.
 */
#ifndef DASH_KERNELS_H
#define DASH_KERNELS_H

#include "profiler/core/event.h"

#define DASH_NAME_CAP   8192u  /* as many as a guest publishes */
#define DASH_KERNEL_CAP 65536u /* distinct (name, layer, phase); the rest is counted in n_over */

struct dash_kernel {
    uint32_t name;
    int16_t layer;
    uint8_t phase;
    bool used;
    uint32_t max_ns;
    uint64_t n, ns;
};

struct dash_kernels {
    struct dash_kernel *row; /* (cap) open addressing, cap a power of two */
    uint32_t cap, used;
    uint64_t n, ns;            /* all kernels of the job */
    uint64_t n_over;           /* kernels that found no room */
    uint64_t n_step;           /* steps over which they were counted; 0: none has closed yet */
    char *name[DASH_NAME_CAP]; /* NULL: not asked for yet */
};

void dash_kernels_release(struct dash_kernels *k);
int dash_kernels_copy(struct dash_kernels *out, const struct dash_kernels *k);

/* Counts one kernel. */
void dash_kernels_add(struct dash_kernels *k, uint32_t name, int16_t layer, uint8_t phase,
                      uint32_t ns);
/* Forgets all counts; names stay. */
void dash_kernels_clear(struct dash_kernels *k);

/* True when the name of index i is wanted: seen in a record, not given yet. */
bool dash_kernels_wants_name(const struct dash_kernels *k, uint32_t i);
void dash_kernels_set_name(struct dash_kernels *k, uint32_t i, const char *name);
const char *dash_kernels_name(const struct dash_kernels *k, uint32_t i); /* never NULL */

enum dash_group { DASH_BY_NAME = 0, DASH_BY_LAYER, DASH_BY_PHASE, DASH_BY_ALL, DASH_GROUP_COUNT };
enum dash_sort {
    DASH_SORT_TIME = 0,
    DASH_SORT_CALLS,
    DASH_SORT_MEAN,
    DASH_SORT_MAX,
    DASH_SORT_NAME,
    DASH_SORT_COUNT
};

struct dash_query {
    enum dash_group group;
    enum dash_sort sort;
    bool reverse;
    const char *filter; /* words, all of which must match: part of a name or phase, or L12 */
};

struct dash_kernel_row {
    uint32_t name; /* DASH_NAME_CAP: several */
    int layer;     /* -1 none, -2 several */
    int phase;     /* -1 several */
    uint32_t max_ns;
    uint64_t n, ns;
};

/* Rows of the answer in order; *out is the caller's to free. Returns how many, or MP_ENOMEM. */
int dash_kernels_query(const struct dash_kernels *k, const struct dash_query *q,
                       struct dash_kernel_row **out);

const char *dash_group_name(enum dash_group group);
const char *dash_sort_name(enum dash_sort sort);

#endif
