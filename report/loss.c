/* See loss.h. */
#include "report/loss.h"

#include <math.h>
#include <stdlib.h>

#define FLOOR_MIN 4 /* neighbours of one arm */

static const char *const status_name[RP_LOSS_STATUS_COUNT] = {
    [RP_LOSS_UNKNOWN] = "unknown", [RP_LOSS_AGREES] = "agrees", [RP_LOSS_DIFFERS] = "differs"};

const char *rp_loss_name(enum rp_loss_status s)
{
    return (unsigned)s < RP_LOSS_STATUS_COUNT ? status_name[s] : status_name[RP_LOSS_UNKNOWN];
}

struct pairs {
    double *difference, *same; /* (n), (n_same): pairs; neighbours of one arm */
    size_t n, n_same;
    double base, arm; /* sums */
};

static bool is_usable(const struct rp_ab_block *b)
{
    return !b->is_cut && isfinite(b->loss);
}

static void pairs_take(struct pairs *p, const struct rp_ab_block *block, size_t n, unsigned arm)
{
    for (size_t i = 1; i < n; i++) {
        const struct rp_ab_block *a = &block[i - 1], *b = &block[i];
        const struct rp_ab_block *base = a->arm == 0 ? a : b, *other = a->arm == 0 ? b : a;

        if (!is_usable(a) || !is_usable(b))
            continue;
        if (a->arm == b->arm)
            p->same[p->n_same++] = b->loss - a->loss;
        if (a->pair != b->pair || base->arm != 0 || other->arm != arm)
            continue;
        p->difference[p->n++] = other->loss - base->loss;
        p->base += base->loss;
        p->arm += other->loss;
    }
}

static int compare(struct rp_loss *out, const struct pairs *p, uint64_t seed)
{
    struct rp_interval same;
    struct rp_spread s;
    double stray = 0;
    int rc;

    out->n_pair = (unsigned)p->n;
    if (p->n < 2)
        return MP_OK;
    if ((rc = rp_boot_mean(&out->difference, p->difference, p->n, seed)) ||
        (rc = rp_spread(&s, p->difference, p->n)) ||
        (rc = rp_detectable(&out->detectable.v, s.sd, p->n)))
        return rc;
    if (p->n_same >= FLOOR_MIN) {
        if ((rc = rp_boot_mean(&same, p->same, p->n_same, seed + 1)))
            return rc;
        stray = fmax(fabs(same.low), fabs(same.high));
        out->floor = (struct mp_val){stray, MP_MEASURED};
    }
    out->is_known = true;
    out->base = p->base / (double)p->n;
    out->arm = p->arm / (double)p->n;
    out->detectable = (struct mp_val){stray + out->detectable.v, MP_MODELLED};
    if (p->n >= RP_MIN_PAIRS)
        out->status = out->difference.low > stray || out->difference.high < -stray ? RP_LOSS_DIFFERS
                                                                                   : RP_LOSS_AGREES;
    return MP_OK;
}

int rp_loss_compare(struct rp_loss *out, const struct rp_ab_block *block, size_t n, unsigned arm,
                    uint64_t seed)
{
    struct pairs p = {.difference = malloc((n + 1) * sizeof(double)),
                      .same = malloc((n + 1) * sizeof(double))};
    int rc = MP_ENOMEM;

    *out = (struct rp_loss){0};
    if (p.difference && p.same) {
        pairs_take(&p, block, n, arm);
        rc = compare(out, &p, seed);
    }
    free(p.difference);
    free(p.same);
    return rc;
}
