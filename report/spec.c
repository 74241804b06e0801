/* One reader a member kind, tables for the plain texts; nothing here trusts a type or a range. */
#include "report/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if HAVE_JANSSON

#include <jansson.h>

/* Bounds of what is believed; known models stay a hundred times below. */
#define OPS_MAX    65536
#define LAYERS_MAX 1024
#define SIDE_MAX   (1u << 28) /* in and out of a matmul: vocabularies reach 2^18 */
#define COUNT_MAX  (1u << 16)

/* ---- members ------------------------------------------------------------------------------ */

/* A JSON string, printable, a whole number, or "yes" and "no"; anything else is "". */
static void copy_text(char *out, size_t n, const json_t *value)
{
    const char *text =
        json_is_boolean(value) ? (json_is_true(value) ? "yes" : "no") : json_string_value(value);
    size_t i = 0;

    for (; text && text[i] && i + 1 < n; i++)
        out[i] = (unsigned char)text[i] < 32 || text[i] == 127 ? '?' : text[i];
    out[i] = 0;
    if (json_is_integer(value))
        snprintf(out, n, "%lld", (long long)json_integer_value(value));
}

/* A whole number in [low, high], also when written as 5.0; else `otherwise`. */
static int64_t get_int(const json_t *object, const char *key, int64_t low, int64_t high,
                       int64_t otherwise)
{
    const json_t *v = json_object_get(object, key);
    int64_t n = otherwise;

    if (json_is_integer(v))
        n = json_integer_value(v);
    else if (json_is_real(v) && json_real_value(v) >= (double)low &&
             json_real_value(v) <= (double)high)
        n = (int64_t)json_real_value(v);
    else
        return otherwise;
    return n >= low && n <= high ? n : otherwise;
}

