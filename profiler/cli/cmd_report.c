/* moeprof report: profiles in, one report each out. */
#include "profiler/cli/cmd.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "report/render.h"

struct args {
    bool json;
    struct rp_options options;
    char **file;
    int n_file;
};

static int help(void)
{
    puts("usage: moeprof report FILE... [--json] [--peak TFLOPS]\n\n"
         "Says what a recorded run did with its time: MFU and its convention, phases, layers, "
         "experts,\n"
         "kernels. Several files (ranks) give several reports.\n\n"
         "  --json          for programs: report/schema/report.schema.json, base units, null is "
         "unknown\n"
         "  --peak TFLOPS   dense peak of the GPU for the job's dtype, where the GPU is not in the "
         "table\n\n"
         "Example:  moeprof report --json a.moeprof | jq .mfu.value");
    return CLI_OK;
}

static int peak_parse(struct args *a, const char *text)
{
    char *end;
    double v = strtod(text, &end);

    if (*end || !isfinite(v) || v <= 0)
        return cli_usage("report", "'%s' is not a peak in TFLOP/s", text) + 1;
    a->options.peak_flops = v * 1e12;
    return 0;
}

/* 0: go on; else the exit code + 1. */
static int options(struct args *a, int argc, char **argv)
{
    static const struct option long_option[] = {{"json", no_argument, NULL, 'j'},
                                                {"peak", required_argument, NULL, 'p'},
                                                {"help", no_argument, NULL, 'h'},
                                                {0}};
    int c, code = 0;

    optind = 0;
    while (!code && (c = getopt_long(argc, argv, ":h", long_option, NULL)) != -1)
        switch (c) {
        case 'j':
            a->json = true;
            break;
        case 'p':
            code = peak_parse(a, optarg);
            break;
        case 'h':
            return help() + 1;
        default:
            return cli_bad_option("report", c, argv) + 1;
        }
    a->file = argv + optind;
    a->n_file = argc - optind;
    if (!code && a->n_file == 0)
        return cli_usage("report", "no profile given") + 1;
    return code;
}

static int analyze(struct rp_report **r, const char *file, const struct rp_options *o,
                   struct mp_err *err)
{
    struct rp_profile *p;
    int rc = rp_profile_open(&p, file, err);

    *r = NULL;
    if (rc)
        return rc;
    rc = rp_analyze(r, p, file, o, err);
    rp_profile_close(p, NULL);
    return rc;
}

static int print_all(const struct args *a, struct rp_report **r, size_t n)
{
    struct mp_err err;
    int rc = 0;

    if (a->json && n)
        rc = rp_render_json(stdout, r, n, &err);
    for (size_t i = 0; !a->json && !rc && i < n; i++) {
        if (a->n_file > 1)
            printf("%s==== %s\n\n", i ? "\n" : "", r[i]->run.file);
        rc = rp_render_text(stdout, r[i], &err);
    }
    return rc ? cli_fail(&err) : CLI_OK;
}

int cmd_report_main(int argc, char **argv)
{
    struct args a = {.json = false};
    struct rp_report **r;
    struct mp_err err;
    size_t n = 0;
    int code = options(&a, argc, argv), printed;

    if (code)
        return code - 1;
    r = calloc((size_t)a.n_file, sizeof *r);
    if (!r)
        return CLI_FAILED;
    for (int i = 0; i < a.n_file; i++) {
        if (analyze(&r[n], a.file[i], &a.options, &err))
            code = cli_fail(&err);
        else
            n++;
    }
    printed = print_all(&a, r, n);
    for (size_t i = 0; i < n; i++)
        rp_report_free(r[i]);
    free(r);
    return printed ? printed : code;
}
