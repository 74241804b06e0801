/* The comparison of two runs: steps, test, verdict, and what got worse. Facts that differ are in
 * compare_facts.c, the rows of figures in compare_rows.c. */
#include "report/compare.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/core/mfu.h"
#include "report/compare_part.h"

#define SEED      40016 /* any: recorded by being a constant */
#define GROUPS    512   /* longer runs are resampled in groups of neighbouring steps */
#define TOLERANCE 0.02  /* what got less than 2 % worse is not told */

void rp_compare_note(struct rp_compare *c, const char *fmt, ...)
{
    va_list ap;

    if (c->n_note == RP_NOTES)
        return;
    va_start(ap, fmt);
    vsnprintf(c->note[c->n_note++], sizeof c->note[0], fmt, ap);
    va_end(ap);
}

/* ---- one side ----------------------------------------------------------------------------------- */

static size_t counting(const struct rp_step_list *l)
{
    size_t n = 0;

    for (size_t i = 0; i < l->n; i++)
        n += l->step[i].counts;
    return n;
}

static int side_steps(struct rp_side *s, const struct rp_step_list *l, enum rp_work unit)
{
    size_t whole = counting(l), skip = whole > MP_MFU_KEEP ? MP_MFU_WARMUP : 0, seen = 0;

    s->seconds = malloc((whole + 1) * sizeof *s->seconds);
    s->work = malloc((whole + 1) * sizeof *s->work);
    if (!s->seconds || !s->work)
        return MP_ENOMEM;
    for (size_t i = 0; i < l->n; i++) {
        if (!l->step[i].counts || seen++ < skip)
            continue;
        s->seconds[s->n] = l->step[i].seconds;
        s->work[s->n++] = l->step[i].work[unit];
    }
    if (s->n && rp_spread(&s->step, s->seconds, s->n))
        return MP_ENOMEM;
    return rp_steady_check(&s->steady, s->seconds, s->n);
}

static int side_gauges(struct rp_side *s, const struct rp_step_list *l, struct rp_profile *p,
                       struct mp_err *err)
{
    struct rp_gauge_list g;
    int rc = rp_gauges_read(&g, p, err);

    if (rc)
        return rc;
    if (l->n)
        rp_gauge_add(&s->gauge, &g, l->step[0].begin_ns,
                     l->step[l->n - 1].end_ns ? l->step[l->n - 1].end_ns : UINT64_MAX);
    rp_gauges_release(&g);
    return MP_OK;
}

static enum rp_work unit_choose(const struct rp_step_list l[2])
{
    enum rp_work a = rp_work_choose(l[0].step, l[0].n), b = rp_work_choose(l[1].step, l[1].n);

    return a > b ? a : b; /* the weaker one is known on both sides, or both fall to steps */
}

static int sides_read(struct rp_compare *c, struct rp_profile *const p[2], struct mp_err *err)
{
    struct rp_step_list l[2] = {{0}};
    int rc = MP_OK;

    for (int i = 0; !rc && i < 2; i++) {
        const struct rp_report *r = c->side[i].report;

        rc = rp_steps_read(&l[i], p[i], r->has_spec ? &r->spec.model : NULL, err);
    }
    c->unit = rc ? RP_WORK_STEP : unit_choose(l);
    for (int i = 0; !rc && i < 2; i++) {
        if (side_steps(&c->side[i], &l[i], c->unit))
            rc = mp_fail(err, MP_ENOMEM, "no memory to compare");
        else
            rc = side_gauges(&c->side[i], &l[i], p[i], err);
    }
    rp_steps_release(&l[0]);
    rp_steps_release(&l[1]);
    return rc;
}

/* ---- the test ----------------------------------------------------------------------------------- */

/* Sums of neighbours, so that a long run costs no more than a short one; returns how many. */
static size_t grouped(double *out, const double *x, size_t n)
{
    size_t per = (n + GROUPS - 1) / GROUPS, k = 0;

    for (size_t i = 0; i < n; i++) {
        if (i % per == 0)
            out[k++] = 0;
        out[k - 1] += x[i];
    }
    return k;
}

static int interval(struct rp_compare *c)
{
    double sum[4][GROUPS];
    struct rp_series run[2];

    for (int i = 0; i < 2; i++) {
        const struct rp_side *s = &c->side[i];

        run[i] = (struct rp_series){sum[2 * i], sum[2 * i + 1], grouped(sum[2 * i], s->work, s->n)};
        grouped(sum[2 * i + 1], s->seconds, s->n);
    }
    return rp_boot_unpaired(&c->speedup, &run[0], &run[1], SEED);
}

/* Seconds for one unit of work, so that steps of other lengths compare. */
static int rank_test(struct rp_compare *c)
{
    double *x[2] = {NULL, NULL};
    int rc = MP_OK;

    for (int i = 0; !rc && i < 2; i++) {
        const struct rp_side *s = &c->side[i];

        x[i] = malloc(s->n * sizeof *x[i]);
        for (size_t k = 0; x[i] && k < s->n; k++)
            x[i][k] = s->seconds[k] / s->work[k];
        rc = x[i] ? MP_OK : MP_ENOMEM;
    }
    if (!rc)
        rc = rp_mann_whitney(&c->test, x[0], c->side[0].n, x[1], c->side[1].n);
    free(x[0]);
    free(x[1]);
    return rc;
}

