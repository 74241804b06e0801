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

/* Phase of a scope's own code before its first child. A layer begins with what its attention needs and its norm does not:
 * masks of packed sequences, positions. depth as below. */
enum mp_phase mp_attrib_before(enum mp_phase scope, int depth, int layer);

/* Phase that a parent module's own code takes after its child with phase `left` returned:
 * a residual add belongs to what it adds. depth is the child's (1: a child of the root). */
enum mp_phase mp_attrib_after(enum mp_phase left, int depth, int layer);

/* Phase of a kernel in code of which no module says where it is (a layer that was compiled, a loss that
 * multiplies by the head itself): that of the kernel before it, `last`, unless its class names another. A
 * kernel that reads a weight needs no such guess. Adapters' first products have no weight's address either
 * and follow the norm. */
enum mp_phase mp_attrib_region(enum mp_phase last, enum mp_kclass kclass);

#endif
