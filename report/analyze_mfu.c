/* MFU of a profile: core/flops weighs each step, core/mfu sums. Here is only what a file adds: where the
 * peak comes from, and why there is no MFU when there is none. */
#include "profiler/core/mfu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/analyze_part.h"

struct rp_mfu_work {
    struct mp_mfu *sum;
    struct mp_peak peak;
    const struct mp_model *model; /* NULL: none was found */
};

static void peak_choose(struct mp_peak *peak, const struct rp_report *r, struct rp_profile *p,
                        const struct rp_options *o)
{
    const struct rp_spec_text *t = &r->spec.text;

    if (o->peak_flops > 0)
        mp_peak_given(peak, o->peak_flops);
    else
        mp_peak_find(peak, r->run.gpu, (int)rp_get_meta_int(p, "gpu_cc", 0),
                     (int)rp_get_meta_int(p, "gpu_sm_count", 0),
                     *t->autocast ? t->autocast : t->dtype);
}

int rp_mfu_work_new(struct rp_mfu_work **out, struct rp_report *r, struct rp_profile *p,
                    const struct rp_options *o, struct mp_err *err)
{
    struct rp_mfu_work *w = calloc(1, sizeof *w);

    *out = w;
    if (!w || !(w->sum = mp_mfu_new()))
        return mp_fail(err, MP_ENOMEM, "no memory for the report");
    w->model = r->has_spec ? &r->spec.model : NULL;
    peak_choose(&w->peak, r, p, o);
    return MP_OK;
}

int rp_mfu_work_add(struct rp_mfu_work *w, const struct mp_step *step, struct mp_err *err)
{
    struct mp_flops flops;

    if (w->model)
        mp_flops_step(&flops, w->model, step);
    if (mp_mfu_add(w->sum, step, w->model ? &flops : NULL))
        return mp_fail(err, MP_ENOMEM, "no memory for the steps");
    return MP_OK;
}

static void why_not(char *out, size_t n, const struct rp_mfu_work *w, const struct mp_mfu_sum *sum)
{
    const char *why = "the tokens of the steps are not known, so their model FLOPs are not";

    if (!w->model)
        why = "no model was found in the job, so its FLOPs are not known";
    else if (sum->n_step == 0)
        why = "no whole step was recorded without loss";
    else if (sum->n_unknown < sum->n_step && *w->peak.why_not)
        why = w->peak.why_not;
    snprintf(out, n, "%s", why);
}

void rp_mfu_work_fill(struct rp_mfu_work *w, struct rp_report *r)
{
    struct rp_mfu *m = &r->mfu;
    struct mp_mfu_sum sum;

    mp_mfu_get(w->sum, 0, &w->peak, &sum);
    m->n_step = sum.n_step;
    m->mfu = sum.mfu;
    m->hfu = sum.hfu;
    m->model_flop = sum.model_flop;
    m->executed_flop = sum.executed_flop;
    if (w->peak.flops > 0)
        m->peak_flops = (struct mp_val){w->peak.flops, MP_MODELLED};
    if (sum.mfu.basis == MP_UNKNOWN) {
        if (!*m->why_not)
            why_not(m->why_not, sizeof m->why_not, w, &sum);
        return;
    }
    mp_mfu_convention(m->convention, sizeof m->convention, w->model, &w->peak);
    mp_mfu_converted(m->converted, sizeof m->converted, &sum);
}

void rp_mfu_work_free(struct rp_mfu_work *w)
{
    if (!w)
        return;
    if (w->sum)
        mp_mfu_free(w->sum);
    free(w);
}
