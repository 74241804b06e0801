/* The conservation law of a closed step, checked from outside: shares no code with what books. */
#include "profiler/core/cellmap.h"

static bool cell_in_range(const struct mp_cell *c)
{
    return c->layer >= -1 && c->expert >= -1 && c->phase < MP_PHASE_COUNT &&
           c->pass < MP_PASS_COUNT && c->basis < MP_BASIS_COUNT;
}

static uint64_t cell_key(const struct mp_cell *c)
{
    return mp_cell_key(c->layer, c->phase, c->pass, c->expert, c->basis);
}

int mp_step_check(const struct mp_step *step, struct mp_err *err)
{
    uint64_t booked = 0, raw = 0;

    for (uint32_t i = 0; i < step->n_cell; i++) {
        if (!cell_in_range(&step->cell[i]))
            return mp_fail(err, MP_EFORMAT, "cell %u of step %u is out of range", i, step->step);
        if (i && cell_key(&step->cell[i - 1]) >= cell_key(&step->cell[i]))
            return mp_fail(err, MP_EFORMAT, "cell %u of step %u is out of order", i, step->step);
        booked += step->cell[i].booked_ns;
        raw += step->cell[i].raw_ns;
    }
    if (booked + step->idle_ns != step->window_ns)
        return mp_fail(err, MP_EFORMAT, "step %u books %llu ns and %llu idle in a window of %llu",
                       step->step, (unsigned long long)booked, (unsigned long long)step->idle_ns,
                       (unsigned long long)step->window_ns);
    if (step->kernel_ns + step->own_ns > raw)
        return mp_fail(err, MP_EFORMAT, "step %u has kernels outside its cells", step->step);
    return 0;
}
