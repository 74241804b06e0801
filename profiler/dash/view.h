/* A view: how one screen is drawn. Views read the model and write cells, nothing else.
 * To add one: a file with its const table, a row in frame.c, its slots in layout.c.
 */
#ifndef DASH_VIEW_H
#define DASH_VIEW_H

#include "profiler/dash/model.h"

struct dash_view {
    const char *name; /* in the tab line */
    const char *hint; /* keys of this screen, in the footer */
    /* What the arrows move over; NULL: nothing. job may be NULL. */
    struct dash_extent (*extent)(const struct dash_model *m, const struct dash_job *job,
                                 const struct dash_layout *l);
    void (*draw)(const struct dash_model *m, const struct dash_job *job,
                 const struct dash_layout *l, struct dash_cells *c);
};

extern const struct dash_view dash_view_overview;
extern const struct dash_view dash_view_experts;
extern const struct dash_view dash_view_kernels;
extern const struct dash_view dash_view_timeline;
extern const struct dash_view dash_view_log;
extern const struct dash_view dash_view_help; /* the only one drawn without a job */

/* Lays out and draws everything for a terminal of c's size. Fits the selection on the way. */
void dash_frame(struct dash_model *m, struct dash_cells *c);

/* Letter of a phase (MP_PHASE_COUNT: idle), where there are no colours. Unique. */
char dash_phase_letter(int phase);
const char *dash_phase_label(int phase); /* "idle" for MP_PHASE_COUNT */
enum dash_style dash_phase_style(int phase);

#endif
