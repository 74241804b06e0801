/* The tables behind the pictures: kernels, coverage and cost of measuring, environment, the data. */
#include "report/render_html_part.h"

#include <stdlib.h>
#include <string.h>

#include "report/demangle.h"

#define NAME_SHOWN 144 /* bytes of a kernel name */

/* ---- kernels ---------------------------------------------------------------------------------------- */

static void kernel_row(FILE *f, const struct rp_report *r, const struct rp_top_kernel *k)
{
    char name[NAME_SHOWN], fig[RP_FIG];
    struct mp_val calls = html_per_step(r, (struct mp_val){(double)k->n, MP_MEASURED});

    fputs("<tr>", f);
    html_seconds(f, html_per_step(r, (struct mp_val){k->seconds, MP_MEASURED}));
    html_percent(f, (struct mp_val){k->ratio, MP_MEASURED});
    html_cell(f, calls, rp_fmt_count(fig, calls));
    html_seconds(f, (struct mp_val){k->mean_s, MP_MEASURED});
    html_seconds(f, (struct mp_val){k->min_s, MP_MEASURED});
    html_seconds(f, (struct mp_val){k->max_s, MP_MEASURED});
    fprintf(f, "<td class=\"kind\"><i class=\"sw c-%s\"></i>%s</td><td class=\"name\" title=\"",
            mp_phase_name(k->phase), html_phase(k->phase));
    html_text(f, k->name);
    fputs("\">", f);
    html_text(f, rp_kernel_name(name, sizeof name, k->name));
    fputs("</td></tr>\n", f);
}

void html_kernels(struct rp_html *h)
{
    html_section(
        h, "kernels", "Kernels",
        "Most time first; with scripts on, a head sorts. Names are shortened, the whole one "
        "is in the tooltip and in the data. Share is of all kernel time.");
    for (size_t i = 0; i < h->n; i++) {
        const struct rp_report *r = h->page[i].report;

        html_page_head(h, i, 3);
        if (r->n_kernel == 0) {
            fputs("<p>" RP_DASH " no kernel was recorded</p>\n", h->f);
            continue;
        }
        fprintf(
            h->f,
            "<div class=\"scroll tall\" tabindex=\"0\"><table class=\"sort\"><caption>%zu kernels, "
            "per step, "
            "mean</caption><thead><tr><th class=\"n\" "
            "aria-sort=\"descending\">time</th><th class=\"n\">share</th><th "
            "class=\"n\">calls</th><th class=\"n\">mean</th><th class=\"n\">least</th><th "
            "class=\"n\">most</th><th>phase</th><th>name</th></tr></thead><tbody>\n",
            r->n_kernel);
        for (size_t k = 0; k < r->n_kernel; k++)
            kernel_row(h->f, r, &r->kernel[k]);
        fputs("</tbody></table></div>\n", h->f);
    }
    fputs("</section>\n", h->f);
}

/* ---- tables with a column a profile ------------------------------------------------------------------ */

typedef void (*fact_fn)(FILE *f, const struct rp_page *page);

struct fact {
    const char *name;
    fact_fn put;
};

static void put_or_dash(FILE *f, const char *text)
{
    html_text(f, text && *text ? text : RP_DASH);
}

static void fact_table(struct rp_html *h, const char *name, const struct fact *fact, size_t n)
{
    fprintf(h->f, "<div class=\"scroll\"><table aria-label=\"%s\">", name);
    if (h->n > 1) {
        fputs("<thead><tr><th></th>", h->f);
        for (size_t i = 0; i < h->n; i++) {
            fputs("<th>", h->f);
            html_text(h->f, h->label[i]);
            fputs("</th>", h->f);
        }
        fputs("</tr></thead>", h->f);
    }
    fputs("<tbody>\n", h->f);
    for (size_t k = 0; k < n; k++) {
        fprintf(h->f, "<tr><th scope=\"row\">%s</th>", fact[k].name);
        for (size_t i = 0; i < h->n; i++) {
            fputs("<td>", h->f);
            fact[k].put(h->f, &h->page[i]);
            fputs("</td>", h->f);
        }
        fputs("</tr>\n", h->f);
    }
    fputs("</tbody></table></div>\n", h->f);
}

