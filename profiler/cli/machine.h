/* What is on this machine: GPUs through NVML, CUDA, Python and what it has. Vendor libraries come by
 * dlopen, so that the tool runs where there are none. */
#ifndef CLI_MACHINE_H
#define CLI_MACHINE_H

#include "profiler/core/base.h"

#define CLI_GPU_MAX 16

struct cli_gpus {
    unsigned n;
    char driver[96];
    struct {
        char name[96];
        uint64_t mem_bytes;
    } gpu[CLI_GPU_MAX];
};

int cli_gpus_read(struct cli_gpus *out, struct mp_err *err);

/* 12080 = 12.8. */
int cli_cuda_version(int *version);

struct cli_python {
    char path[512], version[64];
    char torch[64], transformers[64]; /* "" when not installed */
    char cupti[512], cublas[512];     /* those of its wheels, or "" */
};

/* Asks the python3 in PATH, without importing torch. */
int cli_python_read(struct cli_python *out);

/* A CUPTI of the system or the toolkit. */
bool cli_cupti_find(char *out, size_t out_bytes);

#endif
