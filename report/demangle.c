/* Itanium mangling, read by recursive descent. Every part leaves its short text in one arena and is known
 * by its place there, so substitutions (S0_) cost nothing. The end of the input reads as 'E', which ends
 * everything that is open: names that were recorded only in part come out as far as they go. */
#include "report/demangle.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "profiler/core/base.h"
#include "report/demangle_part.h"

/* ---- names --------------------------------------------------------------------------------------- */

/* After "Ul" or "Ut": types, E, number, _. */
static void unnamed(struct parse *d, bool is_lambda)
{
    while (is_lambda && dm_peek(d) != 'E')
        dm_type(d);
    if (is_lambda)
        dm_take(d, 'E');
    dm_number(d);
    dm_take(d, '_');
}

/* A part of a name behind `before`. A lambda, its call, and a member `type` add nothing to that. */
static struct span component(struct parse *d, struct span before)
{
    char c = dm_peek(d);
    struct span s;

    if (dm_take2(d, "Ul"))
        return unnamed(d, true), before;
    if (dm_take2(d, "Ut"))
        return unnamed(d, false), before;
    if (c == 'L') {
        d->p++;
        return component(d, before);
    }
    if (dm_is_digit(c)) {
        s = dm_source_name(d);
        return dm_is_word(d, s, "type") && before.n ? before : s;
    }
    if (d->end - d->p >= 2 && (c == 'C' || c == 'D' || (c >= 'a' && c <= 'z'))) {
        bool is_call = dm_take2(d, "cl") || c == 'C' || c == 'D';

        if (!is_call || c == 'C' || c == 'D')
            d->p += 2;
        return is_call && before.n ? before : dm_put_text(d, "operator");
    }
    return d->p >= d->end ? before : dm_bad(d);
}

static struct span nested_step(struct parse *d, struct span cur, bool *is_sub)
{
    *is_sub = false;
    if (dm_take2(d, "St"))
        return *is_sub = true, cur;
    if (dm_take(d, 'S'))
        return *is_sub = true, dm_substitution(d);
    if (dm_take(d, 'T'))
        return dm_template_param(d);
    if (dm_take(d, 'I'))
        return dm_template_args(d, cur);
    return component(d, cur);
}

/* After the N; cur is what stands for a part without a name. */
static struct span nested(struct parse *d, struct span cur)
{
    bool is_sub;

    while (dm_take(d, 'r') || dm_take(d, 'V') || dm_take(d, 'K') || dm_take(d, 'R') ||
           dm_take(d, 'O'))
        ;
    while (dm_peek(d) != 'E') {
        cur = nested_step(d, cur, &is_sub);
        if (!is_sub && dm_peek(d) != 'E')
            dm_sub_add(d, cur);
    }
    dm_take(d, 'E');
    return cur;
}

/* After the Z. */
static struct span local(struct parse *d)
{
    struct span function = dm_encoding(d), s;

    while (dm_peek(d) != 'E')
        dm_type(d);
    dm_take(d, 'E');
    if (dm_take(d, 's'))
        return function;
    if (dm_take(d, 'd')) {
        dm_number(d);
        dm_take(d, '_');
    }
    s = dm_take(d, 'N') ? nested(d, function) : component(d, function);
    if (dm_take(d, '_')) {
        dm_take(d, '_');
        dm_number(d);
        dm_take(d, '_');
    }
    return s;
}

struct span dm_name(struct parse *d)
{
    struct span s;
    bool is_sub = false;

    if (++d->depth > DEPTH_MAX)
        dm_bad(d);
    if (dm_take(d, 'N'))
        s = nested(d, (struct span){0, 0});
    else if (dm_take(d, 'Z'))
        s = local(d);
    else {
        bool in_std = dm_take2(d, "St");

        is_sub = !in_std && dm_take(d, 'S');
        s = is_sub ? dm_substitution(d) : component(d, (struct span){0, 0});
        if (dm_peek(d) == 'I' && !is_sub)
            dm_sub_add(d, s);
    }
    if (dm_take(d, 'I'))
        s = dm_template_args(d, s);
    d->depth--;
    return s;
}

struct span dm_encoding(struct parse *d)
{
    return dm_name(d);
}

/* ---- the whole ------------------------------------------------------------------------------------- */

static const char *copy(char *out, size_t bytes, const char *text, size_t n, bool is_cut)
{
    size_t room = bytes - 1;

    if (n > room || is_cut) {
        n = n > room - 3 ? room - 3 : n;
        while (n && ((unsigned char)text[n - 1] & 0xc0) == 0x80)
            n--;
        n -= n && (unsigned char)text[n - 1] >= 0xc0;
        is_cut = true;
    }
    memmove(out, text, n);
    strcpy(out + n, is_cut ? "…" : "");
    return out;
}

const char *rp_kernel_name(char *out, size_t bytes, const char *mangled)
{
    struct parse d;
    struct span s;

    if (strncmp(mangled, "_Z", 2) != 0)
        return rp_kernel_text(out, bytes, mangled);
    d.p = mangled + 2;
    d.end = mangled + strnlen(mangled, 4096);
    d.is_cut = d.is_bad = false;
    d.depth = 0;
    d.n_sub = d.n_arg = 0;
    d.used = 0;
    s = dm_encoding(&d);
    if (d.is_bad || s.n == 0)
        return copy(out, bytes, mangled, strlen(mangled), false);
    return copy(out, bytes, d.text + s.at, s.n, d.is_cut);
}
