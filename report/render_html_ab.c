/* A before/after inside one run: the verdict with its interval, blocks in time, the arms' steps by phase on
 * one axis, figures side by side, what got worse. Sentences and figures are those of report/ab.h. */
#include "report/render_html_part.h"

#include <math.h>

#include "report/ab_part.h"

static void paragraph(FILE *f, const char *class, const char *before, const char *text)
{
    if (!*text)
        return;
    fprintf(f, "<p class=\"%s\">%s", class, before);
    html_text(f, text);
    fputs(".</p>\n", f);
}

bool html_ab_sentence(FILE *f, const struct rp_ab *ab)
{
    static const char *const word[RP_VERDICT_COUNT] = {
        [RP_FASTER] = "is faster than",
        [RP_SLOWER] = "is slower than",
        [RP_SAME] = "is no faster and no slower than",
        [RP_INCONCLUSIVE] = "cannot be told from",
    };
    const struct rp_contrast *c = ab ? &ab->contrast[ab->main_arm] : NULL;
    char base[96], name[96];

    if (!c || ab->main_arm == 0 || !c->is_known)
        return false;
    rp_ab_arm_name(base, &ab->record, 0);
    rp_ab_arm_name(name, &ab->record, ab->main_arm);
    html_printf(f, "%s %s %s: ", name, word[c->verdict], base);
    fprintf(f,
            "<span class=\"f\">%.2f ×</span> the work a second (95&nbsp;%% interval <span "
            "class=\"f\">%.2f to %.2f</span>).",
            c->speedup.value, c->speedup.low, c->speedup.high);
    return true;
}

static void sentences(FILE *f, const struct rp_ab *ab)
{
    char text[1000];

    for (unsigned i = 1; i < ab->record.n_arm; i++) {
        if (ab->record.arm[i].status != RP_ARM_MEASURED && ab->arm[i].n_block == 0) {
            snprintf(text, sizeof text, "%s: %s, %s", ab->record.arm[i].name,
                     rp_arm_status_name(ab->record.arm[i].status), ab->record.arm[i].why);
            paragraph(f, "", "", text);
            continue;
        }
        rp_ab_verdict_text(text, sizeof text, ab, i);
        paragraph(f, "", "", text);
    }
    if (ab->main_arm) {
        rp_ab_method_text(text, sizeof text, ab, ab->main_arm);
        paragraph(f, "sub", "How: ", text);
    }
    rp_ab_parity_text(text, sizeof text, ab);
    paragraph(f, "sub", "Parity of numbers: ", text);
    rp_ab_loss_text(text, sizeof text, ab, ab->main_arm);
    if (*text)
        paragraph(f, "sub", "Loss: ", text);
    rp_ab_cost_text(text, sizeof text, ab);
    paragraph(f, "sub", "Overhead: ", text);
    rp_ab_training_text(text, sizeof text, ab->report);
    paragraph(f, "sub", "Training: ", text);
    rp_ab_gpu_text(text, sizeof text, &ab->record.gpu);
    if (*text)
        paragraph(f, "sub", "GPU: ", text);
}

/* ---- blocks in time --------------------------------------------------------------------------------- */

static bool is_whole(const struct rp_ab_block *b)
{
    return !b->is_cut && b->n_step && b->seconds > 0;
}

static double block_s(const struct rp_ab_block *b)
{
    return b->seconds / b->n_step;
}

/* Blocks of a pair are joined: what is compared is the two ends of a line. */
static void block_dots(FILE *f, const struct rp_ab_record *r, const struct html_axis *axis)
{
    double span =
        (HTML_WIDTH - HTML_PLOT_LEFT - 30) / (r->n_block > 1 ? (double)r->n_block - 1 : 1);

    for (size_t i = 0; i + 1 < r->n_block; i++) {
        const struct rp_ab_block *a = &r->block[i], *b = a + 1;

        if (is_whole(a) && is_whole(b) && a->pair == b->pair && a->arm != b->arm)
            fprintf(f,
                    "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" "
                    "stroke=\"var(--neutral)\"/>\n",
                    HTML_PLOT_LEFT + 15 + span * (double)i, html_axis_y(axis, block_s(a)),
                    HTML_PLOT_LEFT + 15 + span * (double)(i + 1), html_axis_y(axis, block_s(b)));
    }
    for (size_t i = 0; i < r->n_block; i++) {
        const struct rp_ab_block *b = &r->block[i];
        char fig[RP_FIG];

        if (is_whole(b))
            fprintf(
                f,
                "<circle class=\"c c-%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"><title>step %u to %u: "
                "%s a step</title></circle>\n",
                html_series(b->arm), HTML_PLOT_LEFT + 15 + span * (double)i,
                html_axis_y(axis, block_s(b)), b->first_step, b->last_step,
                rp_fmt_seconds(fig, (struct mp_val){block_s(b), MP_MEASURED}));
    }
}

static void legend(FILE *f, const struct rp_ab *ab)
{
    char name[96];

    fputs("<ul class=\"legend\">", f);
    for (unsigned i = 0; i < ab->record.n_arm; i++) {
        rp_ab_arm_name(name, &ab->record, i);
        fprintf(f, "<li><i class=\"sw c-%s\"></i>", html_series(i));
        html_text(f, name);
        fputs("</li>", f);
    }
    fputs("</ul>\n", f);
}

