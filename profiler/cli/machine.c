/* NVML and CUDA by dlopen, Python by asking it. */
#include "profiler/cli/machine.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>

#include "profiler/cli/nvml.h"

int cli_gpus_read(struct cli_gpus *out, struct mp_err *err)
{
    struct cli_nvml n;
    struct cli_nvml_memory mem;
    void *device;
    int rc = cli_nvml_open(&n, err);

    *out = (struct cli_gpus){0};
    if (rc)
        return rc;
    n.driver(out->driver, sizeof out->driver);
    if (n.count(&out->n) != 0)
        out->n = 0;
    out->n = out->n < CLI_GPU_MAX ? out->n : CLI_GPU_MAX;
    for (unsigned i = 0; i < out->n; i++) {
        if (n.by_index(i, &device) != 0)
            continue;
        n.name(device, out->gpu[i].name, sizeof out->gpu[i].name);
        if (n.memory(device, &mem) == 0)
            out->gpu[i].mem_bytes = mem.total;
    }
    cli_nvml_close(&n);
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
        "def library(name):\n"
        "    found = [g for p in sys.path for g in sorted(glob.glob(os.path.join(p, \"nvidia\", "
        "\"*\", "
        "\"lib\", name + \".so.1*\")))]\n"
        "    return found[0] if found else \"\"\n"
        "print(library(\"libcupti\")); print(library(\"libcublas\"))\n"
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
    line_take(f, out->cublas, sizeof out->cublas);
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
