/* See pyhooks.h. A hook's facts travel in a capsule, which is the callable's `self`. */
#include "injector/pyhooks.h"

#include "injector/count.h"
#include "injector/sample.h"
#include "injector/scope.h"
#include "profiler/core/phase.h"

#include <stdlib.h>

struct fact {
    int layer, phase, depth, expert;
    int n;         /* experts */
    int position;  /* of the argument or output that holds the indices */
    char name[48]; /* of the keyword argument */
};

static const char fact_tag[] = "moeprof";

static void fact_free(PyObject *capsule)
{
    free(py.capsule_get(capsule, fact_tag));
}

static PyObject *callable(struct py_method *method, const struct fact *fact)
{
    struct fact *copy = malloc(sizeof *copy);
    PyObject *capsule, *f = NULL;

    if (!copy)
        return inj_py_none();
    *copy = *fact;
    capsule = py.capsule_new(copy, fact_tag, fact_free);
    if (capsule) {
        f = py.cfunction(method, capsule, NULL);
        py.decref(capsule);
    }
    return f;
}

static const struct fact *fact_of(PyObject *self)
{
    return py.capsule_get(self, fact_tag);
}

static int as_int(PyObject *o)
{
    return (int)py.long_as(o);
}

/* ---- scopes --------------------------------------------------------------------------------------- */

static PyObject *enter(PyObject *self, PyObject *const *args, ssize_t n)
{
    const struct fact *f = fact_of(self);

    (void)args;
    (void)n;
    if (f && inj_alive())
        inj_scope_enter(f->depth, f->layer, f->phase);
    return inj_py_none();
}

static PyObject *leave(PyObject *self, PyObject *const *args, ssize_t n)
{
    const struct fact *f = fact_of(self);

    (void)args;
    (void)n;
    if (f && inj_alive())
        inj_scope_leave(f->depth);
    return inj_py_none();
}

static struct py_method enter_method = {"enter", enter, PY_FASTCALL, NULL};
static struct py_method leave_method = {"leave", leave, PY_FASTCALL, NULL};

PyObject *inj_py_scope_hooks(PyObject *self, PyObject *const *args, ssize_t n)
{
    struct fact f = {.expert = -1};
    PyObject *pair = py.tuple_new(2);
    const char *phase;

    (void)self;
    if (n < 3 || !pair)
        return pair;
    f.layer = as_int(args[0]);
    phase = py.utf8(args[1], NULL);
    f.phase = phase ? mp_phase_parse(phase) : -1;
    f.phase = f.phase < 0 ? MP_PHASE_OTHER : f.phase;
    f.depth = as_int(args[2]);
    py.tuple_set(pair, 0, callable(&enter_method, &f));
    py.tuple_set(pair, 1, callable(&leave_method, &f));
    return pair;
}

/* ---- tensors ---------------------------------------------------------------------------------------- */

static bool flag(PyObject *o, const char *attribute, bool call)
{
    PyObject *v = call ? py.call_method(o, attribute, NULL) : py.getattr(o, attribute);
    bool is = v && py.is_true(v) == 1;

    if (v)
        py.decref(v);
    return is;
}

static long long number(PyObject *o, const char *method)
{
    PyObject *v = py.call_method(o, method, NULL);
    long long n = v ? py.long_as(v) : -1;

    if (v)
        py.decref(v);
    return n;
}

static bool read_shape(PyObject *o, struct inj_tensor *t)
{
    PyObject *shape = py.getattr(o, "shape");
    ssize_t dims = shape ? py.tuple_size(shape) : -1;

    t->rows = 1;
    for (ssize_t i = 0; i + 1 < dims; i++)
        t->rows *= (size_t)py.long_as(py.tuple_get(shape, i));
    if (dims > 0)
        t->cols = (size_t)py.long_as(py.tuple_get(shape, dims - 1));
    t->n = t->rows * t->cols;
    if (shape)
        py.decref(shape);
    return dims > 0;
}

bool inj_py_tensor(PyObject *o, struct inj_tensor *t)
{
    struct inj_tensor have = {0};
    PyObject *ptr;
    bool ok;

    if (!o || o == py.none)
        return false;
    ok = read_shape(o, &have) && flag(o, "is_contiguous", true);
    ptr = ok ? py.call_method(o, "data_ptr", NULL) : NULL;
    if (ptr) {
        have.data = (const void *)(uintptr_t)py.ulong_as(ptr);
        have.bytes = (int)number(o, "element_size");
        have.is_float = flag(o, "is_floating_point", true);
        have.on_gpu = flag(o, "is_cuda", false);
        have.device = have.on_gpu ? (int)number(o, "get_device") : -1;
        py.decref(ptr);
    }
    ok = ok && ptr && have.data && !py.err_occurred();
    py.err_clear();
    if (ok)
        *t = have;
    return ok;
}

void *inj_py_stream(int device)
{
    static PyObject *get; /* torch._C._cuda_getCurrentRawStream, kept for the life of the process */
    static bool tried;
    PyObject *torch_c, *v;
    void *stream = NULL;

    if (!tried) {
        tried = true;
        torch_c = py.dict_get(py.modules(), "torch._C");
        get = torch_c ? py.getattr(torch_c, "_cuda_getCurrentRawStream") : NULL;
    }
    v = get && device >= 0 ? py.call(get, "i", device) : NULL;
    if (v) {
        stream = (void *)(uintptr_t)py.ulong_as(v);
        py.decref(v);
    }
    py.err_clear();
    return stream;
}

/* ---- routing ------------------------------------------------------------------------------------------ */

