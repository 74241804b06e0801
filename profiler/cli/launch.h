/* Starting a job with the guest in it: environment, fork, exec. */
#ifndef CLI_LAUNCH_H
#define CLI_LAUNCH_H

#include <sys/types.h>

#include "profiler/core/base.h"

/* Path of a file that comes with moeprof: beside this binary, or in ../lib/moeprof. */
int cli_beside(char *out, size_t out_bytes, const char *name, struct mp_err *err);
/* Of libmoeprof.so. */
int cli_guest_path(char *out, size_t out_bytes, struct mp_err *err);

/* The job directory: what MOEPROF="dir=..." says, else the default of mp_shm_dir. */
int cli_job_dir(char *out, size_t out_bytes, struct mp_err *err);

struct cli_launch {
    const char *guest; /* libmoeprof.so */
    const char *dir;
    const char *session;
    bool preload;          /* through LD_PRELOAD as well */
    bool stdout_to_stderr; /* the caller's own answer has standard output for itself */
    char **argv;
};

/* Forks and executes; *pid is the child. An exec that fails is told here, not by the child. */
int cli_launch(pid_t *pid, const struct cli_launch *l, struct mp_err *err);

#endif
