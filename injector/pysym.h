/* The part of the Python C API that the guest uses, by dlsym in the running interpreter: no libpython
 * is linked, any CPython from 3.9 on will do. Objects are opaque. Call under the GIL, except ensure. */
#ifndef INJ_PYSYM_H
#define INJ_PYSYM_H

#include "profiler/core/base.h"

#include <sys/types.h>

typedef struct py_object PyObject;

typedef PyObject *(*py_fast_fn)(PyObject *self, PyObject *const *args, ssize_t n);

struct py_method { /* PyMethodDef */
    const char *name;
    py_fast_fn fn;
    int flags; /* PY_FASTCALL */
    const char *doc;
};
enum { PY_FASTCALL = 0x80, PY_FILE_INPUT = 257 };

struct inj_py {
    int (*is_initialized)(void);
    int (*ensure)(void);
    void (*release)(int state);
    PyObject *(*modules)(void);
    PyObject *(*dict_get)(PyObject *dict, const char *key); /* borrowed */
    PyObject *(*dict_new)(void);
    int (*dict_set)(PyObject *dict, const char *key, PyObject *value);
    PyObject *(*builtins)(void); /* borrowed */
    PyObject *(*compile)(const char *text, const char *file, int start);
    PyObject *(*eval)(PyObject *code, PyObject *globals, PyObject *locals);
    PyObject *(*module_new)(const char *name);
    PyObject *(*getattr)(PyObject *o, const char *name);
    int (*setattr)(PyObject *o, const char *name, PyObject *value);
    PyObject *(*cfunction)(struct py_method *method, PyObject *self, PyObject *module);
    PyObject *(*capsule_new)(void *ptr, const char *name, void (*destructor)(PyObject *));
    void *(*capsule_get)(PyObject *capsule, const char *name);
    PyObject *(*tuple_new)(ssize_t n);
    int (*tuple_set)(PyObject *tuple, ssize_t i, PyObject *item); /* steals item */
    PyObject *(*tuple_get)(PyObject *tuple, ssize_t i);           /* borrowed */
    ssize_t (*tuple_size)(PyObject *tuple);
    PyObject *(*list_get)(PyObject *list, ssize_t i); /* borrowed */
    ssize_t (*list_size)(PyObject *list);
    PyObject *(*long_from)(long long v);
    long long (*long_as)(PyObject *o);
    unsigned long long (*ulong_as)(PyObject *o); /* masked */
    double (*float_as)(PyObject *o);
    const char *(*utf8)(PyObject *s, ssize_t *bytes);
    PyObject *(*call_method)(PyObject *o, const char *name, const char *format, ...);
    PyObject *(*call)(PyObject *f, const char *format, ...);
    int (*is_true)(PyObject *o);
    PyObject *(*bool_from)(long v);
    void (*incref)(PyObject *o);
    void (*decref)(PyObject *o);
    PyObject *(*err_occurred)(void);
    void (*err_clear)(void);
    void (*err_fetch)(PyObject **type, PyObject **value, PyObject **traceback);
    PyObject *(*str)(PyObject *o);
    PyObject *(*str_from)(const char *utf8);
    int (*is_finalizing)(void); /* may be NULL */
    PyObject *none;
};

extern struct inj_py py;

/* MP_EGONE: no Python in this process (yet); MP_ENOTSUP: one, but too old. */
int inj_pysym_init(void);

/* A new reference to None: what a hook returns. */
PyObject *inj_py_none(void);

/* Text of the current exception, which is cleared. */
void inj_py_error(char *out, size_t bytes);

#endif
