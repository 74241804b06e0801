/* See func.h. A table of fixed size, open addressing; rows are added once and stay. */
#include "injector/func.h"

#include "injector/cuda_api.h"

#define FUNC_LOG2 12 /* 4096 kernels; 96 distinct ones seen in an eager MoE step */
#define FUNC_CAP  (1u << FUNC_LOG2)

static struct inj_func func_table[FUNC_CAP];
static _Atomic int func_lock; /* 0 free; taken with one try: who fails classifies by itself */

static void fill_params(struct inj_func *f, void *handle)
{
    size_t offset, bytes;

    for (f->n_param = 0; f->n_param < INJ_FUNC_PARAMS; f->n_param++) {
        int rc = cuda.kernel_param_info
                     ? cuda.kernel_param_info(handle, f->n_param, &offset, &bytes)
                     : 1;

        if (rc)
            rc = cuda.func_param_info ? cuda.func_param_info(handle, f->n_param, &offset, &bytes)
                                      : 1;
        if (rc)
            break;
        f->param_bytes[f->n_param] = (uint16_t)(bytes > UINT16_MAX ? UINT16_MAX : bytes);
    }
}

static uint64_t hash(const char *name) /* FNV-1a */
{
    uint64_t h = 14695981039346656037u;

    for (; name && *name; name++)
        h = (h ^ (unsigned char)*name) * 1099511628211u;
    return h;
}

/* Another address of the same name is kept: names are CUPTI's, which may have been left and met again. */
static bool is_named(struct inj_func *f, const char *name)
{
    if (atomic_load_explicit(&f->name, memory_order_relaxed) == name)
        return true;
    if (f->name_hash != hash(name))
        return false;
    atomic_store_explicit(&f->name, name, memory_order_relaxed);
    return true;
}

bool inj_func_takes_weights(enum mp_kclass kclass)
{
    return kclass == MP_KC_GEMM || kclass == MP_KC_GROUPED || kclass == MP_KC_UNKNOWN;
}

const struct inj_func *inj_func_get(void *handle, const char *name)
{
    uint32_t at = (uint32_t)(((uintptr_t)handle >> 4) * 2654435761u) >> (32 - FUNC_LOG2);
    int expected = 0;

    for (unsigned probe = 0; probe < 16; probe++, at = (at + 1) & (FUNC_CAP - 1)) {
        struct inj_func *f = &func_table[at];
        void *have = atomic_load_explicit(&f->handle, memory_order_acquire);

        if (have == handle)
            return is_named(f, name) ? f : NULL;
        if (have)
            continue;
        if (!atomic_compare_exchange_strong(&func_lock, &expected, 1))
            return NULL;
        if (!atomic_load(&f->handle)) {
            atomic_store_explicit(&f->name, name, memory_order_relaxed);
            f->name_hash = hash(name);
            f->kclass = (uint8_t)mp_kname_class(name);
            if (inj_func_takes_weights(f->kclass))
                fill_params(f, handle);
            atomic_store_explicit(&f->handle, handle, memory_order_release);
        }
        atomic_store(&func_lock, 0);
        return atomic_load(&f->handle) == handle ? f : NULL;
    }
    return NULL;
}
