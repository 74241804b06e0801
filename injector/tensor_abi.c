/* See tensor_abi.h. */
#include "injector/tensor_abi.h"

#include "injector/elf.h"

#include <stddef.h>
#include <string.h>

/* A handle is the address of an at::Tensor, which is nothing but the address of its TensorImpl. */
typedef const void *handle;
typedef int (*get_pointer_fn)(handle, void **);
typedef int (*get_list_fn)(handle, const int64_t **);
typedef int (*get_long_fn)(handle, int64_t *);
typedef int (*get_int_fn)(handle, int32_t *);
typedef int (*empty_fn)(int64_t dims, const int64_t *size, const int64_t *stride, int32_t dtype,
                        int32_t device_type, int32_t device, void **out);
typedef int (*delete_fn)(void *);
typedef PyObject *(*wrap_fn)(handle); /* of C++: a reference is passed as an address */
typedef int (*raw_alloc_fn)(uint64_t bytes, void **out);

enum { CUDA_DEVICE = 1 }; /* c10::DeviceType */

struct abi {
    get_pointer_fn data;
    get_list_fn sizes, strides;
    get_long_fn dims;
    get_int_fn dtype, device_type, device;
    empty_fn empty;
    delete_fn delete;
    wrap_fn wrap;
    raw_alloc_fn raw_alloc; /* NULL where torch is too old to have it */
    delete_fn raw_delete;
};

static struct abi torch;

#define ROW(name, field)                                                                           \
    {                                                                                              \
        name, offsetof(struct abi, field), true                                                    \
    }
static const struct inj_symbol of_cpu[] = {
    ROW("aoti_torch_get_data_ptr", data),
    ROW("aoti_torch_get_sizes", sizes),
    ROW("aoti_torch_get_strides", strides),
    ROW("aoti_torch_get_dim", dims),
    ROW("aoti_torch_get_dtype", dtype),
    ROW("aoti_torch_get_device_type", device_type),
    ROW("aoti_torch_get_device_index", device),
    ROW("aoti_torch_empty_strided", empty),
    ROW("aoti_torch_delete_tensor_object", delete),
};
static const struct inj_symbol of_python[] = {ROW("_Z16THPVariable_WrapRKN2at10TensorBaseE", wrap)};
static const struct inj_symbol of_cuda[] = {
    /* without the first the second is not found either */
    ROW("aoti_torch_cuda_caching_allocator_raw_delete", raw_delete),
    ROW("aoti_torch_cuda_caching_allocator_raw_alloc", raw_alloc),
};
#undef ROW

static enum { UNKNOWN, FOUND, DISTRUSTED } state;
static const void *class[INJ_TENSOR_CLASSES];
static size_t n_class, offset; /* of the tensor in its object */

/* The first word of a Python object counts references, the second is its class. */
static const void *class_of(const void *object)
{
    return ((const void *const *)object)[1];
}

static handle handle_of(const void *object)
{
    return (const char *)object + offset;
}

static bool find_symbols(void)
{
    void *cpu = inj_elf_mapped("libtorch_cpu.so"), *python = inj_elf_mapped("libtorch_python.so"),
         *cuda = inj_elf_mapped("libtorch_cuda.so");

    if (cuda) /* where they are missing tensors serve */
        inj_elf_bind(cuda, of_cuda, countof(of_cuda), &torch);
    return cpu && python && !inj_elf_bind(cpu, of_cpu, countof(of_cpu), &torch) &&
           !inj_elf_bind(python, of_python, countof(of_python), &torch);
}

/* torch up to 2.9 has a flag before the tensor, later ones have not. */
static bool find_offset(const struct inj_sample_tensor *sample)
{
    for (offset = 2 * sizeof(void *); offset <= 3 * sizeof(void *); offset += sizeof(void *))
        if (*(const void *const *)handle_of(sample->object) == sample->impl)
            return true;
    return false;
}

static bool same_layout(const struct inj_shape *a, const struct inj_shape *b)
{
    return a->dims == b->dims && memcmp(a->size, b->size, sizeof a->size) == 0 &&
           memcmp(a->stride, b->stride, sizeof a->stride) == 0;
}

static bool reads_right(const struct inj_sample_tensor *sample)
{
    struct inj_shape shape;
    void *data;

    return class_of(sample->object) == sample->type &&
           *(const void *const *)handle_of(sample->object) == sample->impl &&
           inj_tensor_data(sample->object, &data) && data == sample->data &&
           inj_tensor_shape(sample->object, &shape) && same_layout(&shape, &sample->shape);
}

/* The first sample is a plain tensor: so is what is made in its shape. */
static bool makes_right(const struct inj_sample_tensor *sample)
{
    struct inj_shape shape, made;
    PyObject *object;
    bool right;

    if (n_class)
        return true;
    inj_tensor_shape(sample->object, &shape);
    object = inj_tensor_new(&shape);
    right = object && class_of(object) == sample->type && inj_tensor_shape(object, &made) &&
            memcmp(&shape, &made, sizeof made) == 0;
    if (object)
        py.decref(object);
    return right;
}

bool inj_tensor_check(const struct inj_sample_tensor *sample)
{
    if (state == UNKNOWN)
        state = find_symbols() && find_offset(sample) ? FOUND : DISTRUSTED;
    if (state == FOUND && !inj_tensor_known(sample->object)) {
        if (n_class < INJ_TENSOR_CLASSES && reads_right(sample) && makes_right(sample))
            class[n_class++] = sample->type;
        else
            state = DISTRUSTED;
    }
    return state == FOUND;
}

bool inj_tensor_known(const void *object)
{
    const void *type = class_of(object);

    return state == FOUND && type && (type == class[0] || type == class[1]);
}

bool inj_tensor_data(const void *object, void **data)
{
    return torch.data(handle_of(object), data) == 0;
}

bool inj_tensor_shape(const void *object, struct inj_shape *out)
{
    handle t = handle_of(object);
    const int64_t *size, *stride;

    memset(out, 0, sizeof *out);
    if (torch.dims(t, &out->dims) || out->dims > INJ_TENSOR_DIMS || torch.sizes(t, &size) ||
        torch.strides(t, &stride))
        return false;
    for (int64_t i = 0; i < out->dims; i++) {
        out->size[i] = size[i];
        out->stride[i] = stride[i];
    }
    return !torch.dtype(t, &out->dtype) && !torch.device_type(t, &out->device_type) &&
           !torch.device(t, &out->device);
}

static void *empty(const struct inj_shape *shape)
{
    void *tensor;
    int rc = torch.empty(shape->dims, shape->size, shape->stride, shape->dtype, shape->device_type,
                         shape->device, &tensor);

    return rc ? NULL : tensor;
}

PyObject *inj_tensor_new(const struct inj_shape *shape)
{
    void *tensor = empty(shape);
    PyObject *object = tensor ? torch.wrap(tensor) : NULL;

    if (tensor)
        torch.delete(tensor); /* the object has its own reference */
    return object;
}

bool inj_tensor_bare(const struct inj_shape *shape, struct inj_bare *out)
{
    if (torch.raw_alloc && shape->device_type == CUDA_DEVICE) {
        out->tensor = NULL;
        return torch.raw_alloc((uint64_t)shape->size[0], &out->data) == 0;
    }
    out->tensor = empty(shape);
    if (out->tensor && torch.data(out->tensor, &out->data)) {
        torch.delete(out->tensor);
        out->tensor = NULL;
    }
    return out->tensor != NULL;
}

void inj_tensor_bare_free(struct inj_bare *bare)
{
    if (bare->tensor)
        torch.delete(bare->tensor);
    else
        torch.raw_delete(bare->data);
}
