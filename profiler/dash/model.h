/* What the dashboard knows and what the user looks at. No terminal here.
 *
 * Pausing copies the jobs: views then see the copies, while the feeding of the live ones goes on.
 */
#ifndef DASH_MODEL_H
#define DASH_MODEL_H

#include "profiler/dash/job.h"
#include "profiler/dash/layout.h"

#define DASH_JOB_MAX      64
#define DASH_FILTER_BYTES 64

enum dash_theme { DASH_THEME_DARK = 0, DASH_THEME_LIGHT, DASH_THEME_MONO, DASH_THEME_COUNT };

/* What a key asks for beyond the display; order.c carries it out. */
enum dash_order {
    DASH_ORDER_NONE = 0,
    DASH_ORDER_SWAP, /* look how it stands, then ask */
    DASH_ORDER_SWAP_ON,
    DASH_ORDER_SWAP_OFF,
    DASH_ORDER_CANCEL,
    DASH_ORDER_REPORT,
    DASH_ORDER_AB, /* ask whether to end a before/after */
    DASH_ORDER_AB_END,
    DASH_ORDER_COUNT
};

enum dash_dialog_kind { DASH_NO_DIALOG = 0, DASH_ASK, DASH_BUSY, DASH_SAY };

struct dash_dialog {
    enum dash_dialog_kind kind;
    enum dash_order yes; /* ASK: what y orders */
    char title[48], text[900];
};

/* Where the user stands; changed by keys only, and brought into range by
 * dash_model_fit. */
struct dash_ui {
    enum dash_screen screen, before_help;
    uint64_t job_key;                                   /* 0: not chosen: the first job that runs */
    int row[DASH_SCREEN_COUNT], col[DASH_SCREEN_COUNT]; /* selection */
    int top[DASH_SCREEN_COUNT];                         /* first row shown */
    int page; /* rows of the list on screen: what PgUp and PgDn move */
    enum dash_expert_metric expert_metric;
    enum dash_group group;
    enum dash_sort sort;
    bool reverse;
    bool expanded;
    bool editing; /* typing a filter */
    char filter[DASH_FILTER_BYTES];
    char filter_before[DASH_FILTER_BYTES]; /* what Esc brings back */
    double interval_s;
    enum dash_theme theme;
    enum dash_convention convention;
    bool quit, redraw;
    enum dash_order order;
    struct dash_dialog dialog;
};

struct dash_model {
    struct dash_job *job[DASH_JOB_MAX];
    int n_job;
    struct dash_job *frozen[DASH_JOB_MAX];
    int n_frozen;
    bool paused;
    uint64_t now_ns;   /* the watcher's clock: CLOCK_REALTIME, or the place in a replay */
    uint64_t clock_ns; /* CLOCK_MONOTONIC, for what waits */
    struct dash_ui ui;
    struct dash_kernel_row *kernel; /* rows of the Kernels screen, by dash_model_query */
    int n_kernel;
    char notice[200]; /* shown where there is no job */
};

void dash_model_init(struct dash_model *m);
void dash_model_release(struct dash_model *m);

/* The live job of that key, made when it is new; NULL when there are DASH_JOB_MAX or no memory. */
struct dash_job *dash_model_open(struct dash_model *m, uint64_t key, int pid);
struct dash_job *dash_model_find(const struct dash_model *m, uint64_t key);
void dash_model_drop(struct dash_model *m, uint64_t key);

/* Orders jobs by rank, then by PID. */
void dash_model_sort(struct dash_model *m);

/* The jobs to look at: frozen ones while paused. */
struct dash_job *const *dash_model_shown(const struct dash_model *m, int *n);
/* The job selected, NULL when there is none; *index is its place. */
const struct dash_job *dash_model_job(const struct dash_model *m, int *index);
void dash_model_select(struct dash_model *m, int step); /* to the next (1) or previous (-1) job */

/* Freezes or thaws; MP_ENOMEM leaves the display running. */
int dash_model_pause(struct dash_model *m, bool on);

/* Makes the rows of the Kernels screen when it is the one shown. */
void dash_model_query(struct dash_model *m);

struct dash_extent { /* what can be moved over on the screen shown */
    int rows, cols;
    int page; /* rows on screen at once */
};

/* Brings selection and scrolling into range. Before each drawing. */
void dash_model_fit(struct dash_model *m, struct dash_extent e);

#endif