/* ---- coverage and overhead ----------------------------------------------------------------------------- */

static void put_attributed(FILE *f, const struct rp_page *p)
{
    char fig[RP_FIG];

    fputs(rp_fmt_percent(fig, p->report->coverage.attributed), f);
}

static void put_lost(FILE *f, const struct rp_page *p)
{
    fprintf(f, "%llu", (unsigned long long)p->report->coverage.dropped);
}

static void put_unmatched(FILE *f, const struct rp_page *p)
{
    fprintf(f, "%llu", (unsigned long long)p->report->coverage.unmatched);
}

static void put_own(FILE *f, const struct rp_page *p)
{
    const struct rp_coverage *c = &p->report->coverage;
    struct mp_val v = {c->kernel_s > 0 ? c->own_s / c->kernel_s : 0,
                       c->kernel_s > 0 ? MP_MEASURED : MP_UNKNOWN};
    char fig[RP_FIG];

    fputs(rp_fmt_percent(fig, v), f);
}

static void put_agent(FILE *f, const struct rp_page *p)
{
    char fig[RP_FIG];

    fputs(rp_fmt_percent(fig, p->report->coverage.agent_ratio), f);
}

static void put_steps(FILE *f, const struct rp_page *p)
{
    const struct rp_step_stat *s = &p->report->step;

    fprintf(f, "%u of %u", p->report->timed.count, s->recorded);
    if (p->report->n_untraced)
        fprintf(f, ", %u of them traced", s->count);
    if (s->incomplete)
        fprintf(f, ", %u with lost records", s->incomplete);
}

static void put_whole(FILE *f, const struct rp_page *p)
{
    fputs(p->report->run.is_complete ? "yes" : "no", f);
    if (*p->report->run.end)
        html_printf(f, ", ended by: %s", p->report->run.end);
}

void html_coverage(struct rp_html *h)
{
    static const struct fact fact[] = {
        {"kernel time booked on a phase", put_attributed},
        {"steps counted", put_steps},
        {"records lost", put_lost},
        {"records without a launch", put_unmatched},
        {"moeprof’s own kernels, of kernel time", put_own},
        {"moeprof’s thread, of one CPU core", put_agent},
        {"recording came to its end", put_whole},
    };

    html_section(h, "coverage", "Coverage and cost of measuring", NULL);
    fact_table(h, "Coverage and cost of measuring", fact, countof(fact));
    fputs("</section>\n", h->f);
}

/* ---- environment ------------------------------------------------------------------------------------ */

static void put_gpu(FILE *f, const struct rp_page *p)
{
    put_or_dash(f, p->report->run.gpu);
}

static void gauge(FILE *f, const struct rp_page *p, int id, double scale, const char *unit)
{
    const struct html_gauge *g = p->data ? &p->data->gauge[id] : NULL;

    if (!g || g->n == 0)
        fputs(RP_DASH, f);
    else
        fprintf(f, "%.4g %s, %.4g to %.4g", (double)g->sum / (double)g->n * scale, unit,
                (double)g->min * scale, (double)g->max * scale);
}

static void put_clock(FILE *f, const struct rp_page *p)
{
    gauge(f, p, RP_SM_CLOCK_MHZ, 1, "MHz");
    if (p->data && p->data->throttled)
        fprintf(f, "; held down in %llu of %llu s", (unsigned long long)p->data->throttled,
                (unsigned long long)p->data->gauge[RP_THROTTLE_BITS].n);
}

static void put_power(FILE *f, const struct rp_page *p)
{
    gauge(f, p, RP_POWER_MW, 1e-3, "W");
}

static void put_temp(FILE *f, const struct rp_page *p)
{
    gauge(f, p, RP_TEMP_C, 1, "°C");
}

