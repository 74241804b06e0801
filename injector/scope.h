/* Where the application is: scopes of the running thread, and the few marks that shape a step.
 *
 * Called by the C hooks that hook.py installs (under the GIL, on the thread that runs the module).
 * Never from a launch. Everything here may be called when the guest is not recording: it costs a
 * few stores then.
 */
#ifndef INJ_SCOPE_H
#define INJ_SCOPE_H

#include "injector/thread.h"

/* A module with (layer, phase) at nesting depth is entered or left on this thread. Scopes deeper than
 * `depth` that were never left (an exception, checkpointing's early stop) end with it. */
void inj_scope_enter(int depth, int layer, int phase);
void inj_scope_leave(int depth);

/* Expert `expert` of the innermost scope runs from here on: a ModuleList's loop. */
void inj_scope_expert(int layer, int expert);

/* A training micro-batch enters / has left the root module on this thread. */
void inj_micro_begin(void);
void inj_micro_end(void);

void inj_optimizer_begin(void);
void inj_optimizer_end(void);

/* The optimizer update is complete: what is launched from here on belongs to the next step.
 * at_update: the step ended when its optimizer returned, not now (the model is gone, or the process ends
 * after it saved a checkpoint). */
void inj_step_end(bool at_update);

/* True inside a training micro-batch's forward proper: not in eval, backward or recompute. */
bool inj_counting(void);

#endif
