/* See pysym.h. */
#include "injector/pysym.h"

#include "injector/elf.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

struct inj_py py;

static const struct inj_symbol symbol[] = {
#define ROW(name, field)                                                                           \
    {                                                                                              \
        name, offsetof(struct inj_py, field), true                                                 \
    }
#define MAYBE(name, field)                                                                         \
    {                                                                                              \
        name, offsetof(struct inj_py, field), false                                                \
    }
    ROW("Py_IsInitialized", is_initialized),
    ROW("PyGILState_Ensure", ensure),
    ROW("PyGILState_Release", release),
    ROW("PyImport_GetModuleDict", modules),
    ROW("PyDict_GetItemString", dict_get),
    ROW("PyDict_New", dict_new),
    ROW("PyDict_SetItemString", dict_set),
    ROW("PyEval_GetBuiltins", builtins),
    ROW("Py_CompileString", compile),
    ROW("PyEval_EvalCode", eval),
    ROW("PyModule_New", module_new),
    ROW("PyObject_GetAttrString", getattr),
    ROW("PyObject_SetAttrString", setattr),
    ROW("PyCFunction_NewEx", cfunction),
    ROW("PyCapsule_New", capsule_new),
    ROW("PyCapsule_GetPointer", capsule_get),
    ROW("PyTuple_New", tuple_new),
    ROW("PyTuple_SetItem", tuple_set),
    ROW("PyTuple_GetItem", tuple_get),
    ROW("PyTuple_Size", tuple_size),
    ROW("PyList_GetItem", list_get),
    ROW("PyList_Size", list_size),
    ROW("PyLong_FromLongLong", long_from),
    ROW("PyLong_AsLongLong", long_as),
    ROW("PyLong_AsUnsignedLongLongMask", ulong_as),
    ROW("PyFloat_AsDouble", float_as),
    ROW("PyUnicode_AsUTF8AndSize", utf8),
    ROW("PyObject_CallMethod", call_method),
    ROW("PyObject_CallFunction", call),
    ROW("PyObject_IsTrue", is_true),
    ROW("PyBool_FromLong", bool_from),
    ROW("Py_IncRef", incref),
    ROW("Py_DecRef", decref),
    ROW("PyErr_Occurred", err_occurred),
    ROW("PyErr_Clear", err_clear),
    ROW("PyErr_Fetch", err_fetch),
    ROW("PyObject_Str", str),
    ROW("PyUnicode_FromString", str_from),
    ROW("_Py_NoneStruct", none),
    MAYBE("_Py_IsFinalizing", is_finalizing),
    MAYBE("Py_IsFinalizing", is_finalizing), /* public from 3.13 on */
#undef ROW
#undef MAYBE
};

int inj_pysym_init(void)
{
    if (py.none)
        return MP_OK;
    if (!dlsym(RTLD_DEFAULT, "Py_IsInitialized"))
        return MP_EGONE;
    if (inj_elf_bind(RTLD_DEFAULT, symbol, countof(symbol), &py)) {
        py.none = NULL;
        return MP_ENOTSUP;
    }
    return MP_OK;
}

PyObject *inj_py_none(void)
{
    py.incref(py.none);
    return py.none;
}

void inj_py_error(char *out, size_t bytes)
{
    PyObject *type = NULL, *value = NULL, *traceback = NULL, *text;
    const char *s = NULL;

    py.err_fetch(&type, &value, &traceback);
    text = value ? py.str(value) : NULL;
    if (text)
        s = py.utf8(text, NULL);
    snprintf(out, bytes, "%s", s ? s : "unknown Python error");
    py.err_clear();
    if (text)
        py.decref(text);
    if (type)
        py.decref(type);
    if (value)
        py.decref(value);
    if (traceback)
        py.decref(traceback);
}
