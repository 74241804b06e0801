/* moeprof run: starts the job with the guest in its environment, records every process of it that
 * trains, ends with the job.
 *
 * One thread: a signalfd and a timer, no handler code. A Ctrl-C of the terminal reaches the job by
 * itself (same process group), so only signals that someone sent to us alone are passed on.
 */
#include "profiler/cli/cmd.h"

#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "profiler/cli/follow.h"
#include "profiler/cli/launch.h"
#include "profiler/core/shm.h"
#include "report/format.h"
#include "report/profile_file.h"

#define POLL_MS      50  /* the ring holds seconds; this is what `top`-like progress needs */
#define QUIET_LINE_S 10  /* progress into a file or a pipe */
#define SWEEP_S      600 /* files of jobs that died unobserved */

struct run {
    const char *out;
    bool preload;
    char dir[2048], guest[4096], session[40];
    struct cli_follow *follow;
    pid_t child;
    bool child_ended;
    int child_status;
    bool stop; /* asked to end although the job goes on */
    int signals;
    bool tty;
    time_t next_line;
    bool line_shown;
};

static int help(void)
{
    puts(
        "usage: moeprof run [-o FILE] [--preload] -- CMD...\n\n"
        "Starts CMD with the profiler in it and records every process of it that trains on a GPU,\n"
        "also below launchers such as torchrun and accelerate. CMD needs no change.\n\n"
        "  -o FILE     the profile; further ranks go to FILE with .rankN before its suffix.\n"
        "              Without it: moeprof-NAME-DATE-PID.moeprof in this directory.\n"
        "  --preload   enter through LD_PRELOAD too, for a job that clears "
        "CUDA_INJECTION64_PATH\n\n"
        "Ends with the job and with its exit code when that is not 0; 1 when recording failed.\n\n"
        "Example:  moeprof run -o a.moeprof -- torchrun --nproc-per-node 2 train.py");
    return CLI_OK;
}

/* 0: go on; else the exit code + 1. */
static int options(struct run *r, int argc, char **argv)
{
    static const struct option long_option[] = {{"preload", no_argument, NULL, 'p'},
                                                {"output", required_argument, NULL, 'o'},
                                                {"help", no_argument, NULL, 'h'},
                                                {0}};
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, "+:o:h", long_option, NULL)) != -1)
        switch (c) {
        case 'o':
            r->out = optarg;
            break;
        case 'p':
            r->preload = true;
            break;
        case 'h':
            return help() + 1;
        default:
            return cli_bad_option("run", c, argv) + 1;
        }
    if (optind >= argc)
        return cli_usage("run", "no command to run") + 1;
    return 0;
}

static int prepare(struct run *r, struct mp_err *err)
{
    const char *other = getenv("CUDA_INJECTION64_PATH");
    int rc;

    snprintf(r->session, sizeof r->session, "run-%d-%lx", (int)getpid(), (unsigned long)time(NULL));
    if ((rc = cli_guest_path(r->guest, sizeof r->guest, err)) ||
        (rc = cli_job_dir(r->dir, sizeof r->dir, err)) ||
        (rc = rp_profile_may_create(r->out ? r->out : "moeprof" RP_SUFFIX, err)))
        return rc;
    if (other && *other && strcmp(other, r->guest) != 0)
        cli_say("CUDA_INJECTION64_PATH was '%s': another profiler would have run; it does not now",
                other);
    mp_shm_sweep(r->dir, SWEEP_S);
    r->follow = cli_follow_new(r->dir, r->session, r->out);
    return r->follow ? MP_OK : mp_fail(err, MP_ENOMEM, "no memory to record");
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
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void signals_take(struct run *r)
{
    struct signalfd_siginfo info;

    while (read(r->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            continue;
        if (r->child_ended)
            r->stop = true;
        else if (info.ssi_code <=
                 0) /* sent by a process, to us alone; the terminal tells all of us */
            kill(r->child, (int)info.ssi_signo);
    }
}

static void child_look(struct run *r)
{
    if (!r->child_ended && waitpid(r->child, &r->child_status, WNOHANG) == r->child)
        r->child_ended = true;
}

static void progress_clear(struct run *r)
{
    if (r->line_shown)
        fputs("\r\033[K", stderr);
    r->line_shown = false;
}

static void progress(struct run *r)
{
    char line[256], cut[256];
    struct winsize size = {0};
    time_t now = time(NULL);

    if (now < r->next_line || !cli_follow_line(r->follow, line, sizeof line))
        return;
    if (r->tty) {
        ioctl(STDERR_FILENO, TIOCGWINSZ, &size); /* a line that wraps cannot be renewed */
        fprintf(stderr, "\r\033[K%s",
                rp_cut(cut, sizeof cut, line, size.ws_col > 20 ? size.ws_col - 1 : 79));
        r->line_shown = true;
        r->next_line = now + 1;
    } else {
        if (r->next_line) /* the first line is not due at once */
            cli_say("%s", line);
        r->next_line = now + QUIET_LINE_S;
    }
}

/* Until the job has ended and nothing that it left behind still trains. */
static void loop(struct run *r)
{
    struct pollfd wait = {.fd = r->signals, .events = POLLIN};
    bool said = false;
    size_t n = 0;

    while (!r->stop) {
        poll(&wait, 1, n > MP_RING_CAP / 4 ? 0 : POLL_MS);
        signals_take(r);
        child_look(r); /* before the poll: what the child published is then all there */
        n = cli_follow_poll(r->follow);
        if (r->child_ended && cli_follow_active(r->follow) == 0)
            break;
        if (r->child_ended && !said) {
            said = true;
            cli_say("the command has ended, a process of it still trains: recording goes on, "
                    "Ctrl-C ends it");
        }
        progress(r);
    }
    progress_clear(r);
    cli_follow_end(r->follow, r->stop ? "stopped" : "exit");
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

static int exit_code(const struct run *r)
{
    struct cli_follow_result res;
    int code = CLI_OK;

    cli_follow_result(r->follow, &res);
    if (res.n_failed || res.n_profile == 0)
        code = CLI_FAILED;
    if (res.n_failed == 0 && res.n_profile == 0)
        say_nothing_trained(&res);
    if (!r->child_ended)
        return code;
    if (WIFSIGNALED(r->child_status)) {
        code = 128 + WTERMSIG(r->child_status);
        cli_say("the job was ended by signal %d (%s)", WTERMSIG(r->child_status),
                strsignal(WTERMSIG(r->child_status)));
    } else if (WEXITSTATUS(r->child_status)) {
        code = WEXITSTATUS(r->child_status);
        cli_say("the job ended with exit code %d", code);
    }
    return code;
}

int cmd_run_main(int argc, char **argv)
{
    struct run r = {.signals = -1, .tty = isatty(STDERR_FILENO)};
    struct mp_err err;
    int code = options(&r, argc, argv);

    if (code)
        return code - 1;
    if (prepare(&r, &err))
        return cli_fail(&err);
    r.signals = signals_open();
    if (cli_launch(&r.child,
                   &(struct cli_launch){.guest = r.guest,
                                        .dir = r.dir,
                                        .session = r.session,
                                        .preload = r.preload,
                                        .argv = argv + optind},
                   &err)) {
        cli_follow_free(r.follow);
        return cli_fail(&err);
    }
    loop(&r);
    code = exit_code(&r);
    cli_follow_free(r.follow);
    close(r.signals);
    return code;
}
