/* The page: head, sections in the order in which a reader asks, the data. Written straight to the
 * stream; nothing here grows with the profile. */
#include "report/render_html_part.h"

#include <stdlib.h>
#include <string.h>

#include "report_css.h"
#include "report_js.h"

static void head(struct rp_html *h)
{
    fputs("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
          "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action "
          "'none'\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n<title>moeprof: ",
          h->f);
    for (size_t i = 0; i < h->n; i++) {
        fputs(i ? ", " : "", h->f);
        html_text(h->f, h->page[i].report->run.file);
    }
    fprintf(h->f, "</title>\n<style>\n%s</style>\n</head>\n<body>\n", report_css);
}

static void top(struct rp_html *h)
{
    static const char *const theme[] = {"auto", "light", "dark"};

    fputs("<a class=\"skip\" href=\"#where\">To the figures</a>\n<header class=\"top\"><span>"
          "moeprof report</span>\n<fieldset class=\"theme\"><legend>Theme</legend>",
          h->f);
    for (size_t i = 0; i < countof(theme); i++)
        fprintf(h->f,
                "<label><input type=\"radio\" name=\"theme\" id=\"theme-%s\" value=\"%s\"%s> "
                "%s</label>",
                theme[i], theme[i], i ? "" : " checked", theme[i]);
    /* The hatch of idle time, for all charts. */
    fputs("</fieldset></header>\n<svg class=\"defs\" aria-hidden=\"true\"><defs><pattern "
          "id=\"hatch\" width=\"4\" height=\"4\" patternUnits=\"userSpaceOnUse\" "
          "patternTransform=\"rotate(45)\"><rect width=\"4\" height=\"4\" "
          "fill=\"var(--idle-a)\"/><rect width=\"2\" height=\"4\" fill=\"var(--idle-b)\"/>"
          "</pattern></defs></svg>\n<main>\n",
          h->f);
}

static int page_write(struct rp_html *h, struct mp_err *err)
{
    static void (*const part[])(struct rp_html *) = {
        html_verdict, html_ab,      html_where, html_timeline, html_heat,
        html_icicle,  html_kernels, html_steps, html_coverage, html_environment};
    int rc;

    head(h);
    top(h);
    for (size_t i = 0; i < countof(part); i++)
        part[i](h);
    rc = html_raw(h, err);
    fprintf(h->f, "</main>\n<script>\n%s</script>\n</body>\n</html>\n", report_js);
    return rc;
}

/* ---- what each profile is called -------------------------------------------------------------------- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

bool rp_html_is_pair(const struct rp_page *page, size_t n)
{
    const struct rp_run *a, *b;

    if (n != 2)
        return false;
    a = &page[0].report->run;
    b = &page[1].report->run;
    return a->world <= 1 || a->world != b->world || a->rank == b->rank;
}

static void label_make(struct rp_html *h, size_t i)
{
    const struct rp_report *r = h->page[i].report;
    const char *backend = r->spec.text.backend;
    char *out = h->label[i];

    if (h->is_pair)
        snprintf(out, HTML_LABEL, "%s: %.80s", i ? "after" : "before",
                 *backend ? backend : base_name(r->run.file));
    else if (r->run.world > 1)
        snprintf(out, HTML_LABEL, "rank %d: %.60s", r->run.rank, base_name(r->run.file));
    else
        snprintf(out, HTML_LABEL, "%.90s", base_name(r->run.file));
}

int rp_render_html(FILE *out, const struct rp_page *page, size_t n,
                   const struct rp_compare *compare, struct mp_err *err)
{
    bool is_pair = rp_html_is_pair(page, n);
    struct rp_html h = {
        .f = out, .page = page, .n = n, .is_pair = is_pair, .compare = is_pair ? compare : NULL};
    int rc;

    h.label = calloc(n ? n : 1, sizeof *h.label);
    if (!h.label)
        return mp_fail(err, MP_ENOMEM, "no memory for the page");
    for (size_t i = 0; i < n; i++)
        label_make(&h, i);
    rc = page_write(&h, err);
    free(h.label);
    if (rc == 0 && ferror(out))
        rc = mp_fail(err, MP_EIO, "cannot write the page");
    return rc;
}
