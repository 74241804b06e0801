/* The table of phases and passes. */
#include "profiler/core/phase.h"

#include <string.h>

static const char *const phase_name[] = {
    [MP_PHASE_OTHER] = "other",
    [MP_PHASE_EMBED] = "embed",
    [MP_PHASE_ATTENTION] = "attention",
    [MP_PHASE_NORM] = "norm",
    [MP_PHASE_ROUTER] = "router",
    [MP_PHASE_DISPATCH] = "dispatch",
    [MP_PHASE_EXPERT] = "expert",
    [MP_PHASE_COMBINE] = "combine",
    [MP_PHASE_SHARED_EXPERT] = "shared_expert",
    [MP_PHASE_DENSE_MLP] = "dense_mlp",
    [MP_PHASE_LM_HEAD] = "lm_head",
    [MP_PHASE_LOSS] = "loss",
    [MP_PHASE_OPTIMIZER] = "optimizer",
    [MP_PHASE_GRADIENT] = "gradient",
    [MP_PHASE_COMM] = "comm",
    [MP_PHASE_COPY] = "copy",
};
MP_STATIC_ASSERT(countof(phase_name) == MP_PHASE_COUNT, "every phase has a name");

static const char *const pass_name[] = {
    [MP_PASS_FORWARD] = "forward",
    [MP_PASS_RECOMPUTE] = "recompute",
    [MP_PASS_BACKWARD] = "backward",
    [MP_PASS_UPDATE] = "update",
};
MP_STATIC_ASSERT(countof(pass_name) == MP_PASS_COUNT, "every pass has a name");

const char *mp_phase_name(enum mp_phase phase)
{
    return phase_name[(unsigned)phase < MP_PHASE_COUNT ? phase : MP_PHASE_OTHER];
}

const char *mp_pass_name(enum mp_pass pass)
{
    return (unsigned)pass < MP_PASS_COUNT ? pass_name[pass] : "unknown";
}

int mp_phase_parse(const char *name)
{
    for (int i = 0; i < MP_PHASE_COUNT; i++)
        if (strcmp(phase_name[i], name) == 0)
            return i;
    return -1;
}
