/* Maps stand-ins from the folder `mock` beside the one that holds the running program. */
#ifndef TESTS_MOCK_LOAD_H
#define TESTS_MOCK_LOAD_H

#include "tests/mock/mock.h"

#include <dlfcn.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline void mock_path(char *out, size_t bytes, const char *leaf)
{
    char exe[1024];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);

    exe[n > 0 ? n : 0] = '\0';
    snprintf(out, bytes, "%s/../mock/%s", dirname(exe), leaf);
}

static inline void *mock_map(const char *leaf)
{
    char path[1100];
    void *lib;

    mock_path(path, sizeof path, leaf);
    lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        fprintf(stderr, "%s\n", dlerror());
        abort();
    }
    return lib;
}

static inline void mock_load_torch(struct mock *m)
{
    void *lib = mock_map("libtorch_cpu.so");

    *(void **)&m->torch = dlsym(lib, "mock_torch");
    *(void **)&m->kineto_start = dlsym(lib, "mock_kineto_start");
    *(void **)&m->kineto_stop = dlsym(lib, "mock_kineto_stop");
    *(void **)&m->kineto_disable = dlsym(lib, "mock_kineto_disable");
}

static inline void mock_load_cupti(struct mock *m)
{
    void *lib = mock_map("libcupti.so.13");

    *(void **)&m->cupti = dlsym(lib, "mock_cupti");
    *(void **)&m->call = dlsym(lib, "mock_cupti_call");
    *(void **)&m->record = dlsym(lib, "mock_cupti_record");
    *(void **)&m->kernel = dlsym(lib, "mock_cupti_kernel");
}

static inline void mock_load_cuda(struct mock *m)
{
    *(void **)&m->cuda = dlsym(mock_map("libcuda.so.1"), "mock_cuda");
}

#endif
