/* From the record and the steps of the profile to the figures of each arm and what they are worth.
 * Layers are in ab_layers.c, the rows that renderers show in ab_rows.c. */
#include "report/ab.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/core/mfu.h"
#include "report/ab_part.h"

void rp_ab_note(struct rp_ab *ab, const char *fmt, ...)
{
    va_list ap;

    if (ab->n_note == RP_AB_NOTES)
        return;
    va_start(ap, fmt);
    vsnprintf(ab->note[ab->n_note++], sizeof ab->note[0], fmt, ap);
    va_end(ap);
}

int rp_ab_arm_of(const struct rp_ab_record *r, uint32_t step)
{
    for (size_t i = 0; i < r->n_block; i++)
        if (!r->block[i].is_cut && step >= r->block[i].traced_from && step <= r->block[i].traced_to)
            return (int)r->block[i].arm;
    return -1;
}

/* ---- one arm ------------------------------------------------------------------------------------ */

static struct mp_val larger(struct mp_val a, double b)
{
    if (!isfinite(b) || (a.basis != MP_UNKNOWN && a.v >= b))
        return a;
    return (struct mp_val){b, MP_MEASURED};
}

static int arm_steps(struct rp_ab_arm *a, const struct rp_ab_record *r, unsigned arm,
                     const struct rp_step_list *l)
{
    double *seconds = a->seconds = malloc((l->n + 1) * sizeof *seconds);
    int rc = seconds ? MP_OK : MP_ENOMEM;

    for (size_t i = 0; seconds && i < r->n_block; i++) {
        const struct rp_ab_block *b = &r->block[i];

        for (size_t k = 0; b->arm == arm && !b->is_cut && k < l->n; k++)
            if (l->step[k].counts && l->step[k].step >= b->first_step &&
                l->step[k].step <= b->last_step && a->n_step < l->n)
                seconds[a->n_step++] = l->step[k].seconds;
    }
    if (!rc && a->n_step)
        rc = rp_spread(&a->step, seconds, a->n_step);
    if (!rc)
        rc = rp_steady_check(&a->steady, seconds, a->n_step);
    return rc;
}

static int arm_rate(struct rp_ab_arm *a, const struct rp_ab_record *r, unsigned arm)
{
    double *work = malloc(2 * (r->n_block + 1) * sizeof *work), *seconds = work + r->n_block + 1;
    int rc = work ? MP_OK : MP_ENOMEM;

    for (size_t i = 0; work && i < r->n_block; i++) {
        const struct rp_ab_block *b = &r->block[i];

        if (b->arm != arm || b->is_cut)
            continue;
        work[a->n_block] = b->work;
        seconds[a->n_block++] = b->seconds;
        for (int k = 0; k < RP_AB_MEMORY; k++)
            a->memory[k] = larger(a->memory[k], b->memory[k]);
    }
    if (!rc && a->n_block >= 2) {
        rc = rp_boot_ratio(&a->rate, work, seconds, a->n_block, r->seed + 10 + arm);
        a->has_rate = rc == MP_OK;
    }
    free(work);
    return rc;
}

static void arm_loss(struct rp_ab_arm *a, const struct rp_ab_record *r, unsigned arm)
{
    double sum = 0;
    size_t n = 0;

    for (size_t i = 0; i < r->n_block; i++)
        if (r->block[i].arm == arm && !r->block[i].is_cut && isfinite(r->block[i].loss)) {
            sum += r->block[i].loss;
            n++;
        }
    if (n)
        a->loss = (struct mp_val){sum / (double)n, MP_MEASURED};
}

