/* See pymodule.h. Functions that hook.py calls once a model, a step or a micro-batch. The hooks that run
 * once a module call are in pyhooks.c. On the thread that trains, under the GIL. */
#include "injector/pymodule.h"

#include "injector/agent.h"
#include "injector/count.h"
#include "injector/cuda_api.h"
#include "injector/launch.h"
#include "injector/pybridge.h"
#include "injector/pyhooks.h"
#include "injector/pyswap.h"
#include "injector/sample.h"
#include "injector/scope.h"
#include "injector/torch_abi.h"
#include "injector/trace.h"
#include "injector/tracer.h"
#include "profiler/core/phase.h"

#include <stdlib.h>
#include <string.h>

static void *cuda_context;
static int cuda_device;

int inj_py_device(void)
{
    return cuda_device;
}

void *inj_py_context(void)
{
    return cuda_context;
}

/* ---- arguments ----------------------------------------------------------------------------------- */

static long long int_arg(PyObject *const *args, ssize_t n, ssize_t i, long long unknown)
{
    long long v;

    if (i >= n || args[i] == py.none)
        return unknown;
    v = py.long_as(args[i]);
    if (v == -1 && py.err_occurred()) {
        py.err_clear();
        return unknown;
    }
    return v;
}

static const char *str_arg(PyObject *const *args, ssize_t n, ssize_t i)
{
    const char *s = i < n ? py.utf8(args[i], NULL) : NULL;

    if (!s)
        py.err_clear();
    return s ? s : "";
}

