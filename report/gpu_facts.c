/* See gpu_facts.h. */
#include "report/gpu_facts.h"

#include <stdio.h>

static const struct {
    const char *key;
    size_t offset;
} number[] = {
    {"power_limit_mw", offsetof(struct rp_gpu_facts, power_limit_mw)},
    {"default_limit_mw", offsetof(struct rp_gpu_facts, default_limit_mw)},
    {"max_sm_clock_mhz", offsetof(struct rp_gpu_facts, max_sm_clock_mhz)},
    {"ecc", offsetof(struct rp_gpu_facts, ecc)},
    {"mig", offsetof(struct rp_gpu_facts, mig)},
    {"processes", offsetof(struct rp_gpu_facts, processes)},
};

static int64_t *at(struct rp_gpu_facts *g, size_t i)
{
    return (int64_t *)((char *)g + number[i].offset);
}

static const char *key_of(char out[64], const char *prefix, const char *name)
{
    snprintf(out, 64, "%.30s%s", prefix, name);
    return out;
}

int rp_gpu_put(struct rp_profile *p, const char *prefix, const struct rp_gpu_facts *g,
               struct mp_err *err)
{
    struct rp_gpu_facts facts = *g;
    char key[64];
    int rc = *g->driver ? rp_put_meta(p, key_of(key, prefix, "driver"), g->driver, err) : MP_OK;

    for (size_t i = 0; !rc && i < countof(number); i++)
        if (*at(&facts, i) >= 0)
            rc = rp_put_meta_int(p, key_of(key, prefix, number[i].key), *at(&facts, i), err);
    return rc;
}

void rp_gpu_get(struct rp_gpu_facts *out, struct rp_profile *p, const char *prefix)
{
    char key[64];

    *out = RP_GPU_FACTS_UNKNOWN;
    rp_get_meta(p, key_of(key, prefix, "driver"), out->driver, sizeof out->driver);
    for (size_t i = 0; i < countof(number); i++)
        *at(out, i) = rp_get_meta_int(p, key_of(key, prefix, number[i].key), -1);
}
