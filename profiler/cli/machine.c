/* NVML and CUDA by dlopen, Python by asking it. */
#include "profiler/cli/machine.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>

#define NVML_NAME_BYTES 96

struct nvml_memory { /* nvmlMemory_t */
    unsigned long long total, free, used;
};

struct nvml {
    void *lib;
    int (*init)(void);
    int (*shutdown)(void);
    int (*driver)(char *, unsigned);
    int (*count)(unsigned *);
    int (*handle)(unsigned, void **);
    int (*name)(void *, char *, unsigned);
    int (*memory)(void *, struct nvml_memory *);
};

static int nvml_open(struct nvml *n, struct mp_err *err)
{
    const struct {
        void **fn;
        const char *symbol;
    } want[] = {
        {(void **)&n->init, "nvmlInit_v2"},
        {(void **)&n->shutdown, "nvmlShutdown"},
        {(void **)&n->driver, "nvmlSystemGetDriverVersion"},
        {(void **)&n->count, "nvmlDeviceGetCount_v2"},
        {(void **)&n->handle, "nvmlDeviceGetHandleByIndex_v2"},
        {(void **)&n->name, "nvmlDeviceGetName"},
        {(void **)&n->memory, "nvmlDeviceGetMemoryInfo"},
    };

    n->lib = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!n->lib)
        return mp_fail(err, MP_ENOTSUP,
                       "no NVIDIA driver here (libnvidia-ml.so.1): jobs cannot be recorded, "
                       "reports can be read");
    for (size_t i = 0; i < countof(want); i++)
        if (!(*want[i].fn = dlsym(n->lib, want[i].symbol))) {
            dlclose(n->lib);
            return mp_fail(err, MP_ENOTSUP, "the NVIDIA driver lacks '%s': update it",
                           want[i].symbol);
        }
    return MP_OK;
}

int cli_gpus_read(struct cli_gpus *out, struct mp_err *err)
{
    struct nvml n;
    struct nvml_memory mem;
    void *device;
    int rc = nvml_open(&n, err);

    *out = (struct cli_gpus){0};
    if (rc)
        return rc;
    if ((rc = n.init()) != 0) {
        dlclose(n.lib);
        return mp_fail(err, MP_ENOTSUP,
                       "NVML does not start (code %d): is the kernel module of the driver loaded?",
                       rc);
    }
    n.driver(out->driver, sizeof out->driver);
    if (n.count(&out->n) != 0)
        out->n = 0;
    out->n = out->n < CLI_GPU_MAX ? out->n : CLI_GPU_MAX;
    for (unsigned i = 0; i < out->n; i++) {
        if (n.handle(i, &device) != 0)
            continue;
        n.name(device, out->gpu[i].name, NVML_NAME_BYTES);
        if (n.memory(device, &mem) == 0)
            out->gpu[i].mem_bytes = mem.total;
    }
    n.shutdown();
    dlclose(n.lib);
    return MP_OK;
}

int cli_cuda_version(int *version)
{
    void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    int (*get)(int *) = NULL;
    int rc = MP_ENOTSUP;

    if (!lib)
        return rc;
    *(void **)&get = dlsym(lib, "cuDriverGetVersion");
    if (get && get(version) == 0)
        rc = MP_OK;
    dlclose(lib);
    return rc;
}

static void line_take(FILE *f, char *out, size_t n)
{
    if (!fgets(out, (int)n, f))
        out[0] = 0;
    out[strcspn(out, "\n")] = 0;
}

int cli_python_read(struct cli_python *out)
{
    static const char *const ask =
        "timeout 20 python3 -c '\n"
        "import sys, glob, os\n"
        "from importlib import metadata\n"
        "def version(name):\n"
        "    try: return metadata.version(name)\n"
        "    except Exception: return \"\"\n"
        "print(sys.executable); print(sys.version.split()[0]); print(version(\"torch\")); "
        "print(version(\"transformers\"))\n"
        "found = [g for p in sys.path for g in sorted(glob.glob(os.path.join(p, \"nvidia\", \"*\", "
        "\"lib\", \"libcupti.so.1*\")))]\n"
        "print(found[0] if found else \"\")\n"
        "' 2>/dev/null";
    FILE *f = popen(ask, "r");

    *out = (struct cli_python){0};
    if (!f)
        return MP_EIO;
    line_take(f, out->path, sizeof out->path);
    line_take(f, out->version, sizeof out->version);
    line_take(f, out->torch, sizeof out->torch);
    line_take(f, out->transformers, sizeof out->transformers);
    line_take(f, out->cupti, sizeof out->cupti);
    return pclose(f) == 0 && *out->version ? MP_OK : MP_ENOTSUP;
}

bool cli_cupti_find(char *out, size_t out_bytes)
{
    static const char *const pattern[] = {"/usr/local/cuda*/extras/CUPTI/lib64/libcupti.so.1*",
                                          "/usr/local/cuda*/targets/*/lib/libcupti.so.1*",
                                          "/usr/lib/*/libcupti.so.1*", "/usr/lib64/libcupti.so.1*"};
    glob_t found;
    bool hit = false;

    for (size_t i = 0; i < countof(pattern) && !hit; i++) {
        hit = glob(pattern[i], 0, NULL, &found) == 0 && found.gl_pathc > 0;
        if (hit)
            snprintf(out, out_bytes, "%s", found.gl_pathv[0]);
        globfree(&found);
    }
    return hit;
}
