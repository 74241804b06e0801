/* moeprof swap: asks a job's guest to run its experts through another implementation, or how that stands.
 *
 * The guest does it between two steps, after parity (injector/CONTROL.md). One connection, one request;
 * a Ctrl-C before the answer takes the request back.
 */
#include "profiler/cli/cmd.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "profiler/cli/launch.h"
#include "profiler/cli/swap_answer.h"
#include "profiler/core/sock.h"

#define WAIT_S    120  /* for a step boundary; big jobs take tens of seconds a step */
#define ANSWER_MS 2000 /* of what the agent answers by itself */

enum { REQUEST_ID = 2, CANCEL_ID = 3 };

struct swap {
    int pid, wait_s;
    const char *verb; /* on, off, status */
    const char *arm;  /* NULL: not named */
    uint32_t flags;
    bool json;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

static int help(void)
{
    puts("usage: moeprof swap PID on|off|status [--arm NAME] [--partial] [--fresh] [--wait S]\n"
         "                    [--json]\n\n"
         "on      runs the experts of a running job through moeprof's kernels, from a step on:\n"
         "        first both implementations get one step's own activations and gradients, and\n"
         "        nothing is swapped when outputs or any gradient differ by more than rounding\n"
         "        (exit code 4)\n"
         "off     the job's own experts again, bit for bit\n"
         "status  which implementation runs, which there are, which layers can be swapped and\n"
         "        why not\n\n"
         "  --arm NAME  another implementation of the model's own interface, such as eager\n"
         "              or grouped_mm\n"
         "  --partial   swap the layers that can be, leave the others\n"
         "  --fresh     check parity again although it has passed in this job\n"
         "  --wait S    give up when no step ended for so long (default 120)\n"
         "  --json      one object, see profiler/cli/schema/swap.schema.json\n\n"
         "Example:  moeprof swap 4711 on && sleep 60 && moeprof swap 4711 off");
    return CLI_OK;
}

static bool number_of(int *out, const char *text)
{
    char *end;
    long v;

    errno = 0;
    v = strtol(text, &end, 10);
    *out = (int)v;
    return !errno && end != text && !*end && v > 0 && v <= INT32_MAX;
}

static int positional(struct swap *s, int n, char **word)
{
    if (n != 2)
        return cli_usage("swap",
                         n < 2 ? "a PID and one of on, off, status are wanted" : "too many words") +
               1;
    if (!number_of(&s->pid, word[0]))
        return cli_usage("swap", "'%s' is not a process id", word[0]) + 1;
    s->verb = word[1];
    if (strcmp(s->verb, "on") && strcmp(s->verb, "off") && strcmp(s->verb, "status"))
        return cli_usage("swap", "'%s' is none of on, off, status", s->verb) + 1;
    if (strcmp(s->verb, "on") && (s->arm || s->flags))
        return cli_usage("swap", "--arm, --partial and --fresh go with on, not with '%s'",
                         s->verb) +
               1;
    return 0;
}

/* 0: go on; else the exit code + 1. */
static int options(struct swap *s, int argc, char **argv)
{
    static const struct option long_option[] = {{"arm", required_argument, NULL, 'a'},
                                                {"partial", no_argument, NULL, 'p'},
                                                {"fresh", no_argument, NULL, 'f'},
                                                {"wait", required_argument, NULL, 'w'},
                                                {"json", no_argument, NULL, 'j'},
                                                {"help", no_argument, NULL, 'h'},
                                                {0}};
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":a:h", long_option, NULL)) != -1)
        switch (c) {
        case 'a':
            s->arm = optarg;
            break;
        case 'p':
            s->flags |= MP_WIRE_PARTIAL;
            break;
        case 'f':
            s->flags |= MP_WIRE_FRESH;
            break;
        case 'j':
            s->json = true;
            break;
        case 'h':
            return help() + 1;
        case 'w':
            if (number_of(&s->wait_s, optarg) && s->wait_s < 1000000)
                break;
            return cli_usage("swap", "'%s' is not a number of seconds", optarg) + 1;
        default:
            return cli_bad_option("swap", c, argv) + 1;
        }
    return positional(s, argc - optind, argv + optind);
}

/* ---- talking --------------------------------------------------------------------------------- */

static int hello(struct mp_sock *sock)
{
    struct mp_msg m = {.kind = MP_WIRE_HELLO, .id = 1, .layer = -1, .name = "swap " MP_VERSION};
    int rc = mp_sock_send(sock, &m);

    return rc ? rc : mp_sock_recv(sock, &m, ANSWER_MS);
}

