/* See ab_arms.h. An arm is measured when the job knows it: everything that transformers' registry of
 * experts implementations holds, and what the guest brings. Those that people discuss and that no
 * registry holds by itself have a row here, so that the refusal says what to do. */
#include "profiler/cli/ab_arms.h"

#include <stdio.h>
#include <string.h>

#define REGISTER "register it before training: ALL_EXPERTS_FUNCTIONS.register(\"%s\", fn)"

static const struct {
    const char *name, *what;
    const char *why; /* "": REGISTER */
} known_arm[] = {
    {"scattermoe", "ScatterMoE's kernels", ""},
    {"megablocks", "MegaBlocks through the kernels package", ""},
    {"qwen3-moe-fused", "the qwen3-moe-fused patch",
     "it replaces the model's class before loading, so one process cannot hold both: record a run "
     "of "
     "each and use 'moeprof compare'"},
    {"padded_bmm", "bmm over experts padded to the busiest", ""},
    {"equal_bmm", "bmm over groups of experts with equal counts", ""},
    {"reduce-overhead", "eager under torch.compile(mode=\"reduce-overhead\")",
     "its CUDA graphs want fixed shapes and would replay the other arm's kernels after a swap: "
     "record a "
     "run of each and use 'moeprof compare'"},
};

void ab_arm_refuse(struct rp_ab_record *r, unsigned i, enum rp_arm_status status, const char *why)
{
    r->arm[i].status = status;
    snprintf(r->arm[i].why, sizeof r->arm[i].why, "%.239s", why);
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
        ab_arm_refuse(r, i, RP_ARM_REFUSED, *row->text ? row->text : "this job cannot run it");
    return true;
}

void ab_arm_missing(struct rp_ab_record *r, unsigned i)
{
    char text[sizeof r->arm[i].why] =
        "this job knows no arm of that name; 'moeprof swap PID status' "
        "lists them";

    if (ab_arm_is_own(r, i)) /* always there, listed or not */
        return;
    for (size_t k = 0; k < countof(known_arm); k++) {
        if (strcmp(known_arm[k].name, r->arm[i].name) != 0)
            continue;
        if (*known_arm[k].why)
            snprintf(text, sizeof text, "%s: %s", known_arm[k].what, known_arm[k].why);
        else
            snprintf(text, sizeof text, "%s: this job has not registered it; " REGISTER,
                     known_arm[k].what, known_arm[k].name);
    }
    ab_arm_refuse(r, i, RP_ARM_REFUSED, text);
}

void ab_parity_row(struct rp_ab_record *r, unsigned i, const struct mp_msg *row)
{
    struct rp_parity p = {.arm = i,
                          .layer = row->layer,
                          .error = row->value[0],
                          .own_error = row->value[1],
                          .ratio = row->value[2],
                          .tokens = row->value[3],
                          .passed = (row->flags & MP_WIRE_YES) != 0};

    snprintf(p.quantity, sizeof p.quantity, "%.23s", row->name);
    snprintf(p.why, sizeof p.why, "%.159s", row->text);
    rp_ab_add_parity(r, &p); /* without memory a row less: DONE says whether the arm passed */
}
