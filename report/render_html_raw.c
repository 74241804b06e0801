/* The data in the page: the report as --json writes it, but for the experts, and those by column, since
 * a row of text each would make wide models megabytes. In a script element nothing ends but by "</": that
 * and the openers of HTML comments are kept out by writing every < as \u003c. */
#include "report/render_html_part.h"

#include <stdlib.h>
#include <string.h>

#include "report/render.h"

/* Without the newlines and indents between values; strings of the JSON have none of either raw. */
static void put_json(FILE *f, const char *json)
{
    for (const char *p = json; *p; p++) {
        if (*p == '\n')
            while (p[1] == ' ')
                p++;
        else if (*p == '<')
            fputs("\\u003c", f);
        else
            fputc(*p, f);
    }
}

static int put_report(struct rp_html *h, size_t i, struct mp_err *err)
{
    struct rp_report r = *h->page[i].report;
    struct rp_report *one = &r;
    char *json = NULL;
    size_t size;
    FILE *f = open_memstream(&json, &size);
    int rc;

    if (!f)
        return mp_fail(err, MP_ENOMEM, "no memory for the data");
    r.n_expert = 0;
    rc = rp_render_json(f, &one, NULL, 1, false, err);
    fclose(f);
    if (rc == MP_OK) {
        fputs(i ? ",\n" : "", h->f);
        put_json(h->f, json);
    }
    free(json);
    return rc;
}

static void put_number(FILE *f, struct mp_val v, double scale)
{
    if (v.basis == MP_UNKNOWN)
        fputs("null", f);
    else
        fprintf(f, "%.*f", v.v * scale < 100 && v.v > 0 ? 1 : 0, v.v * scale);
}

static void put_column(FILE *f, const struct rp_report *r, size_t from, size_t to, int column)
{
    static const char *const name[] = {"tokens", "ns", "shared_ns"};

    fprintf(f, ",\"%s\":[", name[column]);
    for (size_t i = from; i < to; i++) {
        const struct rp_expert *e = &r->expert[i];
        struct mp_val v = column == 0 ? e->tokens : column == 1 ? e->seconds : e->shared_seconds;

        fputs(i > from ? "," : "", f);
        put_number(f, html_per_step(r, v), column == 0 ? 1 : 1e9);
    }
    fputc(']', f);
}

/* Rows: one a layer, values by expert from 0, per step. */
static void put_experts(FILE *f, const struct rp_report *r)
{
    size_t from = 0, to;

    fputs("{\"layers\":[", f);
    for (; from < r->n_expert; from = to) {
        for (to = from + 1; to < r->n_expert && r->expert[to].layer == r->expert[from].layer;)
            to++;
        fprintf(f, "%s{\"layer\":%d,\"basis\":\"%s\"", from ? ",\n" : "", r->expert[from].layer,
                mp_basis_name(r->expert[from].seconds.basis));
        for (int c = 0; c < 3; c++)
            put_column(f, r, from, to, c);
        fputc('}', f);
    }
    fputs("]}", f);
}

int html_raw(struct rp_html *h, struct mp_err *err)
{
    int rc = MP_OK;

    html_section(h, "data", "The data",
                 "This file holds all figures as JSON: <code>script#moeprof-report</code> as "
                 "<code>moeprof report --json</code> has them, "
                 "<code>script#moeprof-experts</code> by expert and step.");
    fputs("<script type=\"application/json\" id=\"moeprof-experts\">[", h->f);
    for (size_t i = 0; i < h->n; i++) {
        fputs(i ? ",\n" : "", h->f);
        put_experts(h->f, h->page[i].report);
    }
    fputs("]</script>\n<script type=\"application/json\" id=\"moeprof-report\">[", h->f);
    for (size_t i = 0; rc == MP_OK && i < h->n; i++)
        rc = put_report(h, i, err);
    fputs("]</script>\n</section>\n", h->f);
    return rc == MP_ENOTSUP ? MP_OK : rc; /* built without jansson: an empty list */
}
