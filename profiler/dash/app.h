/* `moeprof top` itself: the loop that feeds, draws and listens; or one look and out.
 */
#ifndef DASH_APP_H
#define DASH_APP_H

#include <stdio.h>

#include "profiler/dash/model.h"

typedef int (*dash_print_fn)(const struct dash_model *m, FILE *out, struct mp_err *err);
struct dash_options {
    const int *pid; /* (n_pid); none: every job of this user */
    size_t n_pid;
    const char *dir;     /* job directory, for live jobs */
    const char *replay;  /* a profile; NULL: live */
    double speed;        /* of a replay */
    double interval_s;   /* between drawings */
    dash_print_fn print; /* looks once and prints by this; NULL: text, or the terminal */
    bool once, ascii, no_color, readonly;
};

/* MP_OK, or a code with its sentence; MP_EGONE: a process that was asked for is gone. */
int dash_app(const struct dash_options *o, struct mp_err *err);

#endif
