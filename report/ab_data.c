/* What data each arm saw: with it two arms of one stream can be told to have had alike work. And what
 * moeprof itself costs, as far as the run shows it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "report/ab_part.h"

#define FEW 3 /* traced steps: fewer say nothing of what tracing costs */

/* The whole block that counts this step or traces it. */
static const struct rp_ab_block *block_of(const struct rp_ab_record *r, uint32_t step)
{
    for (size_t i = 0; i < r->n_block; i++) {
        const struct rp_ab_block *b = &r->block[i];

        if (!b->is_cut && ((step >= b->first_step && step <= b->last_step) ||
                           (step >= b->traced_from && step <= b->traced_to)))
            return b;
    }
    return NULL;
}

struct mean {
    double sum;
    size_t n;
};

static void mean_add(struct mean *m, double v)
{
    if (isfinite(v)) {
        m->sum += v;
        m->n++;
    }
}

static struct mp_val mean_of(const struct mean *m)
{
    return (struct mp_val){m->n ? m->sum / (double)m->n : 0, m->n ? MP_MEASURED : MP_UNKNOWN};
}

/* From the end of the step before to its own end, on the host: the same clock for traced and counted. */
static double host_s(const struct rp_step_list *l, size_t k)
{
    const struct rp_ab_step *now = &l->step[k], *before = k ? now - 1 : NULL;

    if (!before || before->step + 1 != now->step || !before->end_ns ||
        now->end_ns <= before->end_ns)
        return NAN;
    return (double)(now->end_ns - before->end_ns) * 1e-9;
}

static struct mp_val tracing(double *s, size_t n, double counted_s)
{
    struct rp_spread spread;

    if (n < FEW || !(counted_s > 0) || rp_spread(&spread, s, n))
        return (struct mp_val){0, MP_UNKNOWN};
    return (struct mp_val){spread.median / counted_s - 1, MP_MEASURED};
}

int rp_ab_arm_data(struct rp_ab_arm *a, const struct rp_ab_record *r, unsigned arm,
                   const struct rp_step_list *l)
{
    struct mean useful = {0}, segments = {0};
    double longest = NAN, *traced = malloc((l->n + 1) * sizeof *traced);
    size_t n = 0;

    if (!traced)
        return MP_ENOMEM;
    for (size_t k = 0; k < l->n; k++) {
        const struct rp_ab_step *s = &l->step[k];
        const struct rp_ab_block *b = block_of(r, s->step);

        if (!b || b->arm != arm || !s->counts)
            continue;
        if (s->step <= b->last_step) {
            mean_add(&useful, s->work[RP_WORK_USEFUL]);
            mean_add(&segments, s->segments);
            longest = fmax(longest, s->longest);
        }
        if (r->is_untraced && s->is_traced && isfinite(host_s(l, k)))
            traced[n++] = host_s(l, k);
    }
    a->useful = mean_of(&useful);
    a->segments = mean_of(&segments);
    a->longest = (struct mp_val){longest, isfinite(longest) ? MP_MEASURED : MP_UNKNOWN};
    a->tracing = tracing(traced, n, a->n_step ? a->step.median : NAN);
    free(traced);
    return MP_OK;
}

/* ---- what moeprof itself costs ------------------------------------------------------------------- */

static int tracing_text(char *out, size_t n, const struct rp_ab *ab)
{
    struct mp_val base = ab->arm[0].tracing, arm = ab->arm[ab->main_arm].tracing;
    char a[RP_FIG], b[RP_FIG];

    if (!ab->record.is_untraced)
        return snprintf(out, n, "counted steps were traced: what that adds to them is unknown");
    if (base.basis == MP_UNKNOWN && arm.basis == MP_UNKNOWN)
        return snprintf(out, n,
                        "counted steps were not traced; what tracing adds to a step is unknown");
    return snprintf(out, n,
                    "counted steps were not traced; to those that were, tracing adds %s under the "
                    "base and %s under the other arm",
                    rp_change_text(a, base), rp_change_text(b, arm));
}

void rp_ab_cost_text(char *out, size_t n, const struct rp_ab *ab)
{
    struct mp_val agent = ab->report->coverage.agent_ratio;
    char fig[RP_FIG];
    int at = tracing_text(out, n, ab);

    if (agent.basis != MP_UNKNOWN)
        at += snprintf(out + at, n - (size_t)at, "; moeprof's agent used %s of a core",
                       rp_fmt_percent(fig, agent));
    snprintf(out + at, n - (size_t)at,
             "; what its hooks add to an untraced step is unknown here: a run cannot be without "
             "them");
}