static bool get_bool(const json_t *object, const char *key, bool otherwise)
{
    const json_t *v = json_object_get(object, key);

    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

/* ---- texts -------------------------------------------------------------------------------- */

struct text_row {
    const char *group, *key;
    size_t offset;
};
#define TEXT(group, key, field)                                                                    \
    {                                                                                              \
        group, key, offsetof(struct rp_spec_text, field)                                           \
    }
static const struct text_row text_table[] = {
    TEXT("model", "class", class),
    TEXT("model", "family", family),
    TEXT("model", "name", name),
    TEXT("model", "config_hash", config_hash),
    TEXT("model", "quantization", quantization),
    TEXT("model", "dtype", dtype),
    TEXT("model", "autocast", autocast),
    TEXT("model", "checkpointing", checkpointing),
    TEXT("model", "attention", attention),
    TEXT("experts", "backend", backend),
    TEXT("experts", "backend_basis", backend_basis),
    TEXT("experts", "class", experts_class),
    TEXT("experts", "layout", layout),
    TEXT("optimizer", "class", optimizer),
    TEXT("train", "trainer", trainer),
    TEXT("train", "seed", seed),
    TEXT("train", "data_seed", data_seed),
    TEXT("train", "torch_seed", torch_seed),
    TEXT("train", "micro_batch", micro_batch),
    TEXT("train", "packing", packing),
    TEXT("train", "deterministic", deterministic),
    TEXT("env", "hostname", hostname),
    TEXT("env", "python", python),
    TEXT("env", "torch", torch),
    TEXT("env", "cuda", cuda),
    TEXT("env", "transformers", transformers),
    TEXT("env", "peft", peft),
    TEXT("env", "trl", trl),
    TEXT("env", "accelerate", accelerate),
    TEXT("env", "unsloth", unsloth),
    TEXT("env", "axolotl", axolotl),
};

static void join(char *out, size_t n, const json_t *words, char between)
{
    size_t used = 0;

    for (size_t i = 0; i < json_array_size(words); i++) {
        const char *word = json_string_value(json_array_get(words, i));

        for (; word && *word && used + 2 < n; word++)
            out[used++] = (unsigned char)*word < 32 || *word == 127 ? '?' : *word;
        if (used + 2 < n)
            out[used++] = between;
    }
    if (used && out[used - 1] == between)
        used--;
    out[used] = 0;
}

static void parse_texts(struct rp_spec *spec, const json_t *root)
{
    for (size_t i = 0; i < countof(text_table); i++)
        copy_text((char *)&spec->text + text_table[i].offset, RP_SPEC_TEXT,
                  json_object_get(json_object_get(root, text_table[i].group), text_table[i].key));
    join(spec->text.argv, sizeof spec->text.argv,
         json_object_get(json_object_get(root, "env"), "argv"), ' ');
    join(spec->text.lora_targets, sizeof spec->text.lora_targets,
         json_object_get(json_object_get(root, "lora"), "targets"), ',');
}

static void parse_notes(struct rp_spec *spec, const json_t *notes)
{
    for (size_t i = 0; i < json_array_size(notes) && spec->n_note < RP_SPEC_NOTES; i++)
        if (json_is_string(json_array_get(notes, i)))
            copy_text(spec->note[spec->n_note++], sizeof spec->note[0], json_array_get(notes, i));
}

/* ---- facts -------------------------------------------------------------------------------- */

static void parse_facts(struct rp_spec *spec, const json_t *root)
{
    const json_t *model = json_object_get(root, "model"),
                 *experts = json_object_get(root, "experts");
    const json_t *train = json_object_get(root, "train"), *lora = json_object_get(root, "lora");
    struct mp_model *m = &spec->model;

    spec->schema = (uint32_t)get_int(root, "schema", 0, UINT32_MAX, 0);
    spec->n_layers = (uint32_t)get_int(model, "n_layers", 0, INT16_MAX, 0);
    spec->params_active = (uint64_t)get_int(model, "params_active", 0, INT64_MAX, 0);
    spec->params_trainable = (uint64_t)get_int(model, "params_trainable", 0, INT64_MAX, 0);
    spec->is_moe = get_bool(model, "is_moe", false);
    spec->compiled = get_bool(model, "compiled", false);
    spec->n_experts = (uint32_t)get_int(experts, "n", 0, INT16_MAX, 0);
    spec->top_k = (uint32_t)get_int(experts, "top_k", 0, INT16_MAX, 0);
    spec->has_lora = json_is_object(lora);
    spec->lora_r = (uint32_t)get_int(lora, "r", 0, INT32_MAX, 0);
    spec->grad_accum = (int32_t)get_int(train, "grad_accum", 1, INT32_MAX, -1);
    spec->rank = (int32_t)get_int(train, "rank", 0, INT32_MAX, -1);
    spec->world_size = (int32_t)get_int(train, "world_size", 1, INT32_MAX, -1);
    m->hidden = (uint64_t)get_int(model, "hidden", 0, SIDE_MAX, 0);
    m->vocab = (uint64_t)get_int(model, "vocab", 0, SIDE_MAX, 0);
    m->params_total = (uint64_t)get_int(model, "params_total", 0, INT64_MAX, 0);
    m->tied = get_bool(model, "tied_embeddings", false);
    m->checkpointing = *spec->text.checkpointing && strcmp(spec->text.checkpointing, "none") != 0;
    m->full_scores = strcmp(spec->text.attention, "eager") == 0;
}

/* ---- tables ------------------------------------------------------------------------------- */

static const char *const per_name[MP_PER_COUNT] = {
    [MP_PER_TOKEN] = "token",
    [MP_PER_ASSIGNMENT] = "assignment",
    [MP_PER_HEAD_ROW] = "head_row",
};

static int parse_per(const char *name)
{
    for (int i = 0; name && i < MP_PER_COUNT; i++)
        if (strcmp(per_name[i], name) == 0)
            return i;
    return -1;
}

static bool parse_op(struct mp_op *op, const json_t *row)
{
    const char *phase = json_string_value(json_object_get(row, "phase"));
    int per = parse_per(json_string_value(json_object_get(row, "per")));
    int code = phase ? mp_phase_parse(phase) : -1;

    *op = (struct mp_op){
        .in = (uint64_t)get_int(row, "in", 1, SIDE_MAX, 0),
        .out = (uint64_t)get_int(row, "out", 1, SIDE_MAX, 0),
        .count = (uint32_t)get_int(row, "count", 1, COUNT_MAX, 1),
        .layer = (int16_t)get_int(row, "layer", -1, LAYERS_MAX - 1, -1),
        .phase = (uint8_t)(code < 0 ? MP_PHASE_OTHER : code),
        .per = (uint8_t)(per < 0 ? MP_PER_TOKEN : per),
        .dgrad = get_bool(row, "dgrad", true),
        .wgrad = get_bool(row, "wgrad", true),
        .lora = get_bool(row, "lora", false),
    };
    return op->in && op->out && per >= 0;
}

static int parse_ops(struct rp_spec *spec, const json_t *ops)
{
    size_t n = json_array_size(ops);

    n = n < OPS_MAX ? n : OPS_MAX;
    spec->model.op = calloc(n ? n : 1, sizeof *spec->model.op);
    if (!spec->model.op)
        return MP_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        if (parse_op(&spec->model.op[spec->model.n_op], json_array_get(ops, i)))
            spec->model.n_op++;
        else
            spec->n_skipped++;
    }
    return 0;
}