#define FEW 5 /* steps of a side: below it no verdict */

static void verdict(struct rp_compare *c)
{
    double high = 1 + RP_MARGIN, low = 1 / high;
    bool differ = c->test.p < 0.05;

    if (c->side[0].n < FEW || c->side[1].n < FEW) {
        snprintf(c->why, sizeof c->why, "%zu and %zu steps count, %d of each are needed",
                 c->side[0].n, c->side[1].n, FEW);
        return;
    }
    if (differ && c->speedup.low > high)
        c->verdict = RP_FASTER;
    else if (differ && c->speedup.high < low)
        c->verdict = RP_SLOWER;
    else if (c->speedup.low >= low && c->speedup.high <= high)
        c->verdict = RP_SAME;
    snprintf(c->why, sizeof c->why, "the 95 %% interval %s ±%.0f %%",
             c->verdict == RP_INCONCLUSIVE ? "reaches across"
             : c->verdict == RP_SAME       ? "lies within"
                                           : "lies outside of",
             RP_MARGIN * 100);
}

static int test(struct rp_compare *c)
{
    int rc;

    if (c->side[0].n >= 2 && c->side[1].n >= 2) {
        if ((rc = interval(c)) || (rc = rank_test(c)) ||
            (rc = rp_hodges_lehmann_shift(&c->shift_s, c->side[0].seconds, c->side[0].n,
                                          c->side[1].seconds, c->side[1].n)))
            return rc;
        c->is_known = true;
        c->speedup =
            (struct rp_interval){exp(c->speedup.value), exp(c->speedup.low), exp(c->speedup.high)};
    }
    verdict(c);
    return MP_OK;
}

/* ---- what got worse, and what the reader must know ------------------------------------------------ */

static void worse_find(struct rp_compare *c)
{
    for (size_t i = 0; i < c->n_figure; i++)
        if (rp_figure_is_worse(&c->figure[i], 0, 1, TOLERANCE))
            c->worse[c->n_worse++] = c->figure[i];
    for (size_t i = 0; i < c->n_phase; i++)
        if (rp_figure_is_worse(&c->phase[i], 0, 1, TOLERANCE))
            c->worse[c->n_worse++] = c->phase[i];
}

static void notes(struct rp_compare *c)
{
    static const char *const name[2] = {"before", "after"};

    if (c->n_grave)
        rp_compare_note(
            c, "not like with like: %zu of the differences concern the work or the machine",
            c->n_grave);
    for (int i = 0; i < 2; i++) {
        const struct rp_side *s = &c->side[i];
        char text[64];

        if (s->steady.is_known && !s->steady.is_steady)
            rp_compare_note(
                c,
                "%s never became steady: step time changes by %+.1f %% at step %zu of %zu, "
                "trend %+.1f %% over the run",
                name[i], s->steady.change * 100, s->steady.change_at, s->n, s->steady.drift * 100);
        if (s->gauge.n_throttled)
            rp_compare_note(c, "%s: the clock was held back (%s) in %zu of %zu seconds", name[i],
                            rp_throttle_text(text, s->gauge.throttle_bits), s->gauge.n_throttled,
                            s->gauge.n[RP_THROTTLE_BITS]);
        for (size_t k = 0; k < s->report->n_note; k++)
            rp_compare_note(c, "%s: %.180s", name[i], s->report->note[k]);
    }
}

/* ---- all ---------------------------------------------------------------------------------------- */

static int compare(struct rp_compare *c, struct rp_profile *const p[2], struct mp_err *err)
{
    int rc = sides_read(c, p, err);

    if (rc)
        return rc;
    if (test(c))
        return mp_fail(err, MP_ENOMEM, "no memory to compare");
    c->n_difference =
        rp_differences(c->difference, RP_DIFFERENCES_MAX, c->side[0].report, c->side[1].report);
    for (size_t i = 0; i < c->n_difference; i++)
        c->n_grave += c->difference[i].is_grave;
    if ((rc = rp_compare_data(&c->data, p, err)))
        return rc;
    rp_compare_rows(c);
    worse_find(c);
    notes(c);
    return MP_OK;
}

int rp_compare(struct rp_compare **out, struct rp_report *const r[2], struct rp_profile *const p[2],
               struct mp_err *err)
{
    struct rp_compare *c = calloc(1, sizeof *c);
    int rc;

    *out = NULL;
    if (!c)
        return mp_fail(err, MP_ENOMEM, "no memory to compare");
    c->side[0].report = r[0];
    c->side[1].report = r[1];
    rc = compare(c, p, err);
    if (rc)
        rp_compare_free(c);
    else
        *out = c;
    return rc;
}

void rp_compare_free(struct rp_compare *c)
{
    if (!c)
        return;
    for (int i = 0; i < 2; i++) {
        free(c->side[i].seconds);
        free(c->side[i].work);
    }
    free(c);
}
