/* moeprof report: profiles in, one report each out. */
#include "profiler/cli/cmd.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "profiler/cli/out_file.h"
#include "report/ab.h"
#include "report/render.h"
#include "report/render_csv.h"
#include "report/render_html.h"
#include "report/render_md.h"
#include "report/render_trace.h"

#define PEAK_MIN 0.01 /* TFLOP/s: a share of less is a number of endless digits */
#define PEAK_MAX 1e5

struct args {
    const char *json, *md; /* where to, "-" for standard output; NULL: not wanted */
    const char *html, *csv, *trace;
    enum rp_trace_format format;
    struct rp_options options;
    char **file;
    int n_file;
};

/* The profiles that could be read. */
struct job {
    struct rp_report **report;
    struct rp_html_data **data;
    struct rp_ab **ab; /* NULL where the profile holds no before/after */
    const char **file;
    size_t n;
    bool is_list; /* several were given, whether or not they could be read */
};

static int help(void)
{
    puts("usage: moeprof report FILE... [--html FILE] [--md[=FILE]] [--json[=FILE]] [--csv DIR]\n"
         "                            [--trace FILE] [--trace-format perfetto|chrome] [--peak "
         "TFLOPS]\n\n"
         "Says what a recorded run did with its time: MFU and its convention, phases, layers, "
         "experts,\n"
         "kernels. Several files (ranks, or before and after) follow each other or stand side by "
         "side.\n\n"
         "  --html FILE     one page to send around: pictures and tables, no network, no scripts "
         "needed;\n"
         "                  two files are shown as before and after\n"
         "  --md[=FILE]     Markdown for a pull request, at most 60 lines; of a profile of\n"
         "                  'ab' its before and after\n"
         "  --json[=FILE]   for programs: report/schema/report.schema.json, base units, null is "
         "unknown\n"
         "  --csv DIR       steps, phases, layers, experts, kernels as tables\n"
         "  --trace FILE    every operation in time, for ui.perfetto.dev\n"
         "  --trace-format chrome   as torch.profiler writes it, for tools that read that; one "
         "file only\n"
         "  --peak TFLOPS   dense peak of the GPU for the job's dtype, where the GPU is not in the "
         "table\n\n"
         "Example:  moeprof report --html a.html a.moeprof\n"
         "          moeprof report --json a.moeprof | jq .mfu.value");
    return CLI_OK;
}

static int peak_parse(struct args *a, const char *text)
{
    char *end;
    double v = strtod(text, &end);

    if (*end || !(v >= PEAK_MIN && v <= PEAK_MAX))
        return cli_usage("report",
                         "'%.40s' is not a peak in TFLOP/s (%g to %g); an H100 has 989.4 in "
                         "bfloat16",
                         text, PEAK_MIN, PEAK_MAX) +
               1;
    a->options.peak_flops = v * 1e12;
    return 0;
}

static int format_parse(struct args *a, const char *text)
{
    if (strcmp(text, "chrome") == 0)
        a->format = RP_TRACE_CHROME;
    else if (strcmp(text, "perfetto") != 0)
        return cli_usage("report", "'%s' is no trace format: perfetto or chrome", text) + 1;
    return 0;
}

static int option(struct args *a, int c, char **argv)
{
    switch (c) {
    case 'j':
        a->json = optarg ? optarg : "-";
        return 0;
    case 'm':
        a->md = optarg ? optarg : "-";
        return 0;
    case 'H':
        a->html = optarg;
        return 0;
    case 'c':
        a->csv = optarg;
        return 0;
    case 't':
        a->trace = optarg;
        return 0;
    case 'f':
        return format_parse(a, optarg);
    case 'p':
        return peak_parse(a, optarg);
    case 'h':
        return help() + 1;
    }
    return cli_bad_option("report", c, argv) + 1;
}

static bool is_stdout(const char *path)
{
    return path && strcmp(path, "-") == 0;
}

static int together_check(const struct args *a)
{
    if (a->n_file == 0)
        return cli_usage("report", "no profile given") + 1;
    if (is_stdout(a->html) + is_stdout(a->md) + is_stdout(a->json) + is_stdout(a->trace) > 1)
        return cli_usage("report", "two formats in one standard output: name a file, as in "
                                   "--json=a.json") +
               1;
    if (a->format == RP_TRACE_CHROME && !a->trace)
        return cli_usage("report", "--trace-format needs --trace") + 1;
    if (a->format == RP_TRACE_CHROME && a->n_file > 1)
        return cli_usage("report", "a chrome trace holds one profile; give one file") + 1;
    return 0;
}

