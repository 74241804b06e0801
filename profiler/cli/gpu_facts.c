/* See gpu_facts.h. */
#include "profiler/cli/gpu_facts.h"

#include "profiler/cli/nvml.h"
#include "profiler/core/shm.h"

#define SM_CLOCK 1 /* NVML_CLOCK_SM */
#define TOO_FEW  7 /* NVML_ERROR_INSUFFICIENT_SIZE */

static void nvml_read(struct rp_gpu_facts *out, const struct cli_nvml *n, void *gpu)
{
    unsigned v = 0, pending = 0, count = 0;
    int rc;

    if (n->limit && n->limit(gpu, &v) == 0)
        out->power_limit_mw = v;
    if (n->default_limit && n->default_limit(gpu, &v) == 0)
        out->default_limit_mw = v;
    if (n->max_clock && n->max_clock(gpu, SM_CLOCK, &v) == 0)
        out->max_sm_clock_mhz = v;
    if (n->ecc && n->ecc(gpu, &v, &pending) == 0)
        out->ecc = v;
    if (n->mig && n->mig(gpu, &v, &pending) == 0)
        out->mig = v;
    rc = n->processes ? n->processes(gpu, &count, NULL) : -1;
    if (rc == 0 || rc == TOO_FEW) /* asked for the number only */
        out->processes = count;
}

static bool uuid_of(char *out, size_t n, const char *dir, int pid)
{
    struct mp_reader r;

    if (mp_reader_open(&r, dir, pid, false, NULL))
        return false;
    mp_shm_text(out, n, r.shm->gpu_uuid, sizeof r.shm->gpu_uuid);
    mp_reader_close(&r);
    return *out;
}

void cli_gpu_facts(struct rp_gpu_facts *out, const char *dir, int pid)
{
    char uuid[96];
    struct cli_nvml n;
    void *gpu;

    *out = RP_GPU_FACTS_UNKNOWN;
    if (!uuid_of(uuid, sizeof uuid, dir, pid) || cli_nvml_open(&n, NULL))
        return;
    if (n.driver(out->driver, sizeof out->driver))
        out->driver[0] = 0;
    if (n.by_uuid && n.by_uuid(uuid, &gpu) == 0)
        nvml_read(out, &n, gpu);
    cli_nvml_close(&n);
}
