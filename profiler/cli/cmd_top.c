/* moeprof top: options of the dashboard. */
#include "profiler/cli/cmd.h"
#include "profiler/cli/launch.h"
#include "profiler/cli/top_json.h"
#include "profiler/dash/app.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PID_MAX 64

static const char help[] =
    "usage: moeprof top [PID...] [--replay FILE [--speed X]] [--once] [--json] [--interval S]\n"
    "                   [--ascii] [--no-color] [--readonly]\n"
    "\n"
    "Shows running jobs: MFU, where each step's time goes, experts, kernels, the last step, the "
    "log.\n"
    "Looking costs the training nothing; ? on any screen lists the keys.\n"
    "\n"
    "  PID...           only these processes (default: every job of yours on this machine)\n"
    "  --replay FILE    a recorded profile, at the speed it ran\n"
    "  --speed X        X times as fast (with --replay)\n"
    "  --once           the overview as text, and out; so also when the output is no terminal\n"
    "  --json           all figures as one JSON object (profiler/cli/schema/top.schema.json), and "
    "out\n"
    "  --interval S     seconds between drawings (default 0.5)\n"
    "  --ascii          no characters beyond ASCII\n"
    "  --no-color       no colours; NO_COLOR in the environment does the same\n"
    "  --readonly       no key changes a job: neither a (swap) nor x (end a before/after)\n"
    "\n"
    "Exit codes: 0 ok, 1 no job found or failed, 2 usage, 3 a process asked for is gone.\n"
    "\n"
    "Example:  moeprof top --replay samples/profiles/qwen3-30b-eager.moeprof --speed 2";

enum {
    OPT_REPLAY = 256,
    OPT_SPEED,
    OPT_ONCE,
    OPT_JSON,
    OPT_ASCII,
    OPT_NO_COLOR,
    OPT_READONLY,
    OPT_INTERVAL
};

static const struct option option[] = {
    {"replay", required_argument, NULL, OPT_REPLAY},
    {"speed", required_argument, NULL, OPT_SPEED},
    {"once", no_argument, NULL, OPT_ONCE},
    {"json", no_argument, NULL, OPT_JSON},
    {"ascii", no_argument, NULL, OPT_ASCII},
    {"no-color", no_argument, NULL, OPT_NO_COLOR},
    {"no-colour", no_argument, NULL, OPT_NO_COLOR},
    {"readonly", no_argument, NULL, OPT_READONLY},
    {"interval", required_argument, NULL, OPT_INTERVAL},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* A number in lo..hi, whole text; false otherwise. */
static bool parse_number(const char *text, double lo, double hi, double *out)
{
    char *end;

    *out = strtod(text, &end);
    return end != text && *end == 0 && *out >= lo && *out <= hi;
}

static int parse_pids(int argc, char **argv, int *pid)
{
    for (int i = 0; i < argc; i++) {
        double v;

        if (!parse_number(argv[i], 1, INT32_MAX, &v) || v != (int)v)
            return cli_usage("top", "'%s' is not a PID", argv[i]);
        pid[i] = (int)v;
    }
    return CLI_OK;
}

/* One option; 0, or the exit code + 1. */
static int take_option(int opt, struct dash_options *o, char **argv)
{
    switch (opt) {
    case OPT_REPLAY:
        o->replay = optarg;
        return 0;
    case OPT_ONCE:
        o->once = true;
        return 0;
    case OPT_JSON:
        o->print = cli_top_json;
        return 0;
    case OPT_ASCII:
        o->ascii = true;
        return 0;
    case OPT_NO_COLOR:
        o->no_color = true;
        return 0;
    case OPT_READONLY:
        o->readonly = true;
        return 0;
    case OPT_SPEED:
        return parse_number(optarg, 0.01, 1e6, &o->speed)
                   ? 0
                   : 1 + cli_usage("top", "--speed wants a factor from 0.01 on, not '%s'", optarg);
    case OPT_INTERVAL:
        return parse_number(optarg, 0.1, 3600, &o->interval_s)
                   ? 0
                   : 1 + cli_usage("top", "--interval wants seconds from 0.1 to 3600, not '%s'",
                                   optarg);
    case 'h':
        puts(help);
        return 1 + CLI_OK;
    default:
        return 1 + cli_bad_option("top", opt, argv);
    }
}

int cmd_top_main(int argc, char **argv)
{
    struct dash_options o = {.interval_s = 0.5};
    int pid[PID_MAX], opt, rc;
    char dir[4096];
    struct mp_err err = {0, "failed"};

    while ((opt = getopt_long(argc, argv, ":h", option, NULL)) != -1)
        if ((rc = take_option(opt, &o, argv)))
            return rc - 1;
    if (argc - optind > PID_MAX)
        return cli_usage("top", "at most %d PIDs at once", PID_MAX);
    if (o.replay && optind < argc)
        return cli_usage("top", "--replay shows a file: it takes no PID");
    if (!o.replay && o.speed > 0)
        return cli_usage("top", "--speed needs --replay");
    o.speed = o.speed > 0 ? o.speed : 1;
    if ((rc = parse_pids(argc - optind, argv + optind, pid)))
        return rc;
    if (!o.replay && cli_job_dir(dir, sizeof dir, &err) != MP_OK)
        return cli_fail(&err);
    o.dir = dir;
    o.pid = pid;
    o.n_pid = (size_t)(argc - optind);
    rc = dash_app(&o, &err);
    if (rc == MP_OK)
        return CLI_OK;
    cli_fail(&err);
    return rc == MP_EGONE ? CLI_GONE : CLI_FAILED;
}
