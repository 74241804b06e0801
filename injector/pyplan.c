/* See pyplan.h. */
#include "injector/pyplan.h"

#include <stdlib.h>
#include <string.h>

static const char plan_tag[] = "moeprof plan";

void *inj_py_pointer(PyObject *o)
{
    return (void *)(uintptr_t)py.ulong_as(o);
}

const struct held_plan *inj_plan_of(PyObject *capsule)
{
    return py.capsule_get(capsule, plan_tag);
}

static void held_free(struct held_plan *h)
{
    for (int i = 0; i < N_MAKER; i++)
        if (h->maker[i].sample)
            py.decref(h->maker[i].sample);
    free(h);
}

static void plan_free(PyObject *capsule)
{
    held_free(py.capsule_get(capsule, plan_tag));
}

static void read_matrix(struct mk_matrix *m, PyObject *t)
{
    m->stride_expert = py.long_as(py.tuple_get(t, 0));
    m->stride_row = py.long_as(py.tuple_get(t, 1));
    m->stride_col = py.long_as(py.tuple_get(t, 2));
    if (py.tuple_size(t) > 4) { /* one tensor an expert */
        m->expert_offset = inj_py_pointer(py.tuple_get(t, 3));
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
    p->row_bytes = (size_t)py.ulong_as(py.tuple_get(t, 5));
}

/* (tensor, at) for each operand, one after the other. Those of adapters may be left out. */
static void read_places(struct inj_place *place, PyObject *t)
{
    ssize_t n = py.tuple_size(t) / 2;

    for (ssize_t i = 0; i < INJ_N_OPERAND; i++) {
        place[i].tensor = i < n ? (int32_t)py.long_as(py.tuple_get(t, 2 * i)) : -1;
        place[i].at = i < n ? py.ulong_as(py.tuple_get(t, 2 * i + 1)) : 0;
    }
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

static void read_plan(struct inj_plan *p, PyObject *const *args)
{
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
    read_places(p->weight, args[7]);
    read_places(p->gradient, args[8]);
    p->dgate_bias = p->problem.gate_bias;
    p->dup_bias = p->problem.up_bias;
    p->ddown_bias = p->problem.down_bias;
}

static void add_rest(struct given *out, PyObject *tuple, ssize_t first)
{
    ssize_t n = py.tuple_size(tuple);

    for (ssize_t i = first; i < n && out->n < (ssize_t)countof(out->tensor); i++)
        out->tensor[out->n++] = py.tuple_get(tuple, i);
}

void inj_plan_given(struct given *out, PyObject *const *input)
{
    for (out->n = 0; out->n < N_INPUT; out->n++)
        out->tensor[out->n] = input[out->n];
    add_rest(out, input[N_INPUT], 0);
}

void inj_plan_given_saved(struct given *out, PyObject *saved)
{
    for (out->n = 0; out->n < N_INPUT; out->n++)
        out->tensor[out->n] = py.tuple_get(saved, out->n);
    add_rest(out, saved, N_INPUT + 1);
}

static bool shape_of(PyObject *tensor, struct inj_shape *out)
{
    return inj_tensor_known(tensor) && inj_tensor_shape(tensor, out);
}

static bool is_like(PyObject *tensor, const struct inj_shape *mould)
{
    struct inj_shape shape;

    return shape_of(tensor, &shape) && memcmp(&shape, mould, sizeof shape) == 0;
}

static void read_mould(struct held_plan *h, PyObject *const *input)
{
    struct given given;
    bool all;

    inj_plan_given(&given, input);
    all = given.n <= MAX_TENSOR;
    for (ssize_t i = 0; all && i < given.n; i++)
        all = shape_of(given.tensor[i], &h->mould[i]);
    h->n_mould = all ? given.n : 0;
}

bool inj_plan_fits(const struct held_plan *h, const struct given *given)
{
    bool same = h->n_mould && h->n_mould == given->n;

    for (ssize_t i = 0; same && i < given->n; i++)
        same = is_like(given->tensor[i], &h->mould[i]);
    return same;
}

bool inj_plan_made_like(const struct held_plan *h, int which, PyObject *tensor)
{
    return h->maker[which].direct && is_like(tensor, &h->maker[which].shape);
}

static void set_maker(struct maker *m, PyObject *sample, int64_t dims, const int64_t *size)
{
    int64_t stride = 1;

    m->direct = inj_tensor_known(sample) && inj_tensor_shape(sample, &m->shape);
    m->shape.dims = dims;
    for (int64_t i = dims - 1; i >= 0; i--) {
        m->shape.size[i] = size[i];
        m->shape.stride[i] = stride;
        stride *= size[i] > 1 ? size[i] : 1;
    }
    py.incref(sample);
    m->sample = sample;
}

/* Of as many bytes behind a 256-byte aligned address. */
static void set_buffer(struct maker *m, PyObject *byte, size_t bytes)
{
    int64_t size = (int64_t)bytes + 256;

    set_maker(m, byte, 1, &size);
}

/* samples: (x, score, byte); gradients: (sample, size..) of each */
static void read_makers(struct held_plan *h, PyObject *samples, PyObject *gradients)
{
    PyObject *x = py.tuple_get(samples, 0), *score = py.tuple_get(samples, 1),
             *byte = py.tuple_get(samples, 2);
    const struct mk_problem *p = &h->plan.problem;
    const struct mk_sizes *s = &h->plan.sizes;
    int64_t rows[2] = {p->n_token, p->hidden}, slots[2] = {p->n_token, p->top_k};

    set_maker(&h->maker[OUT], x, 2, rows);
    set_maker(&h->maker[DX], x, 2, rows);
    set_maker(&h->maker[DSCORE], score, 2, slots);
    set_buffer(&h->maker[SAVED], byte, s->saved_bytes);
    set_buffer(&h->maker[BARE], byte, s->saved_inference_bytes);
    set_buffer(&h->maker[FORWARD_WORK], byte, s->forward_workspace_bytes);
    set_buffer(&h->maker[BACKWARD_WORK], byte, s->backward_workspace_bytes);
    if (h->lends)
        set_buffer(&h->maker[LENT_WORK], byte, s->backward_workspace_bytes - h->plan.row_bytes);
    h->n_gradient = py.tuple_size(gradients) < MAX_TENSOR ? py.tuple_size(gradients) : MAX_TENSOR;
    for (ssize_t i = 0; i < h->n_gradient; i++) {
        PyObject *one = py.tuple_get(gradients, i);
        int64_t size[INJ_TENSOR_DIMS] = {0}, dims = 0;

        for (; dims < INJ_TENSOR_DIMS && dims + 1 < py.tuple_size(one); dims++)
            size[dims] = py.long_as(py.tuple_get(one, dims + 1));
        set_maker(&h->maker[DWEIGHT + i], py.tuple_get(one, 0), dims, size);
    }
}

/* plan(problem, rows, dweight_dtype, (gate, up, down), (dgate, dup, ddown), (bias of gate, up, down), lora, places,
 * places of gradients, samples, gradients, lends, x, index, score, tensors that places are in) -> plan, or an error
 * code. Rows are (T, strides of x, index and score, flags, row_bytes), a matrix (stride_expert, stride_row, stride_col[,
 * offsets, span]), a bias (stride_expert, stride). */
PyObject *inj_py_plan(PyObject *self, PyObject *const *args, ssize_t n)
{
    struct held_plan *h = n == 12 + INPUT_ARGS ? calloc(1, sizeof *h) : NULL;
    PyObject *capsule;
    int rc;

    (void)self;
    if (!h)
        return py.long_from(MK_EVERSION);
    read_plan(&h->plan, args);
    h->lends = py.is_true(args[11]) == 1;
    rc = py.err_occurred() ? MK_OK : inj_plan_sizes(&h->plan);
    if (rc == MK_OK && !py.err_occurred()) {
        read_makers(h, args[9], args[10]);
        read_mould(h, args + 12);
    }
    capsule = rc || py.err_occurred() ? NULL : py.capsule_new(h, plan_tag, plan_free);
    if (!capsule)
        held_free(h);
    return rc ? py.long_from(rc) : capsule;
}

/* fits(plan, x, index, score, tensors): are they like those that it was made for? False where that cannot be told. */
PyObject *inj_py_fits(PyObject *self, PyObject *const *args, ssize_t n)
{
    const struct held_plan *h = n == 1 + INPUT_ARGS ? inj_plan_of(args[0]) : NULL;
    struct given given;
    bool same;

    (void)self;
    if (h)
        inj_plan_given(&given, args + 1);
    same = h && inj_plan_fits(h, &given);
    return py.err_occurred() ? NULL : py.bool_from(same);
}

/* tensor_check(tensor, id of its class, _cdata, data_ptr, shape, strides): a sample for tensor_abi.c */
PyObject *inj_py_tensor_check(PyObject *self, PyObject *const *args, ssize_t n)
{
    struct inj_sample_tensor s = {0};

    (void)self;
    if (n < 6)
        return py.bool_from(0);
    s.object = args[0];
    s.type = inj_py_pointer(args[1]);
    s.impl = inj_py_pointer(args[2]);
    s.data = inj_py_pointer(args[3]);
    s.shape.dims = py.tuple_size(args[4]);
    for (ssize_t i = 0; i < s.shape.dims && i < INJ_TENSOR_DIMS; i++) {
        s.shape.size[i] = py.long_as(py.tuple_get(args[4], i));
        s.shape.stride[i] = py.long_as(py.tuple_get(args[5], i));
    }
    return py.bool_from(inj_tensor_check(&s));
}

PyObject *inj_plan_make(const struct held_plan *h, int which)
{
    static const char *const format[] = {"", "L", "LL", "LLL"};
    const struct maker *m = &h->maker[which];
    const int64_t *size = m->shape.size;
    PyObject *made = m->direct ? inj_tensor_new(&m->shape) : NULL;

    if (!made) /* torch's own words, where there is no memory */
        made = py.call_method(m->sample, "new_empty", format[m->shape.dims], (long long)size[0],
                              (long long)size[1], (long long)size[2]);
    return made;
}

bool inj_plan_scratch(const struct held_plan *h, int which, struct scratch *out)
{
    const struct maker *m = &h->maker[which];

    out->object = NULL;
    if (m->direct && inj_tensor_bare(&m->shape, &out->bare)) {
        out->data = out->bare.data;
        return true;
    }
    out->object = inj_plan_make(h, which);
    if (out->object)
        out->data = inj_py_address(out->object);
    return out->object != NULL;
}

void inj_plan_scratch_free(struct scratch *s)
{
    if (s->object)
        py.decref(s->object);
    else
        inj_tensor_bare_free(&s->bare);
}

void *inj_py_address(PyObject *tensor)
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
