/* See ab.h. All statistics are report/ab's; here they are only brought into the shape of a screen. */
#include "profiler/dash/ab.h"

#include "profiler/dash/eval.h"
#include "profiler/dash/fmt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FRESH_NS 10000000000u /* a recorder commits every second */
#define BUDGET   400u /* figures rest so many times what they took: a quarter percent of a core */

static bool is_worse(const struct rp_parity *a, const struct rp_parity *b)
{
    if (a->passed != b->passed)
        return !a->passed;
    return isfinite(a->ratio) && !(a->ratio <= b->ratio);
}

static void take_parity(struct dash_ab *ab, const struct rp_ab_record *r)
{
    for (size_t i = 0; i < r->n_parity; i++) {
        const struct rp_parity *p = &r->parity[i];
        struct dash_ab_arm *a = &ab->arm[p->arm];

        if (a->n_layer == 0 || is_worse(p, &a->worst))
            a->worst = *p;
        a->n_layer++;
        a->n_failed += !p->passed;
    }
}

static void take_arm(struct dash_ab_arm *out, const struct rp_ab *ab, unsigned i)
{
    const struct rp_ab_arm *a = &ab->arm[i];
    const struct rp_contrast *c = &ab->contrast[i];

    rp_ab_arm_name(out->name, &ab->record, i);
    out->status = ab->record.arm[i].status;
    snprintf(out->why, sizeof out->why, "%s", ab->record.arm[i].why);
    out->n_block = a->n_block;
    out->step_ns = dash_measured(a->n_step ? a->step.median * 1e9 : NAN);
    out->mfu = a->mfu;
    out->n_pair = c->n_pair;
    out->ratio = dash_measured(i && c->is_known ? c->speedup.value : NAN);
    out->low = c->speedup.low;
    out->high = c->speedup.high;
    out->verdict = c->verdict;
    if (i && a->n_block)
        rp_ab_verdict_text(out->sentence, sizeof out->sentence, ab, i);
}

/* Blocks of one plot: relative to their mean, so that no unit stands beside it. */
static void take_blocks(struct dash_ab *ab, const struct rp_ab_record *r)
{
    size_t first = r->n_block > DASH_AB_BLOCKS ? r->n_block - DASH_AB_BLOCKS : 0, n = 0;
    double sum = 0;

    for (size_t i = first; i < r->n_block; i++) {
        const struct rp_ab_block *b = &r->block[i];
        double rate = b->seconds > 0 && !b->is_cut ? b->work / b->seconds : NAN;

        ab->block[ab->n_block++] = (struct dash_ab_block){b->arm, rate, b->is_cut};
        sum += isfinite(rate) ? rate : 0;
        n += isfinite(rate);
    }
    for (size_t i = 0; i < ab->n_block; i++)
        ab->block[i].rate *= sum > 0 ? (double)n / sum : NAN;
}

static void take(struct dash_ab *out, const struct rp_ab *ab)
{
    const struct rp_ab_record *r = &ab->record;

    memset(out, 0, sizeof *out);
    out->is_known = true;
    out->n_arm = r->n_arm;
    for (unsigned i = 0; i < r->n_arm; i++) {
        take_arm(&out->arm[i], ab, i);
        out->n_left += r->arm[i].status == RP_ARM_MEASURED || out->arm[i].n_block;
    }
    take_parity(out, r);
    take_blocks(out, r);
    rp_ab_parity_text(out->parity, sizeof out->parity, ab);
    out->n_begun = r->n_block;
    out->n_planned = out->n_left > 1 ? rp_plan_size(out->n_left, r->n_planned) : 0;
    snprintf(out->end, sizeof out->end, "%s", r->end);
}

static uint64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool figures_make(struct dash_ab *ab, struct rp_profile *p, const struct dash_eval *eval,
                         uint64_t now_ns)
{
    uint64_t began = cpu_ns();
    struct rp_report *r = calloc(1, sizeof *r);
    struct rp_ab *found = NULL;

    if (r && eval->has_spec) {
        r->has_spec = true;
        r->spec = eval->spec; /* borrowed */
        r->mfu.peak_flops =
            (struct mp_val){eval->peak.flops, eval->peak.flops > 0 ? MP_MEASURED : MP_UNKNOWN};
    }
    if (r && rp_ab_glance(&found, r, p, NULL) == MP_OK && found)
        take(ab, found);
    rp_ab_free(found);
    free(r);
    ab->next_ns = now_ns + BUDGET * (cpu_ns() - began);
    return found != NULL;
}