static PyObject *expert_enter(PyObject *self, PyObject *const *args, ssize_t n)
{
    const struct fact *f = fact_of(self);
    struct inj_tensor t;

    if (!f || !inj_alive())
        return inj_py_none();
    inj_scope_expert(f->layer, f->expert);
    if (n > 1 && py.tuple_size(args[1]) > 0 && inj_sample_counts() && inj_counting()) {
        if (read_shape(py.tuple_get(args[1], 0), &t))
            inj_count_expert(f->layer, f->expert, (uint32_t)t.rows);
    }
    py.err_clear();
    return inj_py_none();
}

static struct py_method expert_method = {"expert", expert_enter, PY_FASTCALL, NULL};

PyObject *inj_py_expert_hook(PyObject *self, PyObject *const *args, ssize_t n)
{
    struct fact f = {.phase = MP_PHASE_EXPERT};

    (void)self;
    if (n < 2)
        return inj_py_none();
    f.layer = as_int(args[0]);
    f.expert = as_int(args[1]);
    inj_count_layer(f.layer, f.expert + 1);
    return callable(&expert_method, &f);
}

static void count(const struct fact *f, PyObject *indices)
{
    struct inj_tensor t;
    int rc;

    if (!inj_py_tensor(indices, &t) || t.is_float || (t.bytes != 8 && t.bytes != 4)) {
        inj_feature_off(MP_FEATURE_ROUTING,
                        "layer %d: the chosen experts are not a plain index tensor: "
                        "tokens per expert are unknown",
                        f->layer);
        return;
    }
    rc = inj_count_route(f->layer, t.data, t.bytes, t.n, t.on_gpu,
                         t.on_gpu ? inj_py_stream(t.device) : NULL);
    if (rc == MP_OK)
        inj_feature_on(MP_FEATURE_ROUTING);
    else if (rc != MP_EINVAL && rc != MP_EBUSY)
        inj_feature_off(MP_FEATURE_ROUTING,
                        "layer %d: tokens per expert cannot be counted on this GPU "
                        "(graph capture, or a driver call failed)",
                        f->layer);
}

/* forward pre-hook (module, args, kwargs) */
static PyObject *routing_in(PyObject *self, PyObject *const *args, ssize_t n)
{
    const struct fact *f = fact_of(self);
    PyObject *indices = NULL;

    if (!f || n < 2 || !inj_alive() || !inj_sample_counts() || !inj_counting())
        return inj_py_none();
    if (f->position >= 0 && f->position < py.tuple_size(args[1]))
        indices = py.tuple_get(args[1], f->position);
    else if (n > 2 && f->name[0])
        indices = py.dict_get(args[2], f->name);
    count(f, indices);
    py.err_clear();
    return inj_py_none();
}

/* the same where the argument is a list of rows per expert */
static PyObject *routing_list(PyObject *self, PyObject *const *args, ssize_t n)
{
    const struct fact *f = fact_of(self);
    PyObject *rows = NULL;

    if (!f || n < 2 || !inj_alive() || !inj_sample_counts() || !inj_counting())
        return inj_py_none();
    if (f->position >= 0 && f->position < py.tuple_size(args[1]))
        rows = py.tuple_get(args[1], f->position);
    else if (n > 2 && f->name[0])
        rows = py.dict_get(args[2], f->name);
    for (ssize_t e = 0; rows && e < py.list_size(rows); e++) {
        long long count = py.long_as(py.list_get(rows, e));

        if (count > 0)
            inj_count_expert(f->layer, (int)e, (uint32_t)count);
    }
    py.err_clear();
    return inj_py_none();
}

/* forward hook (module, args, output) */
static PyObject *routing_out(PyObject *self, PyObject *const *args, ssize_t n)
{
    const struct fact *f = fact_of(self);

    if (f && n > 2 && inj_alive() && inj_sample_counts() && inj_counting() &&
        f->position < py.tuple_size(args[2]))
        count(f, py.tuple_get(args[2], f->position));
    py.err_clear();
    return inj_py_none();
}

static struct py_method routing_in_method = {"routing", routing_in, PY_FASTCALL, NULL};
static struct py_method routing_list_method = {"routing_list", routing_list, PY_FASTCALL, NULL};
static struct py_method routing_out_method = {"routing_out", routing_out, PY_FASTCALL, NULL};

static PyObject *routing_by_argument(struct py_method *m, PyObject *const *args, ssize_t n)
{
    struct fact f = {.expert = -1};
    const char *name;

    if (n < 4)
        return inj_py_none();
    f.layer = as_int(args[0]);
    f.n = as_int(args[1]);
    f.position = as_int(args[2]);
    name = args[3] == py.none ? NULL : py.utf8(args[3], NULL);
    for (size_t i = 0; name && name[i] && i + 1 < sizeof f.name; i++)
        f.name[i] = name[i];
    inj_count_layer(f.layer, f.n);
    return callable(m, &f);
}

PyObject *inj_py_routing_hook(PyObject *self, PyObject *const *args, ssize_t n)
{
    (void)self;
    return routing_by_argument(&routing_in_method, args, n);
}

PyObject *inj_py_routing_list_hook(PyObject *self, PyObject *const *args, ssize_t n)
{
    (void)self;
    return routing_by_argument(&routing_list_method, args, n);
}

PyObject *inj_py_routing_out_hook(PyObject *self, PyObject *const *args, ssize_t n)
{
    struct fact f = {.expert = -1};

    (void)self;
    if (n < 3)
        return inj_py_none();
    f.layer = as_int(args[0]);
    f.n = as_int(args[1]);
    f.position = as_int(args[2]);
    inj_count_layer(f.layer, f.n);
    return callable(&routing_out_method, &f);
}