static void put_memory(FILE *f, const struct rp_page *p)
{
    gauge(f, p, RP_MEM_USED_BYTES, 1e-9, "GB");
}

static void put_rank(FILE *f, const struct rp_page *p)
{
    if (p->report->run.world > 1)
        fprintf(f, "%d of %d", p->report->run.rank, p->report->run.world);
    else
        fputs("not distributed", f);
}

static void put_model(FILE *f, const struct rp_page *p)
{
    const struct rp_spec *s = &p->report->spec;
    char total[RP_FIG], active[RP_FIG];
    struct mp_val all = {(double)s->model.params_total,
                         s->model.params_total ? MP_MEASURED : MP_UNKNOWN},
                  act = {(double)s->params_active, s->params_active ? MP_MEASURED : MP_UNKNOWN};

    if (!p->report->has_spec) {
        fputs(RP_DASH, f);
        return;
    }
    html_printf(f, "%s, %s parameters, %s active, %u layers", s->text.class, rp_fmt_si(total, all),
                rp_fmt_si(active, act), s->n_layers);
    if (s->n_experts)
        fprintf(f, ", %u experts, top %u", s->n_experts, s->top_k);
    if (s->has_lora)
        fprintf(f, ", LoRA r=%u", s->lora_r);
}

static void put_backend(FILE *f, const struct rp_page *p)
{
    const struct rp_spec_text *t = &p->report->spec.text;

    put_or_dash(f, t->backend);
    if (*t->backend_basis)
        html_printf(f, " (%s)", t->backend_basis);
}

static void put_numbers(FILE *f, const struct rp_page *p)
{
    const struct rp_spec_text *t = &p->report->spec.text;

    put_or_dash(f, t->dtype);
    if (*t->autocast)
        html_printf(f, ", autocast %s", t->autocast);
}

static void put_attention(FILE *f, const struct rp_page *p)
{
    put_or_dash(f, p->report->spec.text.attention);
}

static void put_checkpointing(FILE *f, const struct rp_page *p)
{
    put_or_dash(f, p->report->spec.text.checkpointing);
}

static void put_optimizer(FILE *f, const struct rp_page *p)
{
    put_or_dash(f, p->report->spec.text.optimizer);
}

static void put_software(FILE *f, const struct rp_page *p)
{
    const struct rp_report *r = p->report;
    char text[512];

    put_or_dash(f, rp_spec_software(text, sizeof text, &r->spec.text, r->run.moeprof));
}

static void put_host(FILE *f, const struct rp_page *p)
{
    put_or_dash(f,
                *p->report->run.hostname ? p->report->run.hostname : p->report->spec.text.hostname);
}

static void reproduce(struct rp_html *h, size_t i)
{
    const struct rp_report *r = h->page[i].report;
    const char *command = *r->spec.text.argv ? r->spec.text.argv : r->run.command;

    html_page_head(h, i, 3);
    fputs("<pre><code>moeprof run -o again.moeprof -- ", h->f);
    html_text(h->f, *r->spec.text.argv ? "python " : "");
    put_or_dash(h->f, command);
    fputs("\nmoeprof report --html again.html again.moeprof</code></pre>\n", h->f);
}

void html_environment(struct rp_html *h)
{
    static const struct fact fact[] = {
        {"GPU", put_gpu},
        {"SM clock", put_clock},
        {"power", put_power},
        {"temperature", put_temp},
        {"memory in use", put_memory},
        {"host", put_host},
        {"rank", put_rank},
        {"model", put_model},
        {"experts run as", put_backend},
        {"numbers", put_numbers},
        {"attention", put_attention},
        {"checkpointing", put_checkpointing},
        {"optimizer", put_optimizer},
        {"software", put_software},
    };

    html_section(h, "environment", "Environment, and how to run it again", NULL);
    fact_table(h, "Environment", fact, countof(fact));
    for (size_t i = 0; i < h->n; i++)
        reproduce(h, i);
    fputs("</section>\n", h->f);
}
