/* The kernels as swap.py calls them: a plan and tensors in, new tensors or an error code out. See pyswap.h. */
#include "injector/pyswap.h"

#include "injector/pyplan.h"

static PyObject *answer(int rc)
{
    return py.err_occurred() ? NULL : py.long_from(rc);
}

static PyObject *kernels(PyObject *self, PyObject *const *args, ssize_t n)
{
    struct mp_err err = {0};

    (void)self;
    (void)args;
    (void)n;
    return py.str_from(inj_kernels(&err) ? "" : err.msg);
}

static PyObject *strerror_of(PyObject *self, PyObject *const *args, ssize_t n)
{
    struct mp_err err = {0};
    const struct mk_api *api = inj_kernels(&err);

    (void)self;
    return py.str_from(!api ? err.msg : n ? api->strerror((int)py.long_as(args[0])) : "");
}

/* ---- calls ------------------------------------------------------------------------------------ */

/* Where a tensor's memory is; NULL for None. What torch refuses is a Python exception. */
static void *address(PyObject *tensor)
{
    PyObject *at;
    void *p;

    if (tensor == py.none)
        return NULL;
    if (inj_tensor_known(tensor) && inj_tensor_data(tensor, &p))
        return p;
    at = py.call_method(tensor, "data_ptr", NULL);
    p = at ? inj_py_pointer(at) : NULL;
    if (at)
        py.decref(at);
    return p;
}

static void find_operands(void **operand, const struct inj_place *place, void *const *base)
{
    for (int i = 0; i < INJ_N_OPERAND; i++) {
        const struct inj_place *p = &place[i];

        if (p->tensor < 0)
            operand[i] = (void *)(uintptr_t)p->at;
        else /* an operand in a tensor that is None is absent */
            operand[i] = base[p->tensor] ? (char *)base[p->tensor] + p->at : NULL;
    }
}

static void drop(PyObject *o)
{
    if (o)
        py.decref(o);
}

static void read_inputs(struct inj_call *c, const struct held_plan *h, PyObject *const *input)
{
    void *base[MAX_TENSOR] = {0};

    c->x = address(input[0]);
    c->index = address(input[1]);
    c->score = address(input[2]);
    for (ssize_t i = 0; i < py.tuple_size(input[N_INPUT]) && i < MAX_TENSOR; i++)
        base[i] = address(py.tuple_get(input[N_INPUT], i));
    find_operands(c->operand, h->plan.weight, base);
}

/* forward(plan, flags, stream, x, index, score, tensors) -> (out, saved), or a code */
static PyObject *forward(PyObject *self, PyObject *const *args, ssize_t n)
{
    const struct held_plan *h = n == 3 + INPUT_ARGS ? inj_plan_of(args[0]) : NULL;
    PyObject *out, *saved, *work, *pair = NULL;
    struct inj_call c;
    int rc = MK_EVERSION;

    (void)self;
    if (!h)
        return answer(rc);
    c.flags = (uint32_t)py.long_as(args[1]);
    out = inj_plan_make(h, OUT);
    saved = out ? inj_plan_make(h, c.flags & MK_FLAG_INFERENCE ? BARE : SAVED) : NULL;
    work = saved ? inj_plan_make(h, FORWARD_WORK) : NULL;
    if (work) {
        c.stream = inj_py_pointer(args[2]);
        c.saved = address(saved);
        c.workspace = address(work);
        read_inputs(&c, h, args + 3);
        rc = py.err_occurred() ? MK_OK : inj_plan_forward(&h->plan, &c, address(out));
        drop(work);
    }
    if (rc == MK_OK && !py.err_occurred() && (pair = py.tuple_new(2))) {
        py.tuple_set(pair, 0, out);
        py.tuple_set(pair, 1, saved);
        return pair;
    }
    drop(saved);
    drop(out);
    return answer(rc);
}

/* Makes the gradients that are needed: dx, dscore, then those of weights. */
static bool make_gradients(const struct held_plan *h, PyObject *needed, PyObject **made)
{
    for (ssize_t i = 0; i < 2 + h->n_gradient; i++) {
        if (i < py.tuple_size(needed) && py.is_true(py.tuple_get(needed, i)) == 1)
            made[i] = inj_plan_make(h, DX + (int)i);
        else
            made[i] = inj_py_none();
        if (!made[i])
            return false;
    }
    return true;
}

static int run_backward(const struct held_plan *h, PyObject *const *args, PyObject **made)
{
    PyObject *lent = h->lends && h->n_gradient && made[2] != py.none ? made[2] : py.none;
    PyObject *work = inj_plan_make(h, lent != py.none ? LENT_WORK : BACKWARD_WORK);
    void *base[MAX_TENSOR] = {0};
    struct inj_gradients out;
    struct inj_call c;
    int rc = MK_OK;

    if (!work)
        return rc;
    c.flags = 0;
    c.workspace = address(work);
    c.stream = inj_py_pointer(args[2]);
    read_inputs(&c, h, args + 3);
    c.saved = address(args[3 + INPUT_ARGS]);
    out.dx = address(made[0]);
    out.dscore = address(made[1]);
    out.dx_row = address(lent);
    for (ssize_t i = 0; i < h->n_gradient; i++)
        base[i] = address(made[2 + i]);
    find_operands(out.operand, h->plan.gradient, base);
    if (!py.err_occurred())
        rc = inj_plan_backward(&h->plan, &c, &out, address(args[4 + INPUT_ARGS]));
    drop(work);
    return rc;
}

/* backward(plan, needed, stream, x, index, score, tensors, saved, dout) -> (dx, dscore, gradients of weights..), None
 * where not needed; or a code */
static PyObject *backward(PyObject *self, PyObject *const *args, ssize_t n)
{
    const struct held_plan *h = n == 5 + INPUT_ARGS ? inj_plan_of(args[0]) : NULL;
    PyObject *made[2 + MAX_TENSOR] = {0}, *all = NULL;
    int rc = MK_EVERSION;

    (void)self;
    if (!h)
        return answer(rc);
    if (make_gradients(h, args[1], made))
        rc = run_backward(h, args, made);
    if (rc == MK_OK && !py.err_occurred())
        all = py.tuple_new(2 + h->n_gradient);
    for (ssize_t i = 0; i < 2 + h->n_gradient; i++)
        if (all)
            py.tuple_set(all, i, made[i]);
        else
            drop(made[i]);
    return all ? all : answer(rc);
}

struct py_method inj_pyswap_method[] = {
    {"kernels", kernels, PY_FASTCALL, NULL},
    {"strerror", strerror_of, PY_FASTCALL, NULL},
    {"plan", inj_py_plan, PY_FASTCALL, NULL},
    {"fits", inj_py_fits, PY_FASTCALL, NULL},
    {"forward", forward, PY_FASTCALL, NULL},
    {"backward", backward, PY_FASTCALL, NULL},
    {"tensor_check", inj_py_tensor_check, PY_FASTCALL, NULL},
};
const size_t inj_pyswap_count = countof(inj_pyswap_method);