static void blocks(FILE *f, const struct rp_ab *ab)
{
    double low = INFINITY, high = 0;
    struct html_axis axis;

    for (size_t i = 0; i < ab->record.n_block; i++)
        if (is_whole(&ab->record.block[i])) {
            low = fmin(low, block_s(&ab->record.block[i]));
            high = fmax(high, block_s(&ab->record.block[i]));
        }
    if (!(high > 0))
        return;
    axis = html_axis_of(low, high);
    fputs("<figure><figcaption>Blocks in the order in which they ran: a mean step of each. Lines "
          "join the two of a pair.</figcaption><div class=\"scroll\" tabindex=\"0\">",
          f);
    html_axis_open(f, &axis, "Blocks of both arms in time",
                   "A dot a block, lines between the two blocks of a pair; lower is faster.");
    block_dots(f, &ab->record, &axis);
    fputs("</svg></div>\n", f);
    legend(f, ab);
    fputs("</figure>\n", f);
}

/* ---- arms side by side --------------------------------------------------------------------------------- */

static void arm_bars(FILE *f, const struct rp_ab *ab)
{
    double max = 0;
    char name[96], fig[RP_FIG];

    for (unsigned i = 0; i < ab->record.n_arm; i++)
        if (ab->arm[i].n_traced)
            max = fmax(max, ab->arm[i].window_s / (double)ab->arm[i].n_traced);
    if (!(max > 0))
        return;
    fputs("<figure><figcaption>A mean traced step of each arm by phase.</figcaption>\n", f);
    for (unsigned i = 0; i < ab->record.n_arm; i++) {
        const struct rp_ab_arm *a = &ab->arm[i];
        struct html_bar b = {.name = name};

        if (a->n_traced == 0)
            continue;
        rp_ab_arm_name(name, &ab->record, i);
        for (int p = 0; p < MP_PHASE_COUNT; p++)
            b.phase_s[p] = a->phase_s[p] / (double)a->n_traced;
        b.idle_s = a->idle_s / (double)a->n_traced;
        rp_fmt_seconds(fig, (struct mp_val){a->window_s / (double)a->n_traced, MP_MEASURED});
        snprintf(b.right, sizeof b.right, "%s", fig);
        html_bar(f, &b, max);
    }
    html_bar_axis(f, max);
    fputs("</figure>\n", f);
}

static bool is_known(const struct rp_ab *ab, const struct rp_figure *row)
{
    for (unsigned i = 0; i < ab->record.n_arm; i++)
        if (row->v[i].basis != MP_UNKNOWN)
            return true;
    return false;
}

static void figure_row(FILE *f, const struct rp_ab *ab, const struct rp_figure *row)
{
    char text[RP_FIG];

    fputs("<tr><td>", f);
    html_text(f, row->name);
    fputs("</td>", f);
    for (unsigned i = 0; i < ab->record.n_arm; i++)
        html_cell(f, row->v[i], rp_figure_text(text, row->unit, row->v[i]));
    if (ab->main_arm) {
        struct mp_val change = rp_figure_change(row, 0, (int)ab->main_arm);

        html_cell(f, change, rp_change_text(text, change));
    }
    fputs("</tr>\n", f);
}

static void figures(FILE *f, const struct rp_ab *ab, const char *caption, const char *first,
                    const struct rp_figure *row, size_t n)
{
    char name[96];

    if (n == 0)
        return;
    fprintf(f, "<div class=\"scroll\"><table><caption>%s</caption><thead><tr><th>%s</th>", caption,
            first);
    for (unsigned i = 0; i < ab->record.n_arm; i++) {
        rp_ab_arm_name(name, &ab->record, i);
        fputs("<th class=\"n\">", f);
        html_text(f, name);
        fputs("</th>", f);
    }
    fprintf(f, "%s</tr></thead><tbody>\n", ab->main_arm ? "<th class=\"n\">change</th>" : "");
    for (size_t i = 0; i < n; i++)
        if (is_known(ab, &row[i]))
            figure_row(f, ab, &row[i]);
    fputs("</tbody></table></div>\n", f);
}

static void notes(FILE *f, const struct rp_ab *ab)
{
    if (ab->n_note == 0)
        return;
    fputs("<ul class=\"sub\">", f);
    for (size_t i = 0; i < ab->n_note; i++) {
        fputs("<li>", f);
        html_text(f, ab->note[i]);
        fputs("</li>", f);
    }
    fputs("</ul>\n", f);
}

void html_ab(struct rp_html *h)
{
    for (size_t i = 0; i < h->n; i++) {
        const struct rp_ab *ab = h->page[i].data ? h->page[i].data->ab : NULL;
        char id[32];

        if (!ab)
            continue;
        snprintf(id, sizeof id, "ab%zu", i);
        html_section(h, id, "Before and after, inside this run",
                     "The arms took turns in one process, on the same GPU and data stream.");
        html_page_head(h, i, 3);
        sentences(h->f, ab);
        blocks(h->f, ab);
        arm_bars(h->f, ab);
        figures(h->f, ab, "Figures", "", ab->figure, ab->n_figure);
        figures(h->f, ab, "A traced step by phase", "phase", ab->phase, ab->n_phase);
        figures(h->f, ab, "What got worse", "", ab->got_worse, ab->n_worse);
        notes(h->f, ab);
        fputs("</section>\n", h->f);
    }
}
