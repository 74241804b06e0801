/* A torch tensor's memory, shape and type, read without Python's attributes, and new tensors made without its argument
 * parser: a swapped call reads a dozen tensors and makes three to five.
 *
 * Where torch keeps the tensor in its Python object is found by the address that Python itself tells (_cdata); what it
 * is like is asked through torch's C ABI for compiled models (aoti_torch_*). Nothing is believed
 * before sample tensors were read as Python reads them, and then only objects of exactly the samples' classes.
 * Under the GIL.
 */
#ifndef INJ_TENSOR_ABI_H
#define INJ_TENSOR_ABI_H

#include "injector/pysym.h"

enum { INJ_TENSOR_DIMS = 3, INJ_TENSOR_CLASSES = 2 };

struct inj_shape {
    int64_t size[INJ_TENSOR_DIMS], stride[INJ_TENSOR_DIMS];
    int64_t dims;
    int32_t dtype, device_type, device; /* as torch numbers them */
};

/* What Python says of a sample: dtype and device are not compared. */
struct inj_sample_tensor {
    const void *object, *type; /* addresses of the Python objects */
    const void *impl, *data;
    struct inj_shape shape;
};

/* Compares; the class of a sample that agreed is read from now on, and one that disagrees ends all reading for ever. */
bool inj_tensor_check(const struct inj_sample_tensor *sample);

/* May this object be read? The rest only when it may. */
bool inj_tensor_known(const void *object);
/* false: torch refuses (no memory of its own), or there are more dimensions. */
bool inj_tensor_data(const void *object, void **data);
bool inj_tensor_shape(const void *object, struct inj_shape *out);
/* A new Python object around uninitialised memory; NULL where torch has none to give, with no exception set. */
PyObject *inj_tensor_new(const struct inj_shape *shape);

/* Memory of torch's for C alone. */
struct inj_bare {
    void *data, *tensor; /* no tensor: of the allocator itself */
};

/* As many bytes as the shape has elements of one byte, on its device, which is the current one, in the order of the current
 * stream: so are they freed. A tensor costs the host 4.7 us, the allocator itself 1.6 (a slow host beside an H200). false where
 * torch has none to give. */
bool inj_tensor_bare(const struct inj_shape *shape, struct inj_bare *out);
void inj_tensor_bare_free(struct inj_bare *bare);

#endif
