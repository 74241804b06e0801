/* The model description of profiler/core/SPEC.md, from JSON to plain structs. The bytes are a guest's:
 * any member may be missing, of the wrong type or absurd, and is then unknown. Pure; any thread. */
#ifndef RP_SPEC_H
#define RP_SPEC_H

#include "profiler/core/flops.h"

#define RP_SPEC_TEXT  96
#define RP_SPEC_NOTES 16

/* Facts for people; "" is unknown. */
struct rp_spec_text {
    char class[RP_SPEC_TEXT], family[RP_SPEC_TEXT], dtype[RP_SPEC_TEXT], autocast[RP_SPEC_TEXT];
    char name[RP_SPEC_TEXT], config_hash[RP_SPEC_TEXT], quantization[RP_SPEC_TEXT];
    char checkpointing[RP_SPEC_TEXT], attention[RP_SPEC_TEXT];
    char backend[RP_SPEC_TEXT], backend_basis[RP_SPEC_TEXT], experts_class[RP_SPEC_TEXT],
        layout[RP_SPEC_TEXT];
    char optimizer[RP_SPEC_TEXT], trainer[RP_SPEC_TEXT], hostname[RP_SPEC_TEXT];
    char seed[RP_SPEC_TEXT], data_seed[RP_SPEC_TEXT], torch_seed[RP_SPEC_TEXT];
    char micro_batch[RP_SPEC_TEXT], packing[RP_SPEC_TEXT], deterministic[RP_SPEC_TEXT];
    char python[RP_SPEC_TEXT], torch[RP_SPEC_TEXT], cuda[RP_SPEC_TEXT], transformers[RP_SPEC_TEXT];
    char peft[RP_SPEC_TEXT], trl[RP_SPEC_TEXT], accelerate[RP_SPEC_TEXT], unsloth[RP_SPEC_TEXT];
    char axolotl[RP_SPEC_TEXT];
    char argv[512];         /* joined by blanks, cut */
    char lora_targets[256]; /* joined by commas, cut */
};

struct rp_spec {
    struct mp_model model; /* its arrays are the spec's own */
    struct rp_spec_text text;
    uint32_t schema;
    bool is_moe, compiled;
    bool has_lora;
    uint64_t params_active, params_trainable;    /* 0 unknown */
    uint32_t n_layers, n_experts, top_k, lora_r; /* 0 unknown or none */
    int32_t grad_accum, rank, world_size;        /* -1 unknown */
    char note[RP_SPEC_NOTES][200];
    uint32_t n_note;
    uint32_t n_skipped; /* ops and layers that made no sense */
};

/* Parses bytes of JSON. *spec is the caller's until rp_spec_release, and empty upon error:
 * MP_EFORMAT (not JSON, not an object), MP_ENOMEM, MP_ENOTSUP (built without jansson). */
int rp_spec_parse(struct rp_spec *spec, const char *json, size_t bytes, struct mp_err *err);
void rp_spec_release(struct rp_spec *spec);

/* "torch 2.11.0, CUDA 13.0, ..": what is known, moeprof's own version last; "" when nothing is. */
const char *rp_spec_software(char *out, size_t bytes, const struct rp_spec_text *t,
                             const char *moeprof);

#endif
