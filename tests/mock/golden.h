/* Text against tests/golden/NAME. UPDATE_GOLDEN=1 writes it anew; the diff is the review. For cmocka. */
#ifndef MOCK_GOLDEN_H
#define MOCK_GOLDEN_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/format.h"

static char *golden_file_text(const char *name)
{
    FILE *f = fopen(name, "r");
    char *text = calloc(1, 1 << 20);

    assert_non_null(text);
    if (f) {
        text[fread(text, 1, (1 << 20) - 1, f)] = 0;
        fclose(f);
    }
    return text;
}

static inline void golden_check(const char *name, const char *text)
{
    char file[160], *want;

    snprintf(file, sizeof file, "tests/golden/%s", name);
    if (getenv("UPDATE_GOLDEN")) {
        FILE *f = fopen(file, "w");

        assert_non_null(f);
        fputs(text, f);
        fclose(f);
    }
    want = golden_file_text(file);
    if (strcmp(want, text) != 0)
        fail_msg("'%s' differs; UPDATE_GOLDEN=1 and git diff show how:\n%s", file, text);
    free(want);
}

/* No line wider than that many columns; returns how many lines there are. */
static inline size_t golden_lines(const char *text, size_t columns)
{
    size_t n = 0;

    for (; *text; n++) {
        char one[2000];
        size_t bytes = strcspn(text, "\n");

        snprintf(one, sizeof one, "%.*s", (int)bytes, text);
        if (rp_columns(one) > columns)
            fail_msg("wider than %zu columns: %s", columns, one);
        text += bytes + (text[bytes] == '\n');
    }
    return n;
}

#endif
