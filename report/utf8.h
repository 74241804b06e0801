/* Names and command lines are anybody's bytes; what renderers put out is UTF-8. Pure. */
#ifndef RP_UTF8_H
#define RP_UTF8_H

#include <stddef.h>

/* Bytes of the UTF-8 character at s (at least 1 for NUL), 0 if there is none: overlong forms, surrogates
 * and what is cut are none. */
size_t rp_utf8(const char *s);
/* Replaces every byte that is no UTF-8, and control characters, by a question mark; returns text. */
char *rp_utf8_clean(char *text);

#endif
