/* The report for people: the verdict, what ran, where the step's time went, layers, experts, kernels,
 * what the reader must know. Fits 100 columns. Times in tables are per step, so that they add up to
 * the step time above them. */
#include "report/render.h"

#include <stdlib.h>
#include <string.h>

#include "report/demangle.h"
#include "report/format.h"
#include "report/layout.h"
#include "report/utf8.h"

#define LAYER_ROWS  16
#define EXPERT_ROWS 8
#define KERNEL_ROWS 12

static struct mp_val per_step(const struct rp_report *r, double seconds)
{
    return (struct mp_val){r->step.count ? seconds / r->step.count : 0,
                           r->step.count ? MP_MEASURED : MP_UNKNOWN};
}

static const char *known(const char *text)
{
    return *text ? text : RP_DASH;
}

/* ---- verdict and facts -------------------------------------------------------------------------- */

static void verdict(FILE *f, const struct rp_report *r)
{
    char mfu[RP_FIG], tokens[RP_FIG], step[RP_FIG], text[400];
    const char *backend = r->spec.text.backend;

    snprintf(text, sizeof text, "MFU %s, %s useful tokens/s, %s a step%s%s",
             rp_fmt_percent(mfu, r->mfu.mfu), rp_fmt_count(tokens, r->tokens.useful_s),
             rp_fmt_seconds(step, r->timed.median_s), *backend ? "; experts run as " : "", backend);
    rp_wrap(f, text, 0, 0);
    if (r->mfu.mfu.basis != MP_UNKNOWN)
        snprintf(text, sizeof text, "%s", r->mfu.convention);
    else
        snprintf(text, sizeof text, "no MFU: %s",
                 *r->mfu.why_not ? r->mfu.why_not : "nothing is known to divide by");
    fputs("  ", f);
    rp_wrap(f, text, 2, 2);
    if (*r->mfu.converted) {
        snprintf(text, sizeof text, "by other conventions: %s", r->mfu.converted);
        fputs("  ", f);
        rp_wrap(f, text, 2, 2);
    }
    fputc('\n', f);
}

static struct mp_val or_unknown(uint64_t v)
{
    return (struct mp_val){(double)v, v ? MP_MEASURED : MP_UNKNOWN};
}

static void model_line(FILE *f, const struct rp_spec *s)
{
    const struct rp_spec_text *t = &s->text;
    char text[768], total[RP_FIG], active[RP_FIG];
    int n;

    n = snprintf(
        text, sizeof text, "%s (%s), %s parameters, %s active, %u layer%s", known(t->class),
        known(t->family), rp_fmt_si(total, or_unknown(s->model.params_total)),
        rp_fmt_si(active, or_unknown(s->params_active)), s->n_layers, s->n_layers == 1 ? "" : "s");
    if (s->n_experts)
        n += snprintf(text + n, sizeof text - (size_t)n, ", %u experts, top %u", s->n_experts,
                      s->top_k);
    if (s->has_lora)
        n += snprintf(text + n, sizeof text - (size_t)n, ", LoRA r=%u", s->lora_r);
    snprintf(text + n, sizeof text - (size_t)n, ", %s, attention %s, checkpointing %s%s",
             known(t->dtype), known(t->attention), known(t->checkpointing),
             s->compiled ? ", compiled" : "");
    rp_line(f, "model", text);
}

static void software_line(FILE *f, const struct rp_report *r)
{
    char text[512];

    rp_line(f, "software",
            known(rp_spec_software(text, sizeof text, &r->spec.text, r->run.moeprof)));
}

static void step_line(FILE *f, const struct rp_report *r)
{
    const struct rp_step_stat *s = &r->timed;
    char text[320], a[RP_FIG], b[RP_FIG], c[RP_FIG];
    int n;

    if (s->count == 0) {
        rp_line(f, "steps", "none");
        return;
    }
    n = snprintf(text, sizeof text,
                 "%u counted of %u recorded (step %u to %u): median %s, %s to %s", s->count,
                 s->recorded, s->first, s->last, rp_fmt_seconds(a, s->median_s),
                 rp_fmt_seconds(b, s->min_s), rp_fmt_seconds(c, s->max_s));
    if (r->n_untraced && r->step.count == 0)
        snprintf(text + n, sizeof text - (size_t)n, "; by the host's clock, none was traced");
    else if (r->n_untraced)
        snprintf(text + n, sizeof text - (size_t)n,
                 "; %u of them were traced (median %s), %u were not (%s, by the host's clock)",
                 r->step.count, rp_fmt_seconds(a, r->step.median_s), r->n_untraced,
                 rp_fmt_seconds(b, r->untraced_s));
    rp_line(f, "steps", text);
}