static int send_request(struct mp_sock *sock, const struct swap *s)
{
    struct mp_msg m = {.kind = MP_WIRE_SWAP, .id = REQUEST_ID, .layer = -1, .flags = s->flags};
    const char *arm = s->arm ? s->arm : "moeprof";

    if (strcmp(s->verb, "status") == 0)
        m.kind = MP_WIRE_STATUS;
    snprintf(m.name, sizeof m.name, "%s", strcmp(s->verb, "off") == 0 ? "original" : arm);
    return mp_sock_send(sock, &m);
}

static void take_back(struct mp_sock *sock)
{
    struct mp_msg m = {.kind = MP_WIRE_CANCEL, .id = CANCEL_ID, .layer = -1, .step = REQUEST_ID};

    if (mp_sock_send(sock, &m))
        return;
    while (mp_sock_recv(sock, &m, ANSWER_MS) == MP_OK && m.id != CANCEL_ID)
        continue;
}

/* Reads on until DONE. MP_EBUSY: in vain. */
static int collect(struct mp_sock *sock, struct cli_swap_answer *a, int wait_s)
{
    time_t end = time(NULL) + wait_s;
    struct mp_msg m;
    int rc;

    do {
        rc = mp_sock_recv(sock, &m, 200);
        if (rc == MP_OK && m.id == REQUEST_ID && !cli_swap_answer_add(a, &m))
            return MP_ENOMEM;
        if (rc == MP_OK && m.id == REQUEST_ID && m.kind == MP_WIRE_DONE)
            return MP_OK;
        if ((rc == MP_EBUSY || rc == MP_EIO) && (interrupted || time(NULL) >= end))
            return MP_EBUSY;
    } while (rc == MP_OK || rc == MP_EBUSY || rc == MP_EIO);
    return rc;
}

static int gone(const struct swap *s)
{
    cli_say("process %d is gone", s->pid);
    return CLI_GONE;
}

static int in_vain(const struct swap *s, struct mp_sock *sock)
{
    take_back(sock);
    if (interrupted)
        cli_say("taken back");
    else
        cli_say("no step of process %d ended within %d s: it may wait, evaluate or save; --wait S "
                "waits longer",
                s->pid, s->wait_s);
    return CLI_FAILED;
}

static int exit_code(const struct cli_swap_answer *a)
{
    const struct mp_msg *done = cli_swap_answer_done(a);

    if (done->code == MP_OK)
        return CLI_OK;
    if (done->text[0])
        cli_say("%s", done->text);
    return done->code == MP_WIRE_EPARITY ? CLI_PARITY
           : done->code == MP_EGONE      ? CLI_GONE
                                         : CLI_FAILED;
}

static int talk(const struct swap *s, struct mp_sock *sock)
{
    struct cli_swap_answer a = {0};
    int rc = hello(sock), code;

    if (rc == MP_EBUSY) {
        cli_say("process %d does not answer: is it stopped?", s->pid);
        return CLI_FAILED;
    }
    if (rc == MP_OK)
        rc = send_request(sock, s);
    if (rc == MP_OK)
        rc = collect(sock, &a, s->wait_s);
    if (rc == MP_EBUSY) {
        code = in_vain(s, sock);
    } else if (rc) {
        code = gone(s);
    } else {
        (s->json ? cli_swap_json : cli_swap_text)(&a, s->pid, s->verb);
        code = exit_code(&a);
    }
    cli_swap_answer_free(&a);
    return code;
}

int cmd_swap_main(int argc, char **argv)
{
    struct swap s = {.wait_s = WAIT_S};
    const struct sigaction stop = {.sa_handler = on_signal};
    struct mp_sock sock = {.fd = -1};
    char dir[2048];
    struct mp_err err;
    int code = options(&s, argc, argv);

    if (code)
        return code - 1;
    if (cli_job_dir(dir, sizeof dir, &err))
        return cli_fail(&err);
    if (kill(s.pid, 0) != 0 && errno == ESRCH)
        return gone(&s);
    code = mp_sock_open(&sock, dir, s.pid, &err);
    if (code) {
        cli_say("%s%s", err.msg,
                code == MP_EGONE ? "; is it a job that moeprof entered, and has it trained a step?"
                                 : "");
        return code == MP_EGONE ? CLI_GONE : CLI_FAILED;
    }
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    code = talk(&s, &sock);
    mp_sock_close(&sock);
    return code;
}
