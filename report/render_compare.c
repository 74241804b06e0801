/* The comparison of two profiles for people: the verdict, whether the runs are alike, figures and phases
 * side by side, what got worse. As text of 100 columns, and as Markdown for a comment of at most 60 lines:
 * one line a finding, the environment folded away. */
#include "report/compare.h"

#include <math.h>
#include <string.h>

#include "report/compare_part.h"
#include "report/layout.h"

#define MD_PHASES      6
#define MD_WORSE       5
#define MD_DIFFERENCES 8
#define MD_NOTES       4

/* ---- sentences that both forms say ---------------------------------------------------------------- */

static void verdict_text(char *out, size_t n, const struct rp_compare *c)
{
    const struct rp_interval *s = &c->speedup;

    if (!c->is_known)
        snprintf(out, n, "%s: %s", rp_verdict_name(c->verdict), c->why);
    else
        snprintf(out, n,
                 "%safter is %s: %.3f times the %ss a second of before (95 %% interval %.3f to "
                 "%.3f); %s",
                 c->n_grave ? "not like with like: " : "",
                 c->verdict == RP_SAME           ? "no faster and no slower"
                 : c->verdict == RP_INCONCLUSIVE ? "not told apart"
                                                 : rp_verdict_name(c->verdict),
                 s->value, rp_work_name(c->unit), s->low, s->high, c->why);
}

static void method_text(char *out, size_t n, const struct rp_compare *c)
{
    int used =
        snprintf(out, n, "%s; n = %zu and %zu steps", RP_UNPAIRED, c->side[0].n, c->side[1].n);

    if (c->is_known && used > 0 && (size_t)used < n)
        snprintf(out + used, n - (size_t)used,
                 ", Mann-Whitney p = %.2g, bootstrap of %d resamples; step time shifts by %+.3g ms",
                 c->test.p, RP_RESAMPLES, c->shift_s * 1e3);
}

static void worse_text(char *out, size_t n, const struct rp_figure *f)
{
    char a[RP_FIG], b[RP_FIG], change[RP_FIG];

    snprintf(out, n, "%s: %s to %s (%s)", f->name, rp_figure_text(a, f->unit, f->v[0]),
             rp_figure_text(b, f->unit, f->v[1]),
             rp_change_text(change, rp_figure_change(f, 0, 1)));
}

static const char *run_name(const struct rp_report *r)
{
    return *r->spec.text.argv ? r->spec.text.argv : *r->run.command ? r->run.command : RP_DASH;
}

static void side_text(char *out, size_t n, const struct rp_side *s)
{
    const struct rp_report *r = s->report;

    snprintf(out, n, "%.100s: %.200s on %s", r->run.file, run_name(r),
             *r->run.gpu ? r->run.gpu : RP_DASH);
}

/* ---- text --------------------------------------------------------------------------------------- */

static void differences(FILE *f, const struct rp_compare *c)
{
    fputs(c->n_difference ? "\nNot the same on both sides (* : of the work or the machine)\n"
                          : "\nNothing that is known differs between the runs.\n",
          f);
    for (size_t i = 0; i < c->n_difference; i++) {
        const struct rp_difference *d = &c->difference[i];
        char text[300];

        fprintf(f, "%s ", d->is_grave ? " *" : "  ");
        rp_left(f, 24, d->name);
        snprintf(text, sizeof text, "%s → %s", d->side[0], d->side[1]);
        rp_wrap(f, text, 27, 27);
    }
}

static void list(FILE *f, const char *title, const char *text)
{
    if (title)
        fprintf(f, "\n%s\n", title);
    fputs("  ", f);
    rp_wrap(f, text, 2, 2);
}

