/* Tables as benchstat's, phases with bars of block characters. Text from the profile stands in <code> with
 * everything escaped that Markdown or HTML would read, so that a command line neither breaks a table nor
 * calls anybody by an @. */
#include "report/render_md.h"

#include <string.h>

#include "report/demangle.h"
#include "report/format.h"
#include "report/utf8.h"

#define COLUMNS    8 /* profiles */
#define PHASE_ROWS 10
#define NOTE_ROWS  6
#define TEXT_MAX   160
#define BAR        24

struct md {
    FILE *f;
    struct rp_report *const *r;
    size_t n;
    bool is_pair;
};

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* An underscore within a word means nothing in GitHub's Markdown. */
static bool is_special(char c, char before, char after)
{
    if (c == '_')
        return !is_alnum(before) || !is_alnum(after);
    return strchr("<>&|`*[]\\~@#\"'", c) != NULL;
}

static void text(FILE *f, const char *s)
{
    char before = ' ';

    for (size_t used = 0, n; *s && used < TEXT_MAX; before = *s, s += n, used += n) {
        n = rp_utf8(s);
        if (n == 0 || (unsigned char)*s < ' ')
            fputc('?', f);
        else if (is_special(*s, before, s[1]))
            fprintf(f, "&#%d;", *s);
        else
            fwrite(s, 1, n, f);
        n += n == 0;
    }
}

static void code(FILE *f, const char *s)
{
    fputs("<code>", f);
    text(f, *s ? s : RP_DASH);
    fputs("</code>", f);
}

static const char *label(const struct md *m, size_t i, char out[48])
{
    const char *backend = m->r[i]->spec.text.backend;

    if (m->is_pair)
        snprintf(out, 48, "%s%s%.32s", i ? "after" : "before", *backend ? ": " : "", backend);
    else if (m->r[i]->run.world > 1)
        snprintf(out, 48, "rank %d", m->r[i]->run.rank);
    else
        snprintf(out, 48, "%.40s", *backend ? backend : "run");
    return out;
}

static void head_row(const struct md *m, const char *first, const char *extra, const char *rule)
{
    char name[48];

    fprintf(m->f, "| %s |", first);
    for (size_t i = 0; i < m->n; i++) {
        fputc(' ', m->f);
        text(m->f, label(m, i, name));
        fputs(" |", m->f);
    }
    fprintf(m->f, "%s\n|:--|", extra);
    for (size_t i = 0; i < m->n; i++)
        fputs("--:|", m->f);
    fprintf(m->f, "%s\n", rule);
}

/* ---- figures -------------------------------------------------------------------------------------- */

typedef struct mp_val (*get_fn)(const struct rp_report *r);
typedef const char *(*fmt_fn)(char out[RP_FIG], struct mp_val v);

static struct mp_val get_mfu(const struct rp_report *r)
{
    return r->mfu.mfu;
}

static struct mp_val get_hfu(const struct rp_report *r)
{
    return r->mfu.hfu;
}

static struct mp_val get_step(const struct rp_report *r)
{
    return r->timed.median_s;
}

static struct mp_val get_tokens(const struct rp_report *r)
{
    return r->tokens.useful_s;
}

static struct mp_val get_idle(const struct rp_report *r)
{
    return r->idle_ratio;
}

static void change(const struct md *m, struct mp_val a, struct mp_val b)
{
    if (!m->is_pair)
        return;
    if (a.basis == MP_UNKNOWN || b.basis == MP_UNKNOWN || a.v <= 0 || b.v <= 0)
        fputs(" " RP_DASH " |", m->f);
    else
        fprintf(m->f, b.v / a.v >= 10 ? " %.0f × |" : " %.2f × |", b.v / a.v);
}

