/* The record of a before/after in memory: growing it, and the words of its states. */
#include "report/ab.h"

#include <stdlib.h>

static const char *const status_name[RP_ARM_STATUS_COUNT] = {
    [RP_ARM_MEASURED] = "measured",
    [RP_ARM_REFUSED] = "refused",
    [RP_ARM_PARITY_FAILED] = "parity failed",
    [RP_ARM_REVERTED] = "reverted",
};

const char *rp_arm_status_name(enum rp_arm_status s)
{
    return (unsigned)s < RP_ARM_STATUS_COUNT ? status_name[s] : status_name[RP_ARM_REFUSED];
}

/* Room for one more of that size; NULL without memory. */
static void *grown(void *array, size_t n, size_t *cap, size_t bytes)
{
    size_t more = *cap ? 2 * *cap : 64;

    if (n < *cap)
        return array;
    array = realloc(array, more * bytes);
    if (array)
        *cap = more;
    return array;
}

int rp_ab_add_block(struct rp_ab_record *r, const struct rp_ab_block *b)
{
    struct rp_ab_block *all = grown(r->block, r->n_block, &r->cap_block, sizeof *all);

    if (!all)
        return MP_ENOMEM;
    r->block = all;
    r->block[r->n_block++] = *b;
    return MP_OK;
}

int rp_ab_add_parity(struct rp_ab_record *r, const struct rp_parity *p)
{
    struct rp_parity *all = grown(r->parity, r->n_parity, &r->cap_parity, sizeof *all);

    if (!all)
        return MP_ENOMEM;
    r->parity = all;
    r->parity[r->n_parity++] = *p;
    return MP_OK;
}

void rp_ab_record_release(struct rp_ab_record *r)
{
    free(r->block);
    free(r->parity);
    *r = (struct rp_ab_record){0};
}

bool rp_ab_is_parity_failure(const struct rp_ab_record *r)
{
    for (unsigned i = 0; i < r->n_arm; i++)
        if (r->arm[i].status == RP_ARM_PARITY_FAILED || r->arm[i].status == RP_ARM_REVERTED)
            return true;
    return false;
}
