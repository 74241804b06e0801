/* Layers by arm: totals of the profile mix the arms, so the raw records are run through core/step once
 * more. Without raw records (built without zstd, or lost) layers stay unknown. */
#include <stdlib.h>

#include "profiler/core/step.h"
#include "report/ab_part.h"

static const bool is_moe_phase[MP_PHASE_COUNT] = {
    [MP_PHASE_ROUTER] = true,
    [MP_PHASE_DISPATCH] = true,
    [MP_PHASE_EXPERT] = true,
    [MP_PHASE_COMBINE] = true,
};

static void on_step(void *arg, const struct mp_step *s)
{
    struct rp_ab *ab = arg;
    int arm = rp_ab_arm_of(&ab->record, s->step);

    if (arm < 0 || !rp_ab_is_attributed(s))
        return;
    ab->arm[arm].n_layer_traced++;
    for (uint32_t i = 0; i < s->n_cell; i++) {
        const struct mp_cell *c = &s->cell[i];

        if (is_moe_phase[c->phase] && c->layer >= 0 && c->layer < RP_AB_LAYERS)
            ab->arm[arm].layer_s[c->layer] += (double)c->booked_ns * 1e-9;
    }
}

struct replay {
    struct mp_steps *steps;
    struct mp_err *err;
};

static int on_chunk(void *arg, const union mp_record *record, size_t n, uint64_t lost)
{
    struct replay *r = arg;

    if (lost)
        mp_steps_gap(r->steps, lost);
    if (mp_steps_feed(r->steps, record, n) == MP_ENOMEM)
        return mp_fail(r->err, MP_ENOMEM, "no memory to replay the records");
    return 0;
}

int rp_ab_layers(struct rp_ab *ab, struct rp_profile *p, struct mp_err *err)
{
    struct replay r = {.steps = mp_steps_new(on_step, ab), .err = err};
    int rc;

    if (!r.steps)
        return mp_fail(err, MP_ENOMEM, "no memory to replay the records");
    rc = rp_each_chunk(p, on_chunk, &r, err);
    mp_steps_finish(r.steps);
    mp_steps_free(r.steps);
    return rc == MP_ENOTSUP ? MP_OK : rc;
}
