/* A job launched with the guest in it and recorded to its end: what `run` and `ab` share. One owner
 * thread, which blocks the signals that it waits for. */
#ifndef CLI_JOB_H
#define CLI_JOB_H

#include <sys/types.h>
#include <time.h>

#include "profiler/cli/follow.h"

struct cli_job {
    /* of the caller; zero is fine but for argv */
    const char *out; /* the profile, NULL: a default name */
    bool preload, stdout_to_stderr;
    char **argv;
    bool (*tick)(void *arg);                             /* after each look; true: enough */
    void (*prefix)(void *arg, char *line, size_t bytes); /* changes the progress line */
    int (*wake_fd)(void *arg); /* ends a wait when it can be read; -1: none */
    void *arg;
    /* of the job, for the caller to read */
    char dir[2048], guest[4096], session[40];
    struct cli_follow *follow;
    pid_t child;
    bool child_ended;
    int child_status;
    bool stop; /* asked to end although the job goes on */
    /* private */
    int signals;
    bool tty, line_shown;
    time_t next_line;
};

/* Checks what can be checked, then starts the job. cli_job_free in any case. */
int cli_job_start(struct cli_job *j, struct mp_err *err);

/* Until the job has ended and nothing that it left behind still trains, a signal, or tick's true. */
void cli_job_follow(struct cli_job *j);

/* The job's exit code when it is not 0 (said on stderr), else whether recording went well. */
int cli_job_code(const struct cli_job *j);

void cli_job_free(struct cli_job *j);

#endif
