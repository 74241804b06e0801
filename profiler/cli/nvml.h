/* NVIDIA's management library by dlopen, so that the tool runs where there is no driver. */
#ifndef CLI_NVML_H
#define CLI_NVML_H

#include "profiler/core/base.h"

struct cli_nvml_memory { /* nvmlMemory_t */
    unsigned long long total, free, used;
};

/* Functions of an open library. Those of the second half are NULL where the driver lacks them. */
struct cli_nvml {
    void *lib;
    int (*init)(void), (*shutdown)(void);
    int (*driver)(char *, unsigned);
    int (*count)(unsigned *);
    int (*by_index)(unsigned, void **);
    int (*name)(void *, char *, unsigned);
    int (*memory)(void *, struct cli_nvml_memory *);

    int (*by_uuid)(const char *, void **);
    int (*limit)(void *, unsigned *), (*default_limit)(void *, unsigned *);
    int (*max_clock)(void *, int, unsigned *);
    int (*ecc)(void *, unsigned *, unsigned *), (*mig)(void *, unsigned *, unsigned *);
    int (*processes)(void *, unsigned *, void *);
};

/* Loads and starts it; err may be NULL. */
int cli_nvml_open(struct cli_nvml *n, struct mp_err *err);
void cli_nvml_close(struct cli_nvml *n);

#endif
