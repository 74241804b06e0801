/* The CUDA driver calls that the guest makes, found in the mapped libcuda. */
#ifndef INJ_CUDA_API_H
#define INJ_CUDA_API_H

#include "profiler/core/base.h"

struct inj_cuda {
    /* pure queries, allowed in a launch callback, once a kernel */
    int (*func_param_info)(void *func, size_t index, size_t *offset, size_t *bytes);
    int (*kernel_param_info)(void *kernel, size_t index, size_t *offset, size_t *bytes);

    int (*ctx_get_current)(void **ctx);
    int (*ctx_set_current)(void *ctx);
    int (*ctx_get_device)(int *device);
    int (*device_name)(char *name, int bytes, int device);
    int (*device_attribute)(int *value, int attribute, int device);
    int (*device_total_mem)(size_t *bytes, int device);
    int (*device_uuid)(void *uuid16, int device);
    int (*driver_version)(int *version);
    int (*ctx_synchronize)(void);

    int (*module_load_data)(void **module, const void *image);
    int (*module_get_function)(void **func, void *module, const char *name);
    int (*launch)(void *func, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                  unsigned bz, unsigned smem, void *stream, void **params, void **extra);
    int (*mem_alloc)(uint64_t *ptr, size_t bytes);
    int (*mem_host_alloc)(void **ptr, size_t bytes, unsigned flags);
    int (*memset_async)(uint64_t ptr, unsigned value, size_t n, void *stream);
    int (*copy_to_host)(void *host, uint64_t ptr, size_t bytes, void *stream);
    int (*event_create)(void **event, unsigned flags);
    int (*event_record)(void *event, void *stream);
    int (*event_query)(void *event);
    int (*stream_capturing)(void *stream, int *status);
    int (*capture_mode)(int *mode); /* of this thread; says what it was */
};

extern struct inj_cuda cuda;

/* MP_ENOTSUP when libcuda is not mapped or too old for a needed call. */
int inj_cuda_find(void);

/* While the job captures a CUDA graph as torch does, calls like an event's query end the capture, from whichever thread they
 * come, unless that thread has said that they have nothing to do with it. Around such calls; returns what goes to
 * inj_cuda_restore. On any thread. */
int inj_cuda_relax(void);
void inj_cuda_restore(int mode);

/* Is this stream captured now, or cannot it be said? Work put on it would be part of the job's graph. */
bool inj_cuda_captured(void *stream);

#endif
