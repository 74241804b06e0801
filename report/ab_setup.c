/* What a before/after was measured on: the GPU's limits and settings, the training's size. Sentences for
 * people, and what of it the reader must know. */
#include <stdio.h>
#include <string.h>

#include "report/ab_part.h"

static int add(char *out, size_t n, int at, const char *what, const char *fmt, long long v,
               bool known)
{
    int used;

    if (!known || at < 0 || (size_t)at >= n)
        return at;
    used = snprintf(out + at, n - (size_t)at, "%s%s ", at ? ", " : "", what);
    at += used;
    if ((size_t)at >= n)
        return at;
    return at + snprintf(out + at, n - (size_t)at, fmt, v);
}

void rp_ab_gpu_text(char *out, size_t n, const struct rp_gpu_facts *g)
{
    int at = *g->driver ? snprintf(out, n, "driver %s", g->driver) : 0;

    if (at == 0)
        out[0] = 0;
    at = add(out, n, at, "power limit", "%lld W", g->power_limit_mw / 1000, g->power_limit_mw >= 0);
    at = add(out, n, at, "SM clock up to", "%lld MHz", g->max_sm_clock_mhz,
             g->max_sm_clock_mhz >= 0);
    at = add(out, n, at, "ECC", g->ecc > 0 ? "on" : "off", 0, g->ecc >= 0);
    at = add(out, n, at, "MIG", g->mig > 0 ? "on" : "off", 0, g->mig >= 0);
    add(out, n, at, "processes on it:", "%lld", g->processes, g->processes >= 0);
}

/* Tokens of a step, mean over the counted ones. */
static struct mp_val a_step(struct mp_val all, size_t n)
{
    if (n == 0)
        all.basis = MP_UNKNOWN;
    else
        all.v /= (double)n;
    return all;
}

static void batches_text(char *out, size_t n, const struct rp_spec *s)
{
    int at = 0;

    out[0] = 0;
    if (s->grad_accum > 0)
        at =
            snprintf(out, n, " in %d micro-batch%s", s->grad_accum, s->grad_accum == 1 ? "" : "es");
    if (*s->text.micro_batch)
        at += snprintf(out + at, n - (size_t)at, " of %.12s", s->text.micro_batch);
    if (strcmp(s->text.packing, "yes") == 0)
        snprintf(out + at, n - (size_t)at, ", packed");
}

/* What the trainer was told, else what torch's generator began with. */
static void seed_text(char *out, size_t n, const struct rp_spec_text *t)
{
    int at = *t->seed         ? snprintf(out, n, "seed %.24s", t->seed)
             : *t->torch_seed ? snprintf(out, n, "torch's seed %.24s", t->torch_seed)
                              : snprintf(out, n, "seed %s", RP_DASH);

    if (*t->data_seed)
        at += snprintf(out + at, n - (size_t)at, ", of the data %.24s", t->data_seed);
    if (*t->deterministic)
        snprintf(out + at, n - (size_t)at, ", deterministic algorithms %s",
                 strcmp(t->deterministic, "yes") == 0 ? "on" : "not asked for");
}

static void lora_text(char *out, size_t n, const struct rp_spec *s)
{
    out[0] = 0;
    if (s->has_lora)
        snprintf(out, n, " (LoRA, rank %u%s%.200s)", s->lora_r,
                 *s->text.lora_targets ? ", on " : "", s->text.lora_targets);
}

void rp_ab_training_text(char *out, size_t n, const struct rp_report *r)
{
    const struct rp_spec *s = &r->spec;
    char total[RP_FIG], trained[RP_FIG], useful[RP_FIG], processed[RP_FIG], batches[80], seed[128],
        lora[260];
    struct mp_val all = {(double)s->model.params_total,
                         s->model.params_total ? MP_MEASURED : MP_UNKNOWN},
                  some = {(double)s->params_trainable,
                          s->params_trainable ? MP_MEASURED : MP_UNKNOWN};

    batches_text(batches, sizeof batches, s);
    seed_text(seed, sizeof seed, &s->text);
    lora_text(lora, sizeof lora, s);
    snprintf(out, n,
             "%s parameters, %s trained%s, checkpointing %.40s; %s tokens a step, %s useful%s; %s",
             rp_fmt_si(total, all), rp_fmt_si(trained, some), lora,
             *s->text.checkpointing ? s->text.checkpointing : RP_DASH,
             rp_fmt_count(processed, a_step(r->tokens.processed, r->timed.count)),
             rp_fmt_count(useful, a_step(r->tokens.useful, r->timed.count)), batches, seed);
}

/* A loop as the base proves little where the job has a faster implementation of its own. */
static void straw_note(struct rp_ab *ab)
{
    static const char stronger[] = "grouped_mm";
    const struct rp_ab_record *r = &ab->record;
    const char *base = strcmp(r->arm[0].name, "original") == 0 ? r->own : r->arm[0].name;
    bool loops = strcmp(base, "eager") == 0 || strcmp(base, "loop") == 0;

    for (unsigned i = 0; i < r->n_arm; i++)
        if (strcmp(r->arm[i].name, stronger) == 0)
            return;
    if (loops && strstr(r->known, stronger))
        rp_ab_note(ab,
                   "the base is a loop over experts; %s, which this job has too, was not measured",
                   stronger);
}

void rp_ab_setup_notes(struct rp_ab *ab)
{
    const struct rp_gpu_facts *g = &ab->record.gpu;

    straw_note(ab);
    if (g->processes > 1)
        rp_ab_note(ab,
                   "%lld processes computed on this GPU when the blocks began: times may be theirs",
                   (long long)g->processes);
    if (g->default_limit_mw > 0 && g->power_limit_mw >= 0 &&
        g->power_limit_mw < g->default_limit_mw)
        rp_ab_note(ab, "the GPU's power limit is %lld W, below its own %lld W",
                   (long long)(g->power_limit_mw / 1000), (long long)(g->default_limit_mw / 1000));
    if (g->mig > 0)
        rp_ab_note(ab, "the GPU is divided (MIG): peaks are of the whole one");
}
