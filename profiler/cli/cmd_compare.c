/* moeprof compare: two profiles in, what differs out. */
#include "profiler/cli/cmd.h"

#include <getopt.h>
#include <stdio.h>

#include "profiler/cli/out_file.h"
#include "report/compare.h"
#include "report/render_html.h"

struct args {
    bool json, md;
    const char *html; /* where to; NULL: not wanted */
    char **file;      /* (2) */
};

static int help(void)
{
    puts("usage: moeprof compare BEFORE AFTER [--html FILE] [--md] [--json]\n\n"
         "Sets two recorded runs side by side: whether they are alike at all, speed with an "
         "interval,\n"
         "MFU, phases, experts, memory, clocks, and what got worse.\n\n"
         "The runs were made one after the other, so time, clock and data are in the difference;\n"
         "'moeprof ab' measures both inside one job.\n\n"
         "  --html FILE  both runs in one page, on one axis\n"
         "  --md     Markdown for a comment on a pull request\n"
         "  --json   for programs: report/schema/compare.schema.json, base units, null is "
         "unknown\n\n"
         "Example:  moeprof compare eager.moeprof grouped.moeprof --md");
    return CLI_OK;
}

/* 0: go on; else the exit code + 1. */
static int options(struct args *a, int argc, char **argv)
{
    static const struct option long_option[] = {{"json", no_argument, NULL, 'j'},
                                                {"md", no_argument, NULL, 'm'},
                                                {"html", required_argument, NULL, 'H'},
                                                {"help", no_argument, NULL, 'h'},
                                                {0}};
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":h", long_option, NULL)) != -1)
        switch (c) {
        case 'j':
            a->json = true;
            break;
        case 'm':
            a->md = true;
            break;
        case 'H':
            a->html = optarg;
            break;
        case 'h':
            return help() + 1;
        default:
            return cli_bad_option("compare", c, argv) + 1;
        }
    a->file = argv + optind;
    if (argc - optind != 2)
        return cli_usage("compare", "two profiles are needed, %d given", argc - optind) + 1;
    if (a->json && a->md)
        return cli_usage("compare", "--json and --md exclude each other") + 1;
    return 0;
}

static int html(const char *path, const struct rp_compare *c, struct rp_report *const *r,
                struct rp_profile *const *p, struct mp_err *err)
{
    struct rp_html_data *data[2] = {NULL, NULL};
    struct rp_page page[2];
    struct cli_out out;
    int rc = MP_OK;

    for (int i = 0; rc == MP_OK && i < 2; i++) {
        rc = rp_html_data_new(&data[i], p[i], r[i], err);
        page[i] = (struct rp_page){r[i], data[i]};
    }
    if (rc == MP_OK)
        rc = cli_out_open(&out, path, err);
    if (rc == MP_OK)
        rc = cli_out_close(&out, rp_render_html(out.f, page, 2, c, err), err);
    for (int i = 0; i < 2; i++)
        rp_html_data_free(data[i]);
    return rc;
}

static int render(const struct args *a, const struct rp_compare *c, struct mp_err *err)
{
    if (a->json)
        return rp_render_compare_json(stdout, c, err);
    return a->md ? rp_render_compare_md(stdout, c, err) : rp_render_compare_text(stdout, c, err);
}

int cmd_compare_main(int argc, char **argv)
{
    struct args a = {.json = false};
    struct rp_profile *p[2] = {NULL, NULL};
    struct rp_report *r[2] = {NULL, NULL};
    struct rp_compare *c = NULL;
    struct mp_err err = {.msg = ""};
    int rc = MP_OK, code = options(&a, argc, argv);

    if (code)
        return code - 1;
    for (int i = 0; !rc && i < 2; i++) {
        rc = rp_profile_open(&p[i], a.file[i], &err);
        if (!rc)
            rc = rp_analyze(&r[i], p[i], a.file[i], &(struct rp_options){0}, &err);
    }
    if (!rc)
        rc = rp_compare(&c, r, p, &err);
    if (!rc && a.html)
        rc = html(a.html, c, r, p, &err);
    if (!rc && (!a.html || a.json || a.md))
        rc = render(&a, c, &err);
    rp_compare_free(c);
    for (int i = 0; i < 2; i++) {
        rp_report_free(r[i]);
        rp_profile_close(p[i], NULL);
    }
    return rc ? cli_fail(&err) : CLI_OK;
}