static void figures(const struct md *m)
{
    static const struct {
        const char *name;
        get_fn get;
        fmt_fn fmt;
    } row[] = {{"**MFU**", get_mfu, rp_fmt_percent},
               {"HFU", get_hfu, rp_fmt_percent},
               {"step, median", get_step, rp_fmt_seconds},
               {"useful tokens/s", get_tokens, rp_fmt_count},
               {"GPU idle", get_idle, rp_fmt_percent}};
    char fig[RP_FIG];

    head_row(m, "", m->is_pair ? " ratio |" : "", m->is_pair ? "--:|" : "");
    for (size_t k = 0; k < countof(row); k++) {
        fprintf(m->f, "| %s |", row[k].name);
        for (size_t i = 0; i < m->n; i++)
            fprintf(m->f, " %s |", row[k].fmt(fig, row[k].get(m->r[i])));
        if (m->n == 2)
            change(m, row[k].get(m->r[0]), row[k].get(m->r[1]));
        fputc('\n', m->f);
    }
}

/* ---- phases ----------------------------------------------------------------------------------------- */

static double phase_s(const struct rp_report *r, int phase)
{
    double sum = 0;

    for (size_t i = 0; i < r->n_phase; i++)
        if ((int)r->phase[i].phase == phase)
            sum += r->phase[i].step_s.v;
    return sum;
}

/* Phases with most time in all profiles together first; returns how many have any. */
static size_t phase_order(const struct md *m, int order[MP_PHASE_COUNT])
{
    double sum[MP_PHASE_COUNT];
    size_t n = 0;

    for (int p = 0; p < MP_PHASE_COUNT; p++) {
        size_t at = n;

        sum[p] = 0;
        for (size_t i = 0; i < m->n; i++)
            sum[p] += phase_s(m->r[i], p);
        if (sum[p] <= 0)
            continue;
        for (; at > 0 && sum[order[at - 1]] < sum[p]; at--)
            order[at] = order[at - 1];
        order[at] = p;
        n++;
    }
    return n;
}

