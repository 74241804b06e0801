/* Columns and lines of text for people, shared by the text renderers. Widths are in columns, not bytes. */
#include "report/layout.h"

#include <string.h>

#include "report/format.h"
#include "report/utf8.h"

/* Names and sentences come out of a file that somebody sent: nothing in them may steer a terminal. */
static const char *plain(char out[256], const char *text)
{
    snprintf(out, 256, "%s", text);
    return rp_utf8_clean(out);
}

void rp_right(FILE *f, int width, const char *text)
{
    char clean[256];

    text = plain(clean, text);
    fprintf(f, "%*s%s", width - (int)rp_columns(text) > 0 ? width - (int)rp_columns(text) : 0, "",
            text);
}

void rp_left(FILE *f, int width, const char *text)
{
    char cut[256], clean[256];

    rp_cut(cut, sizeof cut, plain(clean, text), (size_t)width);
    fprintf(f, "%s%*s", cut, width - (int)rp_columns(cut), "");
}

void rp_wrap(FILE *f, const char *text, int indent, int column)
{
    while (*text) {
        size_t n = strcspn(text, " ");
        char word[256];

        snprintf(word, sizeof word, "%.*s", (int)n, text);
        rp_utf8_clean(word);
        if (column > indent && column + 1 + (int)rp_columns(word) > RP_WIDTH) {
            fprintf(f, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', f);
            column++;
        }
        fputs(word, f);
        column += (int)rp_columns(word);
        text += n + strspn(text + n, " ");
    }
    fputc('\n', f);
}

void rp_line(FILE *f, const char *label, const char *text)
{
    rp_left(f, RP_LABEL, label);
    rp_wrap(f, text, RP_LABEL, RP_LABEL);
}
