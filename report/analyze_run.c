/* What ran, on what: facts from the meta table and the model description. Tables say which key goes to
 * which field; a missing or null key leaves the field empty, which renderers show as unknown. */
#include "report/analyze_part.h"

#include <string.h>

#if HAVE_JANSSON
#include <jansson.h>
#endif

#define FIELD(member) offsetof(struct rp_run, member), sizeof(((struct rp_run *)0)->member)

static const struct {
    const char *key;
    size_t offset, bytes;
} meta_text[] = {
    {"gpu_name", FIELD(gpu)}, {"gpu_uuid", FIELD(gpu_uuid)}, {"hostname", FIELD(hostname)},
    {"comm", FIELD(command)}, {"end", FIELD(end)},           {"moeprof_version", FIELD(moeprof)},
};

static const char *const feature[][2] = {
    {"feature.cupti", "GPU activity is missing"},
    {"feature.launch", "launches were not seen"},
    {"feature.python", "the model is not known"},
    {"feature.autograd", "backward time may stand on the wrong layer"},
    {"feature.routing", "tokens per expert are not known"},
    {"feature.tokens", "tokens are not known"},
};

static void meta_read(struct rp_run *run, struct rp_profile *p)
{
    for (size_t i = 0; i < countof(meta_text); i++)
        rp_get_meta(p, meta_text[i].key, (char *)run + meta_text[i].offset, meta_text[i].bytes);
    run->rank = (int)rp_get_meta_int(p, "rank", -1);
    run->world = (int)rp_get_meta_int(p, "world", 1);
    run->began_ns = (uint64_t)rp_get_meta_int(p, "created_ns", 0);
    run->ended_ns = (uint64_t)rp_get_meta_int(p, "ended_ns", 0);
    run->is_complete = run->ended_ns != 0;
}

static void features_note(struct rp_report *r, struct rp_profile *p)
{
    char state[160];

    for (size_t i = 0; i < countof(feature); i++)
        if (rp_get_meta(p, feature[i][0], state, sizeof state) &&
            strncmp(state, "failed: ", 8) == 0)
            rp_note(r, "%s: %s", feature[i][1], state + 8);
}

#if HAVE_JANSSON
static const struct {
    const char *object, *key;
    size_t offset, bytes;
} spec_text[] = {
    {"env", "python", FIELD(python)},
    {"env", "torch", FIELD(torch)},
    {"env", "cuda", FIELD(cuda)},
    {"env", "transformers", FIELD(transformers)},
    {"train", "trainer", FIELD(trainer)},
    {"model", "class", FIELD(model_class)},
    {"model", "family", FIELD(family)},
    {"model", "dtype", FIELD(dtype)},
    {"model", "attention", FIELD(attention)},
    {"model", "checkpointing", FIELD(checkpointing)},
    {"experts", "backend", FIELD(experts_backend)},
    {"experts", "backend_basis", FIELD(backend_basis)},
};

static const struct {
    const char *object, *key;
    size_t offset;
} spec_int[] =
    {
        {"model", "n_layers", offsetof(struct rp_run, n_layer)},
        {"experts", "n", offsetof(struct rp_run, n_expert)},
        {"experts", "top_k", offsetof(struct rp_run, top_k)},
        {"lora", "r", offsetof(struct rp_run, lora_r)},
},
  spec_count[] = {
      {"model", "params_total", offsetof(struct rp_run, params_total)},
      {"model", "params_active", offsetof(struct rp_run, params_active)},
      {"model", "params_trainable", offsetof(struct rp_run, params_trainable)},
};

static const json_t *member(const json_t *root, const char *object, const char *key)
{
    return json_object_get(json_object_get(root, object), key);
}

/* Copies text without what a terminal would obey. */
static void text_copy(char *out, size_t n, const char *text)
{
    size_t i = 0;

    for (; i + 1 < n && text[i]; i++)
        out[i] = (unsigned char)text[i] < 32 || text[i] == 127 ? '?' : text[i];
    out[i] = 0;
}

static void spec_read(struct rp_run *run, const json_t *root)
{
    for (size_t i = 0; i < countof(spec_text); i++) {
        const char *text = json_string_value(member(root, spec_text[i].object, spec_text[i].key));

        if (text)
            text_copy((char *)run + spec_text[i].offset, spec_text[i].bytes, text);
    }
    for (size_t i = 0; i < countof(spec_int); i++) {
        const json_t *v = member(root, spec_int[i].object, spec_int[i].key);

        if (json_is_integer(v))
            *(int *)((char *)run + spec_int[i].offset) = (int)json_integer_value(v);
    }
    for (size_t i = 0; i < countof(spec_count); i++) {
        const json_t *v = member(root, spec_count[i].object, spec_count[i].key);

        if (json_is_number(v))
            *(struct mp_val *)(void *)((char *)run + spec_count[i].offset) =
                (struct mp_val){json_number_value(v), MP_MEASURED};
    }
    run->is_moe = json_is_true(member(root, "model", "is_moe"));
}

static void spec_notes(struct rp_report *r, const json_t *root)
{
    const json_t *notes = json_object_get(root, "notes");
    char text[180];

    for (size_t i = 0; i < json_array_size(notes); i++) {
        const char *raw = json_string_value(json_array_get(notes, i));

        if (!raw)
            continue;
        text_copy(text, sizeof text, raw);
        rp_note(r, "%s", text);
    }
}

static void spec_facts(struct rp_report *r, const char *spec)
{
    json_error_t at;
    json_t *root = json_loads(spec, 0, &at);

    if (!root) {
        rp_note(r, "the model description cannot be read: %.100s", at.text);
        return;
    }
    spec_read(&r->run, root);
    spec_notes(r, root);
    json_decref(root);
}
#else
static void spec_facts(struct rp_report *r, const char *spec)
{
    (void)spec;
    rp_note(r, "this moeprof was built without jansson: the model description is not read");
}
#endif

int rp_analyze_run(struct rp_report *r, struct rp_profile *p, const char *spec, struct mp_err *err)
{
    (void)err;
    meta_read(&r->run, p);
    features_note(r, p);
    if (spec)
        spec_facts(r, spec);
    else
        rp_note(r, "no model was found in the job: no MFU, and time is booked by phase only where "
                   "kernels tell it");
    if (spec && !r->run.is_moe)
        rp_note(r, "the model is dense: there are no experts to look at; MFU and phases are as for "
                   "any model");
    return MP_OK;
}