static void arm_mfu(struct rp_ab_arm *a, const struct rp_ab *ab)
{
    struct mp_val peak = ab->report->mfu.peak_flops, *out[3] = {&a->mfu, &a->mfu_low, &a->mfu_high};
    const double rate[3] = {a->rate.value, a->rate.low, a->rate.high};

    if (!a->has_rate || ab->unit != RP_WORK_FLOP || peak.basis == MP_UNKNOWN)
        return;
    for (int i = 0; i < 3; i++)
        *out[i] = (struct mp_val){rate[i] / peak.v, ab->report->mfu.mfu.basis == MP_UNKNOWN
                                                        ? MP_MODELLED
                                                        : ab->report->mfu.mfu.basis};
}

static void arm_gauges(struct rp_ab_arm *a, const struct rp_ab_record *r, unsigned arm,
                       const struct rp_step_list *l, const struct rp_gauge_list *g)
{
    for (size_t i = 0; i < r->n_block; i++) {
        const struct rp_ab_block *b = &r->block[i];
        uint64_t begin = 0, end = 0;

        for (size_t k = 0; b->arm == arm && !b->is_cut && k < l->n; k++) {
            if (l->step[k].step == b->first_step)
                begin = l->step[k].begin_ns;
            if (l->step[k].step == b->last_step)
                end = l->step[k].end_ns;
        }
        if (begin && end >= begin)
            rp_gauge_add(&a->gauge, g, begin, end);
    }
}

/* ---- attribution: phases of traced steps ----------------------------------------------------------- */

static void routes_add(struct rp_ab_arm *a, const struct mp_step *s)
{
    for (uint32_t i = 0; i < s->n_route; i++) {
        const struct mp_route *r = &s->route[i];
        uint64_t sum = 0, max = 0;

        for (unsigned e = 0; e < r->n_expert; e++) {
            sum += r->count[e];
            max = r->count[e] > max ? r->count[e] : max;
        }
        if (sum == 0)
            continue;
        a->vio_sum += (double)max * r->n_expert / (double)sum - 1;
        a->n_vio++;
    }
}

static int on_step(void *arg, const struct mp_step *s)
{
    struct rp_ab *ab = arg;
    int arm = rp_ab_arm_of(&ab->record, s->step);
    struct rp_ab_arm *a;

    if (arm < 0)
        return 0;
    a = &ab->arm[arm];
    routes_add(a, s);
    if (!rp_ab_is_attributed(s))
        return 0;
    for (uint32_t i = 0; i < s->n_cell; i++)
        a->phase_s[s->cell[i].phase] += (double)s->cell[i].booked_ns * 1e-9;
    a->idle_s += (double)s->idle_ns * 1e-9;
    a->window_s += (double)s->window_ns * 1e-9;
    a->n_traced++;
    return 0;
}

bool rp_ab_is_attributed(const struct mp_step *s)
{
    return mp_mfu_counts(s) && s->window_ns > 0 && !(s->flags & MP_STEP_UNTRACED);
}

/* ---- all ---------------------------------------------------------------------------------------- */

static int arms_fill(struct rp_ab *ab, const struct rp_step_list *l, const struct rp_gauge_list *g)
{
    struct rp_ab_record *r = &ab->record;
    int rc = MP_OK;

    ab->unit = rp_work_choose(l->step, l->n);
    for (size_t i = 0; i < r->n_block; i++)
        rp_block_sum(&r->block[i], l->step, l->n, ab->unit);
    for (unsigned i = 0; !rc && i < r->n_arm; i++) {
        if ((rc = arm_steps(&ab->arm[i], r, i, l)) || (rc = arm_rate(&ab->arm[i], r, i)) ||
            (rc = rp_ab_arm_data(&ab->arm[i], r, i, l)))
            break;
        /* Where nobody counted useful tokens they are modelled. */
        if (ab->arm[i].useful.basis == MP_MEASURED && ab->report)
            ab->arm[i].useful.basis = ab->report->tokens.useful.basis;
        arm_mfu(&ab->arm[i], ab);
        arm_loss(&ab->arm[i], r, i);
        arm_gauges(&ab->arm[i], r, i, l, g);
        if (i)
            rc = rp_contrast(&ab->contrast[i], r->block, r->n_block, i, r->seed + 100 + i);
        if (i && !rc)
            rc = rp_loss_compare(&ab->loss[i], r->block, r->n_block, i, r->seed + 200 + i);
    }
    return rc;
}

