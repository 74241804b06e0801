/* moeprof bench: times the kernels on this GPU. The work is moe_bench's, a program of its own, because
 * the tool is not linked with CUDA: its words are checked here, then it takes this process over. */
#include "profiler/cli/cmd.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "profiler/cli/launch.h"
#include "profiler/cli/machine.h"

static int help(void)
{
    puts(
        "usage: moeprof bench [--shape NAME,..] [--tokens N,..] [--routing KIND,..] [-n N] "
        "[--portable] [--json]\n\n"
        "Times moeprof's experts kernels on this GPU, forward and forward with backward: on the "
        "GPU "
        "alone,\n"
        "as called, and what the host spends in a call. Yardsticks of the same run, by cuBLAS "
        "where\n"
        "there is one: a GEMM of the same FLOPs, and dense 8192 x 8192 x 8192.\n\n"
        "  --shape NAME,..    layers by name, or all; default qwen3-30b\n"
        "  --tokens N,..      1 to 131072; default 4096,32768\n"
        "  --routing KIND,..  uniform, zipf, allonk (all tokens choose the same experts), half (of "
        "the experts\n"
        "                     get none), or all; default uniform\n"
        "  -n N               timed calls of each; default 9\n"
        "  --portable         the kernels for every GPU, also where faster ones fit\n"
        "  --json             for programs: profiler/cli/schema/bench.schema.json, base units, "
        "null "
        "is unknown\n"
        "  --list             the names of shapes and routings, and out\n\n"
        "Example:  moeprof bench --shape qwen3-30b,mixtral --tokens 32768");
    return CLI_OK;
}

/* 0: go on; else the exit code + 1. What values may be is moe_bench's to say. */
static int options(int argc, char **argv)
{
    static const struct option long_option[] = {
        {"shape", required_argument, NULL, 'v'},   {"tokens", required_argument, NULL, 'v'},
        {"routing", required_argument, NULL, 'v'}, {"portable", no_argument, NULL, 'v'},
        {"json", no_argument, NULL, 'v'},          {"list", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},          {0}};
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":n:h", long_option, NULL)) != -1) {
        if (c == 'h')
            return help() + 1;
        if (c != 'v' && c != 'n')
            return cli_bad_option("bench", c, argv) + 1;
    }
    return optind < argc ? cli_usage("bench", "unexpected word '%s'", argv[optind]) + 1 : 0;
}

/* Where Python's wheels have the only cuBLAS, it is not on the library path. */
static void show_cublas(void)
{
    const char *old = getenv("LD_LIBRARY_PATH");
    struct cli_python py;
    char path[4096];

    if (cli_python_read(&py) || !*py.cublas)
        return;
    *strrchr(py.cublas, '/') = 0;
    snprintf(path, sizeof path, "%s%s%s", old ? old : "", old && *old ? ":" : "", py.cublas);
    setenv("LD_LIBRARY_PATH", path, 1);
}

int cmd_bench_main(int argc, char **argv)
{
    char path[4096], name[] = "moeprof bench";
    struct mp_err err;
    int code = options(argc, argv);

    if (code)
        return code - 1;
    if (cli_beside(path, sizeof path, "moe_bench", &err)) {
        cli_say("%s; its build needs a CUDA toolkit (nvcc)", err.msg);
        return CLI_FAILED;
    }
    show_cublas();
    argv[0] = name; /* as it calls itself in messages */
    fflush(stdout);
    execv(path, argv);
    cli_say("cannot start '%s': %s", path, strerror(errno));
    return CLI_FAILED;
}
