/* The rows that stand side by side, what got worse, what the reader must know, and the sentences. To add
 * a figure: one row in figure_table and one line in figures_arm. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "report/ab_part.h"

#define TOLERANCE 0.02 /* what got less than 2 % worse is not told */

/* ---- figures ------------------------------------------------------------------------------------ */

static const struct rp_figure figure_table[] = {
    {.key = "mfu", .name = "MFU", .unit = RP_UNIT_RATIO, .better = 1},
    {.key = "mfu_low", .name = "  95 % interval from", .unit = RP_UNIT_RATIO},
    {.key = "mfu_high", .name = "  to", .unit = RP_UNIT_RATIO},
    {.key = "step_seconds", .name = "step, median", .unit = RP_UNIT_SECONDS, .better = -1},
    {.key = "step_seconds_q1", .name = "step, lower quartile", .unit = RP_UNIT_SECONDS},
    {.key = "step_seconds_q3", .name = "step, upper quartile", .unit = RP_UNIT_SECONDS},
    {.key = "step_seconds_min",
     .name = "step, shortest",
     .unit = RP_UNIT_SECONDS,
     .is_detail = true},
    {.key = "step_seconds_max",
     .name = "step, longest",
     .unit = RP_UNIT_SECONDS,
     .is_detail = true},
    {.key = "steps", .name = "steps counted", .unit = RP_UNIT_COUNT, .is_detail = true},
    {.key = "blocks", .name = "blocks", .unit = RP_UNIT_COUNT, .is_detail = true},
    {.key = "useful_tokens", .name = "useful tokens a step", .unit = RP_UNIT_COUNT},
    {.key = "sequences", .name = "sequences a step", .unit = RP_UNIT_COUNT, .is_detail = true},
    {.key = "sequence_tokens_max",
     .name = "longest sequence, tokens",
     .unit = RP_UNIT_COUNT,
     .is_detail = true},
    {.key = "allocated_peak_bytes",
     .name = "peak memory allocated",
     .unit = RP_UNIT_BYTES,
     .better = -1},
    {.key = "reserved_peak_bytes",
     .name = "peak memory reserved",
     .unit = RP_UNIT_BYTES,
     .better = -1},
    {.key = "saved_activations_bytes",
     .name = "saved activations",
     .unit = RP_UNIT_BYTES,
     .better = -1},
    {.key = "device_memory_bytes_max",
     .name = "device memory in use, most",
     .unit = RP_UNIT_BYTES,
     .better = -1},
    {.key = "loss", .name = "loss, mean", .unit = RP_UNIT_PLAIN},
    {.key = "idle_ratio",
     .name = "GPU idle (traced steps)",
     .unit = RP_UNIT_RATIO,
     .better = -1,
     .least = 0.01},
    {.key = "max_violation", .name = "MaxVio, mean of layers", .unit = RP_UNIT_PLAIN},
    {.key = "sm_clock_hertz_mean", .name = "SM clock, mean", .unit = RP_UNIT_HERTZ, .better = 1},
    {.key = "sm_clock_hertz_min",
     .name = "SM clock, lowest",
     .unit = RP_UNIT_HERTZ,
     .is_detail = true},
    {.key = "power_watts_mean", .name = "power, mean", .unit = RP_UNIT_WATT},
    {.key = "temperature_celsius_max", .name = "temperature, highest", .unit = RP_UNIT_CELSIUS},
    {.key = "throttled_ratio",
     .name = "time throttled",
     .unit = RP_UNIT_RATIO,
     .better = -1,
     .least = 0.05},
};

MP_STATIC_ASSERT(countof(figure_table) <= RP_AB_FIGURES, "the figures have room");

static struct mp_val throttled(const struct rp_gauge_sum *g)
{
    size_t n = g->n[RP_THROTTLE_BITS];

    return rp_measured(n ? (double)g->n_throttled / (double)n : 0, n > 0);
}

