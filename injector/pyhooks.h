/* The C callables that hook.py hangs on modules, and how they look at tensors.
 * On the thread that runs the module, under the GIL. */
#ifndef INJ_PYHOOKS_H
#define INJ_PYHOOKS_H

#include "injector/pysym.h"

/* Factories, called by hook.py; each returns callables that live as long as the module they hang on. */
PyObject *inj_py_scope_hooks(PyObject *self, PyObject *const *args, ssize_t n);
PyObject *inj_py_expert_hook(PyObject *self, PyObject *const *args, ssize_t n);
PyObject *inj_py_routing_hook(PyObject *self, PyObject *const *args, ssize_t n);
PyObject *inj_py_routing_list_hook(PyObject *self, PyObject *const *args, ssize_t n);
PyObject *inj_py_routing_out_hook(PyObject *self, PyObject *const *args, ssize_t n);

struct inj_tensor {
    const void *data;
    size_t rows, cols; /* cols: the last dimension; rows: the product of the others */
    size_t n;
    int bytes; /* of an element */
    bool is_float, on_gpu;
    int device;
};

/* Facts of a contiguous, strided tensor by its metadata alone; false for anything else (and None). */
bool inj_py_tensor(PyObject *o, struct inj_tensor *t);

/* torch's current CUstream on that device; NULL (the default stream) when it cannot be told. */
void *inj_py_stream(int device);

#endif
