/* What the tests of the HTML, Markdown, CSV and trace renderers share: a made-up profile, its report, and
 * goldens. UPDATE_GOLDEN=1 writes the goldens anew; the diff is the review. */
#ifndef RENDERS_H
#define RENDERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "report/render_html.h"
#include "tests/html/make_profile.h"

struct shown {
    char path[64];
    struct rp_profile *p;
    struct rp_report *r;
    struct rp_html_data *data;
};

static inline void shown_make(struct shown *s, struct made m)
{
    struct mp_err err = {0};
    int fd;

    strcpy(s->path, "/tmp/moeprof-html-XXXXXX");
    fd = mkstemp(s->path);
    assert_true(fd >= 0);
    close(fd);
    made_profile(s->path, &m);
    if (rp_profile_open(&s->p, s->path, &err) ||
        rp_analyze(&s->r, s->p, "job.moeprof", &(struct rp_options){0}, &err) ||
        rp_html_data_new(&s->data, s->p, s->r, &err))
        fail_msg("%s", err.msg);
    strcpy(s->r->run.moeprof, "0"); /* not of the version that tests it */
}

static inline void shown_release(struct shown *s)
{
    rp_html_data_free(s->data);
    rp_report_free(s->r);
    rp_profile_close(s->p, NULL);
    unlink(s->path);
}

/* The file's text, malloced; "" when there is none. */
static inline char *text_of(const char *path)
{
    FILE *f = fopen(path, "r");
    char *text = calloc(1, 1);
    size_t n = 0, got;

    while (f && text) {
        text = realloc(text, n + 65537);
        got = fread(text + n, 1, 65536, f);
        n += got;
        text[n] = 0;
        if (got == 0)
            break;
    }
    if (f)
        fclose(f);
    return text;
}

static inline void golden(const char *name, const char *text)
{
    char file[256], *want;
    FILE *f;

    snprintf(file, sizeof file, "tests/golden/%s", name);
    if (getenv("UPDATE_GOLDEN") && (f = fopen(file, "w"))) {
        fputs(text, f);
        fclose(f);
    }
    want = text_of(file);
    if (strcmp(want, text) != 0)
        fail_msg("'%s' differs; UPDATE_GOLDEN=1 and git diff show how", file);
    free(want);
}

static inline size_t count_of(const char *text, const char *word)
{
    size_t n = 0;

    for (const char *p = text; (p = strstr(p, word)) != NULL; p += strlen(word))
        n++;
    return n;
}

#endif
