/* The environment that carries the guest into the job and into all that the job starts.
 *
 * CUDA_INJECTION64_PATH is read by the CUDA driver when a process initialises it, so launchers, data
 * workers and compilers without CUDA never load the guest. LD_PRELOAD is the second door, for a job
 * that clears the first or is already traced through it.
 */
#include "profiler/cli/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/cli/cmd.h"
#include "profiler/core/shm.h"

#define GUEST_NAME    "libmoeprof.so"
#define GUEST_DIR_MAX 199 /* what the guest keeps room for: inj_opts in injector/guest.h */

int cli_beside(char *out, size_t out_bytes, const char *name, struct mp_err *err)
{
    static const char *const place[] = {"", "../lib/moeprof/"};
    char self[2048];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash;

    if (n <= 0)
        return mp_fail(err, MP_EIO, "cannot find out where moeprof is: %s", strerror(errno));
    self[n] = 0;
    slash = strrchr(self, '/');
    slash[1] = 0;
    for (size_t i = 0; i < countof(place); i++) {
        snprintf(out, out_bytes, "%s%s%s", self, place[i], name);
        if (access(out, R_OK) == 0)
            return MP_OK;
    }
    return mp_fail(err, MP_EIO, "cannot find '%s' in '%.100s' or '../lib/moeprof': run make all",
                   name, self);
}

int cli_guest_path(char *out, size_t out_bytes, struct mp_err *err)
{
    return cli_beside(out, out_bytes, GUEST_NAME, err);
}

int cli_job_dir(char *out, size_t out_bytes, struct mp_err *err)
{
    const char *env = getenv("MOEPROF"), *at = env ? strstr(env, "dir=") : NULL;
    char wanted[2048] = "";
    int rc;

    if (at && (at == env || at[-1] == ','))
        snprintf(wanted, sizeof wanted, "%.*s", (int)strcspn(at + 4, ","), at + 4);
    rc = mp_shm_dir(out, out_bytes, wanted, err);
    if (rc == MP_OK && (strlen(out) > GUEST_DIR_MAX || strchr(out, ',')))
        rc = mp_fail(err, MP_EINVAL,
                     "job directory '%.80s..' is too long for a guest, or holds a comma: name "
                     "another with MOEPROF=dir=",
                     out);
    return rc;
}

static int prepend(const char *variable, const char *word)
{
    const char *old = getenv(variable);
    char *text;
    int rc;

    if (!old || !*old)
        return setenv(variable, word, 1);
    if (asprintf(&text, "%s:%s", word, old) < 0)
        return -1;
    rc = setenv(variable, text, 1);
    free(text);
    return rc;
}

/* What MOEPROF held besides dir and session, each item with a comma in front. */
static void other_items(char *out, size_t n)
{
    const char *item = getenv("MOEPROF");
    size_t used = 0;

    out[0] = 0;
    while (item && *item) {
        size_t len = strcspn(item, ",");

        if (len && strncmp(item, "dir=", 4) != 0 && strncmp(item, "session=", 8) != 0 &&
            used + len + 2 < n)
            used += (size_t)snprintf(out + used, n - used, ",%.*s", (int)len, item);
        item += len + (item[len] == ',');
    }
}

static int environment_set(const struct cli_launch *l)
{
    char *text, others[1024];
    int rc;

    other_items(others, sizeof others);
    if (asprintf(&text, "dir=%s,session=%s%s", l->dir, l->session, others) < 0)
        return -1;
    rc = setenv("MOEPROF", text, 1);
    free(text);
    if (rc == 0)
        rc = setenv("CUDA_INJECTION64_PATH", l->guest, 1);
    return rc == 0 && l->preload ? prepend("LD_PRELOAD", l->guest) : rc;
}

/* In the child: never returns. `report` is closed by a good exec, or carries its errno. */
static void child(const struct cli_launch *l, int report)
{
    sigset_t none;
    int no;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGXFSZ, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    if ((!l->stdout_to_stderr || dup2(STDERR_FILENO, STDOUT_FILENO) >= 0) &&
        environment_set(l) == 0)
        execvp(l->argv[0], l->argv);
    no = errno;
    if (write(report, &no, sizeof no) < 0)
        _exit(126);
    _exit(127);
}

int cli_launch(pid_t *pid, const struct cli_launch *l, struct mp_err *err)
{
    int report[2], no = 0;
    ssize_t n;

    if (pipe2(report, O_CLOEXEC) != 0)
        return mp_fail(err, MP_EIO, "cannot start '%.100s': %s", l->argv[0], strerror(errno));
    *pid = fork();
    if (*pid == 0)
        child(l, report[1]);
    close(report[1]);
    if (*pid < 0) {
        close(report[0]);
        return mp_fail(err, MP_EIO, "cannot start '%.100s': %s", l->argv[0], strerror(errno));
    }
    do
        n = read(report[0], &no, sizeof no);
    while (n < 0 && errno == EINTR);
    close(report[0]);
    if (n <= 0)
        return MP_OK;
    waitpid(*pid, NULL, 0);
    return mp_fail(err, MP_EIO, "cannot start '%.100s': %s", l->argv[0], strerror(no));
}