static void figures_arm(struct rp_figure *f, const struct rp_ab_arm *a, unsigned i)
{
    bool steps = a->n_step > 0;

    (f++)->v[i] = a->mfu;
    (f++)->v[i] = a->mfu_low;
    (f++)->v[i] = a->mfu_high;
    (f++)->v[i] = rp_measured(a->step.median, steps);
    (f++)->v[i] = rp_measured(a->step.q1, steps);
    (f++)->v[i] = rp_measured(a->step.q3, steps);
    (f++)->v[i] = rp_measured(a->step.min, steps);
    (f++)->v[i] = rp_measured(a->step.max, steps);
    (f++)->v[i] = rp_measured((double)a->n_step, true);
    (f++)->v[i] = rp_measured(a->n_block, true);
    (f++)->v[i] = a->useful;
    (f++)->v[i] = a->segments;
    (f++)->v[i] = a->longest;
    (f++)->v[i] = a->memory[RP_ALLOCATED_PEAK];
    (f++)->v[i] = a->memory[RP_RESERVED_PEAK];
    (f++)->v[i] = a->memory[RP_SAVED];
    (f++)->v[i] = rp_gauge_max(&a->gauge, RP_MEM_USED_BYTES);
    (f++)->v[i] = a->loss;
    (f++)->v[i] = rp_measured(a->window_s > 0 ? a->idle_s / a->window_s : 0, a->window_s > 0);
    (f++)->v[i] = rp_measured(a->n_vio ? a->vio_sum / (double)a->n_vio : 0, a->n_vio > 0);
    (f++)->v[i] = rp_scaled(rp_gauge_mean(&a->gauge, RP_SM_CLOCK_MHZ), 1e6);
    (f++)->v[i] = rp_scaled(rp_gauge_min(&a->gauge, RP_SM_CLOCK_MHZ), 1e6);
    (f++)->v[i] = rp_scaled(rp_gauge_mean(&a->gauge, RP_POWER_MW), 1e-3);
    (f++)->v[i] = rp_gauge_max(&a->gauge, RP_TEMP_C);
    (f++)->v[i] = throttled(&a->gauge);
}

/* ---- phases and layers -------------------------------------------------------------------------- */

static double largest(const struct rp_figure *f, unsigned n)
{
    double max = 0;

    for (unsigned i = 0; i < n; i++)
        max = f->v[i].basis != MP_UNKNOWN && f->v[i].v > max ? f->v[i].v : max;
    return max;
}

static struct mp_val per_step(double sum, size_t n)
{
    return rp_measured(n ? sum / (double)n : 0, n > 0);
}

static void phases(struct rp_ab *ab)
{
    unsigned n_arm = ab->record.n_arm;

    for (int phase = 0; phase <= MP_PHASE_COUNT; phase++) { /* the last is idle */
        bool idle = phase == MP_PHASE_COUNT;
        const char *name = idle ? "GPU idle" : mp_phase_name((enum mp_phase)phase);
        struct rp_figure f = {
            .key = idle ? "idle" : name, .name = name, .unit = RP_UNIT_SECONDS, .better = -1};
        size_t at = ab->n_phase;

        f.least = 0.01 * ab->arm[0].step.median;
        for (unsigned i = 0; i < n_arm; i++)
            f.v[i] =
                per_step(idle ? ab->arm[i].idle_s : ab->arm[i].phase_s[phase], ab->arm[i].n_traced);
        if (largest(&f, n_arm) <= 0)
            continue;
        for (; at > 0 && largest(&ab->phase[at - 1], n_arm) < largest(&f, n_arm); at--)
            ab->phase[at] = ab->phase[at - 1];
        ab->phase[at] = f;
        ab->n_phase++;
    }
}

static void layers(struct rp_ab *ab)
{
    for (int layer = 0; layer < RP_AB_LAYERS; layer++) {
        struct rp_figure f = {.unit = RP_UNIT_SECONDS, .better = -1};

        for (unsigned i = 0; i < ab->record.n_arm; i++)
            f.v[i] = per_step(ab->arm[i].layer_s[layer], ab->arm[i].n_layer_traced);
        if (largest(&f, ab->record.n_arm) <= 0)
            continue;
        snprintf(ab->layer_name[ab->n_layer], sizeof ab->layer_name[0], "layer %d", layer);
        f.key = f.name = ab->layer_name[ab->n_layer];
        ab->layer[ab->n_layer++] = f;
    }
}

/* ---- what got worse, and what the reader must know ------------------------------------------------ */

static void worse_find(struct rp_ab *ab)
{
    int arm = (int)ab->main_arm;

    for (size_t i = 0; arm && i < ab->n_figure; i++)
        if (rp_figure_is_worse(&ab->figure[i], 0, arm, TOLERANCE))
            ab->got_worse[ab->n_worse++] = ab->figure[i];
    for (size_t i = 0; arm && i < ab->n_phase; i++)
        if (rp_figure_is_worse(&ab->phase[i], 0, arm, TOLERANCE))
            ab->got_worse[ab->n_worse++] = ab->phase[i];
}

