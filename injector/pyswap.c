/* The kernels as swap.py calls them: pointers and sizes in, an error code out. See pyswap.h.
 * The calls take integers alone, so that reading them costs some 20 ns each. */
#include "injector/pyswap.h"

#include "injector/swap.h"

#include <stdlib.h>

static const char plan_tag[] = "moeprof plan";

static void *pointer(PyObject *o)
{
    return (void *)(uintptr_t)py.ulong_as(o);
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

/* ---- plans ----------------------------------------------------------------------------------- */

static void plan_free(PyObject *capsule)
{
    free(py.capsule_get(capsule, plan_tag));
}

static void read_matrix(struct mk_matrix *m, PyObject *t)
{
    m->stride_expert = py.long_as(py.tuple_get(t, 0));
    m->stride_row = py.long_as(py.tuple_get(t, 1));
    m->stride_col = py.long_as(py.tuple_get(t, 2));
    if (py.tuple_size(t) > 4) { /* one tensor an expert */
        m->expert_offset = pointer(py.tuple_get(t, 3));
        m->span = py.long_as(py.tuple_get(t, 4));
    }
}

static void read_vector(struct mk_vector *v, PyObject *t)
{
    v->stride_expert = py.long_as(py.tuple_get(t, 0));
    v->stride = py.long_as(py.tuple_get(t, 1));
}

static void read_problem(struct mk_problem *p, PyObject *t)
{
    p->size = sizeof *p;
    p->target = (uint32_t)py.long_as(py.tuple_get(t, 0));
    p->hidden = (int32_t)py.long_as(py.tuple_get(t, 1));
    p->inter = (int32_t)py.long_as(py.tuple_get(t, 2));
    p->n_expert = (int32_t)py.long_as(py.tuple_get(t, 3));
    p->top_k = (int32_t)py.long_as(py.tuple_get(t, 4));
    p->dtype = (uint32_t)py.long_as(py.tuple_get(t, 5));
    p->index_dtype = (uint32_t)py.long_as(py.tuple_get(t, 6));
    p->score_dtype = (uint32_t)py.long_as(py.tuple_get(t, 7));
    p->act = (uint32_t)py.long_as(py.tuple_get(t, 8));
    p->act_alpha = (float)py.float_as(py.tuple_get(t, 9));
    p->act_limit = (float)py.float_as(py.tuple_get(t, 10));
}

static void read_rows(struct inj_plan *p, PyObject *t)
{
    p->problem.n_token = (int32_t)py.long_as(py.tuple_get(t, 0));
    p->problem.x_stride = py.long_as(py.tuple_get(t, 1));
    p->problem.index_stride = py.long_as(py.tuple_get(t, 2));
    p->problem.score_stride = py.long_as(py.tuple_get(t, 3));
    p->flags = (uint32_t)py.long_as(py.tuple_get(t, 4));
}

/* (dtype, up_rank, down_rank, apart, up_scale, down_scale, 6 matrices, 6 of their gradients), or None */
static void read_lora(struct inj_plan *p, PyObject *t)
{
    struct mk_matrix *in[] = {&p->lora.gate_a, &p->lora.up_a,   &p->lora.gate_b,
                              &p->lora.up_b,   &p->lora.down_a, &p->lora.down_b};
    struct mk_matrix *out[] = {&p->dlora.gate_a, &p->dlora.up_a,   &p->dlora.gate_b,
                               &p->dlora.up_b,   &p->dlora.down_a, &p->dlora.down_b};

    p->has_lora = t != py.none;
    if (!p->has_lora)
        return;
    p->lora.size = sizeof p->lora;
    p->lora.dtype = (uint32_t)py.long_as(py.tuple_get(t, 0));
    p->lora.up_rank = (int32_t)py.long_as(py.tuple_get(t, 1));
    p->lora.down_rank = (int32_t)py.long_as(py.tuple_get(t, 2));
    p->lora.apart = (uint32_t)py.long_as(py.tuple_get(t, 3));
    p->lora.up_scale = (float)py.float_as(py.tuple_get(t, 4));
    p->lora.down_scale = (float)py.float_as(py.tuple_get(t, 5));
    p->dlora.size = sizeof p->dlora;
    p->dlora.dtype = p->dweight_dtype;
    for (ssize_t i = 0; i < (ssize_t)countof(in); i++) {
        read_matrix(in[i], py.tuple_get(py.tuple_get(t, 6), i));
        read_matrix(out[i], py.tuple_get(py.tuple_get(t, 7), i));
    }
}

/* plan(problem, rows, dweight_dtype, (gate, up, down), (dgate, dup, ddown), (bias of gate, up, down), lora) -> capsule.
 * Rows are (T, strides of x, index and score, flags), a matrix (stride_expert, stride_row, stride_col[, offsets, span]),
 * a bias (stride_expert, stride). */
static PyObject *plan(PyObject *self, PyObject *const *args, ssize_t n)
{
    struct inj_plan *p = n == 7 ? calloc(1, sizeof *p) : NULL;
    PyObject *capsule;

    (void)self;
    if (!p)
        return inj_py_none();
    read_problem(&p->problem, args[0]);
    read_rows(p, args[1]);
    p->dweight_dtype = (uint32_t)py.long_as(args[2]);
    read_matrix(&p->problem.gate, py.tuple_get(args[3], 0));
    read_matrix(&p->problem.up, py.tuple_get(args[3], 1));
    read_matrix(&p->problem.down, py.tuple_get(args[3], 2));
    read_matrix(&p->dgate, py.tuple_get(args[4], 0));
    read_matrix(&p->dup, py.tuple_get(args[4], 1));
    read_matrix(&p->ddown, py.tuple_get(args[4], 2));
    read_vector(&p->problem.gate_bias, py.tuple_get(args[5], 0));
    read_vector(&p->problem.up_bias, py.tuple_get(args[5], 1));
    read_vector(&p->problem.down_bias, py.tuple_get(args[5], 2));
    read_lora(p, args[6]);
    p->dgate_bias = p->problem.gate_bias;
    p->dup_bias = p->problem.up_bias;
    p->ddown_bias = p->problem.down_bias;
    capsule = py.err_occurred() ? NULL : py.capsule_new(p, plan_tag, plan_free);
    if (!capsule)
        free(p);
    return capsule;
}

/* sizes(plan) -> (saved, saved for inference, forward workspace, backward workspace), or an error code. */
static PyObject *sizes(PyObject *self, PyObject *const *args, ssize_t n)
{
    const struct inj_plan *p = n == 1 ? py.capsule_get(args[0], plan_tag) : NULL;
    struct mk_sizes s;
    PyObject *tuple;
    int rc;

    (void)self;
    if (!p)
        return NULL;
    rc = inj_plan_sizes(p, &s);
    if (rc)
        return py.long_from(rc);
    tuple = py.tuple_new(4);
    py.tuple_set(tuple, 0, py.long_from((long long)s.saved_bytes));
    py.tuple_set(tuple, 1, py.long_from((long long)s.saved_inference_bytes));
    py.tuple_set(tuple, 2, py.long_from((long long)s.forward_workspace_bytes));
    py.tuple_set(tuple, 3, py.long_from((long long)s.backward_workspace_bytes));
    return tuple;
}

/* ---- calls ------------------------------------------------------------------------------------ */

enum { CALL_ARGS = 8, WEIGHT_ARGS = 6, LORA_ARGS = 6 };

/* (x, index, score, saved, its bytes, workspace, its bytes, stream) */
static void read_call(struct inj_call *c, PyObject *const *arg)
{
    c->x = pointer(arg[0]);
    c->index = pointer(arg[1]);
    c->score = pointer(arg[2]);
    c->saved = pointer(arg[3]);
    c->saved_bytes = (size_t)py.ulong_as(arg[4]);
    c->workspace = pointer(arg[5]);
    c->workspace_bytes = (size_t)py.ulong_as(arg[6]);
    c->stream = pointer(arg[7]);
}

static void read_weights(struct inj_weights *w, PyObject *const *arg)
{
    w->gate = pointer(arg[0]);
    w->up = pointer(arg[1]);
    w->down = pointer(arg[2]);
    w->gate_bias = pointer(arg[3]);
    w->up_bias = pointer(arg[4]);
    w->down_bias = pointer(arg[5]);
}

static void read_adapters(struct inj_lora *l, PyObject *const *arg)
{
    l->gate_a = pointer(arg[0]);
    l->up_a = pointer(arg[1]);
    l->gate_b = pointer(arg[2]);
    l->up_b = pointer(arg[3]);
    l->down_a = pointer(arg[4]);
    l->down_b = pointer(arg[5]);
}

/* The plan, when there are as many arguments as it asks for: n_pointer times what a layer's weights take, and others. */
static const struct inj_plan *plan_for(PyObject *const *args, ssize_t n, ssize_t n_other,
                                       ssize_t n_pointer)
{
    const struct inj_plan *p = n > n_other ? py.capsule_get(args[0], plan_tag) : NULL;

    return p && n == n_other + n_pointer * (WEIGHT_ARGS + (p->has_lora ? LORA_ARGS : 0)) ? p : NULL;
}

/* forward(plan, flags, call.., out, 6 weights[, 6 of adapters]) -> code */
static PyObject *forward(PyObject *self, PyObject *const *args, ssize_t n)
{
    const struct inj_plan *p = plan_for(args, n, 2 + CALL_ARGS + 1, 1);
    PyObject *const *weights = args + 2 + CALL_ARGS + 1;
    struct inj_call c;

    (void)self;
    if (!p)
        return py.long_from(MK_EVERSION);
    c.flags = (uint32_t)py.long_as(args[1]);
    read_call(&c, args + 2);
    read_weights(&c.w, weights);
    if (p->has_lora)
        read_adapters(&c.lora, weights + WEIGHT_ARGS);
    return py.long_from(inj_plan_forward(p, &c, pointer(args[2 + CALL_ARGS])));
}

/* backward(plan, call.., dout, dx, dscore, dx_row, weights as for forward, their gradients) -> code; 0: not wanted */
static PyObject *backward(PyObject *self, PyObject *const *args, ssize_t n)
{
    const struct inj_plan *p = plan_for(args, n, 1 + CALL_ARGS + 4, 2);
    PyObject *const *rest = args + 1 + CALL_ARGS, *const *weights = rest + 4;
    struct inj_gradients out;
    struct inj_call c;

    (void)self;
    if (!p)
        return py.long_from(MK_EVERSION);
    c.flags = 0;
    read_call(&c, args + 1);
    out.dx = pointer(rest[1]);
    out.dscore = pointer(rest[2]);
    out.dx_row = pointer(rest[3]);
    read_weights(&c.w, weights);
    if (p->has_lora)
        read_adapters(&c.lora, weights + WEIGHT_ARGS);
    weights += WEIGHT_ARGS + (p->has_lora ? LORA_ARGS : 0);
    read_weights(&out.w, weights);
    if (p->has_lora)
        read_adapters(&out.lora, weights + WEIGHT_ARGS);
    return py.long_from(inj_plan_backward(p, &c, &out, pointer(rest[0])));
}

struct py_method inj_pyswap_method[] = {
    {"kernels", kernels, PY_FASTCALL, NULL}, {"strerror", strerror_of, PY_FASTCALL, NULL},
    {"plan", plan, PY_FASTCALL, NULL},       {"sizes", sizes, PY_FASTCALL, NULL},
    {"forward", forward, PY_FASTCALL, NULL}, {"backward", backward, PY_FASTCALL, NULL},
};
const size_t inj_pyswap_count = countof(inj_pyswap_method);