static uint32_t u32_arg(PyObject *const *args, ssize_t n, ssize_t i)
{
    long long v = int_arg(args, n, i, UINT32_MAX);

    return v < 0 || v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

/* ---- the model ------------------------------------------------------------------------------------- */

/* A tiny backward on the CPU whose node we know: does the C view of it agree with Python's? */
static const char self_check[] =
    "def check(torch, agrees):\n"
    "    with torch.enable_grad():\n"
    "        x = torch.zeros(1, device='cpu', requires_grad=True)\n"
    "        y = x * 2\n"
    "        y.register_hook(lambda grad: agrees(y.grad_fn._sequence_nr(), True) and None)\n"
    "        torch.autograd.grad(y, x)\n"
    "check(torch, agrees)\n";

static PyObject *node_check(PyObject *self, PyObject *const *args, ssize_t n)
{
    (void)self;
    return py.bool_from(n == 2 && inj_torch_check(py.ulong_as(args[0]), py.is_true(args[1]) == 1));
}

static struct py_method node_check_method = {"node_check", node_check, PY_FASTCALL, NULL};

static void check_autograd(void)
{
    PyObject *torch = py.dict_get(py.modules(), "torch"), *globals = py.dict_new();
    PyObject *agrees = py.cfunction(&node_check_method, NULL, NULL), *code, *result = NULL;

    py.dict_set(globals, "__builtins__", py.builtins());
    py.dict_set(globals, "torch", torch);
    py.dict_set(globals, "agrees", agrees);
    code = py.compile(self_check, "<moeprof check>", PY_FILE_INPUT);
    if (code)
        result = py.eval(code, globals, globals);
    py.err_clear();
    if (result)
        py.decref(result);
    if (code)
        py.decref(code);
    py.decref(agrees);
    py.decref(globals);
    if (inj_torch_trusted())
        inj_feature_on(MP_FEATURE_AUTOGRAD);
    else
        inj_feature_off(MP_FEATURE_AUTOGRAD,
                        "this torch's autograd nodes are not as expected: backward "
                        "time is told apart by weights and kernel names only");
}

static PyObject *wake(PyObject *self, PyObject *const *args, ssize_t n)
{
    (void)self;
    (void)args;
    (void)n;
    if (!inj_shm() || inj_thread_init())
        return inj_py_none();
    if (!inj.opts.no_cuda && inj_cuda_find() == MP_OK && !cuda.ctx_get_current(&cuda_context) &&
        cuda_context)
        cuda.ctx_get_device(&cuda_device);
    check_autograd();
    inj_feature_on(MP_FEATURE_PYTHON);
    inj_agent_wake();
    return inj_py_none();
}

static PyObject *set_spec(PyObject *self, PyObject *const *args, ssize_t n)
{
    ssize_t bytes = 0;
    const char *text = n ? py.utf8(args[0], &bytes) : NULL;
    struct mp_shm *shm = inj_shm();

    (void)self;
    if (shm && text && mp_shm_spec_set(shm, text, (size_t)bytes))
        inj_feature_off(MP_FEATURE_PYTHON,
                        "the model's description of %zd bytes is too long to publish", bytes);
    py.err_clear();
    return inj_py_none();
}

static bool read_range(PyObject *tuple, struct mp_range *r)
{
    int phase;
    const char *name;

    if (py.tuple_size(tuple) < 6)
        return false;
    r->base = py.ulong_as(py.tuple_get(tuple, 0));
    r->bytes = py.ulong_as(py.tuple_get(tuple, 1));
    r->layer = (int16_t)py.long_as(py.tuple_get(tuple, 2));
    name = py.utf8(py.tuple_get(tuple, 3), NULL);
    phase = name ? mp_phase_parse(name) : -1;
    r->phase = (uint8_t)(phase < 0 ? MP_PHASE_OTHER : phase);
    r->n_slice = (uint32_t)py.long_as(py.tuple_get(tuple, 4));
    r->expert = py.tuple_size(tuple) > 6 ? (int16_t)py.long_as(py.tuple_get(tuple, 6)) : -1;
    return !py.err_occurred();
}

static PyObject *set_ranges(PyObject *self, PyObject *const *args, ssize_t n)
{
    ssize_t count = n ? py.list_size(args[0]) : -1;
    struct mp_range *range = count > 0 ? calloc((size_t)count, sizeof *range) : NULL;
    size_t kept = 0;

    (void)self;
    for (ssize_t i = 0; range && i < count; i++)
        kept += read_range(py.list_get(args[0], i), &range[kept]);
    py.err_clear();
    if (count == 0 || range)
        inj_launch_set_ranges(mp_ranges_new(range, kept));
    free(range);
    return inj_py_none();
}

/* ---- marks ------------------------------------------------------------------------------------------- */

#define MARK(name, ...)                                                                            \
    static PyObject *name(PyObject *self, PyObject *const *args, ssize_t n)                        \
    {                                                                                              \
        (void)self;                                                                                \
        (void)args;                                                                                \
        (void)n;                                                                                   \
        if (inj_alive()) {                                                                         \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
        return inj_py_none();                                                                      \
    }

MARK(micro_begin, inj_micro_begin())
MARK(micro_end, inj_count_flush(), inj_micro_end())
MARK(optimizer_begin, inj_optimizer_begin())
MARK(optimizer_end, inj_optimizer_end())
/* Without a context torch throws in C++ when asked for its stream: a tenth of a millisecond. */
static void end_of_step(bool at_update)
{
    void *stream = cuda_context ? inj_py_stream(cuda_device) : NULL;

    inj_count_flush();
    inj_count_step(atomic_load(&inj.step), stream);
    inj_step_end(at_update);
    inj_tracer_leave(stream);
}

MARK(step_end, end_of_step(n > 0 && py.is_true(args[0]) == 1))

static PyObject *tracing(PyObject *self, PyObject *const *args, ssize_t n)
{
    (void)self;
    (void)args;
    (void)n;
    return py.bool_from(inj_sample_tracing() || inj_trace_on());
}

static PyObject *micro(PyObject *self, PyObject *const *args, ssize_t n)
{
    long long segments = int_arg(args, n, 4, UINT16_MAX);
    struct mp_micro m = {
        .processed = u32_arg(args, n, 0),
        .useful = u32_arg(args, n, 1),
        .trainable = u32_arg(args, n, 2),
        .head_rows = u32_arg(args, n, 3),
        .n_segment = (uint16_t)(segments < UINT16_MAX ? segments : UINT16_MAX),
        .batch = u32_arg(args, n, 5),
        .basis = (uint8_t)int_arg(args, n, 6, MP_UNKNOWN),
    };

    (void)self;
    if (m.processed == UINT32_MAX) /* not recognised: unknown, not 0 */
        m.processed = 0;
    if (m.batch == UINT32_MAX)
        m.batch = 0;
    if (inj_alive())
        inj_count_micro(&m);
    return inj_py_none();
}

static PyObject *pairs(PyObject *self, PyObject *const *args, ssize_t n)
{
    struct mp_pairs p = {
        .window = u32_arg(args, n, 0),
        .useful = (uint64_t)int_arg(args, n, 1, 0),
        .processed = (uint64_t)int_arg(args, n, 2, 0),
        .max_len = u32_arg(args, n, 3),
        .basis = (uint8_t)int_arg(args, n, 4, MP_UNKNOWN),
    };

    (void)self;
    if (inj_alive())
        inj_count_pairs(&p);
    return inj_py_none();
}

static PyObject *micro_mask(PyObject *self, PyObject *const *args, ssize_t n)
{
    struct inj_mask m = {0};
    struct inj_tensor t = {0};

    (void)self;
    if (n < 4 || !inj_alive())
        return inj_py_none();
    if (inj_py_tensor(args[1], &t) && t.bytes == 8)
        m.labels = t.data;
    if (inj_py_tensor(args[2], &t) && t.bytes == 8)
        m.position_ids = t.data;
    if (inj_py_tensor(args[0], &t)) {
        m.mask = t.data;
        m.mask_bytes = t.bytes;
        m.mask_float = t.is_float;
    }
    m.rows = (uint32_t)t.rows; /* of whichever was given last: all have one shape */
    m.cols = (uint32_t)t.cols;
    for (ssize_t i = 0; i < py.list_size(args[3]) && i < 4; i++)
        m.window[m.n_window++] = (uint32_t)py.long_as(py.list_get(args[3], i));
    py.err_clear();
    if (t.data &&
        inj_count_mask(&m, t.on_gpu, t.on_gpu ? inj_py_stream(t.device) : NULL) == MP_ENOTSUP)
        inj_feature_off(
            MP_FEATURE_TOKENS,
            "useful tokens could not be counted on the GPU: all tokens are taken as useful");
    return inj_py_none();
}

/* ---- voice --------------------------------------------------------------------------------------------- */

static PyObject *say(PyObject *self, PyObject *const *args, ssize_t n)
{
    (void)self;
    inj_log((int)int_arg(args, n, 0, 0), "%s", str_arg(args, n, 1));
    return inj_py_none();
}

static PyObject *feature_off(PyObject *self, PyObject *const *args, ssize_t n)
{
    static const struct {
        const char *name;
        enum mp_feature feature;
    } row[] = {
        {"python", MP_FEATURE_PYTHON},   {"autograd", MP_FEATURE_AUTOGRAD},
        {"routing", MP_FEATURE_ROUTING}, {"tokens", MP_FEATURE_TOKENS},
        {"ranges", MP_FEATURE_LAUNCH},
    };
    const char *name = str_arg(args, n, 0);

    (void)self;
    for (size_t i = 0; i < countof(row); i++)
        if (strcmp(row[i].name, name) == 0)
            inj_feature_off(row[i].feature, "%s", str_arg(args, n, 1));
    return inj_py_none();
}

/* ---- table ----------------------------------------------------------------------------------------------- */

static struct py_method method[] = {
    {"wake", wake, PY_FASTCALL, NULL},
    {"set_spec", set_spec, PY_FASTCALL, NULL},
    {"set_ranges", set_ranges, PY_FASTCALL, NULL},
    {"micro_begin", micro_begin, PY_FASTCALL, NULL},
    {"micro", micro, PY_FASTCALL, NULL},
    {"micro_mask", micro_mask, PY_FASTCALL, NULL},
    {"pairs", pairs, PY_FASTCALL, NULL},
    {"micro_end", micro_end, PY_FASTCALL, NULL},
    {"optimizer_begin", optimizer_begin, PY_FASTCALL, NULL},
    {"optimizer_end", optimizer_end, PY_FASTCALL, NULL},
    {"step_end", step_end, PY_FASTCALL, NULL},
    {"tracing", tracing, PY_FASTCALL, NULL},
    {"log", say, PY_FASTCALL, NULL},
    {"feature_off", feature_off, PY_FASTCALL, NULL},
    {"node_check", node_check, PY_FASTCALL, NULL},
    {"scope_hooks", inj_py_scope_hooks, PY_FASTCALL, NULL},
    {"expert_hook", inj_py_expert_hook, PY_FASTCALL, NULL},
    {"routing_hook", inj_py_routing_hook, PY_FASTCALL, NULL},
    {"routing_list_hook", inj_py_routing_list_hook, PY_FASTCALL, NULL},
    {"routing_out_hook", inj_py_routing_out_hook, PY_FASTCALL, NULL},
};

static bool add(PyObject *module, struct py_method *row, size_t n)
{
    bool ok = true;

    for (size_t i = 0; ok && i < n; i++) {
        PyObject *f = py.cfunction(&row[i], NULL, NULL);

        ok = f && py.setattr(module, row[i].name, f) == 0;
        if (f)
            py.decref(f);
    }
    return ok;
}

PyObject *inj_pymodule_new(void)
{
    PyObject *module = py.module_new("_moeprof");

    if (module &&
        (!add(module, method, countof(method)) || !add(module, inj_pyctl_method, inj_pyctl_count) ||
         !add(module, inj_pyswap_method, inj_pyswap_count))) {
        py.decref(module);
        module = NULL;
    }
    return module;
}
