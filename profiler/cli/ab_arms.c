/* See ab_arms.h. What arms there are, and why one cannot run, is the guest's to say: an arm is measured when the
 * job knows it. */
#include "profiler/cli/ab_arms.h"

#include <stdio.h>
#include <string.h>

void ab_arm_say(struct rp_ab_record *r, unsigned i, enum rp_arm_status status, const char *why)
{
    r->arm[i].status = status;
    snprintf(r->arm[i].why, sizeof r->arm[i].why, "%.239s", why);
}

void ab_arm_answered(struct rp_ab_record *r, unsigned i, enum rp_arm_status otherwise, int code,
                     const char *text)
{
    enum rp_arm_status status = code == MP_OK             ? RP_ARM_MEASURED
                                : code == MP_WIRE_EPARITY ? RP_ARM_PARITY_FAILED
                                                          : otherwise;

    ab_arm_say(r, i, status, *text || code == MP_OK ? text : mp_strcode(code));
}

bool ab_arm_is_own(const struct rp_ab_record *r, unsigned i)
{
    return strcmp(r->arm[i].name, "original") == 0 || strcmp(r->arm[i].name, r->own) == 0;
}

bool ab_arm_is_again(const struct rp_ab_record *r, unsigned i)
{
    for (unsigned k = 0; k < i; k++)
        if (strcmp(r->arm[k].name, r->arm[i].name) == 0)
            return true;
    return false;
}

bool ab_arm_row(struct rp_ab_record *r, unsigned i, const struct mp_msg *row)
{
    if (strcmp(row->name, r->arm[i].name) != 0)
        return false;
    if (!(row->flags & MP_WIRE_YES))
        ab_arm_say(r, i, RP_ARM_REFUSED, *row->text ? row->text : "this job cannot run it");
    return true;
}

void ab_arm_missing(struct rp_ab_record *r, unsigned i, const char *known)
{
    char text[sizeof r->arm[i].why];

    if (ab_arm_is_own(r, i)) /* always there, listed or not */
        return;
    snprintf(text, sizeof text, "there is no arm of that name, but %.200s", known);
    ab_arm_say(r, i, RP_ARM_REFUSED, text);
}

void ab_parity_row(struct rp_ab_record *r, unsigned i, const struct mp_msg *row)
{
    struct rp_parity p = RP_PARITY_NONE;

    p.arm = i;
    p.layer = row->layer;
    p.error = row->value[0];
    p.own_error = row->value[1];
    p.ratio = row->value[2];
    p.tokens = row->value[3];
    p.passed = (row->flags & MP_WIRE_YES) != 0;
    snprintf(p.quantity, sizeof p.quantity, "%.23s", row->name);
    snprintf(p.why, sizeof p.why, "%.159s", row->text);
    rp_ab_add_parity(r, &p); /* without memory a row less: DONE says whether the arm passed */
}

void ab_cosine_row(struct rp_ab_record *r, unsigned i, const struct mp_msg *row)
{
    struct rp_parity *p = r->n_parity ? &r->parity[r->n_parity - 1] : NULL;

    if (!p || p->arm != i || p->layer != row->layer)
        return;
    snprintf(p->gradient, sizeof p->gradient, "%.23s", row->name);
    memcpy(p->out_cosine, row->value, sizeof p->out_cosine);
    memcpy(p->cosine, row->value + 2, sizeof p->cosine);
    if (row->flags & MP_WIRE_TWICE) {
        p->repeats[0] = (row->flags & MP_WIRE_YES) != 0;
        p->repeats[1] = (row->flags & MP_WIRE_ACTIVE) != 0;
    }
}
