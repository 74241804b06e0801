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

static void read_given(struct inj_call *c, const struct held_plan *h, const struct given *given)
{
    void *base[N_INPUT + MAX_TENSOR] = {0};

    for (ssize_t i = 0; i < given->n; i++)
        base[i] = inj_py_address(given->tensor[i]);
    c->x = base[0];
    c->index = base[1];
    c->score = base[2];
    find_operands(c->operand, h->plan.weight, base + N_INPUT);
}

static int run_forward(const struct held_plan *h, struct inj_call *c, PyObject *const *input,
                       PyObject *out)
{
    struct scratch work;
    struct given given;
    int rc;

    if (!inj_plan_scratch(h, FORWARD_WORK, &work))
        return MK_OK;
    c->workspace = work.data;
    inj_plan_given(&given, input);
    read_given(c, h, &given);
    rc = py.err_occurred() ? MK_OK : inj_plan_forward(&h->plan, c, inj_py_address(out));
    inj_plan_scratch_free(&work);
    return rc;
}

/* The kernels' part of a saved buffer begins where its address is a multiple of 256. Autograd may give the bytes back
 * elsewhere (the job's hooks on saved tensors), so how far that was from the beginning stands in the last byte, which is
 * never the kernels'. torch's GPU memory begins at such an address. */
static size_t shift_of(const void *saved)
{
    return (size_t)(-(uintptr_t)saved & 255u);
}

static bool on_host(const struct held_plan *h)
{
    return h->plan.problem.target == MK_TARGET_CPU;
}

static uint8_t *mark_of(const struct held_plan *h, void *saved)
{
    return (uint8_t *)saved + h->maker[SAVED].shape.size[0] - 1;
}

static bool is_in_place(const struct held_plan *h, void *saved)
{
    return shift_of(saved) == (on_host(h) ? *mark_of(h, saved) : 0u);
}

