/* UTF-8 as it comes from outside: decoded without trust, measured in terminal columns.
 * Pure; knows no locale, so that a golden is the same everywhere.
 */
#ifndef DASH_UTF8_H
#define DASH_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define DASH_BAD_CHAR 0xfffdu

/* Decodes the character at *s and moves past it; malformed or cut bytes give DASH_BAD_CHAR, one byte
 * each. 0 at the end of the string, where *s stays. */
uint32_t dash_utf8_next(const char **s);

/* Bytes that come one by one, as keys do; all zero at first. */
struct dash_utf8_feed {
    char byte[5];
    int n;
};

/* The character that this byte completes; 0: none yet, or the byte is dropped. What is malformed or cut
 * takes nothing of what follows with it. */
uint32_t dash_utf8_feed(struct dash_utf8_feed *f, unsigned char byte);

/* Writes one character; returns its bytes, 1..4. */
size_t dash_utf8_put(char out[4], uint32_t ch);

/* Columns of a character: 0 for what must never reach a terminal (controls, escape, bidi overrides,
 * combining marks), 2 for East Asian wide, else 1. */
int dash_char_width(uint32_t ch);

/* Columns of a whole string. */
int dash_text_width(const char *s);

/* The nearest printable ASCII character. */
char dash_char_ascii(uint32_t ch);

#endif