/* 0: go on; else the exit code + 1. */
static int options(struct args *a, int argc, char **argv)
{
    static const struct option long_option[] = {{"json", optional_argument, NULL, 'j'},
                                                {"md", optional_argument, NULL, 'm'},
                                                {"html", required_argument, NULL, 'H'},
                                                {"csv", required_argument, NULL, 'c'},
                                                {"trace", required_argument, NULL, 't'},
                                                {"trace-format", required_argument, NULL, 'f'},
                                                {"peak", required_argument, NULL, 'p'},
                                                {"help", no_argument, NULL, 'h'},
                                                {0}};
    int c, code = 0;

    optind = 0;
    while (!code && (c = getopt_long(argc, argv, ":h", long_option, NULL)) != -1)
        code = option(a, c, argv);
    a->file = argv + optind;
    a->n_file = argc - optind;
    return code ? code : together_check(a);
}

/* ---- each profile, while it is open ----------------------------------------------------------------- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* Runs of the same name in other folders: their place in the command line tells them apart. 0: no twin. */
static int twin(const struct args *a, const char *file)
{
    int place = 0, n = 0;

    for (int i = 0; i < a->n_file; i++) {
        n += strcmp(base_name(a->file[i]), base_name(file)) == 0;
        if (a->file[i] == file)
            place = i + 1;
    }
    return n > 1 ? place : 0;
}

/* Of several profiles each has a folder of its own in DIR. */
static int csv_write(const struct args *a, const char *file, struct rp_profile *p,
                     const struct rp_report *r, struct mp_err *err)
{
    const char *dir = a->csv;
    char own[4096], mark[16] = "";
    int rc, place = twin(a, file);

    if (place)
        snprintf(mark, sizeof mark, "%d-", place);
    if (a->n_file > 1) {
        if ((size_t)snprintf(own, sizeof own, "%s/%s%s", a->csv, mark, base_name(file)) >=
            sizeof own)
            return mp_fail(err, MP_EINVAL, "the name of the folder is too long");
        if (mkdir(a->csv, 0777) && errno != EEXIST)
            return mp_fail(err, MP_EIO, "cannot make '%s': %s", a->csv, strerror(errno));
        dir = own;
    }
    rc = rp_render_csv(dir, p, r, err);
    if (rc == MP_OK)
        cli_say("wrote %s", dir);
    return rc;
}

/* The trace of all profiles. A full disk is told once, when it is closed. */
struct trace {
    struct cli_out out; /* f NULL: none, not asked for or not to be opened */
    size_t n;           /* profiles in it */
};

/* What is written while a profile is open; a failure costs the other outputs nothing. The exit code. */
static int tables_write(const struct args *a, const struct job *job, const char *file,
                        struct rp_profile *p, struct trace *trace)
{
    const struct rp_report *r = job->report[job->n];
    struct mp_err err = {0};
    int code = CLI_OK;

    if (a->csv && csv_write(a, file, p, r, &err))
        code = cli_fail(&err);
    if (!trace->out.f)
        return code;
    if (rp_render_trace(trace->out.f, a->format, p, r, (unsigned)job->n, &err) == MP_OK)
        trace->n++;
    else if (!ferror(trace->out.f))
        code = cli_fail(&err);
    return code;
}

/* The next profile takes this place, and may fail before it fills it. */
static void place_clear(struct job *job)
{
    rp_ab_free(job->ab[job->n]);
    rp_html_data_free(job->data[job->n]);
    rp_report_free(job->report[job->n]);
    job->ab[job->n] = NULL;
    job->data[job->n] = NULL;
    job->report[job->n] = NULL;
}

/* The exit code. */
static int profile_read(const struct args *a, struct job *job, const char *file,
                        struct trace *trace)
{
    struct rp_report **r = &job->report[job->n];
    struct mp_err err = {0};
    struct rp_profile *p;
    int code, rc = rp_profile_open(&p, file, &err);

    if (rc)
        return cli_fail(&err);
    rc = rp_analyze(r, p, file, &a->options, &err);
    if (rc == MP_OK)
        rc = rp_ab_analyze(&job->ab[job->n], *r, p, &err);
    if (rc == MP_OK && a->html)
        rc = rp_html_data_new(&job->data[job->n], p, *r, &err);
    code = rc ? cli_fail(&err) : tables_write(a, job, file, p, trace);
    rp_profile_close(p, NULL);
    if (rc)
        place_clear(job);
    else
        job->file[job->n++] = file;
    return code;
}

static int trace_close(struct trace *trace)
{
    struct mp_err err = {0};
    bool is_lost = ferror(trace->out.f) != 0; /* else what failed has been told */
    int rc = cli_out_close(&trace->out, trace->n ? MP_OK : MP_EFORMAT, &err);

    return rc && (trace->n || is_lost) ? cli_fail(&err) : CLI_OK;
}