static void tokens_line(FILE *f, const struct rp_tokens *t)
{
    char text[200], a[RP_FIG], b[RP_FIG], c[RP_FIG];

    snprintf(text, sizeof text, "%s/s useful, %s/s processed (padding included), %s/s with a label",
             rp_fmt_count(a, t->useful_s), rp_fmt_count(b, t->processed_s),
             rp_fmt_count(c, t->trainable_s));
    rp_line(f, "tokens", text);
}

static void coverage_line(FILE *f, const struct rp_report *r)
{
    const struct rp_coverage *c = &r->coverage;
    char text[256], a[RP_FIG], b[RP_FIG];
    struct mp_val own = {c->kernel_s > 0 ? c->own_s / c->kernel_s : 0,
                         c->kernel_s > 0 ? MP_MEASURED : MP_UNKNOWN};

    snprintf(text, sizeof text,
             "%s of GPU kernel time is on a phase; %llu records lost; moeprof's own kernels: %s",
             rp_fmt_percent(a, c->attributed), (unsigned long long)c->dropped,
             rp_fmt_percent(b, own));
    rp_line(f, "coverage", text);
}

static void flops_line(FILE *f, const struct rp_report *r)
{
    char text[256], hfu[RP_FIG], model[RP_FIG], executed[RP_FIG];
    struct mp_val flop = r->mfu.model_flop, done = r->mfu.executed_flop;

    if (flop.basis == MP_UNKNOWN || r->timed.count == 0)
        return;
    flop.v /= r->timed.count;
    done.v /= r->timed.count;
    snprintf(text, sizeof text, "%sFLOP of the model a step; %sFLOP executed, HFU %s",
             rp_fmt_si(model, flop), rp_fmt_si(executed, done), rp_fmt_percent(hfu, r->mfu.hfu));
    rp_line(f, "work", text);
}

static void facts(FILE *f, const struct rp_report *r)
{
    char text[700], rank[40] = "";

    if (r->run.world > 1)
        snprintf(rank, sizeof rank, ", rank %d of %d", r->run.rank, r->run.world);
    snprintf(text, sizeof text, "%s on %s%s",
             known(*r->spec.text.argv ? r->spec.text.argv : r->run.command), known(r->run.gpu),
             rank);
    rp_line(f, "run", text);
    if (r->has_spec)
        model_line(f, &r->spec);
    else
        rp_line(f, "model", RP_DASH);
    software_line(f, r);
    step_line(f, r);
    tokens_line(f, &r->tokens);
    flops_line(f, r);
    coverage_line(f, r);
}

/* ---- phases ------------------------------------------------------------------------------------- */

static const struct rp_phase *phase_find(const struct rp_report *r, enum mp_phase phase,
                                         enum mp_pass pass)
{
    for (size_t i = 0; i < r->n_phase; i++)
        if (r->phase[i].phase == phase && r->phase[i].pass == pass)
            return &r->phase[i];
    return NULL;
}

static void phase_row(FILE *f, const struct rp_report *r, enum mp_phase phase)
{
    char fig[RP_FIG];
    double sum = 0;

    fputs("  ", f);
    rp_left(f, 16, mp_phase_name(phase));
    for (int pass = 0; pass < MP_PASS_COUNT; pass++) {
        const struct rp_phase *row = phase_find(r, phase, (enum mp_pass)pass);

        sum += row ? row->seconds.v : 0;
        rp_right(f, 12, row ? rp_fmt_seconds(fig, row->step_s) : "");
    }
    rp_right(f, 12, rp_fmt_seconds(fig, per_step(r, sum)));
    rp_right(f, 10, rp_fmt_percent(fig, (struct mp_val){sum / r->step.window_s, MP_MEASURED}));
    fputc('\n', f);
}

static void total_row(FILE *f, const char *name, struct mp_val step_s, struct mp_val ratio)
{
    char fig[RP_FIG];

    fputs("  ", f);
    rp_left(f, 16, name);
    rp_right(f, 12 * (MP_PASS_COUNT + 1), rp_fmt_seconds(fig, step_s));
    rp_right(f, 10, rp_fmt_percent(fig, ratio));
    fputc('\n', f);
}

