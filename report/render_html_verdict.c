/* The first thing that is read: one sentence, what its MFU means, the figures, what must be known. */
#include "report/render_html_part.h"

#include <string.h>

/* Figures that no line break parts from their unit. */
static void percent(FILE *f, struct mp_val v)
{
    char fig[RP_FIG];

    fprintf(f, "<span class=\"f\">%s</span>", rp_fmt_percent(fig, v));
}

static void seconds(FILE *f, struct mp_val v)
{
    char fig[RP_FIG];

    fprintf(f, "<span class=\"f\">%s</span>", rp_fmt_seconds(fig, v));
}

/* The phases with most time, as words: "experts 25.9 %, optimizer 24.3 %". */
static void biggest(FILE *f, const struct rp_report *r, int n)
{
    bool said[MP_PHASE_COUNT] = {false};

    for (int i = 0; i < n; i++) {
        int most = -1;
        double s;

        for (int p = 0; p < MP_PHASE_COUNT; p++)
            if (!said[p] && (most < 0 || html_phase_s(r, (enum mp_phase)p) >
                                             html_phase_s(r, (enum mp_phase)most)))
                most = p;
        s = html_phase_s(r, (enum mp_phase)most);
        if (s <= 0)
            return;
        said[most] = true;
        fprintf(f, "%s ", html_phase((enum mp_phase)most));
        percent(f, (struct mp_val){s / r->step.mean_s.v, MP_MEASURED});
        fputs(", ", f);
    }
}

static void one_sentence(FILE *f, const struct rp_report *r)
{
    if (r->timed.count == 0) {
        fputs("No step was recorded, so there is nothing to say about speed.", f);
        return;
    }
    fputs(r->mfu.mfu.basis == MP_UNKNOWN ? "MFU is not known" : "MFU is ", f);
    if (r->mfu.mfu.basis != MP_UNKNOWN)
        percent(f, r->mfu.mfu);
    fputs(". A step takes ", f);
    seconds(f, r->timed.median_s);
    if (r->step.count && r->step.mean_s.v > 0) {
        fputs(": ", f);
        biggest(f, r, 3);
        fputs("GPU idle ", f);
        percent(f, r->idle_ratio);
    }
    fputc('.', f);
}

static void two_sentence(FILE *f, const struct rp_report *a, const struct rp_report *b,
                         const struct rp_compare *c)
{
    if (a->timed.count == 0 || b->timed.count == 0) {
        fputs("One of the two profiles holds no step: there is nothing to compare.", f);
        return;
    }
    if (c && c->n_grave)
        fputs("Not like with like: ", f);
    if (a->mfu.mfu.basis != MP_UNKNOWN && b->mfu.mfu.basis != MP_UNKNOWN && a->mfu.mfu.v > 0) {
        double ratio = b->mfu.mfu.v / a->mfu.mfu.v;

        fputs("MFU went from ", f);
        percent(f, a->mfu.mfu);
        fputs(" to ", f);
        percent(f, b->mfu.mfu);
        fprintf(f,
                ratio >= 10 ? " (<span class=\"f\">%.0f ×</span>). "
                            : " (<span class=\"f\">%.2f ×</span>). ",
                ratio);
    }
    fputs("A step takes ", f);
    seconds(f, b->timed.median_s);
    fputs(" instead of ", f);
    seconds(f, a->timed.median_s);
    if (c && c->is_known)
        fprintf(f,
                "; work a second is <span class=\"f\">%.2f ×</span> (95&nbsp;%% interval <span "
                "class=\"f\">%.2f to %.2f</span>)",
                c->speedup.value, c->speedup.low, c->speedup.high);
    fputc('.', f);
}

static void convention(struct rp_html *h, size_t i)
{
    const struct rp_mfu *m = &h->page[i].report->mfu;

    fputs("<p class=\"sub\">", h->f);
    if (h->n > 1)
        html_printf(h->f, "%s. ", h->label[i]);
    if (m->mfu.basis == MP_UNKNOWN)
        html_printf(h->f, "No MFU: %s.",
                    *m->why_not ? m->why_not : "nothing is known to divide by");
    else
        html_printf(h->f, "MFU here means: %s.", m->convention);
    if (*m->converted)
        html_printf(h->f, " The same run in other conventions: %s.", m->converted);
    fputs("</p>\n", h->f);
}

static void figure(FILE *f, const char *name, const char *value, const char *note)
{
    fprintf(f, "<div><dt>%s</dt><dd>%s<small>%s</small></dd></div>\n", name, value, note);
}

