/* See pybridge.h. Which thread: inj_py_hook on the agent's; everything in pymodule.c on the thread that
 * runs the module. The GIL is held throughout; nothing here waits for anything else. */
#include "injector/pybridge.h"

#include "hook_model_py.h"
#include "hook_py.h"
#include "hook_session_py.h"
#include "hook_spec_py.h"
#include "hook_tokens_py.h"
#include "injector/guest.h"
#include "injector/pymodule.h"
#include "injector/torch_abi.h"

#include <string.h>

/* Fully imported: the attributes that hook.py needs are there, and the import is not under way. */
static bool torch_imported(void)
{
    PyObject *torch = py.dict_get(py.modules(), "torch"), *optim, *spec = NULL, *busy = NULL;
    bool ready;

    if (!torch)
        return false;
    optim = py.getattr(torch, "optim");
    spec = py.getattr(torch, "__spec__");
    busy = spec ? py.getattr(spec, "_initializing") : NULL;
    ready = optim && !(busy && py.is_true(busy) == 1);
    py.err_clear();
    if (optim)
        py.decref(optim);
    if (spec)
        py.decref(spec);
    if (busy)
        py.decref(busy);
    return ready;
}

/* Executed in this order among the same globals; the last one installs the hooks. */
static const struct {
    const char *name, *text;
} part[] = {
    {"<moeprof hook>", hook_py},
    {"<moeprof model>", hook_model_py},
    {"<moeprof spec>", hook_spec_py},
    {"<moeprof tokens>", hook_tokens_py},
    {"<moeprof session>", hook_session_py},
};

static int run_text(const char *name, const char *text, PyObject *globals)
{
    PyObject *code = py.compile(text, name, PY_FILE_INPUT);
    PyObject *result = code ? py.eval(code, globals, globals) : NULL;
    char why[128];

    if (code)
        py.decref(code);
    if (result) {
        py.decref(result);
        return MP_OK;
    }
    inj_py_error(why, sizeof why);
    inj_feature_off(MP_FEATURE_PYTHON, "the Python bridge failed to start: %s", why);
    return MP_ENOTSUP;
}

static int run_hook(void)
{
    PyObject *globals = py.dict_new(), *module = inj_pymodule_new(), *name;
    int rc = MP_ENOMEM;

    name = globals && module ? py.str_from("moeprof_hook") : NULL;
    if (name) {
        py.dict_set(globals, "__builtins__", py.builtins());
        py.dict_set(globals, "__name__", name);
        py.dict_set(globals, "_moeprof", module);
        rc = MP_OK;
        for (size_t i = 0; rc == MP_OK && i < countof(part); i++)
            rc = run_text(part[i].name, part[i].text, globals);
        py.decref(name);
    }
    if (module)
        py.decref(module);
    if (globals)
        py.decref(globals); /* the hooks that hook.py installed keep them alive */
    return rc;
}

int inj_py_hook(void)
{
    int rc = inj_pysym_init(), gil;

    if (rc)
        return rc;
    if (!py.is_initialized() || (py.is_finalizing && py.is_finalizing()))
        return MP_EGONE;
    gil = py.ensure();
    rc = torch_imported() ? MP_OK : MP_EGONE;
    if (rc == MP_OK) {
        inj_torch_init();
        rc = run_hook();
    }
    py.err_clear();
    py.release(gil);
    return rc;
}
