/* See write.h. The report is `moeprof report --html`, so that both are the same to the byte. */
#include "profiler/dash/write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "report/profile_file.h"
#include "report/recorder.h"

/* "a" of "/data/a.moeprof", else "moeprof-PID"; then the time of day, so that no report is overwritten. */
static int names_make(char html[PATH_MAX], char profile[PATH_MAX], const struct dash_job *job,
                      struct mp_err *err)
{
    const char *base = strrchr(job->profile, '/');
    char dir[PATH_MAX], stamp[32];
    time_t now = time(NULL);
    int n;

    base = base ? base + 1 : job->profile;
    n = (int)strcspn(base, ".");
    if (!getcwd(dir, sizeof dir))
        return mp_fail(err, MP_EIO, "the working directory is gone");
    strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", localtime(&now));
    if (n)
        n = snprintf(html, PATH_MAX, "%s/%.*s-%s.html", dir, n, base, stamp);
    else
        n = snprintf(html, PATH_MAX, "%s/moeprof-%d-%s.html", dir, job->pid, stamp);
    if (n < 0 || n >= PATH_MAX || (size_t)n + sizeof RP_SUFFIX > PATH_MAX)
        return mp_fail(err, MP_EINVAL, "the name of the working directory is too long");
    memcpy(profile, html, (size_t)n + 1);
    memcpy(profile + n - 5, RP_SUFFIX, sizeof RP_SUFFIX);
    return MP_OK;
}

/* ---- the child ---------------------------------------------------------------------------------- */

static int ring_record(const char *path, const char *dir, int pid, struct mp_err *err)
{
    struct rp_recorder *r;
    struct mp_reader reader;
    int rc = mp_reader_open(&reader, dir, pid, true, err);

    if (rc || (rc = rp_recorder_new(&r, &reader, path, err)))
        return rc;
    rp_recorder_poll(r);
    rp_recorder_end(r, "stopped");
    if (rp_recorder_failure(r))
        rc = mp_fail(err, MP_EIO, "%s", rp_recorder_failure(r));
    rp_recorder_free(r);
    return rc;
}

static void child_run(const struct dash_write *w, const struct dash_job *job, const char *dir,
                      const char *profile, int to)
{
    int null = open("/dev/null", O_RDWR);
    struct mp_err err = {0};

    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    dup2(to, STDERR_FILENO);
    if (!job->profile[0] && ring_record(profile, dir, job->pid, &err))
        dprintf(STDERR_FILENO, "%s\n", err.msg);
    else
        execl("/proc/self/exe", "moeprof", "report", "--html", w->html, profile, (char *)NULL);
    _exit(1);
}

/* ---- the dashboard ------------------------------------------------------------------------------ */

int dash_write_begin(struct dash_write *w, const struct dash_job *job, const char *dir,
                     struct mp_err *err)
{
    char profile[PATH_MAX];
    int ends[2], rc;

    *w = (struct dash_write){0};
    if ((rc = names_make(w->html, profile, job, err)))
        return rc;
    if (access(".", W_OK) != 0)
        return mp_fail(err, MP_EPERM, "cannot write into '%.120s': %s", w->html, strerror(errno));
    if (pipe2(ends, O_CLOEXEC) != 0)
        return mp_fail(err, MP_EIO, "cannot make a pipe: %s", strerror(errno));
    w->child = fork();
    if (w->child == 0)
        child_run(w, job, dir, job->profile[0] ? job->profile : profile, ends[1]);
    close(ends[1]);
    w->from = ends[0];
    fcntl(w->from, F_SETFL, O_NONBLOCK);
    if (w->child > 0)
        return MP_OK;
    close(w->from);
    w->child = 0;
    return mp_fail(err, MP_EIO, "cannot start a process: %s", strerror(errno));
}

/* Only the last line is kept. */
static void listen_in(struct dash_write *w)
{
    char ch;

    while (read(w->from, &ch, 1) == 1) {
        if (ch == '\n')
            w->n_said = 0;
        else if (w->n_said + 1 < sizeof w->said)
            w->said[w->n_said++] = ch;
        if (w->n_said)
            w->said[w->n_said] = 0;
    }
}

bool dash_write_poll(struct dash_write *w, bool *ok)
{
    int status;

    if (w->child == 0 || waitpid(w->child, &status, WNOHANG) != w->child)
        return false;
    listen_in(w);
    close(w->from);
    w->child = 0;
    *ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return true;
}
