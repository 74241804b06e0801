/* See cupti_api.h. */
#include "injector/cupti_api.h"

#include "injector/elf.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>

struct inj_cupti cupti;

static const struct inj_symbol symbol[] = {
#define ROW(name, field, needed)                                                                   \
    {                                                                                              \
        name, offsetof(struct inj_cupti, field), needed                                            \
    }
    ROW("cuptiGetVersion", get_version, true),
    ROW("cuptiSubscribe", subscribe, true),
    ROW("cuptiSubscribe_v2", subscribe_v2, false),
    ROW("cuptiUnsubscribe", unsubscribe, true),
    ROW("cuptiEnableCallback", enable_callback, true),
    ROW("cuptiActivityRegisterCallbacks", register_callbacks, true),
    ROW("cuptiActivityEnable", enable, true),
    ROW("cuptiActivityDisable", disable, true),
    ROW("cuptiActivityFlushAll", flush_all, true),
    ROW("cuptiActivityGetNextRecord", get_next_record, true),
    ROW("cuptiActivityGetNumDroppedRecords", dropped, true),
    ROW("cuptiActivitySetAttribute", set_attribute, true),
    ROW("cuptiActivityRegisterTimestampCallback", register_clock, true),
    ROW("cuptiFinalize", finalize, true),
    ROW("cuptiGetResultString", result_string, false),
#undef ROW
};

static int bind(void *lib, struct mp_err *err)
{
    const char *missing = inj_elf_bind(lib, symbol, countof(symbol), &cupti);
    Dl_info where;

    if (missing)
        return mp_fail(err, MP_ENOTSUP, "libcupti lacks '%s': GPU time cannot be recorded",
                       missing);
    cupti.get_version(&cupti.version);
    if (dladdr((void *)cupti.enable, &where) && where.dli_fname)
        snprintf(cupti.path, sizeof cupti.path, "%s", where.dli_fname);
    return MP_OK;
}

/* Symbols looked up through libtorch's handle are searched in its dependencies: the very instance
 * that torch is bound to, should the process hold several. */
static void *library(void)
{
    static const char *const by_name[] = {"libcupti.so.13", "libcupti.so.12", "libcupti.so"};
    void *lib = inj_elf_mapped_path("libtorch_cpu.so", cupti.path, sizeof cupti.path);

    if (lib && dlsym(lib, "cuptiActivityEnable"))
        return lib;
    lib = inj_elf_mapped_path("libcupti.so", cupti.path, sizeof cupti.path);
    for (size_t i = 0; !lib && i < countof(by_name); i++) {
        lib = dlopen(by_name[i], RTLD_NOW | RTLD_LOCAL);
        snprintf(cupti.path, sizeof cupti.path, "%s", by_name[i]);
    }
    return lib;
}

int inj_cupti_find(struct mp_err *err)
{
    void *lib = library();

    if (!lib)
        return mp_fail(err, MP_ENOTSUP,
                       "no libcupti in this process: GPU time cannot be recorded; install the "
                       "CUPTI of the CUDA toolkit");
    return bind(lib, err);
}

const char *inj_cupti_text(int result)
{
    const char *text = NULL;

    if (cupti.result_string)
        cupti.result_string(result, &text);
    return text ? text : "unknown CUPTI error";
}