/* The exit code; what could be read is in the job all the same. */
static int profiles_read(const struct args *a, struct job *job)
{
    struct trace trace = {.n = 0};
    struct mp_err err = {0};
    int code = CLI_OK;

    if (a->trace && cli_out_open(&trace.out, a->trace, &err)) {
        code = cli_fail(&err);
        trace.out.f = NULL;
    }
    for (int i = 0; i < a->n_file; i++)
        code |= profile_read(a, job, a->file[i], &trace);
    if (trace.out.f)
        code |= trace_close(&trace);
    job->is_list = a->n_file > 1;
    return code;
}

/* ---- all of them together -------------------------------------------------------------------------- */

/* Of before and after, whose profiles are opened once more; *c NULL: they are no pair. */
static int pair_compare(struct rp_compare **c, const struct job *job, const struct rp_page *page,
                        struct mp_err *err)
{
    struct rp_profile *p[2] = {NULL, NULL};
    int rc = MP_OK;

    *c = NULL;
    if (!rp_html_is_pair(page, job->n))
        return MP_OK;
    for (int i = 0; rc == MP_OK && i < 2; i++)
        rc = rp_profile_open(&p[i], job->file[i], err);
    if (rc == MP_OK)
        rc = rp_compare(c, job->report, p, err);
    for (int i = 0; i < 2; i++)
        rp_profile_close(p[i], NULL);
    return rc;
}

static int html(FILE *f, const struct job *job, struct mp_err *err)
{
    struct rp_page *page = calloc(job->n + 1, sizeof *page);
    struct rp_compare *compare = NULL;
    int rc;

    if (!page)
        return mp_fail(err, MP_ENOMEM, "no memory for the page");
    for (size_t i = 0; i < job->n; i++)
        page[i] = (struct rp_page){job->report[i], job->data[i]};
    rc = pair_compare(&compare, job, page, err);
    if (rc == MP_OK)
        rc = rp_render_html(f, page, job->n, compare, err);
    rp_compare_free(compare);
    free(page);
    return rc;
}

/* Of one profile with a before and after these alone: a comment has 60 lines. */
static int md(FILE *f, const struct job *job, struct mp_err *err)
{
    if (job->n == 1 && job->ab[0])
        return rp_render_ab_md(f, job->ab[0], err);
    return rp_render_md(f, job->report, job->n, err);
}

static int json(FILE *f, const struct job *job, struct mp_err *err)
{
    return rp_render_json(f, job->report, job->ab, job->n, job->is_list, err);
}

static int text(FILE *f, const struct job *job, struct mp_err *err)
{
    int rc = MP_OK;

    for (size_t i = 0; rc == MP_OK && i < job->n; i++) {
        if (job->is_list)
            fprintf(f, "%s==== %s\n\n", i ? "\n" : "", job->report[i]->run.file);
        if (job->ab[i]) {
            rc = rp_render_ab_text(f, job->ab[i], err);
            fputs("\n---- the whole run, all arms together\n\n", f);
        }
        if (rc == MP_OK)
            rc = rp_render_text(f, job->report[i], err);
    }
    return rc;
}

static int put(const char *path, const struct job *job,
               int (*render)(FILE *, const struct job *, struct mp_err *))
{
    struct mp_err err = {0};
    struct cli_out out;

    if (cli_out_open(&out, path, &err))
        return cli_fail(&err);
    return cli_out_close(&out, render(out.f, job, &err), &err) ? cli_fail(&err) : CLI_OK;
}

static int put_all(const struct args *a, const struct job *job)
{
    int code = CLI_OK;

    if (job->n == 0)
        return CLI_OK; /* each has said why */
    if (a->html)
        code |= put(a->html, job, html);
    if (a->md)
        code |= put(a->md, job, md);
    if (a->json)
        code |= put(a->json, job, json);
    if (!a->html && !a->md && !a->json && !a->csv && !a->trace)
        code |= put("-", job, text);
    return code;
}

static void job_release(struct job *job)
{
    for (size_t i = 0; i < job->n; i++) {
        rp_ab_free(job->ab[i]);
        rp_report_free(job->report[i]);
        rp_html_data_free(job->data[i]);
    }
    free(job->ab);
    free(job->report);
    free(job->data);
    free(job->file);
}

int cmd_report_main(int argc, char **argv)
{
    struct args a = {.format = RP_TRACE_PERFETTO};
    struct job job = {.n = 0};
    int code = options(&a, argc, argv);

    if (code)
        return code - 1;
    job.report = calloc((size_t)a.n_file, sizeof *job.report);
    job.data = calloc((size_t)a.n_file, sizeof *job.data);
    job.file = calloc((size_t)a.n_file, sizeof *job.file);
    job.ab = calloc((size_t)a.n_file, sizeof *job.ab);
    code = job.report && job.data && job.file && job.ab ? profiles_read(&a, &job) : CLI_FAILED;
    code |= put_all(&a, &job);
    job_release(&job);
    return code;
}