static void figures(FILE *f, const struct rp_report *r)
{
    char a[RP_FIG], b[RP_FIG], c[RP_FIG], note[96];

    fputs("<dl class=\"big\">\n", f);
    figure(f, "MFU", rp_fmt_percent(a, r->mfu.mfu), "useful work ÷ peak");
    figure(f, "HFU", rp_fmt_percent(a, r->mfu.hfu), "all work done ÷ peak");
    snprintf(note, sizeof note, "median; %s to %s", rp_fmt_seconds(b, r->timed.min_s),
             rp_fmt_seconds(c, r->timed.max_s));
    figure(f, "Step", rp_fmt_seconds(a, r->timed.median_s), r->timed.count ? note : "");
    figure(f, "Tokens/s", rp_fmt_count(a, r->tokens.useful_s), "without padding");
    figure(f, "GPU idle", rp_fmt_percent(a, r->idle_ratio), "of the step");
    snprintf(note, sizeof note, "of %u recorded", r->timed.recorded);
    rp_fmt_count(a, (struct mp_val){r->timed.count, MP_MEASURED});
    figure(f, "Steps counted", a, note);
    fputs("</dl>\n", f);
}

/* Facts that are not the same; grave ones first, for then the figures do not speak of the same work. */
static void differences(FILE *f, const struct rp_report *a, const struct rp_report *b)
{
    struct rp_difference d[RP_DIFFERENCES_MAX];
    size_t n = rp_differences(d, countof(d), a, b), said = 0;

    for (int grave = 1; grave >= 0; grave--) {
        size_t first = said;

        for (size_t i = 0; i < n; i++) {
            if (d[i].is_grave != grave)
                continue;
            fputs(said > first ? ", "
                  : grave      ? "<li><strong>Not like with like:</strong> "
                               : "<li>What else differs: ",
                  f);
            html_printf(f, "%s (%s, %s)", d[i].name, *d[i].side[0] ? d[i].side[0] : RP_DASH,
                        *d[i].side[1] ? d[i].side[1] : RP_DASH);
            said++;
        }
        fputs(said > first ? ".</li>\n" : "", f);
    }
}

#define WORSE_MAX 6

static void got_worse(FILE *f, const struct rp_compare *c)
{
    char a[RP_FIG], b[RP_FIG], change[RP_FIG];

    if (!c || c->n_worse == 0)
        return;
    fputs("<li>What got worse: ", f);
    for (size_t i = 0; i < c->n_worse && i < WORSE_MAX; i++) {
        const struct rp_figure *w = &c->worse[i];

        html_printf(f, "%s%s %s to %s (%s)", i ? ", " : "", w->name,
                    rp_figure_text(a, w->unit, w->v[0]), rp_figure_text(b, w->unit, w->v[1]),
                    rp_change_text(change, rp_figure_change(w, 0, 1)));
    }
    if (c->n_worse > WORSE_MAX)
        fprintf(f, " and %zu more", c->n_worse - WORSE_MAX);
    fputs(".</li>\n", f);
}

static void pair_notes(struct rp_html *h)
{
    fputs("<li>Two separate runs, " RP_UNPAIRED ".</li>\n", h->f);
    differences(h->f, h->page[0].report, h->page[1].report);
    got_worse(h->f, h->compare);
    if (h->compare) {
        char text[500];

        rp_compare_data_text(text, sizeof text, &h->compare->data);
        html_printf(h->f, "<li>Data: %s.</li>\n", text);
        rp_compare_cost_text(text, sizeof text, h->compare);
        html_printf(h->f, "<li>Overhead: %s.</li>\n", text);
    }
}

static void notes(struct rp_html *h)
{
    size_t n = 0;

    for (size_t i = 0; i < h->n; i++)
        n += h->page[i].report->n_note;
    if (n == 0 && !h->is_pair)
        return;
    fputs("<aside class=\"know\" aria-label=\"To know\"><strong>To know</strong><ul>\n", h->f);
    if (h->is_pair)
        pair_notes(h);
    for (size_t i = 0; i < h->n; i++)
        for (size_t k = 0; k < h->page[i].report->n_note; k++) {
            fputs("<li>", h->f);
            if (h->n > 1)
                html_printf(h->f, "%s: ", h->label[i]);
            html_text(h->f, h->page[i].report->note[k]);
            fputs("</li>\n", h->f);
        }
    fputs("</ul></aside>\n", h->f);
}

void html_verdict(struct rp_html *h)
{
    fputs("<h1>", h->f);
    if (h->n == 0)
        fputs("No profile could be read.", h->f);
    else if (h->is_pair)
        two_sentence(h->f, h->page[0].report, h->page[1].report, h->compare);
    else if (!html_ab_sentence(h->f, h->page[0].data ? h->page[0].data->ab : NULL))
        one_sentence(h->f, h->page[0].report);
    fputs("</h1>\n", h->f);
    for (size_t i = 0; i < h->n; i++)
        convention(h, i);
    for (size_t i = 0; i < h->n; i++) {
        html_page_head(h, i, 2);
        figures(h->f, h->page[i].report);
        if (h->page[i].data && h->page[i].data->ab)
            fputs("<p class=\"sub\">Of the whole run, all arms together; each by itself is "
                  "below.</p>\n",
                  h->f);
    }
    notes(h);
}
