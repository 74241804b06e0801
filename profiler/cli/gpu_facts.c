/* See gpu_facts.h. */
#include "profiler/cli/gpu_facts.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "profiler/core/shm.h"

#define SM_CLOCK 1 /* NVML_CLOCK_SM */
#define TOO_FEW  7 /* NVML_ERROR_INSUFFICIENT_SIZE */

/* NVML's functions have one of these forms; NULL where the driver is older. */
struct nvml {
    void *lib;
    int (*init)(void), (*shutdown)(void);
    int (*driver)(char *, unsigned);
    int (*by_uuid)(const char *, void **);
    int (*limit)(void *, unsigned *), (*default_limit)(void *, unsigned *);
    int (*max_clock)(void *, int, unsigned *);
    int (*ecc)(void *, unsigned *, unsigned *), (*mig)(void *, unsigned *, unsigned *);
    int (*processes)(void *, unsigned *, void *);
};

static bool nvml_open(struct nvml *n)
{
    const struct {
        void **fn;
        const char *symbol;
    } want[] = {
        {(void **)&n->init, "nvmlInit_v2"},
        {(void **)&n->shutdown, "nvmlShutdown"},
        {(void **)&n->driver, "nvmlSystemGetDriverVersion"},
        {(void **)&n->by_uuid, "nvmlDeviceGetHandleByUUID"},
        {(void **)&n->limit, "nvmlDeviceGetEnforcedPowerLimit"},
        {(void **)&n->default_limit, "nvmlDeviceGetPowerManagementDefaultLimit"},
        {(void **)&n->max_clock, "nvmlDeviceGetMaxClockInfo"},
        {(void **)&n->ecc, "nvmlDeviceGetEccMode"},
        {(void **)&n->mig, "nvmlDeviceGetMigMode"},
        {(void **)&n->processes, "nvmlDeviceGetComputeRunningProcesses_v3"},
    };

    *n = (struct nvml){.lib = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)};
    for (size_t i = 0; n->lib && i < countof(want); i++)
        *want[i].fn = dlsym(n->lib, want[i].symbol);
    if (n->lib && n->init && n->shutdown && n->by_uuid && n->init() == 0)
        return true;
    if (n->lib)
        dlclose(n->lib);
    return false;
}

static void nvml_read(struct rp_ab_gpu *out, const struct nvml *n, void *gpu)
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

void cli_gpu_facts(struct rp_ab_gpu *out, const char *dir, int pid)
{
    char uuid[96];
    struct nvml n;
    void *gpu;

    *out = RP_AB_GPU_UNKNOWN;
    if (!uuid_of(uuid, sizeof uuid, dir, pid) || !nvml_open(&n))
        return;
    if (n.driver && n.driver(out->driver, sizeof out->driver))
        out->driver[0] = 0;
    if (n.by_uuid(uuid, &gpu) == 0)
        nvml_read(out, &n, gpu);
    n.shutdown();
    dlclose(n.lib);
}
