/* Requests, answers and notices as swap.py sees them. See pyswap.h, BRIDGE.md. */
#include "injector/pyswap.h"

#include "injector/ctl.h"
#include "injector/guest.h"
#include "injector/sample.h"
#include "swap_arms_py.h"
#include "swap_blocks_py.h"
#include "swap_call_py.h"
#include "swap_control_py.h"
#include "swap_layers_py.h"
#include "swap_lora_list_py.h"
#include "swap_lora_py.h"
#include "swap_meter_py.h"
#include "swap_parity_py.h"
#include "swap_py.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void copy_text(char *out, size_t bytes, PyObject *text)
{
    const char *s = py.utf8(text, NULL);

    if (!s)
        py.err_clear();
    snprintf(out, bytes, "%s", s ? s : "");
}

static PyObject *pending(PyObject *self, PyObject *const *args, ssize_t n)
{
    (void)self;
    (void)args;
    (void)n;
    return py.bool_from(inj_ctl_pending());
}

static PyObject *cancelled(PyObject *self, PyObject *const *args, ssize_t n)
{
    (void)self;
    (void)args;
    (void)n;
    return py.bool_from(inj_ctl_cancelled());
}

static PyObject *step(PyObject *self, PyObject *const *args, ssize_t n)
{
    (void)self;
    (void)args;
    (void)n;
    return py.long_from(atomic_load(&inj.step));
}

/* TRACE needs no model. The running step is decided already, so the answer speaks of the next one. */
static void trace(const struct inj_request *r)
{
    struct mp_msg done = {.kind = MP_WIRE_DONE, .layer = -1, .step = atomic_load(&inj.step) + 1};

    if (!inj_sample_ask(r->msg.name)) {
        done.code = MP_EINVAL;
        snprintf(done.text, sizeof done.text, "trace wants 'on', 'off' or 'auto'");
    }
    inj_ctl_post(r->ticket, &done);
}

/* (ticket, kind, flags, name), or None when nothing is due. */
static PyObject *take(PyObject *self, PyObject *const *args, ssize_t n)
{
    struct inj_request r;
    PyObject *tuple, *name;

    (void)self;
    (void)args;
    (void)n;
    do {
        if (!inj_ctl_take(&r, atomic_load(&inj.step)))
            return inj_py_none();
        if (r.msg.kind == MP_WIRE_TRACE)
            trace(&r);
    } while (r.msg.kind == MP_WIRE_TRACE);
    tuple = py.tuple_new(4);
    name = py.str_from(r.msg.name);
    if (!name) { /* no text: an arm of no name, which is refused */
        py.err_clear();
        name = py.str_from("");
    }
    if (!tuple || !name)
        return NULL;
    py.tuple_set(tuple, 0, py.long_from((long long)r.ticket));
    py.tuple_set(tuple, 1, py.long_from(r.msg.kind));
    py.tuple_set(tuple, 2, py.long_from(r.msg.flags));
    py.tuple_set(tuple, 3, name);
    return tuple;
}

/* A row is (kind, code, layer, flags, (v0, v1, v2, v3), name, text). */
static bool read_row(PyObject *row, struct mp_msg *m)
{
    PyObject *value;

    memset(m, 0, sizeof *m);
    if (py.tuple_size(row) != 7)
        return false;
    value = py.tuple_get(row, 4);
    m->kind = (uint16_t)py.long_as(py.tuple_get(row, 0));
    m->code = (int32_t)py.long_as(py.tuple_get(row, 1));
    m->layer = (int32_t)py.long_as(py.tuple_get(row, 2));
    m->flags = (uint32_t)py.long_as(py.tuple_get(row, 3));
    m->step = atomic_load(&inj.step);
    for (ssize_t i = 0; i < py.tuple_size(value) && i < (ssize_t)countof(m->value); i++)
        m->value[i] = py.float_as(py.tuple_get(value, i));
    copy_text(m->name, sizeof m->name, py.tuple_get(row, 5));
    copy_text(m->text, sizeof m->text, py.tuple_get(row, 6));
    return !py.err_occurred();
}

/* post(ticket, row) */
static PyObject *post(PyObject *self, PyObject *const *args, ssize_t n)
{
    struct mp_msg m;

    (void)self;
    if (n == 2 && read_row(args[1], &m))
        inj_ctl_post(py.ulong_as(args[0]), &m);
    py.err_clear();
    return inj_py_none();
}

/* publish([row, ..]) */
static PyObject *publish(PyObject *self, PyObject *const *args, ssize_t n)
{
    ssize_t count = n ? py.list_size(args[0]) : 0;
    struct mp_msg *m = count > 0 ? calloc((size_t)count, sizeof *m) : NULL;
    size_t kept = 0;

    (void)self;
    for (ssize_t i = 0; m && i < count; i++)
        kept += read_row(py.list_get(args[0], i), &m[kept]);
    if (m)
        inj_ctl_publish(m, kept);
    free(m);
    py.err_clear();
    return inj_py_none();
}

static PyObject *status(PyObject *self, PyObject *const *args, ssize_t n)
{
    (void)self;
    if (n)
        inj_ctl_status(py.ulong_as(args[0]));
    return inj_py_none();
}

/* swap_source(i): the text of part i, None after the last. Executed by hook.py when the first request comes,
 * never in a job that is not asked. */
static PyObject *swap_source(PyObject *self, PyObject *const *args, ssize_t n)
{
    static const char *const part[] = {
        swap_py,        swap_call_py,   swap_layers_py, swap_lora_py,  swap_lora_list_py,
        swap_blocks_py, swap_parity_py, swap_arms_py,   swap_meter_py, swap_control_py};
    size_t i = n ? (size_t)py.ulong_as(args[0]) : 0;

    (void)self;
    return i < countof(part) ? py.str_from(part[i]) : inj_py_none();
}

struct py_method inj_pyctl_method[] = {
    {"pending", pending, PY_FASTCALL, NULL}, {"cancelled", cancelled, PY_FASTCALL, NULL},
    {"step", step, PY_FASTCALL, NULL},       {"take", take, PY_FASTCALL, NULL},
    {"post", post, PY_FASTCALL, NULL},       {"publish", publish, PY_FASTCALL, NULL},
    {"status", status, PY_FASTCALL, NULL},   {"swap_source", swap_source, PY_FASTCALL, NULL},
};
const size_t inj_pyctl_count = countof(inj_pyctl_method);