/* forward(plan, flags, stream, x, index, score, tensors) -> (out, saved), or a code */
static PyObject *forward(PyObject *self, PyObject *const *args, ssize_t n)
{
    const struct held_plan *h = n == 3 + INPUT_ARGS ? inj_plan_of(args[0]) : NULL;
    PyObject *out, *saved, *pair = NULL;
    struct inj_call c;
    int rc = MK_EVERSION;

    (void)self;
    if (!h)
        return answer(rc);
    c.flags = (uint32_t)py.long_as(args[1]);
    c.stream = inj_py_pointer(args[2]);
    out = inj_plan_make(h, OUT);
    saved = out ? inj_plan_make(h, c.flags & MK_FLAG_INFERENCE ? BARE : SAVED) : NULL;
    if (saved) {
        c.saved = inj_py_address(saved);
        rc = run_forward(h, &c, args + 3, out);
        if (on_host(h) && !(c.flags & MK_FLAG_INFERENCE) && !py.err_occurred())
            *mark_of(h, c.saved) = (uint8_t)shift_of(c.saved);
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

/* A tuple of the gradients that are needed, dx, dscore, then those of weights, and None for others, behind `before`
 * times None. */
static PyObject *new_gradients(const struct held_plan *h, PyObject *needed, ssize_t before)
{
    ssize_t n = before + 2 + h->n_gradient, n_needed = py.tuple_size(needed);
    PyObject *all = py.tuple_new(n);

    for (ssize_t i = 0; all && i < n; i++) {
        bool need = i >= before && i < n_needed && py.is_true(py.tuple_get(needed, i)) == 1;
        PyObject *one = need ? inj_plan_make(h, DX + (int)(i - before)) : inj_py_none();

        if (!one) {
            drop(all);
            return NULL;
        }
        py.tuple_set(all, i, one);
    }
    return all;
}

/* Fills the gradients. c: saved and stream are set. */
static int run_backward(const struct held_plan *h, struct inj_call *c, const struct given *given,
                        PyObject *dout, PyObject *all, ssize_t before)
{
    void *base[2 + MAX_TENSOR] = {0};
    struct inj_gradients out;
    struct scratch work;
    int rc = MK_OK;

    for (ssize_t i = 0; i < 2 + h->n_gradient; i++)
        base[i] = inj_py_address(py.tuple_get(all, before + i));
    out.dx = base[0];
    out.dscore = base[1];
    out.dx_row = h->lends && h->n_gradient ? base[2] : NULL;
    find_operands(out.operand, h->plan.gradient, base + 2);
    if (!inj_plan_scratch(h, out.dx_row ? LENT_WORK : BACKWARD_WORK, &work))
        return rc;
    c->flags = 0;
    c->workspace = work.data;
    read_given(c, h, given);
    if (!py.err_occurred())
        rc = inj_plan_backward(&h->plan, c, &out, inj_py_address(dout));
    inj_plan_scratch_free(&work);
    return rc;
}

static PyObject *gradients_of(const struct held_plan *h, struct inj_call *c,
                              const struct given *given, PyObject *dout, PyObject *needed,
                              ssize_t before)
{
    PyObject *all = new_gradients(h, needed, before);
    int rc = all ? run_backward(h, c, given, dout, all, before) : MK_OK;

    if (all && rc == MK_OK && !py.err_occurred())
        return all;
    drop(all);
    return answer(rc);
}

/* backward(plan, needed, stream, x, index, score, tensors, saved, dout) -> (dx, dscore, gradients of weights..), None
 * where not needed; or a code */
static PyObject *backward(PyObject *self, PyObject *const *args, ssize_t n)
{
    const struct held_plan *h = n == 5 + INPUT_ARGS ? inj_plan_of(args[0]) : NULL;
    struct inj_call c;
    struct given given;

    (void)self;
    if (!h)
        return answer(MK_EVERSION);
    c.stream = inj_py_pointer(args[2]);
    c.saved = inj_py_address(args[3 + INPUT_ARGS]);
    inj_plan_given(&given, args + 3);
    return gradients_of(h, &c, &given, args[4 + INPUT_ARGS], args[1], 0);
}

/* gradients(plan, stream, (x, index, score, saved, tensors..), needed, dout) -> as backward, and both needed and the
 * answer begin with an input of autograd's that is no tensor. None where these are not, to the last stride, what the plan
 * was made for and made. */
static PyObject *gradients(PyObject *self, PyObject *const *args, ssize_t n)
{
    const struct held_plan *h = n == 5 ? inj_plan_of(args[0]) : NULL;
    PyObject *saved = h && py.tuple_size(args[2]) > N_INPUT ? py.tuple_get(args[2], N_INPUT) : NULL;
    struct inj_call c;
    struct given given;

    (void)self;
    if (!saved)
        return answer(MK_EVERSION);
    inj_plan_given_saved(&given, args[2]);
    if (!inj_plan_fits(h, &given) || !inj_plan_made_like(h, SAVED, saved) ||
        !inj_plan_made_like(h, OUT, args[4]))
        return py.err_occurred() ? NULL : inj_py_none();
    c.stream = inj_py_pointer(args[1]);
    c.saved = inj_py_address(saved);
    if (c.saved && !is_in_place(h, c.saved))
        return inj_py_none();
    return gradients_of(h, &c, &given, args[4], args[3], 1);
}

struct py_method inj_pyswap_method[] = {
    {"kernels", kernels, PY_FASTCALL, NULL},
    {"strerror", strerror_of, PY_FASTCALL, NULL},
    {"plan", inj_py_plan, PY_FASTCALL, NULL},
    {"fits", inj_py_fits, PY_FASTCALL, NULL},
    {"forward", forward, PY_FASTCALL, NULL},
    {"backward", backward, PY_FASTCALL, NULL},
    {"gradients", gradients, PY_FASTCALL, NULL},
    {"tensor_check", inj_py_tensor_check, PY_FASTCALL, NULL},
};
const size_t inj_pyswap_count = countof(inj_pyswap_method);
