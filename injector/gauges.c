/* See gauges.h. NVML is a library of the driver, mapped at most once; it holds no CUDA context. */
#include "injector/gauges.h"

#include <dlfcn.h>

enum { CLOCK_SM = 1, CLOCK_MEM = 2, TEMPERATURE_GPU = 0 };

static struct {
    int (*init)(void);
    int (*by_uuid)(const char *uuid, void **device);
    int (*clock)(void *device, int type, unsigned *mhz);
    int (*power)(void *device, unsigned *milliwatt);
    int (*temperature)(void *device, int sensor, unsigned *celsius);
    int (*throttle)(void *device, unsigned long long *bits);
    int (*memory)(void *device, uint64_t *total_free_used);
} nvml;
static void *device;

int inj_gauges_start(const char *uuid)
{
    void *lib = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);

    if (!lib)
        return MP_ENOTSUP;
    nvml.init = (int (*)(void))dlsym(lib, "nvmlInit_v2");
    nvml.by_uuid = (int (*)(const char *, void **))dlsym(lib, "nvmlDeviceGetHandleByUUID");
    nvml.clock = (int (*)(void *, int, unsigned *))dlsym(lib, "nvmlDeviceGetClockInfo");
    nvml.power = (int (*)(void *, unsigned *))dlsym(lib, "nvmlDeviceGetPowerUsage");
    nvml.temperature = (int (*)(void *, int, unsigned *))dlsym(lib, "nvmlDeviceGetTemperature");
    nvml.throttle = (int (*)(void *, unsigned long long *))dlsym(
        lib, "nvmlDeviceGetCurrentClocksThrottleReasons");
    nvml.memory = (int (*)(void *, uint64_t *))dlsym(lib, "nvmlDeviceGetMemoryInfo");
    if (!nvml.init || !nvml.by_uuid || nvml.init() || nvml.by_uuid(uuid, &device)) {
        device = NULL;
        return MP_ENOTSUP;
    }
    return MP_OK;
}

void inj_gauges_read(struct mp_shm *shm)
{
    unsigned long long bits;
    uint64_t memory[3]; /* total, free, used */
    unsigned v, valid = 0;

    if (!device)
        return;
#define READ(bit, call, field, value)                                                              \
    do {                                                                                           \
        if (call) {                                                                                \
            atomic_store_explicit(&shm->field, (value), memory_order_relaxed);                     \
            valid |= 1u << (bit);                                                                  \
        }                                                                                          \
    } while (0)
    READ(0, nvml.clock && !nvml.clock(device, CLOCK_SM, &v), sm_clock_mhz, v);
    READ(1, nvml.clock && !nvml.clock(device, CLOCK_MEM, &v), mem_clock_mhz, v);
    READ(2, nvml.power && !nvml.power(device, &v), power_mw, v);
    READ(3, nvml.temperature && !nvml.temperature(device, TEMPERATURE_GPU, &v), temp_c, v);
    READ(4, nvml.throttle && !nvml.throttle(device, &bits), throttle_bits, (uint32_t)bits);
    READ(5, nvml.memory && !nvml.memory(device, memory), mem_used_bytes, memory[2]);
#undef READ
    atomic_store_explicit(&shm->gauges_valid, valid, memory_order_release);
}
