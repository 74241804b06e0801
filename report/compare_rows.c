/* The rows that stand side by side. To add a figure: one line in rp_compare_rows. */
#include "report/compare_part.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct mp_val step_fig(const struct rp_side *s, double v)
{
    return rp_measured(v, s->n > 0);
}

/* Mean over the layers of how far the busiest expert exceeds the mean. */
static struct mp_val max_vio(const struct rp_report *r)
{
    double sum = 0;
    size_t n = 0;

    for (size_t i = 0; i < r->n_layer; i++)
        if (r->layer[i].max_vio_step.basis != MP_UNKNOWN) {
            sum += r->layer[i].max_vio_step.v;
            n++;
        }
    return rp_measured(n ? sum / (double)n : 0, n > 0);
}

static struct mp_val idle_experts(const struct rp_report *r)
{
    double sum = 0;
    bool known = false;

    for (size_t i = 0; i < r->n_layer; i++) {
        known |= r->layer[i].n_expert > 0;
        sum += r->layer[i].n_dead;
    }
    return rp_measured(sum, known);
}

static struct mp_val padding(const struct rp_report *r)
{
    struct mp_val u = r->tokens.useful, all = r->tokens.processed;
    bool known = u.basis != MP_UNKNOWN && all.basis != MP_UNKNOWN && all.v > 0;

    return (struct mp_val){known ? 1 - u.v / all.v : 0, known ? u.basis : MP_UNKNOWN};
}

static struct mp_val throttled(const struct rp_side *s)
{
    size_t n = s->gauge.n[RP_THROTTLE_BITS];

    return rp_measured(n ? (double)s->gauge.n_throttled / (double)n : 0, n > 0);
}

static void figures_side(struct rp_figure *f, const struct rp_side *s, int i)
{
    const struct rp_report *r = s->report;
    const struct rp_gauge_sum *g = &s->gauge;
    double mhz = 1e6;

    (f++)->v[i] = r->mfu.mfu;
    (f++)->v[i] = r->mfu.hfu;
    (f++)->v[i] = step_fig(s, s->step.median);
    (f++)->v[i] = step_fig(s, s->step.q1);
    (f++)->v[i] = step_fig(s, s->step.q3);
    (f++)->v[i] = step_fig(s, s->step.max);
    (f++)->v[i] = r->tokens.useful_s;
    (f++)->v[i] = padding(r);
    (f++)->v[i] = r->idle_ratio;
    (f++)->v[i] = rp_gauge_max(g, RP_MEM_USED_BYTES);
    (f++)->v[i] = max_vio(r);
    (f++)->v[i] = idle_experts(r);
    (f++)->v[i] = rp_scaled(rp_gauge_mean(g, RP_SM_CLOCK_MHZ), mhz);
    (f++)->v[i] = rp_scaled(rp_gauge_min(g, RP_SM_CLOCK_MHZ), mhz);
    (f++)->v[i] = rp_scaled(rp_gauge_mean(g, RP_POWER_MW), 1e-3);
    (f++)->v[i] = rp_gauge_max(g, RP_TEMP_C);
    (f++)->v[i] = throttled(s);
    (f++)->v[i] = rp_measured((double)r->coverage.dropped, true);
}