static double phase_sum(const struct rp_report *r, int phase)
{
    double sum = 0;

    for (size_t i = 0; i < r->n_phase; i++)
        if ((int)r->phase[i].phase == phase)
            sum += r->phase[i].seconds.v;
    return sum;
}

/* Phases by their time over all passes; returns how many have any. */
static int phase_order(const struct rp_report *r, int order[MP_PHASE_COUNT])
{
    double sum[MP_PHASE_COUNT];
    int n = 0;

    for (int phase = 0; phase < MP_PHASE_COUNT; phase++) {
        int at = n;

        sum[phase] = phase_sum(r, phase);
        if (sum[phase] <= 0)
            continue;
        for (; at > 0 && sum[order[at - 1]] < sum[phase]; at--)
            order[at] = order[at - 1];
        order[at] = phase;
        n++;
    }
    return n;
}

static void phases(FILE *f, const struct rp_report *r)
{
    int order[MP_PHASE_COUNT], n = phase_order(r, order);

    if (n == 0)
        return;
    fputs("\nWhere a step's time goes (mean)\n", f);
    rp_left(f, 18, "");
    for (int pass = 0; pass < MP_PASS_COUNT; pass++)
        rp_right(f, 12, mp_pass_name((enum mp_pass)pass));
    rp_right(f, 12, "all");
    rp_right(f, 10, "share");
    fputc('\n', f);
    for (int i = 0; i < n; i++)
        phase_row(f, r, (enum mp_phase)order[i]);
    total_row(f, "GPU idle", per_step(r, r->idle_s.v), r->idle_ratio);
    total_row(f, "step", r->step.mean_s, (struct mp_val){1, MP_MEASURED});
}

/* ---- layers and experts ------------------------------------------------------------------------- */

static int by_seconds(const void *a, const void *b)
{
    const struct rp_layer *x = *(const struct rp_layer *const *)a,
                          *y = *(const struct rp_layer *const *)b;

    if (x->total_s != y->total_s)
        return x->total_s < y->total_s ? 1 : -1;
    return x->layer - y->layer;
}

static void layer_row(FILE *f, const struct rp_report *r, const struct rp_layer *l)
{
    char fig[RP_FIG], dead[16];
    const double *s = l->seconds;
    double around = s[MP_PHASE_ROUTER] + s[MP_PHASE_DISPATCH] + s[MP_PHASE_COMBINE];

    fprintf(f, "  %-5d", l->layer);
    rp_right(f, 12, rp_fmt_seconds(fig, per_step(r, l->total_s)));
    rp_right(f, 12, rp_fmt_seconds(fig, per_step(r, s[MP_PHASE_ATTENTION])));
    rp_right(f, 12, rp_fmt_seconds(fig, per_step(r, s[MP_PHASE_EXPERT])));
    rp_right(f, 22, rp_fmt_seconds(fig, per_step(r, around)));
    if (l->max_vio_step.basis != MP_UNKNOWN)
        snprintf(fig, sizeof fig, "%.2f", l->max_vio_step.v);
    rp_right(f, 10, l->max_vio_step.basis != MP_UNKNOWN ? fig : RP_DASH);
    snprintf(dead, sizeof dead, "%d", l->n_dead);
    rp_right(f, 14, l->n_expert ? dead : RP_DASH);
    fputc('\n', f);
}

static void layers(FILE *f, const struct rp_report *r)
{
    const struct rp_layer **sorted = calloc(r->n_layer + 1, sizeof *sorted);
    size_t n = r->n_layer < LAYER_ROWS ? r->n_layer : LAYER_ROWS;

    if (n == 0 || !sorted) {
        free(sorted);
        return;
    }
    for (size_t i = 0; i < r->n_layer; i++)
        sorted[i] = &r->layer[i];
    if (n < r->n_layer)
        qsort(sorted, r->n_layer, sizeof *sorted, by_seconds);
    fprintf(f, "\nLayers%s\n", n < r->n_layer ? ", the slowest first" : "");
    fputs("  layer     a step   attention     experts   router+dispatch+comb.    MaxVio  idle "
          "experts\n",
          f);
    for (size_t i = 0; i < n; i++)
        layer_row(f, r, sorted[i]);
    if (n < r->n_layer)
        fprintf(f, "  ... and %zu more; --json has them all\n", r->n_layer - n);
    fputs("  MaxVio: by how much the busiest expert exceeds the mean, within a step; idle: no "
          "token at all\n",
          f);
    free(sorted);
}

