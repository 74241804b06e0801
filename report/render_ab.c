/* A before/after for people: the verdict, how it was come by, parity, figures, phases and layers side by
 * side, what got worse, who could not take part. As text of 100 columns, and as Markdown for a comment of
 * at most 60 lines. */
#include <string.h>

#include "report/ab_part.h"
#include "report/layout.h"

#define LAYERS    16 /* in the text; --json has all */
#define MD_PHASES 6
#define MD_WORSE  4
#define MD_NOTES  6

struct names {
    char text[RP_AB_ARMS][96];
    const char *side[RP_AB_ARMS];
};

static void names_fill(struct names *n, const struct rp_ab *ab)
{
    for (unsigned i = 0; i < ab->record.n_arm; i++) {
        rp_ab_arm_name(n->text[i], &ab->record, i);
        n->side[i] = n->text[i];
    }
}

static void worse_text(char *out, size_t n, const struct rp_ab *ab, const struct rp_figure *f)
{
    char a[RP_FIG], b[RP_FIG], change[RP_FIG];
    int arm = (int)ab->main_arm;

    snprintf(out, n, "%s: %s to %s (%s)", f->name, rp_figure_text(a, f->unit, f->v[0]),
             rp_figure_text(b, f->unit, f->v[arm]),
             rp_change_text(change, rp_figure_change(f, 0, arm)));
}

static bool was_measured(const struct rp_ab *ab, unsigned arm)
{
    return ab->record.arm[arm].status == RP_ARM_MEASURED || ab->arm[arm].n_block;
}

/* One sentence when nothing could be compared. */
static void nothing_text(char *out, size_t n, const struct rp_ab *ab)
{
    const struct rp_arm *a = &ab->record.arm[ab->record.n_arm > 1 ? 1 : 0];

    snprintf(out, n, "nothing to compare: '%s' %s: %s", a->name, rp_arm_status_name(a->status),
             a->why);
}

static const char *run_name(const struct rp_report *r)
{
    return *r->spec.text.argv ? r->spec.text.argv : *r->run.command ? r->run.command : RP_DASH;
}

static const char *known_or_dash(const char *text)
{
    return *text ? text : RP_DASH;
}

static void run_text(char *out, size_t n, const struct rp_report *r)
{
    const struct rp_spec_text *t = &r->spec.text;

    snprintf(out, n,
             "%.160s on %d x %.60s; %.60s%s%.80s%s, configuration %.20s, %.20s%s%.20s, attention "
             "%.30s%s",
             run_name(r), r->run.world > 0 ? r->run.world : 1, known_or_dash(r->run.gpu),
             known_or_dash(t->class), *t->name ? " (" : "", t->name, *t->name ? ")" : "",
             known_or_dash(t->config_hash), known_or_dash(t->dtype),
             *t->quantization ? ", quantised by " : "", t->quantization,
             known_or_dash(t->attention), r->spec.compiled ? ", compiled" : "");
}

/* ---- text --------------------------------------------------------------------------------------- */

static void indented(FILE *f, const char *text)
{
    fputs("  ", f);
    rp_wrap(f, text, 2, 2);
}

static void head(FILE *f, const struct rp_ab *ab)
{
    char text[1000];

    if (ab->main_arm == 0) {
        nothing_text(text, sizeof text, ab);
        rp_wrap(f, text, 0, 0);
    }
    for (unsigned i = 1; i < ab->record.n_arm; i++) {
        if (!was_measured(ab, i))
            continue;
        rp_ab_verdict_text(text, sizeof text, ab, i);
        rp_wrap(f, text, 0, 0);
        rp_ab_method_text(text, sizeof text, ab, i);
        indented(f, text);
    }
    fputc('\n', f);
    rp_ab_parity_text(text, sizeof text, ab);
    rp_line(f, "parity", text);
    for (unsigned i = 1; i < ab->record.n_arm; i++) {
        rp_ab_loss_text(text, sizeof text, ab, i);
        if (*text)
            rp_line(f, "loss", text);
    }
    rp_ab_cost_text(text, sizeof text, ab);
    rp_line(f, "overhead", text);
    run_text(text, sizeof text, ab->report);
    rp_line(f, "run", text);
    rp_ab_training_text(text, sizeof text, ab->report);
    rp_line(f, "training", text);
    rp_spec_software(text, sizeof text, &ab->report->spec.text, ab->report->run.moeprof);
    rp_line(f, "software", *text ? text : RP_DASH);
    rp_ab_gpu_text(text, sizeof text, &ab->record.gpu);
    if (*text)
        rp_line(f, "GPU", text);
    if (*ab->report->mfu.convention)
        rp_line(f, "MFU", ab->report->mfu.convention);
}