static bool parse_attn(struct mp_attn *attn, const json_t *row, int layer)
{
    *attn = (struct mp_attn){
        .heads = (uint32_t)get_int(row, "heads", 1, COUNT_MAX, 0),
        .d_qk = (uint32_t)get_int(row, "d_qk", 1, COUNT_MAX, 0),
        .d_v = (uint32_t)get_int(row, "d_v", 1, COUNT_MAX, 0),
        .window = (uint32_t)get_int(row, "window", 0, UINT32_MAX, 0),
        .layer = (int16_t)layer,
        .causal = get_bool(row, "causal", true),
        .dgrad = get_bool(row, "dgrad", true),
    };
    return attn->heads && attn->d_qk && attn->d_v;
}

static void parse_layer(struct rp_spec *spec, const json_t *row)
{
    struct mp_model *m = &spec->model;
    const json_t *attention = json_object_get(row, "attention");
    int layer = (int)get_int(row, "index", 0, LAYERS_MAX - 1, -1);

    if (layer < 0) {
        spec->n_skipped++;
        return;
    }
    m->layer[m->n_layer++] = (struct mp_layer){
        .layer = (int16_t)layer,
        .experts = (uint32_t)get_int(row, "experts", 0, INT16_MAX, 0),
        .top_k = (uint32_t)get_int(row, "top_k", 0, INT16_MAX, 0),
    };
    if (json_is_object(attention)) {
        if (parse_attn(&m->attn[m->n_attn], attention, layer))
            m->n_attn++;
        else
            spec->n_skipped++;
    }
}

static int parse_layers(struct rp_spec *spec, const json_t *layers)
{
    size_t n = json_array_size(layers);

    n = n < LAYERS_MAX ? n : LAYERS_MAX;
    spec->model.layer = calloc(n ? n : 1, sizeof *spec->model.layer);
    spec->model.attn = calloc(n ? n : 1, sizeof *spec->model.attn);
    if (!spec->model.layer || !spec->model.attn)
        return MP_ENOMEM;
    for (size_t i = 0; i < n; i++)
        parse_layer(spec, json_array_get(layers, i));
    return 0;
}

/* ---- public ------------------------------------------------------------------------------- */

int rp_spec_parse(struct rp_spec *spec, const char *json, size_t bytes, struct mp_err *err)
{
    json_error_t where;
    json_t *root = json_loadb(json, bytes, 0, &where);
    int rc;

    memset(spec, 0, sizeof *spec);
    spec->grad_accum = spec->rank = spec->world_size = -1;
    if (!root)
        return mp_fail(err, MP_EFORMAT, "the model description is not JSON: line %d: %.100s",
                       where.line, where.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return mp_fail(err, MP_EFORMAT, "the model description is not a JSON object");
    }
    parse_texts(spec, root);
    parse_facts(spec, root);
    parse_notes(spec, json_object_get(root, "notes"));
    rc = parse_ops(spec, json_object_get(root, "ops"));
    if (!rc)
        rc = parse_layers(spec, json_object_get(root, "layers"));
    json_decref(root);
    if (rc) {
        rp_spec_release(spec);
        return mp_fail(err, rc, "no memory for the model description");
    }
    return 0;
}

#else

int rp_spec_parse(struct rp_spec *spec, const char *json, size_t bytes, struct mp_err *err)
{
    (void)json;
    (void)bytes;
    memset(spec, 0, sizeof *spec);
    return mp_fail(err, MP_ENOTSUP, "built without jansson: no model description, so no MFU");
}

#endif

void rp_spec_release(struct rp_spec *spec)
{
    free(spec->model.op);
    free(spec->model.attn);
    free(spec->model.layer);
    memset(spec, 0, sizeof *spec);
}

const char *rp_spec_software(char *out, size_t bytes, const struct rp_spec_text *t,
                             const char *moeprof)
{
    const struct {
        const char *name, *version;
    } part[] = {{"torch", t->torch},     {"CUDA", t->cuda},       {"transformers", t->transformers},
                {"peft", t->peft},       {"trl", t->trl},         {"accelerate", t->accelerate},
                {"unsloth", t->unsloth}, {"axolotl", t->axolotl}, {"Python", t->python},
                {"moeprof", moeprof}};
    size_t n = 0;

    out[0] = 0;
    for (size_t i = 0; i < countof(part) && n < bytes; i++)
        if (*part[i].version)
            n += (size_t)snprintf(out + n, bytes - n, "%s%s %s", n ? ", " : "", part[i].name,
                                  part[i].version);
    return out;
}