/* Eighths of a block: share of a bar of BAR. */
static void bar(FILE *f, double share)
{
    static const char *const part[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    int eighths = (int)(share * BAR * 8 + .5);

    eighths = eighths < 0 ? 0 : eighths > BAR * 8 ? BAR * 8 : eighths;
    for (int i = 0; i < eighths / 8; i++)
        fputs("█", f);
    fputs(part[eighths % 8], f);
}

static void phase_cells(const struct md *m, const char *name, const double *seconds)
{
    char fig[RP_FIG];

    fprintf(m->f, "| %s |", name);
    for (size_t i = 0; i < m->n; i++)
        fprintf(m->f, " %s |",
                rp_fmt_seconds(fig, (struct mp_val){seconds[i], m->r[i]->step.count ? MP_MEASURED
                                                                                    : MP_UNKNOWN}));
    fputc(' ', m->f);
    if (m->r[m->n - 1]->step.count)
        bar(m->f, seconds[m->n - 1] / m->r[m->n - 1]->step.mean_s.v);
    fputs(" |\n", m->f);
}

static void phases(const struct md *m)
{
    int order[MP_PHASE_COUNT];
    size_t n = phase_order(m, order), shown = n > PHASE_ROWS ? PHASE_ROWS - 1 : n;
    double seconds[COLUMNS];

    if (n == 0)
        return;
    fputc('\n', m->f);
    head_row(m, "a step, mean", m->n > 1 ? " share of the last |" : " share |", ":--|");
    for (size_t k = 0; k < shown; k++) {
        for (size_t i = 0; i < m->n; i++)
            seconds[i] = phase_s(m->r[i], order[k]);
        phase_cells(m, mp_phase_name((enum mp_phase)order[k]), seconds);
    }
    memset(seconds, 0, sizeof seconds);
    for (size_t k = shown; k < n; k++)
        for (size_t i = 0; i < m->n; i++)
            seconds[i] += phase_s(m->r[i], order[k]);
    if (shown < n)
        phase_cells(m, "other phases", seconds);
    for (size_t i = 0; i < m->n; i++)
        seconds[i] = m->r[i]->step.count ? m->r[i]->idle_s.v / m->r[i]->step.count : 0;
    phase_cells(m, "GPU idle", seconds);
    for (size_t i = 0; i < m->n; i++)
        seconds[i] = m->r[i]->step.mean_s.v;
    phase_cells(m, "**step**", seconds);
}

/* ---- the rest --------------------------------------------------------------------------------------- */

static void kernels(const struct md *m)
{
    const struct rp_report *r = m->r[m->n - 1];
    char fig[RP_FIG], name[RP_KERNEL_NAME];
    size_t n = r->n_kernel < 5 ? r->n_kernel : 5;

    if (n == 0 || r->step.count == 0)
        return;
    fprintf(m->f,
            "\n<details><summary>Kernels with most time%s</summary>\n\n| a step | phase | name |\n"
            "|--:|:--|:--|\n",
            m->is_pair ? " after" : "");
    for (size_t i = 0; i < n; i++) {
        struct mp_val v = {r->kernel[i].seconds / r->step.count, MP_MEASURED};

        fprintf(m->f, "| %s | %s | ", rp_fmt_seconds(fig, v), mp_phase_name(r->kernel[i].phase));
        code(m->f, rp_kernel_name(name, sizeof name, r->kernel[i].name));
        fputs(" |\n", m->f);
    }
    fputs("\n</details>\n", m->f);
}

static void environment(const struct md *m)
{
    const struct {
        const char *name;
        size_t at;
        bool in_run;
    } row[] = {{"GPU", offsetof(struct rp_run, gpu), true},
               {"model", offsetof(struct rp_spec_text, class), false},
               {"dtype", offsetof(struct rp_spec_text, dtype), false},
               {"attention", offsetof(struct rp_spec_text, attention), false},
               {"torch", offsetof(struct rp_spec_text, torch), false},
               {"transformers", offsetof(struct rp_spec_text, transformers), false},
               {"command", offsetof(struct rp_spec_text, argv), false}};

    fputs("\n<details><summary>Environment</summary>\n\n", m->f);
    head_row(m, "", "", "");
    for (size_t k = 0; k < countof(row); k++) {
        fprintf(m->f, "| %s |", row[k].name);
        for (size_t i = 0; i < m->n; i++) {
            const char *base =
                row[k].in_run ? (const char *)&m->r[i]->run : (const char *)&m->r[i]->spec.text;

            fputc(' ', m->f);
            code(m->f, base + row[k].at);
            fputs(" |", m->f);
        }
        fputc('\n', m->f);
    }
    fputs("\n</details>\n", m->f);
}

static void notes(const struct md *m)
{
    int n = 0;

    for (size_t i = 0; i < m->n; i++)
        for (size_t k = 0; k < m->r[i]->n_note && n < NOTE_ROWS; k++) {
            fputs(n++ ? "- " : "\n- ", m->f);
            text(m->f, m->r[i]->note[k]);
            fputc('\n', m->f);
        }
}

static void convention(const struct md *m)
{
    const struct rp_mfu *f = &m->r[m->n - 1]->mfu;

    fputc('\n', m->f);
    if (f->mfu.basis == MP_UNKNOWN) {
        fputs("No MFU: ", m->f);
        text(m->f, *f->why_not ? f->why_not : "nothing is known to divide by");
    } else {
        fputs("MFU is ", m->f);
        text(m->f, f->convention);
    }
    fputs(m->is_pair ? ". Two separate runs.\n" : ".\n", m->f);
}

static bool is_pair(struct rp_report *const *r, size_t n)
{
    return n == 2 && (r[0]->run.world <= 1 || r[0]->run.rank == r[1]->run.rank);
}

int rp_render_md(FILE *f, struct rp_report *const *r, size_t n, struct mp_err *err)
{
    struct md m = {f, r, n > COLUMNS ? COLUMNS : n, is_pair(r, n)};
    char a[RP_FIG], b[RP_FIG];

    if (n) {
        const struct rp_report *last = r[m.n - 1];

        fprintf(f, "### moeprof: MFU %s, %s a step\n\n", rp_fmt_percent(a, last->mfu.mfu),
                rp_fmt_seconds(b, last->timed.median_s));
        figures(&m);
        convention(&m);
        phases(&m);
        notes(&m);
        kernels(&m);
        environment(&m);
    }
    if (ferror(f))
        return mp_fail(err, MP_EIO, "cannot write the report");
    return MP_OK;
}
