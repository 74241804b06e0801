/* One thread: a signalfd and a timer, no handler code. A Ctrl-C of the terminal reaches the job by
 * itself (same process group), so only signals that someone sent to us alone are passed on.
 */
#include "profiler/cli/job.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/cli/cmd.h"
#include "profiler/cli/launch.h"
#include "profiler/core/shm.h"
#include "report/format.h"
#include "report/profile_file.h"

#define POLL_MS      50  /* the ring holds seconds; this is what `top`-like progress needs */
#define QUIET_LINE_S 10  /* progress into a file or a pipe */
#define SWEEP_S      600 /* files of jobs that died unobserved */

static int prepare(struct cli_job *j, struct mp_err *err)
{
    const char *other = getenv("CUDA_INJECTION64_PATH");
    int rc;

    snprintf(j->session, sizeof j->session, "run-%d-%lx", (int)getpid(), (unsigned long)time(NULL));
    if ((rc = cli_guest_path(j->guest, sizeof j->guest, err)) ||
        (rc = cli_job_dir(j->dir, sizeof j->dir, err)) ||
        (rc = rp_profile_may_create(j->out ? j->out : "moeprof" RP_SUFFIX, err)))
        return rc;
    if (other && *other && strcmp(other, j->guest) != 0)
        cli_say("CUDA_INJECTION64_PATH was '%s': another profiler would have run; it does not now",
                other);
    mp_shm_sweep(j->dir, SWEEP_S);
    j->follow = cli_follow_new(j->dir, j->session, j->out);
    return j->follow ? MP_OK : mp_fail(err, MP_ENOMEM, "no memory to record");
}

static int signals_open(void)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN); /* a progress line that nobody reads must not end a recording */
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGQUIT);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void signals_take(struct cli_job *j)
{
    struct signalfd_siginfo info;

    while (read(j->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            continue;
        /* USR1 ends a before/after, not its job. What a process sent came to us alone; what the terminal
         * sends came to the job too. */
        if (j->child_ended || (info.ssi_signo == SIGUSR1 && j->tick))
            j->stop = true;
        else if (info.ssi_code <= 0)
            kill(j->child, (int)info.ssi_signo);
    }
}

static void child_look(struct cli_job *j)
{
    if (!j->child_ended && waitpid(j->child, &j->child_status, WNOHANG) == j->child)
        j->child_ended = true;
}

static void progress_clear(struct cli_job *j)
{
    if (j->line_shown)
        fputs("\r\033[K", stderr);
    j->line_shown = false;
}

static void progress(struct cli_job *j)
{
    char line[256], cut[256];
    struct winsize size = {0};
    time_t now = time(NULL);

    if (now < j->next_line || !cli_follow_line(j->follow, line, sizeof line))
        return;
    if (j->prefix)
        j->prefix(j->arg, line, sizeof line);
    if (j->tty) {
        ioctl(STDERR_FILENO, TIOCGWINSZ, &size); /* a line that wraps cannot be renewed */
        fprintf(stderr, "\r\033[K%s",
                rp_cut(cut, sizeof cut, line, size.ws_col > 20 ? size.ws_col - 1 : 79));
        j->line_shown = true;
        j->next_line = now + 1;
    } else {
        if (j->next_line) /* the first line is not due at once */
            cli_say("%s", line);
        j->next_line = now + QUIET_LINE_S;
    }
}

/* Until the job has ended and nothing that it left behind still trains. */
void cli_job_follow(struct cli_job *j)
{
    struct pollfd wait[2] = {{.fd = j->signals, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
    bool said = false;
    size_t n = 0;

    while (!j->stop) {
        wait[1].fd = j->wake_fd ? j->wake_fd(j->arg) : -1;
        poll(wait, countof(wait), n > MP_RING_CAP / 4 ? 0 : POLL_MS);
        signals_take(j);
        child_look(j); /* before the poll: what the child published is then all there */
        n = cli_follow_poll(j->follow);
        if (j->child_ended && cli_follow_active(j->follow) == 0)
            break;
        if (j->child_ended && !said) {
            said = true;
            cli_say("the command has ended, a process of it still trains: recording goes on, "
                    "Ctrl-C ends it");
        }
        if (j->tick && j->tick(j->arg)) {
            bool had_ended = j->child_ended;

            child_look(j);
            j->stop = j->child_ended == had_ended; /* else what it left behind is taken first */
        }
        progress(j);
    }
    progress_clear(j);
    cli_follow_end(j->follow, j->stop ? "stopped" : "exit");
}

static void say_nothing_trained(const struct cli_follow_result *res)
{
    if (res->why[0])
        cli_say("nothing was recorded: %s", res->why);
    else
        cli_say("nothing was recorded: no process of the job trained a PyTorch model on a GPU that "
                "moeprof "
                "could enter; 'moeprof doctor' checks the machine, --preload enters a job that "
                "clears its environment");
}

int cli_job_code(const struct cli_job *j)
{
    struct cli_follow_result res;
    int code = CLI_OK;

    cli_follow_result(j->follow, &res);
    if (res.n_failed || res.n_profile == 0)
        code = CLI_FAILED;
    if (res.n_failed == 0 && res.n_profile == 0)
        say_nothing_trained(&res);
    if (!j->child_ended)
        return code;
    if (WIFSIGNALED(j->child_status)) {
        code = 128 + WTERMSIG(j->child_status);
        cli_say("the job was ended by signal %d (%s)", WTERMSIG(j->child_status),
                strsignal(WTERMSIG(j->child_status)));
    } else if (WEXITSTATUS(j->child_status)) {
        code = WEXITSTATUS(j->child_status);
        cli_say("the job ended with exit code %d", code);
    }
    return code;
}

int cli_job_start(struct cli_job *j, struct mp_err *err)
{
    int rc;

    j->signals = -1;
    j->tty = isatty(STDERR_FILENO);
    if ((rc = prepare(j, err)))
        return rc;
    j->signals = signals_open();
    return cli_launch(&j->child,
                      &(struct cli_launch){.guest = j->guest,
                                           .dir = j->dir,
                                           .session = j->session,
                                           .preload = j->preload,
                                           .stdout_to_stderr = j->stdout_to_stderr,
                                           .argv = j->argv},
                      err);
}

void cli_job_free(struct cli_job *j)
{
    cli_follow_free(j->follow);
    if (j->signals >= 0)
        close(j->signals);
}
