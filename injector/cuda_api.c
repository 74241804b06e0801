/* See cuda_api.h. The _v2 names are the ones that programs built with any toolkit since 2010 bind. */
#include "injector/cuda_api.h"

#include "injector/elf.h"

#include <stddef.h>

struct inj_cuda cuda;

static const struct inj_symbol symbol[] = {
#define ROW(name, field, needed)                                                                   \
    {                                                                                              \
        name, offsetof(struct inj_cuda, field), needed                                             \
    }
    ROW("cuFuncGetParamInfo", func_param_info, false),     /* driver 12.4 */
    ROW("cuKernelGetParamInfo", kernel_param_info, false), /* driver 12.4 */
    ROW("cuCtxGetCurrent", ctx_get_current, true),
    ROW("cuCtxSetCurrent", ctx_set_current, true),
    ROW("cuCtxGetDevice", ctx_get_device, true),
    ROW("cuCtxSynchronize", ctx_synchronize, true),
    ROW("cuDeviceGetName", device_name, true),
    ROW("cuDeviceGetAttribute", device_attribute, true),
    ROW("cuDeviceTotalMem_v2", device_total_mem, true),
    ROW("cuDeviceGetUuid", device_uuid, false),
    ROW("cuDriverGetVersion", driver_version, true),
    ROW("cuModuleLoadData", module_load_data, true),
    ROW("cuModuleGetFunction", module_get_function, true),
    ROW("cuLaunchKernel", launch, true),
    ROW("cuMemAlloc_v2", mem_alloc, true),
    ROW("cuMemHostAlloc", mem_host_alloc, true),
    ROW("cuMemsetD32Async", memset_async, true),
    ROW("cuMemcpyDtoHAsync_v2", copy_to_host, true),
    ROW("cuEventCreate", event_create, true),
    ROW("cuEventRecord", event_record, true),
    ROW("cuEventQuery", event_query, true),
    ROW("cuStreamIsCapturing", stream_capturing, true),
    ROW("cuThreadExchangeStreamCaptureMode", capture_mode, true),
#undef ROW
};

int inj_cuda_find(void)
{
    void *lib = inj_elf_mapped("libcuda.so");

    return lib && !inj_elf_bind(lib, symbol, countof(symbol), &cuda) ? MP_OK : MP_ENOTSUP;
}

int inj_cuda_relax(void)
{
    int mode = 2; /* CU_STREAM_CAPTURE_MODE_RELAXED */

    return cuda.capture_mode(&mode) ? -1 : mode;
}

void inj_cuda_restore(int mode)
{
    if (mode >= 0)
        cuda.capture_mode(&mode);
}

bool inj_cuda_captured(void *stream)
{
    int status = 0;

    return cuda.stream_capturing(stream, &status) || status;
}
