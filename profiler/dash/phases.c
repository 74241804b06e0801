/* How a phase looks: its letter, its label, its style. */
#include "profiler/dash/view.h"

static const char letter[MP_PHASE_COUNT + 1] = {
    [MP_PHASE_OTHER] = '?',     [MP_PHASE_EMBED] = 'b',    [MP_PHASE_ATTENTION] = 'A',
    [MP_PHASE_NORM] = 'n',      [MP_PHASE_ROUTER] = 'R',   [MP_PHASE_DISPATCH] = 'D',
    [MP_PHASE_EXPERT] = 'E',    [MP_PHASE_COMBINE] = 'C',  [MP_PHASE_SHARED_EXPERT] = 'S',
    [MP_PHASE_DENSE_MLP] = 'M', [MP_PHASE_LM_HEAD] = 'H',  [MP_PHASE_LOSS] = 'L',
    [MP_PHASE_OPTIMIZER] = 'O', [MP_PHASE_GRADIENT] = 'G', [MP_PHASE_COMM] = 'X',
    [MP_PHASE_COPY] = 'Y',      [MP_PHASE_COUNT] = '.',
};

static int in_range(int phase)
{
    return phase < 0 || phase > MP_PHASE_COUNT ? MP_PHASE_OTHER : phase;
}

char dash_phase_letter(int phase)
{
    return letter[in_range(phase)];
}

const char *dash_phase_label(int phase)
{
    phase = in_range(phase);
    return phase == MP_PHASE_COUNT ? "idle" : mp_phase_name((enum mp_phase)phase);
}

enum dash_style dash_phase_style(int phase)
{
    return (enum dash_style)(DASH_PHASE + in_range(phase)); /* DASH_IDLE follows the phases */
}
