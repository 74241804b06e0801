/* The smallest parts of the parser: bytes, the arena, numbers, identifiers, substitutions. */
#include "report/demangle_part.h"

#include <string.h>

#include "profiler/core/base.h"

char dm_peek(struct parse *d)
{
    if (d->is_bad)
        return 'E';
    if (d->p < d->end)
        return *d->p;
    d->is_cut = true;
    return 'E';
}

bool dm_take(struct parse *d, char c)
{
    if (d->is_bad || d->p >= d->end || *d->p != c)
        return false;
    d->p++;
    return true;
}

bool dm_take2(struct parse *d, const char *two)
{
    if (d->is_bad || d->end - d->p < 2 || d->p[0] != two[0] || d->p[1] != two[1])
        return false;
    d->p += 2;
    return true;
}

struct span dm_bad(struct parse *d)
{
    d->is_bad = true;
    return (struct span){0, 0};
}

/* ---- text ------------------------------------------------------------------------------------- */

void dm_put(struct parse *d, struct span *s, const char *text, size_t n)
{
    if (s->n == 0)
        s->at = (uint16_t)d->used;
    n = n > SPAN_MAX - s->n ? SPAN_MAX - s->n : n;
    if (d->used + n > ARENA) {
        d->is_bad = true;
        return;
    }
    memmove(d->text + d->used, text, n);
    d->used += n;
    s->n = (uint16_t)(s->n + n);
}

struct span dm_put_text(struct parse *d, const char *text)
{
    struct span s = {0, 0};

    dm_put(d, &s, text, strlen(text));
    return s;
}

void dm_put_span(struct parse *d, struct span *s, struct span more)
{
    dm_put(d, s, d->text + more.at, more.n);
}

bool dm_starts(const struct parse *d, struct span s, const char *word)
{
    size_t n = strlen(word);

    return s.n >= n && memcmp(d->text + s.at, word, n) == 0;
}

bool dm_is_word(const struct parse *d, struct span s, const char *word)
{
    return s.n == strlen(word) && dm_starts(d, s, word);
}

void dm_sub_add(struct parse *d, struct span s)
{
    if (d->n_sub < SUB_MAX)
        d->sub[d->n_sub++] = s;
}

/* ---- numbers and identifiers --------------------------------------------------------------------- */

bool dm_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

size_t dm_number(struct parse *d)
{
    size_t v = 0;

    while (dm_is_digit(dm_peek(d)))
        v = v < 100000 ? v * 10 + (size_t)(*d->p++ - '0') : (d->p++, v);
    return v;
}

struct span dm_source_name(struct parse *d)
{
    size_t n = dm_number(d), there = (size_t)(d->end - d->p);
    struct span s = {0, 0};

    if (n == 0)
        return d->is_cut ? s : dm_bad(d);
    if (n > there) {
        d->is_cut = true;
        n = there;
    }
    dm_put(d, &s, d->p, n);
    d->p += n;
    return s;
}

/* [0-9A-Z]* _ : 0 for "_", 1 for "0_". */
static size_t seq_id(struct parse *d)
{
    size_t v = 0, any = 0;

    for (char c; (c = dm_peek(d)) != '_'; d->p++, any = 1) {
        if (d->is_bad || d->p >= d->end || v > 100000)
            return SUB_MAX;
        if (!dm_is_digit(c) && !(c >= 'A' && c <= 'Z'))
            return SUB_MAX;
        v = v * 36 + (size_t)(dm_is_digit(c) ? c - '0' : c - 'A' + 10);
    }
    d->p++;
    return v + any;
}

/* After the S. */
struct span dm_substitution(struct parse *d)
{
    static const struct {
        char c;
        const char *text;
    } known[] = {{'a', "allocator"}, {'b', "basic_string"}, {'s', "string"},
                 {'i', "istream"},   {'o', "ostream"},      {'d', "iostream"}};
    size_t i;

    for (i = 0; i < countof(known); i++)
        if (dm_take(d, known[i].c))
            return dm_put_text(d, known[i].text);
    i = seq_id(d);
    if (i >= d->n_sub)
        return d->p >= d->end ? (struct span){0, 0} : dm_bad(d);
    return d->sub[i];
}

/* After the T: what the last template arguments say, as these are mostly the function's. */
struct span dm_template_param(struct parse *d)
{
    size_t i = 0;

    if (dm_peek(d) != '_')
        i = dm_number(d) + 1;
    if (!dm_take(d, '_'))
        return dm_bad(d);
    return i < d->n_arg ? d->arg[i] : dm_put_text(d, "T");
}
