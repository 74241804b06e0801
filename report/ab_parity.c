/* Parity of a before/after over all layers: how far the arm's numbers are from the reference, and at what
 * angle to it. */
#include <stdio.h>

#include "report/ab_part.h"

/* NAN is not less than anything. */
static void less(struct rp_cosine *least, const struct rp_parity *p, const double v[2],
                 const char *quantity)
{
    if (!isfinite(v[0]) || (least->layer >= 0 && least->value <= v[0]))
        return;
    *least =
        (struct rp_cosine){.layer = p->layer, .quantity = quantity, .value = v[0], .own = v[1]};
}

void rp_ab_cosines(struct rp_cosine *out, struct rp_cosine *gradient, const struct rp_ab *ab)
{
    const struct rp_ab_record *r = &ab->record;

    *out = *gradient = (struct rp_cosine){.layer = -1, .quantity = "", .value = NAN, .own = NAN};
    for (size_t i = 0; ab->worst && i < r->n_parity; i++)
        if (r->parity[i].arm == ab->worst->arm) {
            less(out, &r->parity[i], r->parity[i].out_cosine, "out");
            less(gradient, &r->parity[i], r->parity[i].cosine, r->parity[i].gradient);
        }
}

static int own_text(char *out, size_t n, double own)
{
    return isfinite(own) ? snprintf(out, n, ", own %.7f", own) : 0;
}

/* "" when the guest told none. */
static void cosines_text(char *out, size_t n, const struct rp_ab *ab)
{
    struct rp_cosine o, g;
    int at;

    out[0] = 0;
    rp_ab_cosines(&o, &g, ab);
    if (o.layer < 0)
        return;
    at = snprintf(out, n, "; least cosine with the fp64 reference: output %.7f (layer %d", o.value,
                  o.layer);
    at += own_text(out + at, n - (size_t)at, o.own);
    at += snprintf(out + at, n - (size_t)at, ")");
    if (g.layer < 0)
        return;
    at += snprintf(out + at, n - (size_t)at, ", gradients %.7f (%s of layer %d", g.value,
                   g.quantity, g.layer);
    at += own_text(out + at, n - (size_t)at, g.own);
    snprintf(out + at, n - (size_t)at, ")");
}

/* "" when nobody ran them twice. */
static void repeats_text(char *out, size_t n, const struct rp_ab *ab)
{
    out[0] = 0;
    for (size_t i = 0; i < ab->record.n_parity; i++) {
        const struct rp_parity *p = &ab->record.parity[i];

        if (p->arm != ab->worst->arm || p->repeats[0] < 0 || p->repeats[1] < 0)
            continue;
        snprintf(out, n, "; run twice on layer %d it gives %s bits, the job's own arm %s", p->layer,
                 p->repeats[0] ? "the same" : "other", p->repeats[1] ? "the same" : "other ones");
        return;
    }
}

void rp_ab_parity_text(char *out, size_t n, const struct rp_ab *ab)
{
    const struct rp_parity *w = ab->worst;
    char name[96], cosines[240], repeats[120];

    if (!w) {
        snprintf(out, n, "%s", rp_ab_parity_status(ab));
        return;
    }
    rp_ab_arm_name(name, &ab->record, w->arm);
    cosines_text(cosines, sizeof cosines, ab);
    repeats_text(repeats, sizeof repeats, ab);
    snprintf(
        out, n,
        "%s; worst: %.60s, layer %d, %s: error %.2g of the fp64 norm, %.2f times that of the job's "
        "own arm (%.0f tokens)%s%s%s%s",
        rp_ab_parity_status(ab), name, w->layer, *w->quantity ? w->quantity : RP_DASH, w->error,
        w->ratio, w->tokens, cosines, repeats, *w->why ? "; " : "", w->why);
}
