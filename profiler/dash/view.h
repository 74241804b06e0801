/* A view: how one screen is drawn. Views read the model and write cells, nothing else.
 * To add one: a file with its const table, a row in frame.c, its slots in layout.c.
 */
#ifndef DASH_VIEW_H
#define DASH_VIEW_H

#include "profiler/dash/model.h"

struct dash_view {
    const char *name; /* in the tab line */
    const char *hint; /* keys of this screen, in the footer */
    /* False: nothing to show, so that the screen is not there; NULL: always is. job may be NULL. */
    bool (*has)(const struct dash_job *job);
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
extern const struct dash_view dash_view_ab;
extern const struct dash_view dash_view_help; /* the only one drawn without a job */

/* Whether a screen is among the tabs now. */
bool dash_frame_has(const struct dash_model *m, enum dash_screen screen);

/* Lays out and draws everything for a terminal of c's size. Fits the selection on the way. */
void dash_frame(struct dash_model *m, struct dash_cells *c);

/* The dialog's place on a screen of w x h, above the footer; and the dialog. */
struct dash_rect dash_dialog_rect(const struct dash_dialog *d, int w, int h);
const char *dash_dialog_hint(enum dash_dialog_kind kind); /* its keys */
void dash_dialog_draw(const struct dash_dialog *d, struct dash_rect r, struct dash_cells *c);

/* Letter of a phase (MP_PHASE_COUNT: idle), where there are no colours. Unique. */
char dash_phase_letter(int phase);
const char *dash_phase_label(int phase); /* "idle" for MP_PHASE_COUNT */
enum dash_style dash_phase_style(int phase);

#endif
