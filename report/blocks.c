/* See blocks.h. The verdict is in verdict_of and nowhere else. */
#include "report/blocks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const work_name[RP_WORK_COUNT] = {
    [RP_WORK_FLOP] = "model FLOP",
    [RP_WORK_USEFUL] = "useful token",
    [RP_WORK_PROCESSED] = "token",
    [RP_WORK_STEP] = "step",
};

static const char *const verdict_name[RP_VERDICT_COUNT] = {
    [RP_INCONCLUSIVE] = "inconclusive",
    [RP_FASTER] = "faster",
    [RP_SLOWER] = "slower",
    [RP_SAME] = "no difference",
};

const char *rp_work_name(enum rp_work work)
{
    return (unsigned)work < RP_WORK_COUNT ? work_name[work] : "?";
}

const char *rp_verdict_name(enum rp_verdict v)
{
    return (unsigned)v < RP_VERDICT_COUNT ? verdict_name[v] : verdict_name[RP_INCONCLUSIVE];
}

/* ---- the order ---------------------------------------------------------------------------------- */

size_t rp_plan_size(unsigned n_arm, unsigned n_block)
{
    return n_arm < 2 ? 0 : (size_t)2 * n_block * (n_arm - 1);
}

static void shuffle(unsigned *order, unsigned n, struct rp_pcg *g)
{
    for (unsigned i = n; i > 1; i--) {
        unsigned k = rp_pcg_below(g, i), last = order[i - 1];

        order[i - 1] = order[k];
        order[k] = last;
    }
}

void rp_plan_make(struct rp_plan_slot *slot, unsigned n_arm, unsigned n_block, uint64_t seed)
{
    unsigned order[RP_AB_ARMS], n_other = n_arm - 1;
    uint32_t pair = 0;
    struct rp_pcg g;

    rp_pcg_seed(&g, seed, 3);
    for (unsigned i = 0; i < n_other; i++)
        order[i] = i + 1;
    for (unsigned done = 0; done < n_block; done += 2) {
        shuffle(order, n_other, &g);
        for (unsigned i = 0; i < n_other; i++) {
            bool base_first = rp_pcg_below(&g, 2) == 0;

            for (unsigned k = 0; k < 2 && done + k < n_block; k++, pair++) {
                bool base_now = base_first == (k == 0); /* AB, then BA */

                *slot++ = (struct rp_plan_slot){base_now ? 0 : order[i], pair};
                *slot++ = (struct rp_plan_slot){base_now ? order[i] : 0, pair};
            }
        }
    }
}

/* ---- blocks ------------------------------------------------------------------------------------- */

enum rp_work rp_work_choose(const struct rp_ab_step *step, size_t n)
{
    for (int work = 0; work < RP_WORK_STEP; work++) {
        bool known = n > 0;

        for (size_t i = 0; known && i < n; i++)
            known = !step[i].counts || step[i].work[work] > 0;
        if (known)
            return (enum rp_work)work;
    }
    return RP_WORK_STEP;
}

/* The first of the sorted steps that is not below `number`. */
static size_t lower_bound(const struct rp_ab_step *step, size_t n, uint32_t number)
{
    size_t low = 0;

    while (low < n) {
        size_t mid = low + (n - low) / 2;

        if (step[mid].step < number)
            low = mid + 1;
        else
            n = mid;
    }
    return low;
}

void rp_block_sum(struct rp_ab_block *b, const struct rp_ab_step *step, size_t n, enum rp_work work)
{
    uint64_t want = b->last_step >= b->first_step ? (uint64_t)b->last_step - b->first_step + 1 : 0;

    b->n_step = 0;
    b->seconds = b->work = 0;
    for (size_t i = lower_bound(step, n, b->first_step); i < n && step[i].step <= b->last_step;
         i++) {
        double done = work == RP_WORK_STEP ? 1 : step[i].work[work];

        if (!step[i].counts)
            continue;
        b->n_step++;
        b->seconds += step[i].seconds;
        b->work += done;
    }
    if (b->n_step == 0 || 2 * (uint64_t)b->n_step < want)
        b->is_cut = true;
}

/* ---- pairs -------------------------------------------------------------------------------------- */

static double log_rate(const struct rp_ab_block *b)
{
    return log(b->work / b->seconds);
}

/* Log-ratios of the pairs of this arm with the base, sums of both sides. */
struct pairs {
    double *ratio, *same; /* (n), (n_same): pairs; neighbours of one arm */
    size_t n, n_same, n_cut;
    double work[2], seconds[2]; /* base, arm */
};

static void take_pair(struct pairs *p, const struct rp_ab_block *a, const struct rp_ab_block *b)
{
    const struct rp_ab_block *base = a->arm == 0 ? a : b, *other = a->arm == 0 ? b : a;

    if (a->is_cut || b->is_cut) {
        p->n_cut++;
        return;
    }
    p->ratio[p->n++] = log_rate(other) - log_rate(base);
    p->work[0] += base->work;
    p->seconds[0] += base->seconds;
    p->work[1] += other->work;
    p->seconds[1] += other->seconds;
}

static void pairs_take(struct pairs *p, const struct rp_ab_block *block, size_t n, unsigned arm)
{
    for (size_t i = 1; i < n; i++) {
        const struct rp_ab_block *a = &block[i - 1], *b = &block[i];

        if (a->pair == b->pair && a->arm + b->arm == arm && a->arm != b->arm)
            take_pair(p, a, b);
        else if (a->arm == b->arm && !a->is_cut && !b->is_cut)
            p->same[p->n_same++] = log_rate(b) - log_rate(a);
    }
}

/* ---- what it is worth --------------------------------------------------------------------------- */

#define FLOOR_MIN 4 /* neighbours of one arm */