int rp_render_compare_text(FILE *f, const struct rp_compare *c, struct mp_err *err)
{
    char text[500], name[2][64];
    const char *side[2] = {name[0], name[1]};

    rp_compare_names(name, c);
    verdict_text(text, sizeof text, c);
    rp_wrap(f, text, 0, 0);
    method_text(text, sizeof text, c);
    list(f, NULL, text);
    fputc('\n', f);
    for (int i = 0; i < 2; i++) {
        side_text(text, sizeof text, &c->side[i]);
        rp_line(f, i ? "after" : "before", text);
    }
    rp_compare_data_text(text, sizeof text, &c->data);
    rp_line(f, "data", text);
    rp_compare_cost_text(text, sizeof text, c);
    rp_line(f, "overhead", text);
    differences(f, c);
    fputc('\n', f);
    rp_figures_head(f, "", side, 2);
    rp_figures_text(f, c->figure, c->n_figure, 2);
    fputc('\n', f);
    rp_figures_head(f, "Where a step's time goes (mean)", side, 2);
    rp_figures_text(f, c->phase, c->n_phase, 2);
    for (size_t i = 0; i < c->n_worse; i++) {
        worse_text(text, sizeof text, &c->worse[i]);
        list(f, i ? NULL : "Got worse", text);
    }
    for (size_t i = 0; i < c->n_note; i++)
        list(f, i ? NULL : "To know", c->note[i]);
    return ferror(f) ? mp_fail(err, MP_EIO, "cannot write the comparison") : MP_OK;
}

/* ---- Markdown ----------------------------------------------------------------------------------- */

static void md_differences(FILE *f, const struct rp_compare *c)
{
    size_t n = c->n_difference < MD_DIFFERENCES ? c->n_difference : MD_DIFFERENCES;

    for (size_t i = 0; i < n; i++) {
        const struct rp_difference *d = &c->difference[i];

        rp_md_line(f, d->is_grave ? "- **" : "- ", d->name, d->is_grave ? "**: " : ": ");
        rp_md_line(f, "", d->side[0], " → ");
        rp_md_line(f, "", d->side[1], "\n");
    }
    if (n < c->n_difference)
        fprintf(f, "- and %zu more\n", c->n_difference - n);
    if (n == 0)
        fputs("- nothing that is known\n", f);
}

static void md_findings(FILE *f, const struct rp_compare *c)
{
    size_t n = c->n_worse < MD_WORSE ? c->n_worse : MD_WORSE;
    char text[300];

    for (size_t i = 0; i < n; i++) {
        worse_text(text, sizeof text, &c->worse[i]);
        rp_md_line(f, i ? "- " : "\nGot worse:\n- ", text, "\n");
    }
    for (size_t i = 0; i < c->n_note && i < MD_NOTES; i++)
        rp_md_line(f, i ? "- " : "\nTo know:\n- ", c->note[i], "\n");
}

int rp_render_compare_md(FILE *f, const struct rp_compare *c, struct mp_err *err)
{
    char text[500], name[2][64];
    const char *side[2] = {name[0], name[1]};
    size_t n = c->n_phase < MD_PHASES ? c->n_phase : MD_PHASES;

    rp_compare_names(name, c);
    verdict_text(text, sizeof text, c);
    rp_md_line(f, "**moeprof compare:** ", text, "\n");
    method_text(text, sizeof text, c);
    rp_md_line(f, "*", text, "*\n\n");
    rp_figures_md_head(f, "", side, 2);
    rp_figures_md(f, c->figure, c->n_figure, 2);
    rp_figures_md(f, c->phase, n, 2);
    md_findings(f, c);
    fputs("\n<details><summary>What differs, and what ran</summary>\n\n", f);
    md_differences(f, c);
    for (int i = 0; i < 2; i++) {
        side_text(text, sizeof text, &c->side[i]);
        rp_md_line(f, i ? "- after: " : "- before: ", text, "\n");
    }
    rp_compare_data_text(text, sizeof text, &c->data);
    rp_md_line(f, "- data: ", text, "\n");
    rp_compare_cost_text(text, sizeof text, c);
    rp_md_line(f, "- overhead: ", text, "\n");
    if (c->side[1].report->mfu.convention[0])
        rp_md_line(f, "- MFU: ", c->side[1].report->mfu.convention, "\n");
    fputs("\n</details>\n", f);
    return ferror(f) ? mp_fail(err, MP_EIO, "cannot write the comparison") : MP_OK;
}
