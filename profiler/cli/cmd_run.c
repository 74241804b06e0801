/* moeprof run: starts the job with the guest in its environment, records every process of it that
 * trains, ends with the job. */
#include "profiler/cli/cmd.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "profiler/cli/job.h"

static int help(void)
{
    puts(
        "usage: moeprof run [-o FILE] [--preload] [--swap] -- CMD...\n\n"
        "Starts CMD with the profiler in it and records every process of it that trains on a GPU,\n"
        "also below launchers such as torchrun and accelerate. CMD needs no change.\n\n"
        "  -o FILE     the profile; further ranks go to FILE with .rankN before its suffix.\n"
        "              Without it: moeprof-NAME-DATE-PID.moeprof in this directory.\n"
        "  --preload   enter through LD_PRELOAD too, for a job that clears "
        "CUDA_INJECTION64_PATH\n"
        "  --swap[=ARM]  run the experts through moeprof's kernels (or ARM) once they have passed\n"
        "              parity in the job's first steps; layers that cannot be swapped stay\n\n"
        "Ends with the job and with its exit code when that is not 0; 1 when recording failed.\n\n"
        "Example:  moeprof run -o a.moeprof -- torchrun --nproc-per-node 2 train.py");
    return CLI_OK;
}

/* Travels to the guest with the rest of MOEPROF. */
static void ask_for_swap(const char *arm)
{
    const char *old = getenv("MOEPROF");
    char text[4096];

    snprintf(text, sizeof text, "%s%sswap=%s", old ? old : "", old && *old ? "," : "", arm);
    setenv("MOEPROF", text, 1);
}

/* 0: go on; else the exit code + 1. */
static int options(struct cli_job *j, int argc, char **argv)
{
    static const struct option long_option[] = {{"preload", no_argument, NULL, 'p'},
                                                {"swap", optional_argument, NULL, 's'},
                                                {"output", required_argument, NULL, 'o'},
                                                {"help", no_argument, NULL, 'h'},
                                                {0}};
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, "+:o:h", long_option, NULL)) != -1)
        switch (c) {
        case 'o':
            j->out = optarg;
            break;
        case 'p':
            j->preload = true;
            break;
        case 's':
            ask_for_swap(optarg ? optarg : "moeprof");
            break;
        case 'h':
            return help() + 1;
        default:
            return cli_bad_option("run", c, argv) + 1;
        }
    if (optind >= argc)
        return cli_usage("run", "no command to run") + 1;
    j->argv = argv + optind;
    return 0;
}

int cmd_run_main(int argc, char **argv)
{
    struct cli_job j = {.out = NULL};
    struct mp_err err;
    int code = options(&j, argc, argv);

    if (code)
        return code - 1;
    if (cli_job_start(&j, &err)) {
        code = cli_fail(&err);
    } else {
        cli_job_follow(&j);
        code = cli_job_code(&j);
    }
    cli_job_free(&j);
    return code;
}