/* The worst layer: one that failed before one that passed, then by ratio. */
static bool is_worse(const struct rp_parity *a, const struct rp_parity *b)
{
    if (!b || a->passed != b->passed)
        return !b || !a->passed;
    return isfinite(a->ratio) && !(a->ratio <= b->ratio);
}

static void main_find(struct rp_ab *ab)
{
    const struct rp_ab_record *r = &ab->record;
    bool failed = rp_ab_is_parity_failure(r);

    for (unsigned i = r->n_arm; i-- > 1;)
        if (r->arm[i].status == RP_ARM_MEASURED ||
            (r->arm[i].status == RP_ARM_REVERTED && ab->arm[i].n_block))
            ab->main_arm = i;
    for (size_t i = 0; i < r->n_parity; i++)
        if ((failed || r->parity[i].arm == ab->main_arm) && is_worse(&r->parity[i], ab->worst))
            ab->worst = &r->parity[i];
}

const char *rp_ab_parity_status(const struct rp_ab *ab)
{
    const struct rp_ab_record *r = &ab->record;

    for (unsigned i = 0; i < r->n_arm; i++)
        if (r->arm[i].status == RP_ARM_PARITY_FAILED)
            return "failed";
    for (unsigned i = 0; i < r->n_arm; i++)
        if (r->arm[i].status == RP_ARM_REVERTED)
            return "reverted";
    return ab->worst ? "passed" : "not checked";
}

/* Steps, gauges, arms, contrasts: the part that needs no look at single kernels. */
static int measure(struct rp_ab *ab, struct rp_profile *p, struct mp_err *err)
{
    struct rp_step_list l = {0};
    struct rp_gauge_list g = {0};
    int rc = rp_steps_read(&l, p, ab->report->has_spec ? &ab->report->spec.model : NULL, err);

    if (!rc)
        rc = rp_gauges_read(&g, p, err);
    if (!rc && arms_fill(ab, &l, &g))
        rc = mp_fail(err, MP_ENOMEM, "no memory to compare the arms");
    rp_steps_release(&l);
    rp_gauges_release(&g);
    if (!rc)
        main_find(ab);
    return rc;
}

static int attribute(struct rp_ab *ab, struct rp_profile *p, struct mp_err *err)
{
    int rc = rp_each_step(p, on_step, ab, err);

    if (!rc)
        rc = rp_ab_layers(ab, p, err);
    if (!rc)
        rp_ab_rows(ab);
    return rc;
}

int rp_ab_glance(struct rp_ab **out, const struct rp_report *r, struct rp_profile *p,
                 struct mp_err *err)
{
    struct rp_ab *ab = calloc(1, sizeof *ab);
    int rc;

    *out = NULL;
    if (!ab)
        return mp_fail(err, MP_ENOMEM, "no memory to compare the arms");
    ab->report = r;
    rc = rp_ab_get(&ab->record, p, err);
    if (!rc && ab->record.n_arm)
        rc = measure(ab, p, err);
    if (rc || ab->record.n_arm == 0)
        rp_ab_free(ab);
    else
        *out = ab;
    return rc;
}

int rp_ab_analyze(struct rp_ab **out, const struct rp_report *r, struct rp_profile *p,
                  struct mp_err *err)
{
    int rc = rp_ab_glance(out, r, p, err);

    if (!rc && *out)
        rc = attribute(*out, p, err);
    if (rc) {
        rp_ab_free(*out);
        *out = NULL;
    }
    return rc;
}

void rp_ab_free(struct rp_ab *ab)
{
    if (!ab)
        return;
    rp_ab_record_release(&ab->record);
    for (unsigned i = 0; i < RP_AB_ARMS; i++)
        free(ab->arm[i].seconds);
    free(ab);
}
