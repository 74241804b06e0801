/* See blocks_read.h. */
#include "report/blocks_read.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/core/mfu.h"

struct reading {
    struct rp_step_list *list;
    const struct mp_model *model;
    uint64_t host_end_ns; /* of the step before, number `before` */
    uint32_t before;
    size_t cap;
    struct mp_err *err;
};

/* ---- steps -------------------------------------------------------------------------------------- */

static double known(uint64_t v)
{
    return v == UINT64_MAX || v == 0 ? NAN : (double)v;
}

static void work_fill(struct rp_ab_step *out, const struct mp_step *s, const struct mp_model *model)
{
    struct mp_flops flops;

    for (int i = 0; i < RP_WORK_COUNT; i++)
        out->work[i] = NAN;
    if (model) {
        mp_flops_step(&flops, model, s);
        if (flops.model.basis != MP_UNKNOWN && flops.model.flop > 0)
            out->work[RP_WORK_FLOP] = (double)flops.model.flop;
    }
    if (s->useful_basis != MP_UNKNOWN)
        out->work[RP_WORK_USEFUL] = known(s->useful);
    out->work[RP_WORK_PROCESSED] = known(s->processed);
    out->work[RP_WORK_STEP] = 1;
}

static double longest_of(const struct mp_step *s)
{
    double most = NAN;

    for (uint32_t i = 0; i < s->n_pairs; i++)
        if (s->pairs[i].max_len)
            most = fmax(most, s->pairs[i].max_len); /* of NAN and a number the number */
    return most;
}

/* A step that was not traced, or did nothing on the GPU, has the host clock only. */
static uint64_t duration_ns(const struct reading *r, const struct mp_step *s)
{
    bool follows = r->host_end_ns && s->step == r->before + 1 && s->host_end_ns > r->host_end_ns;

    if (s->window_ns && !(s->flags & MP_STEP_UNTRACED))
        return s->window_ns;
    return follows ? s->host_end_ns - r->host_end_ns : 0;
}

static int on_step(void *arg, const struct mp_step *s)
{
    struct reading *r = arg;
    struct rp_step_list *l = r->list;
    uint64_t ns = duration_ns(r, s);

    if (l->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 256;
        struct rp_ab_step *grown = realloc(l->step, cap * sizeof *grown);

        if (!grown)
            return mp_fail(r->err, MP_ENOMEM, "no memory for %zu steps", l->n);
        l->step = grown;
        r->cap = cap;
    }
    l->step[l->n] = (struct rp_ab_step){.step = s->step,
                                        .counts = mp_mfu_counts(s) && ns > 0,
                                        .seconds = (double)ns * 1e-9,
                                        .segments = s->n_segment ? s->n_segment : NAN,
                                        .longest = longest_of(s),
                                        .is_traced = !(s->flags & MP_STEP_UNTRACED),
                                        .end_ns = s->host_end_ns};
    l->step[l->n].begin_ns = s->begin_ns           ? s->begin_ns
                             : s->host_end_ns > ns ? s->host_end_ns - ns
                                                   : 0;
    work_fill(&l->step[l->n++], s, r->model);
    r->host_end_ns = s->host_end_ns;
    r->before = s->step;
    return 0;
}

int rp_steps_read(struct rp_step_list *out, struct rp_profile *p, const struct mp_model *model,
                  struct mp_err *err)
{
    struct reading r = {.list = out, .model = model, .err = err};
    int rc;

    *out = (struct rp_step_list){0};
    rc = rp_each_step(p, on_step, &r, err);
    if (rc)
        rp_steps_release(out);
    return rc;
}

void rp_steps_release(struct rp_step_list *l)
{
    free(l->step);
    *l = (struct rp_step_list){0};
}

/* ---- gauges ------------------------------------------------------------------------------------- */

struct gauges {
    struct rp_gauge_list *list;
    size_t cap;
    struct mp_err *err;
};

static int on_gauge(void *arg, const struct rp_gauge *gauge)
{
    struct gauges *g = arg;

    if (g->list->n == g->cap) {
        size_t cap = g->cap ? 2 * g->cap : 256;
        struct rp_gauge *grown = realloc(g->list->gauge, cap * sizeof *grown);

        if (!grown)
            return mp_fail(g->err, MP_ENOMEM, "no memory for %zu gauges", g->list->n);
        g->list->gauge = grown;
        g->cap = cap;
    }
    g->list->gauge[g->list->n++] = *gauge;
    return 0;
}

int rp_gauges_read(struct rp_gauge_list *out, struct rp_profile *p, struct mp_err *err)
{
    struct gauges g = {.list = out, .err = err};
    int rc;

    *out = (struct rp_gauge_list){0};
    rc = rp_each_gauge(p, on_gauge, &g, err);
    if (rc)
        rp_gauges_release(out);
    return rc;
}

void rp_gauges_release(struct rp_gauge_list *l)
{
    free(l->gauge);
    *l = (struct rp_gauge_list){0};
}

/* NVML's clocks event reasons that cost speed; idle, display and set clocks are none. */
#define SLOWING (0x4u | 0x8u | 0x10u | 0x20u | 0x40u | 0x80u)

static void sample_add(struct rp_gauge_sum *s, const struct rp_gauge *g)
{
    for (int i = 0; i < RP_GAUGE_COUNT; i++) {
        double v = (double)g->value[i];

        if (!(g->valid >> i & 1))
            continue;
        s->min[i] = s->n[i] ? fmin(s->min[i], v) : v;
        s->max[i] = s->n[i] ? fmax(s->max[i], v) : v;
        s->sum[i] += v;
        s->n[i]++;
    }
    if (g->valid >> RP_THROTTLE_BITS & 1) {
        s->throttle_bits |= (uint32_t)g->value[RP_THROTTLE_BITS] & SLOWING;
        s->n_throttled += (g->value[RP_THROTTLE_BITS] & SLOWING) != 0;
    }
}

void rp_gauge_add(struct rp_gauge_sum *s, const struct rp_gauge_list *l, uint64_t begin_ns,
                  uint64_t end_ns)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->gauge[i].time_ns >= begin_ns && l->gauge[i].time_ns <= end_ns)
            sample_add(s, &l->gauge[i]);
}

static struct mp_val of(const struct rp_gauge_sum *s, enum rp_gauge_id id, double v)
{
    return (struct mp_val){s->n[id] ? v : 0, s->n[id] ? MP_MEASURED : MP_UNKNOWN};
}

struct mp_val rp_gauge_mean(const struct rp_gauge_sum *s, enum rp_gauge_id id)
{
    return of(s, id, s->n[id] ? s->sum[id] / (double)s->n[id] : 0);
}

struct mp_val rp_gauge_min(const struct rp_gauge_sum *s, enum rp_gauge_id id)
{
    return of(s, id, s->min[id]);
}

struct mp_val rp_gauge_max(const struct rp_gauge_sum *s, enum rp_gauge_id id)
{
    return of(s, id, s->max[id]);
}

const char *rp_throttle_text(char out[64], uint32_t bits)
{
    static const struct {
        uint32_t bit;
        const char *text;
    } reason[] = {{0x4, "power cap"},
                  {0x20 | 0x40, "heat"},
                  {0x80, "power brake"},
                  {0x8, "hardware slowdown"},
                  {0x10, "sync boost"}};
    size_t at = 0;

    out[0] = 0;
    for (size_t i = 0; i < countof(reason); i++)
        if ((bits & reason[i].bit) && at < 40)
            at += (size_t)snprintf(out + at, 64 - at, "%s%s", at ? ", " : "", reason[i].text);
    return out;
}