static int floor_find(struct rp_contrast *out, const struct pairs *p, uint64_t seed)
{
    struct rp_interval in;
    int rc;

    out->n_floor = (unsigned)p->n_same;
    out->margin = RP_MARGIN;
    if (p->n_same < FLOOR_MIN)
        return MP_OK;
    if ((rc = rp_boot_mean(&in, p->same, p->n_same, seed + 1)))
        return rc;
    out->floor = (struct mp_val){expm1(fmax(fabs(in.low), fabs(in.high))), MP_MEASURED};
    out->margin = fmax(RP_MARGIN, out->floor.v);
    return MP_OK;
}

static void verdict_of(struct rp_contrast *c)
{
    double high = 1 + c->margin, low = 1 / high, same = 1 + fmin(c->margin, RP_SAME_MAX);
    bool within = c->speedup.low >= low && c->speedup.high <= high;

    c->verdict = RP_INCONCLUSIVE;
    if (c->n_pair < RP_MIN_PAIRS) {
        snprintf(c->why, sizeof c->why, "only %u pair%s of blocks, %d are needed", c->n_pair,
                 c->n_pair == 1 ? "" : "s", RP_MIN_PAIRS);
        return;
    }
    if (c->speedup.low > high)
        c->verdict = RP_FASTER;
    else if (c->speedup.high < low)
        c->verdict = RP_SLOWER;
    else if (c->speedup.low >= 1 / same && c->speedup.high <= same)
        c->verdict = RP_SAME;
    snprintf(c->why, sizeof c->why, "the 95 %% interval %s ±%.1f %% (%s)%s",
             within                          ? "lies within"
             : c->verdict == RP_INCONCLUSIVE ? "reaches across"
                                             : "lies outside of",
             c->margin * 100,
             c->margin > RP_MARGIN ? "what equal arms differ by here" : "the least that counts",
             within && c->verdict == RP_INCONCLUSIVE ? ": too wide to say that they are equal"
                                                     : "");
}

static int contrast(struct rp_contrast *out, const struct pairs *p, uint64_t seed)
{
    struct rp_spread s;
    int rc;

    out->n_pair = (unsigned)p->n;
    out->n_cut = (unsigned)p->n_cut;
    if ((rc = floor_find(out, p, seed)))
        return rc;
    if (p->n >= 2) {
        if ((rc = rp_boot_mean(&out->speedup, p->ratio, p->n, seed)) ||
            (rc = rp_hodges_lehmann(&out->hodges_lehmann, p->ratio, p->n)) ||
            (rc = rp_wilcoxon(&out->wilcoxon, p->ratio, p->n)) ||
            (rc = rp_spread(&s, p->ratio, p->n)) ||
            (rc = rp_detectable(&out->detectable.v, s.sd, p->n)))
            return rc;
        out->is_known = true;
        out->speedup = (struct rp_interval){exp(out->speedup.value), exp(out->speedup.low),
                                            exp(out->speedup.high)};
        out->hodges_lehmann = exp(out->hodges_lehmann);
        out->ratio_of_sums = p->work[1] / p->seconds[1] / (p->work[0] / p->seconds[0]);
        out->detectable =
            (struct mp_val){(1 + out->margin) * exp(out->detectable.v) - 1, MP_MODELLED};
    }
    verdict_of(out);
    return MP_OK;
}

int rp_contrast(struct rp_contrast *out, const struct rp_ab_block *block, size_t n, unsigned arm,
                uint64_t seed)
{
    struct pairs p = {.ratio = malloc((n + 1) * sizeof(double)),
                      .same = malloc((n + 1) * sizeof(double))};
    int rc = MP_ENOMEM;

    *out = (struct rp_contrast){.arm = arm};
    if (p.ratio && p.same) {
        pairs_take(&p, block, n, arm);
        rc = contrast(out, &p, seed);
    }
    free(p.ratio);
    free(p.same);
    return rc;
}

/* ---- steady or not ------------------------------------------------------------------------------ */

static double mean(const double *x, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return sum / (double)n;
}

static int steady_fill(struct rp_steady *out, const double *log_x, size_t n)
{
    struct rp_drift d;
    int rc;

    if ((rc = rp_last_change(&out->change_at, log_x, n)) || (rc = rp_drift(&d, log_x, n)))
        return rc;
    if (out->change_at)
        out->change =
            expm1(mean(log_x + out->change_at, n - out->change_at) - mean(log_x, out->change_at));
    out->drift = expm1(d.slope * (double)(n - 1));
    out->drift_p = d.p;
    if (rp_lag1(&out->lag1.v, log_x, n) == MP_OK)
        out->lag1.basis = MP_MEASURED;
    out->is_known = true;
    out->is_steady = !(out->change_at && fabs(out->change) > RP_MARGIN) &&
                     !(d.p < 0.01 && fabs(out->drift) > RP_MARGIN);
    return MP_OK;
}

#define STEADY_MIN 8    /* values; a trend of fewer is chance */
#define STEADY_MAX 1024 /* the trend looks at all pairs */

int rp_steady_check(struct rp_steady *out, const double *x, size_t n)
{
    size_t skip = n > STEADY_MAX ? n - STEADY_MAX : 0;
    double *log_x;
    int rc;

    *out = (struct rp_steady){.drift_p = 1};
    if (n < STEADY_MIN)
        return MP_OK;
    log_x = calloc(n - skip, sizeof *log_x);
    if (!log_x)
        return MP_ENOMEM;
    for (size_t i = skip; i < n; i++)
        log_x[i - skip] = log(x[i]);
    rc = steady_fill(out, log_x, n - skip);
    if (out->change_at)
        out->change_at += skip;
    free(log_x);
    return rc;
}