/* What the record alone tells: blocks that have begun since, arms that left. */
static void progress_take(struct dash_ab *ab, const struct rp_ab_record *r)
{
    for (unsigned i = 0; i < ab->n_arm && i < r->n_arm; i++) {
        ab->arm[i].status = r->arm[i].status;
        snprintf(ab->arm[i].why, sizeof ab->arm[i].why, "%s", r->arm[i].why);
    }
    for (size_t i = ab->n_begun; i < r->n_block; i++) {
        if (ab->n_block == DASH_AB_BLOCKS)
            memmove(ab->block, ab->block + 1, --ab->n_block * sizeof *ab->block);
        ab->block[ab->n_block++] = (struct dash_ab_block){r->block[i].arm, NAN, false};
    }
    for (size_t i = 1; i <= ab->n_block && i <= r->n_block; i++)
        ab->block[ab->n_block - i].is_cut = r->block[r->n_block - i].is_cut;
    ab->n_begun = r->n_block;
    snprintf(ab->end, sizeof ab->end, "%s", r->end);
}

/* ---- when to look -------------------------------------------------------------------------------- */

/* Differs whenever the record does. The steps of a block that has just ended are committed up to a second
 * after it: until they are there, every look is new. */
static uint64_t fingerprint(const struct rp_ab_record *r)
{
    uint64_t sum = 1 + r->n_block * 4 + r->n_parity * 4096 + (*r->end ? 2 : 0);

    sum += r->n_block ? r->block[r->n_block - 1].is_cut : 0;
    for (unsigned i = 0; i < r->n_arm; i++)
        sum = sum * 31 + (uint64_t)r->arm[i].status;
    return sum;
}

static bool is_whole(const struct dash_ab *ab, const struct rp_ab_record *r)
{
    size_t n = 0;

    for (size_t i = 0; i < r->n_block; i++)
        n += !r->block[i].is_cut;
    for (unsigned i = 0; i < ab->n_arm; i++)
        n -= ab->arm[i].n_block < n ? ab->arm[i].n_block : n;
    return n == 0;
}

static bool is_going_on(const struct dash_ab *ab, struct rp_profile *p, uint64_t now_ns)
{
    uint64_t updated_ns = (uint64_t)rp_get_meta_int(p, "updated_ns", 0);
    char end[24];

    if (rp_get_meta(p, "end", end, sizeof end) || updated_ns + FRESH_NS < now_ns || *ab->end)
        return false;
    return ab->n_begun < ab->n_planned || (ab->n_block && ab->block[ab->n_block - 1].is_cut);
}

bool dash_ab_read(struct dash_ab *ab, struct rp_profile *p, const struct dash_eval *eval,
                  uint64_t now_ns)
{
    struct rp_ab_record r;
    uint64_t seen;

    if (rp_ab_get(&r, p, NULL) != MP_OK || r.n_arm == 0) {
        rp_ab_record_release(&r);
        memset(ab, 0, sizeof *ab);
        return false;
    }
    seen = fingerprint(&r);
    if (ab->is_known && seen != ab->seen && now_ns < ab->next_ns)
        progress_take(ab, &r);
    else if (seen != ab->seen && figures_make(ab, p, eval, now_ns))
        ab->seen = is_whole(ab, &r) ? seen : 0;
    ab->is_running = is_going_on(ab, p, now_ns);
    ab->is_settled = !ab->is_running && seen == ab->seen;
    rp_ab_record_release(&r);
    return ab->is_known;
}

void dash_ab_state(char *out, size_t n, const struct dash_ab *ab)
{
    if (*ab->end)
        snprintf(out, n, "ended early: %s", ab->end);
    else if (!ab->is_running)
        snprintf(out, n, ab->n_begun < ab->n_planned ? "cut off" : "done");
    else if (ab->n_block == 0)
        snprintf(out, n, "checking the numbers of the arms");
    else
        snprintf(out, n, "block %zu of %zu: %s", ab->n_begun, ab->n_planned,
                 ab->arm[ab->block[ab->n_block - 1].arm].name);
}