static int by_expert_seconds(const void *a, const void *b)
{
    const struct rp_expert *x = *(const struct rp_expert *const *)a,
                           *y = *(const struct rp_expert *const *)b;

    if ((x->seconds.basis == MP_UNKNOWN) != (y->seconds.basis == MP_UNKNOWN))
        return x->seconds.basis == MP_UNKNOWN ? 1 : -1;
    if (x->seconds.v != y->seconds.v)
        return x->seconds.v < y->seconds.v ? 1 : -1;
    return x->layer != y->layer ? x->layer - y->layer : x->expert - y->expert;
}

static void expert_row(FILE *f, const struct rp_report *r, const struct rp_expert *e)
{
    char fig[RP_FIG];
    struct mp_val tokens = e->tokens, own = e->seconds, shared = e->shared_seconds;

    tokens.v /= r->step.count;
    own.v /= r->step.count;
    shared.v /= r->step.count;
    fprintf(f, "  %-5d  %-6d", e->layer, e->expert);
    rp_right(f, 14, rp_fmt_count(fig, tokens));
    rp_right(f, 16, rp_fmt_seconds(fig, own));
    rp_right(f, 26, rp_fmt_seconds(fig, shared));
    fprintf(f, "   %s\n", mp_basis_name(e->seconds.basis));
}

static void experts(FILE *f, const struct rp_report *r)
{
    const struct rp_expert **sorted = calloc(r->n_expert + 1, sizeof *sorted);
    size_t n = r->n_expert < EXPERT_ROWS ? r->n_expert : EXPERT_ROWS;

    if (n == 0 || !sorted || r->step.count == 0) {
        free(sorted);
        return;
    }
    for (size_t i = 0; i < r->n_expert; i++)
        sorted[i] = &r->expert[i];
    qsort(sorted, r->n_expert, sizeof *sorted, by_expert_seconds);
    fprintf(f, "\nThe %zu busiest of %zu experts (a step)\n", n, r->n_expert);
    fputs("  layer  expert        tokens  expert kernels   share of dispatch+comb.   time is\n", f);
    for (size_t i = 0; i < n; i++)
        expert_row(f, r, sorted[i]);
    free(sorted);
}

/* ---- kernels and notes -------------------------------------------------------------------------- */

static void kernels(FILE *f, const struct rp_report *r)
{
    size_t n = r->n_kernel < KERNEL_ROWS ? r->n_kernel : KERNEL_ROWS;
    char fig[RP_FIG], full[RP_KERNEL_NAME], name[RP_KERNEL_NAME];

    if (n == 0 || r->step.count == 0)
        return;
    fputs("\nKernels with most time\n", f);
    fputs("    a step   share   calls      mean  phase          name\n", f);
    for (size_t i = 0; i < n; i++) {
        const struct rp_top_kernel *k = &r->kernel[i];

        rp_right(f, 10, rp_fmt_seconds(fig, per_step(r, k->seconds)));
        rp_right(f, 8, rp_fmt_percent(fig, (struct mp_val){k->ratio, MP_MEASURED}));
        rp_right(f, 8,
                 rp_fmt_count(fig, (struct mp_val){(double)k->n / r->step.count, MP_MEASURED}));
        rp_right(f, 10, rp_fmt_seconds(fig, (struct mp_val){k->mean_s, MP_MEASURED}));
        fputs("  ", f);
        rp_left(f, 15, mp_phase_name(k->phase));
        rp_kernel_name(full, sizeof full, k->name);
        rp_utf8_clean(full);
        fprintf(f, "%s\n", rp_cut(name, sizeof name, full, RP_WIDTH - 53));
    }
}

static void notes(FILE *f, const struct rp_report *r)
{
    if (r->n_note)
        fputs("\nTo know\n", f);
    for (size_t i = 0; i < r->n_note; i++) {
        fputs("  ", f);
        rp_wrap(f, r->note[i], 2, 2);
    }
}

int rp_render_text(FILE *f, const struct rp_report *r, struct mp_err *err)
{
    verdict(f, r);
    facts(f, r);
    phases(f, r);
    layers(f, r);
    experts(f, r);
    kernels(f, r);
    notes(f, r);
    if (ferror(f))
        return mp_fail(err, MP_EIO, "cannot write the report");
    return MP_OK;
}