static void arm_notes(struct rp_ab *ab, unsigned i)
{
    const struct rp_ab_arm *a = &ab->arm[i];
    char name[96], text[64];

    rp_ab_arm_name(name, &ab->record, i);
    if (*ab->record.arm[i].why)
        rp_ab_note(ab, "%.60s, %s: %.150s", name, rp_arm_status_name(ab->record.arm[i].status),
                   ab->record.arm[i].why);
    if (a->steady.is_known && !a->steady.is_steady)
        rp_ab_note(
            ab,
            "%.60s never became steady: step time changes by %+.1f %% at its step %zu of %zu, "
            "trend %+.1f %%",
            name, a->steady.change * 100, a->steady.change_at, a->n_step, a->steady.drift * 100);
    if (a->gauge.n_throttled)
        rp_ab_note(ab, "%.60s: the clock was held back (%s) in %zu of %zu seconds", name,
                   rp_throttle_text(text, a->gauge.throttle_bits), a->gauge.n_throttled,
                   a->gauge.n[RP_THROTTLE_BITS]);
}

/* An arm that reserves more and more is not in its steady state, whatever its times say. */
static void memory_note(struct rp_ab *ab, unsigned arm)
{
    const struct rp_ab_record *r = &ab->record;
    double first = NAN, last = NAN;
    char name[96];

    for (size_t i = 0; i < r->n_block; i++)
        if (r->block[i].arm == arm && !r->block[i].is_cut &&
            isfinite(r->block[i].memory[RP_RESERVED])) {
            first = isfinite(first) ? first : r->block[i].memory[RP_RESERVED];
            last = r->block[i].memory[RP_RESERVED];
        }
    rp_ab_arm_name(name, r, arm);
    if (isfinite(first) && first > 0 && fabs(last / first - 1) > 0.02)
        rp_ab_note(ab,
                   "%.60s: reserved memory is not flat, %+.1f %% from its first block to its last",
                   name, (last / first - 1) * 100);
}

/* Amdahl: what no implementation of the experts can exceed in this job. A loop over experts leaves the
 * GPU idle, so idle time counts as theirs. */
static void bound_note(struct rp_ab *ab)
{
    const struct rp_ab_arm *base = &ab->arm[0];
    double moe = 0, all, idle;

    for (size_t i = 0; i < ab->n_layer; i++)
        moe += ab->layer[i].v[0].v;
    if (base->n_traced == 0 || moe <= 0)
        return;
    all = base->window_s / (double)base->n_traced;
    idle = base->idle_s / (double)base->n_traced;
    if (all > moe + idle)
        rp_ab_note(
            ab,
            "in the base's traced step router to combine take %.1f %%, the GPU idles for %.1f "
            "%%: without both a step would be %.2f times as fast, more is not in the experts",
            moe / all * 100, idle / all * 100, all / (all - moe - idle));
}

static void notes(struct rp_ab *ab)
{
    const struct rp_ab_record *r = &ab->record;

    for (unsigned i = 0; i < r->n_arm; i++) {
        arm_notes(ab, i);
        memory_note(ab, i);
    }
    if (*r->end)
        rp_ab_note(ab, "ended early: %s", r->end);
    if (!r->is_untraced)
        rp_ab_note(
            ab, "the counted steps were traced too: an arm with many launches pays more for that");
    rp_ab_setup_notes(ab);
    bound_note(ab);
    for (size_t i = 0; i < ab->report->n_note; i++)
        rp_ab_note(ab, "%.200s", ab->report->note[i]);
}

void rp_ab_rows(struct rp_ab *ab)
{
    memcpy(ab->figure, figure_table, sizeof figure_table);
    ab->n_figure = countof(figure_table);
    for (unsigned i = 0; i < ab->record.n_arm; i++)
        figures_arm(ab->figure, &ab->arm[i], i);
    phases(ab);
    layers(ab);
    worse_find(ab);
    notes(ab);
}

/* ---- sentences ---------------------------------------------------------------------------------- */

