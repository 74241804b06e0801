/* What the demangle*.c files share: the parser's state and its smallest parts. Private to them. */
#ifndef RP_DEMANGLE_PART_H
#define RP_DEMANGLE_PART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARENA     32768 /* offsets are 16 bits wide */
#define SPAN_MAX  512u  /* longer parts are cut: nobody reads them */
#define DEPTH_MAX 64
#define SUB_MAX   256
#define ARG_MAX   24

/* A part of parse.text. */
struct span {
    uint16_t at, n;
};

struct parse {
    const char *p, *end;
    bool is_cut, is_bad;
    int depth;
    struct span sub[SUB_MAX], arg[ARG_MAX]; /* substitutions; the last template arguments */
    unsigned n_sub, n_arg;
    size_t used;
    char text[ARENA];
};

/* Everything below works on after an error (is_bad) and at the end (is_cut) without doing anything. */

/* The next byte; 'E' at the end. */
char dm_peek(struct parse *d);
bool dm_take(struct parse *d, char c);
bool dm_take2(struct parse *d, const char *two);
struct span dm_bad(struct parse *d);

/* Appends to s, which is empty or the last one in the arena. */
void dm_put(struct parse *d, struct span *s, const char *text, size_t n);
struct span dm_put_text(struct parse *d, const char *text);
void dm_put_span(struct parse *d, struct span *s, struct span more);
bool dm_starts(const struct parse *d, struct span s, const char *word);
bool dm_is_word(const struct parse *d, struct span s, const char *word);

bool dm_is_digit(char c);
size_t dm_number(struct parse *d);
struct span dm_source_name(struct parse *d);
void dm_sub_add(struct parse *d, struct span s);
struct span dm_substitution(struct parse *d);   /* after the S */
struct span dm_template_param(struct parse *d); /* after the T */

struct span dm_template_args(struct parse *d, struct span base); /* after the I: base<...> */
struct span dm_type(struct parse *d);
struct span dm_name(struct parse *d);
struct span dm_encoding(struct parse *d);

/* The same shortening for a name that is demangled already; same contract as rp_kernel_name. */
const char *rp_kernel_text(char *out, size_t bytes, const char *name);

#endif