static void table(FILE *f, const char *title, const struct rp_figure *row, size_t n,
                  const struct rp_ab *ab, const struct names *names)
{
    if (n == 0)
        return;
    fputc('\n', f);
    rp_figures_head(f, title, names->side, (int)ab->record.n_arm);
    rp_figures_text(f, row, n, (int)ab->record.n_arm);
}

int rp_render_ab_text(FILE *f, const struct rp_ab *ab, struct mp_err *err)
{
    size_t n_layer = ab->n_layer < LAYERS ? ab->n_layer : LAYERS;
    struct names names;
    char text[400];

    names_fill(&names, ab);
    head(f, ab);
    table(f, "", ab->figure, ab->n_figure, ab, &names);
    table(f, "A traced step (mean)", ab->phase, ab->n_phase, ab, &names);
    table(f, "Router to combine (mean)", ab->layer, n_layer, ab, &names);
    if (n_layer < ab->n_layer)
        fprintf(f, "  ... and %zu more layers; --json has them all\n", ab->n_layer - n_layer);
    for (size_t i = 0; i < ab->n_worse; i++) {
        if (i == 0)
            fputs("\nGot worse\n", f);
        worse_text(text, sizeof text, ab, &ab->got_worse[i]);
        indented(f, text);
    }
    for (size_t i = 0; i < ab->n_note; i++) {
        if (i == 0)
            fputs("\nTo know\n", f);
        indented(f, ab->note[i]);
    }
    return ferror(f) ? mp_fail(err, MP_EIO, "cannot write the before/after") : MP_OK;
}

/* ---- Markdown ----------------------------------------------------------------------------------- */

static void md_head(FILE *f, const struct rp_ab *ab)
{
    char text[1000];

    if (ab->main_arm == 0) {
        nothing_text(text, sizeof text, ab);
        rp_md_line(f, "**moeprof ab:** ", text, "\n\n");
    }
    for (unsigned i = 1; i < ab->record.n_arm; i++) {
        if (!was_measured(ab, i))
            continue;
        rp_ab_verdict_text(text, sizeof text, ab, i);
        rp_md_line(f, "**moeprof ab:** ", text, "\n\n");
    }
    rp_ab_parity_text(text, sizeof text, ab);
    rp_md_line(f, "Parity ", text, "\n\n");
    rp_ab_loss_text(text, sizeof text, ab, ab->main_arm);
    if (ab->main_arm && *text)
        rp_md_line(f, "Loss ", text, "\n\n");
}

static void md_lists(FILE *f, const struct rp_ab *ab)
{
    size_t n = ab->n_worse < MD_WORSE ? ab->n_worse : MD_WORSE;
    char text[400];

    for (size_t i = 0; i < n; i++) {
        worse_text(text, sizeof text, ab, &ab->got_worse[i]);
        rp_md_line(f, i ? "- " : "\nGot worse:\n- ", text, "\n");
    }
    for (size_t i = 0; i < ab->n_note && i < MD_NOTES; i++)
        rp_md_line(f, i ? "- " : "\nTo know:\n- ", ab->note[i], "\n");
}

static void md_details(FILE *f, const struct rp_ab *ab)
{
    char text[1000];

    fputs("\n<details><summary>How this was measured</summary>\n\n", f);
    if (ab->main_arm) {
        rp_ab_method_text(text, sizeof text, ab, ab->main_arm);
        rp_md_line(f, "- ", text, "\n");
    }
    rp_ab_cost_text(text, sizeof text, ab);
    rp_md_line(f, "- overhead: ", text, "\n");
    run_text(text, sizeof text, ab->report);
    rp_md_line(f, "- ", text, "\n");
    rp_ab_training_text(text, sizeof text, ab->report);
    rp_md_line(f, "- ", text, "\n");
    rp_spec_software(text, sizeof text, &ab->report->spec.text, ab->report->run.moeprof);
    if (*text)
        rp_md_line(f, "- ", text, "\n");
    rp_ab_gpu_text(text, sizeof text, &ab->record.gpu);
    if (*text)
        rp_md_line(f, "- GPU: ", text, "\n");
    if (*ab->report->mfu.convention)
        rp_md_line(f, "- MFU: ", ab->report->mfu.convention, "\n");
    fputs("\n</details>\n", f);
}

int rp_render_ab_md(FILE *f, const struct rp_ab *ab, struct mp_err *err)
{
    size_t n = ab->n_phase < MD_PHASES ? ab->n_phase : MD_PHASES;
    struct names names;

    names_fill(&names, ab);
    md_head(f, ab);
    rp_figures_md_head(f, "", names.side, (int)ab->record.n_arm);
    rp_figures_md(f, ab->figure, ab->n_figure, (int)ab->record.n_arm);
    rp_figures_md(f, ab->phase, n, (int)ab->record.n_arm);
    md_lists(f, ab);
    md_details(f, ab);
    return ferror(f) ? mp_fail(err, MP_EIO, "cannot write the before/after") : MP_OK;
}