void rp_ab_arm_name(char out[96], const struct rp_ab_record *r, unsigned arm)
{
    const char *name = r->arm[arm].name;
    bool twice = false;

    for (unsigned i = 0; i < arm; i++)
        twice |= strcmp(r->arm[i].name, name) == 0;
    if (twice)
        snprintf(out, 96, "%.60s (again)", name);
    else if (strcmp(name, "original") == 0 && *r->own && strcmp(r->own, name) != 0)
        snprintf(out, 96, "original (%.60s)", r->own);
    else
        snprintf(out, 96, "%.60s", name);
}

void rp_ab_verdict_text(char *out, size_t n, const struct rp_ab *ab, unsigned arm)
{
    const struct rp_contrast *c = &ab->contrast[arm];
    char base[96], name[96];

    rp_ab_arm_name(base, &ab->record, 0);
    rp_ab_arm_name(name, &ab->record, arm);
    if (!c->is_known)
        snprintf(out, n, "%s against %s: %s, %s", name, base, rp_verdict_name(c->verdict), c->why);
    else
        snprintf(out, n,
                 "%s %s %s: %.3f times the %ss a second (95 %% interval %.3f to %.3f, %u pairs of "
                 "blocks); %s",
                 name,
                 c->verdict == RP_FASTER   ? "is faster than"
                 : c->verdict == RP_SLOWER ? "is slower than"
                 : c->verdict == RP_SAME   ? "is no faster and no slower than"
                                           : "cannot be told from",
                 base, c->speedup.value, rp_work_name(ab->unit), c->speedup.low, c->speedup.high,
                 c->n_pair, c->why);
}

static int floor_text(char *out, size_t n, const struct rp_contrast *c)
{
    if (c->floor.basis == MP_UNKNOWN)
        return snprintf(out, n,
                        "; too few neighbours of one arm to tell what equal arms differ by");
    return snprintf(out, n, "; equal arms differ by up to %.2f %% (%u neighbours)",
                    c->floor.v * 100, c->n_floor);
}

void rp_ab_method_text(char *out, size_t n, const struct rp_ab *ab, unsigned arm)
{
    const struct rp_ab_record *r = &ab->record;
    const struct rp_contrast *c = &ab->contrast[arm];
    size_t used;

    used =
        (size_t)snprintf(out, n,
                         "one process, one stream of data: blocks of %u steps%s, %u dropped after "
                         "each switch, order ABBA|BAAB by seed %llu",
                         r->n_step, r->is_untraced ? " without tracing, by the host's clock" : "",
                         r->n_drop, (unsigned long long)r->seed);
    if (c->is_known && used < n)
        used += (size_t)snprintf(out + used, n - used,
                                 "; Wilcoxon p = %.2g, Hodges-Lehmann %.3f, ratio of sums %.3f, "
                                 "bootstrap of %d resamples",
                                 c->wilcoxon.p, c->hodges_lehmann, c->ratio_of_sums, RP_RESAMPLES);
    if (c->is_known && used < n)
        used += (size_t)floor_text(out + used, n - used, c);
    if (ab->arm[0].steady.lag1.basis != MP_UNKNOWN &&
        ab->arm[arm].steady.lag1.basis != MP_UNKNOWN && used < n)
        used += (size_t)snprintf(out + used, n - used,
                                 "; lag-1 autocorrelation of step times %.2f and %.2f",
                                 ab->arm[0].steady.lag1.v, ab->arm[arm].steady.lag1.v);
    if (c->detectable.basis != MP_UNKNOWN && used < n)
        snprintf(out + used, n - used,
                 "; a difference of %.2f %% would have been seen in 4 of 5 runs",
                 c->detectable.v * 100);
}

void rp_ab_loss_text(char *out, size_t n, const struct rp_ab *ab, unsigned arm)
{
    const struct rp_loss *l = &ab->loss[arm];
    char base[96], name[96], stray[64] = "";

    out[0] = 0;
    if (!l->is_known)
        return;
    rp_ab_arm_name(base, &ab->record, 0);
    rp_ab_arm_name(name, &ab->record, arm);
    if (l->floor.basis != MP_UNKNOWN)
        snprintf(stray, sizeof stray, "; equal arms stray by up to %.3g", l->floor.v);
    snprintf(out, n,
             "%s: %.5g under %.60s, %.5g under %.60s; difference %+.2g, 95 %% interval %+.2g to "
             "%+.2g (%u pairs)%s",
             l->status == RP_LOSS_UNKNOWN ? "too few pairs to tell" : rp_loss_name(l->status),
             l->arm, name, l->base, base, l->difference.value, l->difference.low,
             l->difference.high, l->n_pair, stray);
}
