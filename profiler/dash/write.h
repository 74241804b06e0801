/* A report of a job as an HTML file, made by a child process: the dashboard does not wait for it.
 * Of a job that is being recorded: of its whole profile. Of one that is not: of the steps that its ring
 * still holds, which are recorded first, beside the report. */
#ifndef DASH_WRITE_H
#define DASH_WRITE_H

#include <limits.h>
#include <sys/types.h>

#include "profiler/dash/job.h"

struct dash_write {
    pid_t child; /* 0: none under way */
    int from;    /* pipe: what it complains about */
    char html[PATH_MAX];
    char said[300]; /* the last line of that */
    size_t n_said;
};

/* Starts to write a report of the job into the working directory; dir: job directory. */
int dash_write_begin(struct dash_write *w, const struct dash_job *job, const char *dir,
                     struct mp_err *err);
/* True when it has ended; then w->html is there if *ok, else w->said says why not. */
bool dash_write_poll(struct dash_write *w, bool *ok);

#endif
