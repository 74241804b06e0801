/* Whether two runs are alike: one row a fact. A fact that is unknown on both sides is no difference; known
 * on one side only, it is one, because nobody can tell. */
#include "report/compare.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum form { TEXT, NUMBER, FLAG, COUNT, WATTS, SWITCH }; /* the last three: int64_t, -1 unknown */

struct fact {
    const char *name;
    bool is_grave;
    enum form form;
    size_t offset, bytes; /* in struct rp_report */
};

#define AT(member) offsetof(struct rp_report, member), sizeof(((struct rp_report *)0)->member)

static const struct fact fact_table[] = {
    {"GPU", true, TEXT, AT(run.gpu)},
    {"GPU unit", false, TEXT, AT(run.gpu_uuid)},
    {"driver", false, TEXT, AT(run.machine.driver)},
    {"power limit", true, WATTS, AT(run.machine.power_limit_mw)},
    {"SM clock up to, MHz", true, COUNT, AT(run.machine.max_sm_clock_mhz)},
    {"ECC", false, SWITCH, AT(run.machine.ecc)},
    {"MIG", true, SWITCH, AT(run.machine.mig)},
    {"processes on the GPU", false, COUNT, AT(run.machine.processes)},
    {"host", false, TEXT, AT(run.hostname)},
    {"ranks", true, NUMBER, AT(run.world)},
    {"model", true, TEXT, AT(spec.text.class)},
    {"model name", false, TEXT, AT(spec.text.name)},
    {"configuration", true, TEXT, AT(spec.text.config_hash)},
    {"quantization", true, TEXT, AT(spec.text.quantization)},
    {"parameters", true, NUMBER, AT(spec.model.params_total)},
    {"trainable parameters", true, NUMBER, AT(spec.params_trainable)},
    {"layers", true, NUMBER, AT(spec.n_layers)},
    {"experts a layer", true, NUMBER, AT(spec.n_experts)},
    {"top k", true, NUMBER, AT(spec.top_k)},
    {"LoRA rank", true, NUMBER, AT(spec.lora_r)},
    {"LoRA targets", true, TEXT, AT(spec.text.lora_targets)},
    {"dtype", true, TEXT, AT(spec.text.dtype)},
    {"autocast", true, TEXT, AT(spec.text.autocast)},
    {"checkpointing", true, TEXT, AT(spec.text.checkpointing)},
    {"experts run as", false, TEXT, AT(spec.text.backend)},
    {"attention", false, TEXT, AT(spec.text.attention)},
    {"compiled", false, FLAG, AT(spec.compiled)},
    {"optimizer", false, TEXT, AT(spec.text.optimizer)},
    {"trainer", false, TEXT, AT(spec.text.trainer)},
    {"seed", false, TEXT, AT(spec.text.seed)},
    {"data seed", false, TEXT, AT(spec.text.data_seed)},
    {"torch's seed", false, TEXT, AT(spec.text.torch_seed)},
    {"micro-batch", true, TEXT, AT(spec.text.micro_batch)},
    {"packing", true, TEXT, AT(spec.text.packing)},
    {"deterministic algorithms", false, TEXT, AT(spec.text.deterministic)},
    {"torch", false, TEXT, AT(spec.text.torch)},
    {"CUDA", false, TEXT, AT(spec.text.cuda)},
    {"transformers", false, TEXT, AT(spec.text.transformers)},
    {"peft", false, TEXT, AT(spec.text.peft)},
    {"trl", false, TEXT, AT(spec.text.trl)},
    {"accelerate", false, TEXT, AT(spec.text.accelerate)},
    {"unsloth", false, TEXT, AT(spec.text.unsloth)},
    {"axolotl", false, TEXT, AT(spec.text.axolotl)},
    {"Python", false, TEXT, AT(spec.text.python)},
    {"moeprof", false, TEXT, AT(run.moeprof)},
};

static void number_text(char *out, size_t n, const void *at, size_t bytes)
{
    uint64_t v = bytes == 8 ? *(const uint64_t *)at : *(const uint32_t *)at;
    char fig[RP_FIG];

    if (v)
        snprintf(out, n, "%s", rp_fmt_count(fig, (struct mp_val){(double)v, MP_MEASURED}));
}

static void machine_text(char *out, size_t n, enum form form, int64_t v)
{
    if (v < 0)
        return;
    if (form == SWITCH)
        snprintf(out, n, "%s", v ? "on" : "off");
    else
        snprintf(out, n, form == WATTS ? "%lld W" : "%lld",
                 (long long)(form == WATTS ? v / 1000 : v));
}

/* "" is unknown. */
static void fact_text(char *out, size_t n, const struct fact *f, const struct rp_report *r)
{
    const void *at = (const char *)r + f->offset;

    out[0] = 0;
    if (f->form == TEXT)
        snprintf(out, n, "%.*s", (int)f->bytes, (const char *)at);
    else if (f->form == NUMBER)
        number_text(out, n, at, f->bytes);
    else if (f->form != FLAG)
        machine_text(out, n, f->form, *(const int64_t *)at);
    else if (r->has_spec)
        snprintf(out, n, "%s", *(const bool *)at ? "yes" : "no");
}

static void put(struct rp_difference *d, const char *name, bool is_grave, const char *a,
                const char *b)
{
    *d = (struct rp_difference){.name = name, .is_grave = is_grave};
    snprintf(d->side[0], sizeof d->side[0], "%s", *a ? a : RP_DASH);
    snprintf(d->side[1], sizeof d->side[1], "%s", *b ? b : RP_DASH);
}

/* Tokens a step, as far as they differ by more than 1 %: packing moves them a little. */
static size_t tokens_put(struct rp_difference *d, const struct rp_report *a,
                         const struct rp_report *b)
{
    const struct rp_report *r[2] = {a, b};
    char text[2][RP_FIG];
    double v[2] = {0, 0};

    for (int i = 0; i < 2; i++) {
        struct mp_val t = r[i]->tokens.processed;

        if (r[i]->timed.count == 0)
            t.basis = MP_UNKNOWN;
        else
            t.v /= r[i]->timed.count;
        v[i] = t.basis == MP_UNKNOWN ? 0 : t.v;
        rp_fmt_count(text[i], t);
    }
    if (fabs(v[0] - v[1]) <= 0.01 * fmax(v[0], v[1]))
        return 0;
    put(d, "tokens a step", true, text[0], text[1]);
    return 1;
}

size_t rp_differences(struct rp_difference *out, size_t max, const struct rp_report *before,
                      const struct rp_report *after)
{
    size_t n = max ? tokens_put(out, before, after) : 0;
    char a[128], b[128];

    for (size_t i = 0; i < countof(fact_table) && n < max; i++) {
        fact_text(a, sizeof a, &fact_table[i], before);
        fact_text(b, sizeof b, &fact_table[i], after);
        if (strcmp(a, b) != 0)
            put(&out[n++], fact_table[i].name, fact_table[i].is_grave, a, b);
    }
    return n;
}