static const struct rp_figure figure_table[] = {
    {.key = "mfu", .name = "MFU", .unit = RP_UNIT_RATIO, .better = 1},
    {.key = "hfu", .name = "HFU", .unit = RP_UNIT_RATIO},
    {.key = "step_seconds_median", .name = "step, median", .unit = RP_UNIT_SECONDS, .better = -1},
    {.key = "step_seconds_q1", .name = "step, lower quartile", .unit = RP_UNIT_SECONDS},
    {.key = "step_seconds_q3", .name = "step, upper quartile", .unit = RP_UNIT_SECONDS},
    {.key = "step_seconds_max", .name = "step, longest", .unit = RP_UNIT_SECONDS},
    {.key = "useful_tokens_per_second",
     .name = "useful tokens/s",
     .unit = RP_UNIT_COUNT,
     .better = 1},
    {.key = "padding_ratio", .name = "padding", .unit = RP_UNIT_RATIO, .better = -1, .least = 0.01},
    {.key = "idle_ratio", .name = "GPU idle", .unit = RP_UNIT_RATIO, .better = -1, .least = 0.01},
    {.key = "device_memory_bytes_max",
     .name = "device memory in use, most",
     .unit = RP_UNIT_BYTES,
     .better = -1,
     .least = 64 << 20},
    {.key = "max_violation",
     .name = "MaxVio, mean of layers",
     .unit = RP_UNIT_PLAIN,
     .better = -1,
     .least = 0.05},
    {.key = "idle_experts", .name = "experts without a token", .unit = RP_UNIT_COUNT, .better = -1},
    {.key = "sm_clock_hertz_mean", .name = "SM clock, mean", .unit = RP_UNIT_HERTZ, .better = 1},
    {.key = "sm_clock_hertz_min", .name = "SM clock, lowest", .unit = RP_UNIT_HERTZ},
    {.key = "power_watts_mean", .name = "power, mean", .unit = RP_UNIT_WATT},
    {.key = "temperature_celsius_max", .name = "temperature, highest", .unit = RP_UNIT_CELSIUS},
    {.key = "throttled_ratio",
     .name = "time throttled",
     .unit = RP_UNIT_RATIO,
     .better = -1,
     .least = 0.01},
    {.key = "lost_records", .name = "records lost", .unit = RP_UNIT_COUNT},
};

/* ---- phases ------------------------------------------------------------------------------------- */

static struct mp_val phase_step(const struct rp_report *r, int phase)
{
    double sum = 0;

    for (size_t i = 0; i < r->n_phase; i++)
        if ((int)r->phase[i].phase == phase)
            sum += r->phase[i].seconds.v;
    return rp_measured(r->step.count ? sum / r->step.count : 0,
                       r->step.count > 0 && r->n_phase > 0);
}

static double larger(const struct rp_figure *f)
{
    return fmax(f->v[0].v, f->v[1].v);
}

/* The larger of both sides first; phases that neither has are left out. */
static void phases(struct rp_compare *c)
{
    double step = fmax(c->side[0].report->step.mean_s.v, c->side[1].report->step.mean_s.v);

    for (int phase = 0; phase < MP_PHASE_COUNT; phase++) {
        struct rp_figure f = {.key = mp_phase_name((enum mp_phase)phase),
                              .name = mp_phase_name((enum mp_phase)phase),
                              .unit = RP_UNIT_SECONDS,
                              .better = -1,
                              .least = 0.01 * step};
        size_t at = c->n_phase;

        for (int i = 0; i < 2; i++)
            f.v[i] = phase_step(c->side[i].report, phase);
        if (larger(&f) <= 0)
            continue;
        for (; at > 0 && larger(&c->phase[at - 1]) < larger(&f); at--)
            c->phase[at] = c->phase[at - 1];
        c->phase[at] = f;
        c->n_phase++;
    }
}

MP_STATIC_ASSERT(countof(figure_table) <= RP_FIGURES_MAX, "the figures have room");

void rp_compare_rows(struct rp_compare *c)
{
    memcpy(c->figure, figure_table, sizeof figure_table);
    c->n_figure = countof(figure_table);
    for (int i = 0; i < 2; i++)
        figures_side(c->figure, &c->side[i], i);
    phases(c);
}

void rp_compare_names(char out[2][64], const struct rp_compare *c)
{
    static const char *const name[2] = {"before", "after"};
    const char *a = c->side[0].report->spec.text.backend, *b = c->side[1].report->spec.text.backend;
    bool differ = strcmp(a, b) != 0;

    snprintf(out[0], 64, *a && differ ? "%s: %.40s" : "%s", name[0], a);
    snprintf(out[1], 64, *b && differ ? "%s: %.40s" : "%s", name[1], b);
}
