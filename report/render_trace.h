/* Every GPU operation of a profile in time, for trace viewers. Walks the raw records in bounded memory.
 *
 * Perfetto (TrackEvent protobuf): tracks for steps, passes, layers, phases, experts, each GPU stream, and
 * counters of routing; several profiles may follow each other in one file.
 * Chrome (JSON): as torch.profiler writes it, for HolisticTraceAnalysis and the like; one profile a file.
 * Errors: MP_EIO, MP_ENOMEM, and what reading a profile gives.
 */
#ifndef RP_RENDER_TRACE_H
#define RP_RENDER_TRACE_H

#include <stdio.h>

#include "report/analyze.h"

enum rp_trace_format { RP_TRACE_PERFETTO, RP_TRACE_CHROME };

/* index: of this profile in the file, from 0. */
int rp_render_trace(FILE *out, enum rp_trace_format format, struct rp_profile *p,
                    const struct rp_report *r, unsigned index, struct mp_err *err);

#endif
