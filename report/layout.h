/* Columns and lines of text for people, shared by the text renderers. */
#ifndef RP_LAYOUT_H
#define RP_LAYOUT_H

#include <stdio.h>

#define RP_WIDTH 100 /* columns of a report */
#define RP_LABEL 10  /* columns of the label of a line */

/* text at the right or left edge of a column; rp_left cuts what is too long. */
void rp_right(FILE *f, int width, const char *text);
void rp_left(FILE *f, int width, const char *text);

/* Words of text over lines, each line but the first indented; column: where the first one begins. */
void rp_wrap(FILE *f, const char *text, int indent, int column);

/* A label, then text wrapped beside it. */
void rp_line(FILE *f, const char *label, const char *text);

#endif
