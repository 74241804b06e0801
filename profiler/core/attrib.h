/* Stage 4: from what was known at the launch to the cell that the time is booked on.
 *
 * A module's scope says too little inside the experts block, where gathers, products and scatters of
 * the same module are different phases: the kernel's class decides there. In the backward the
 * directions turn round: the gradient of a gather is a scatter and still belongs to dispatch.
 * Pure; runs on the agent thread.
 */
#ifndef MP_ATTRIB_H
#define MP_ATTRIB_H

#include "profiler/core/kname.h"
#include "profiler/core/phase.h"

/* Phase of a kernel of class kclass in scope phase `scope` and pass `pass`. */
enum mp_phase mp_attrib_phase(enum mp_phase scope, enum mp_kclass kclass, enum mp_pass pass);

/* Phase that a parent module's own code takes after its child with phase `left` returned:
 * a residual add belongs to what it adds. depth is the child's (1: a child of the root). */
enum mp_phase mp_attrib_after(enum mp_phase left, int depth, int layer);

#endif
