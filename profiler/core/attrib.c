/* See attrib.h. */
#include "profiler/core/attrib.h"

/* Inside the experts: class → phase, forward and recompute | backward. 0 (OTHER): as the scope. */
static const uint8_t expert_phase[MP_KC_COUNT][2] = {
    [MP_KC_GEMM] = {MP_PHASE_EXPERT, MP_PHASE_EXPERT},
    [MP_KC_GROUPED] = {MP_PHASE_EXPERT, MP_PHASE_EXPERT},
    [MP_KC_GATHER] = {MP_PHASE_DISPATCH, MP_PHASE_COMBINE},
    [MP_KC_SCATTER] = {MP_PHASE_COMBINE, MP_PHASE_DISPATCH},
    [MP_KC_INDEXING] = {MP_PHASE_DISPATCH, MP_PHASE_DISPATCH},
    [MP_KC_REDUCE] = {MP_PHASE_COMBINE, MP_PHASE_COMBINE},
};

enum mp_phase mp_attrib_phase(enum mp_phase scope, enum mp_kclass kclass, enum mp_pass pass)
{
    enum mp_phase phase;

    if (kclass == MP_KC_COMM)
        return MP_PHASE_COMM;
    if (scope == MP_PHASE_EXPERT) {
        phase = expert_phase[kclass][pass == MP_PASS_BACKWARD];
        return phase ? phase : scope;
    }
    if (scope == MP_PHASE_OTHER && kclass == MP_KC_ATTENTION)
        return MP_PHASE_ATTENTION;
    if (scope == MP_PHASE_OTHER && kclass == MP_KC_FOREACH)
        return MP_PHASE_OPTIMIZER;
    return scope;
}

enum mp_phase mp_attrib_before(enum mp_phase scope, int depth, int layer)
{
    return scope == MP_PHASE_OTHER && depth == 1 && layer >= 0 ? MP_PHASE_ATTENTION : scope;
}

enum mp_phase mp_attrib_after(enum mp_phase left, int depth, int layer)
{
    if (left == MP_PHASE_EXPERT)
        return MP_PHASE_COMBINE;
    if (left == MP_PHASE_LM_HEAD)
        return MP_PHASE_LOSS;
    if (left == MP_PHASE_NORM && depth == 1 && layer < 0) /* the model's final norm */
        return MP_PHASE_LOSS;
    return left;
}

enum mp_phase mp_attrib_region(enum mp_phase last, enum mp_kclass kclass)
{
    static const struct {
        enum mp_kclass kclass;
        enum mp_phase last, phase; /* last OTHER: whatever it was */
    } row[] = {
        {MP_KC_GROUPED, MP_PHASE_OTHER, MP_PHASE_EXPERT},
        {MP_KC_ATTENTION, MP_PHASE_OTHER, MP_PHASE_ATTENTION},
        {MP_KC_GEMM, MP_PHASE_NORM, MP_PHASE_ATTENTION},
        {MP_KC_GATHER, MP_PHASE_ROUTER, MP_PHASE_DISPATCH},
        {MP_KC_SCATTER, MP_PHASE_ROUTER, MP_PHASE_DISPATCH},
        {MP_KC_SOFTMAX, MP_PHASE_EXPERT, MP_PHASE_ROUTER},
        {MP_KC_GEMM, MP_PHASE_LOSS, MP_PHASE_LM_HEAD},
    };

    if (last == MP_PHASE_LM_HEAD && kclass != MP_KC_GEMM)
        return MP_PHASE_LOSS; /* of the rows that the head was multiplied by, chunk by chunk */
    for (size_t i = 0; i < countof(row); i++)
        if (row[i].kclass == kclass && (row[i].last == last || row[i].last == MP_PHASE_OTHER))
            return row[i].phase;
    return last;
}
