/* A plan as Python holds it: the C struct of swap.h, what the tensors were like that it was made for, and what its calls
 * make. On the training thread, under the GIL. */
#ifndef INJ_PYPLAN_H
#define INJ_PYPLAN_H

#include "injector/pysym.h"
#include "injector/swap.h"
#include "injector/tensor_abi.h"

enum { MAX_TENSOR = 16 };

/* What plan() is given, and each call: x, index, score, and a tuple of the tensors that places are in. */
enum { N_INPUT = 3, INPUT_ARGS = N_INPUT + 1 };

/* The tensors of a call, as a plan's moulds are: x, index, score, then those that places are in. */
struct given {
    PyObject *tensor[N_INPUT + MAX_TENSOR];
    ssize_t n;
};

/* How new tensors are made: like a sample, in another shape. */
struct maker {
    PyObject *sample;
    struct inj_shape shape;
    bool direct; /* without Python */
};

enum {
    OUT,
    SAVED,
    BARE,
    FORWARD_WORK,
    BACKWARD_WORK,
    LENT_WORK,
    DX,
    DSCORE,
    DWEIGHT,
    N_MAKER = DWEIGHT + MAX_TENSOR
};

/* A plan, what the tensors were like that it was made for, and what its calls make. */
struct held_plan {
    struct inj_plan plan;
    ssize_t n_mould; /* 0: they cannot be read from here */
    struct inj_shape mould[MAX_TENSOR];
    bool lends; /* the first weight gradient serves as dx_row */
    ssize_t n_gradient;
    struct maker maker[N_MAKER];
};

/* Of a capsule; NULL, with an exception, where it is none. */
const struct held_plan *inj_plan_of(PyObject *capsule);
/* Of x, index, score and a tuple; of what autograd saved: x, index, score, another, then the tuple's. */
void inj_plan_given(struct given *out, PyObject *const *input);
void inj_plan_given_saved(struct given *out, PyObject *saved);
/* Are they like those that it was made for? false where that cannot be told. */
bool inj_plan_fits(const struct held_plan *h, const struct given *given);
/* Is a tensor like what one of its makers makes? */
bool inj_plan_made_like(const struct held_plan *h, int which, PyObject *tensor);
/* A new tensor by one of its makers; NULL with an exception. */
PyObject *inj_plan_make(const struct held_plan *h, int which);

/* One of them as memory for a while. */
struct scratch {
    void *data;
    struct inj_bare bare; /* where C made it, */
    PyObject *object;     /* else this tensor */
};

bool inj_plan_scratch(const struct held_plan *h, int which, struct scratch *out); /* as make */
void inj_plan_scratch_free(struct scratch *s);
/* Where a tensor's memory is; NULL for None. What torch refuses is a Python exception. */
void *inj_py_address(PyObject *tensor);
/* An address out of a Python integer. */
void *inj_py_pointer(PyObject *o);

/* The functions of `_moeprof` of that name. */
PyObject *inj_py_plan(PyObject *self, PyObject *const *args, ssize_t n);
PyObject *inj_py_fits(PyObject *self, PyObject *const *args, ssize_t n);
PyObject *inj_py_tensor_check(PyObject *self, PyObject *const *args, ssize_t n);

#endif
