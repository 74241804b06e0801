/* See nvml.h. */
#include "profiler/cli/nvml.h"

#include <dlfcn.h>

static int load(struct cli_nvml *n, struct mp_err *err)
{
    const struct {
        void **fn;
        const char *symbol;
        bool must;
    } want[] = {
        {(void **)&n->init, "nvmlInit_v2", true},
        {(void **)&n->shutdown, "nvmlShutdown", true},
        {(void **)&n->driver, "nvmlSystemGetDriverVersion", true},
        {(void **)&n->count, "nvmlDeviceGetCount_v2", true},
        {(void **)&n->by_index, "nvmlDeviceGetHandleByIndex_v2", true},
        {(void **)&n->name, "nvmlDeviceGetName", true},
        {(void **)&n->memory, "nvmlDeviceGetMemoryInfo", true},
        {(void **)&n->by_uuid, "nvmlDeviceGetHandleByUUID", false},
        {(void **)&n->limit, "nvmlDeviceGetEnforcedPowerLimit", false},
        {(void **)&n->default_limit, "nvmlDeviceGetPowerManagementDefaultLimit", false},
        {(void **)&n->max_clock, "nvmlDeviceGetMaxClockInfo", false},
        {(void **)&n->ecc, "nvmlDeviceGetEccMode", false},
        {(void **)&n->mig, "nvmlDeviceGetMigMode", false},
        {(void **)&n->processes, "nvmlDeviceGetComputeRunningProcesses_v3", false},
    };

    for (size_t i = 0; i < countof(want); i++)
        if (!(*want[i].fn = dlsym(n->lib, want[i].symbol)) && want[i].must)
            return mp_fail(err, MP_ENOTSUP, "the NVIDIA driver lacks '%s': update it",
                           want[i].symbol);
    return MP_OK;
}

static int start(const struct cli_nvml *n, struct mp_err *err)
{
    int code = n->init();

    if (code == 0)
        return MP_OK;
    return mp_fail(err, MP_ENOTSUP,
                   "NVML does not start (code %d): is the kernel module of the driver loaded?",
                   code);
}

int cli_nvml_open(struct cli_nvml *n, struct mp_err *err)
{
    int rc;

    *n = (struct cli_nvml){.lib = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)};
    if (!n->lib)
        return mp_fail(err, MP_ENOTSUP,
                       "no NVIDIA driver here (libnvidia-ml.so.1): jobs cannot be recorded, "
                       "reports can be read");
    rc = load(n, err);
    if (!rc)
        rc = start(n, err);
    if (rc)
        dlclose(n->lib);
    return rc;
}

void cli_nvml_close(struct cli_nvml *n)
{
    n->shutdown();
    dlclose(n->lib);
}
