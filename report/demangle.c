/* Itanium mangling, read by recursive descent. Every part leaves its short text in one arena and is known
 * by its place there, so substitutions (S0_) cost nothing. The end of the input reads as 'E', which ends
 * everything that is open: names that were recorded only in part come out as far as they go. */
#include "report/demangle.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "profiler/core/base.h"
#include "report/demangle_part.h"

#define ARENA     32768 /* offsets are 16 bits wide */
#define SPAN_MAX  512u  /* longer parts are cut: nobody reads them */
#define DEPTH_MAX 64
#define SUB_MAX   256
#define ARG_MAX   24

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

static struct span name(struct parse *d);
static struct span type(struct parse *d);
static struct span encoding(struct parse *d);

static char peek(struct parse *d)
{
    if (d->is_bad)
        return 'E';
    if (d->p < d->end)
        return *d->p;
    d->is_cut = true;
    return 'E';
}

static bool take(struct parse *d, char c)
{
    if (d->is_bad || d->p >= d->end || *d->p != c)
        return false;
    d->p++;
    return true;
}

static bool take2(struct parse *d, const char *two)
{
    if (d->is_bad || d->end - d->p < 2 || d->p[0] != two[0] || d->p[1] != two[1])
        return false;
    d->p += 2;
    return true;
}

static struct span bad(struct parse *d)
{
    d->is_bad = true;
    return (struct span){0, 0};
}

/* ---- text ------------------------------------------------------------------------------------- */

static void put(struct parse *d, struct span *s, const char *text, size_t n)
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

static struct span put_text(struct parse *d, const char *text)
{
    struct span s = {0, 0};

    put(d, &s, text, strlen(text));
    return s;
}

static void put_span(struct parse *d, struct span *s, struct span more)
{
    put(d, s, d->text + more.at, more.n);
}

static bool starts(const struct parse *d, struct span s, const char *word)
{
    size_t n = strlen(word);

    return s.n >= n && memcmp(d->text + s.at, word, n) == 0;
}

static bool is_word(const struct parse *d, struct span s, const char *word)
{
    return s.n == strlen(word) && starts(d, s, word);
}

static void sub_add(struct parse *d, struct span s)
{
    if (d->n_sub < SUB_MAX)
        d->sub[d->n_sub++] = s;
}

/* ---- numbers and identifiers --------------------------------------------------------------------- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static size_t number(struct parse *d)
{
    size_t v = 0;

    while (is_digit(peek(d)))
        v = v < 100000 ? v * 10 + (size_t)(*d->p++ - '0') : (d->p++, v);
    return v;
}

static struct span source_name(struct parse *d)
{
    size_t n = number(d), there = (size_t)(d->end - d->p);
    struct span s = {0, 0};

    if (n == 0)
        return d->is_cut ? s : bad(d);
    if (n > there) {
        d->is_cut = true;
        n = there;
    }
    put(d, &s, d->p, n);
    d->p += n;
    return s;
}

/* [0-9A-Z]* _ : 0 for "_", 1 for "0_". */
static size_t seq_id(struct parse *d)
{
    size_t v = 0, any = 0;

    for (char c; (c = peek(d)) != '_'; d->p++, any = 1) {
        if (d->is_bad || d->p >= d->end || v > 100000)
            return SUB_MAX;
        if (!is_digit(c) && !(c >= 'A' && c <= 'Z'))
            return SUB_MAX;
        v = v * 36 + (size_t)(is_digit(c) ? c - '0' : c - 'A' + 10);
    }
    d->p++;
    return v + any;
}

/* After the S. */
static struct span substitution(struct parse *d)
{
    static const struct {
        char c;
        const char *text;
    } known[] = {{'a', "allocator"}, {'b', "basic_string"}, {'s', "string"},
                 {'i', "istream"},   {'o', "ostream"},      {'d', "iostream"}};
    size_t i;

    for (i = 0; i < countof(known); i++)
        if (take(d, known[i].c))
            return put_text(d, known[i].text);
    i = seq_id(d);
    if (i >= d->n_sub)
        return d->p >= d->end ? (struct span){0, 0} : bad(d);
    return d->sub[i];
}

/* After the T: what the last template arguments say, as these are mostly the function's. */
static struct span template_param(struct parse *d)
{
    size_t i = 0;

    if (peek(d) != '_')
        i = number(d) + 1;
    if (!take(d, '_'))
        return bad(d);
    return i < d->n_arg ? d->arg[i] : put_text(d, "T");
}

/* ---- template arguments ---------------------------------------------------------------------------- */

/* How memory is walked tells a reader nothing. */
static bool is_dull(const struct parse *d, struct span s)
{
    static const char *const dull[] = {"array<",         "TrivialOffsetCalculator",
                                       "LoadWith",       "StoreWith",
                                       "policy_hub",     "ScanTileState",
                                       "NullType",       "identity_decomposer",
                                       "TensorListMeta", "FusedOptimizerTensorListMeta"};

    for (size_t i = 0; i < countof(dull); i++)
        if (starts(d, s, dull[i]))
            return true;
    return s.n == 0;
}

/* After the L. */
static struct span literal(struct parse *d)
{
    bool is_bool = peek(d) == 'b';
    struct span s = {0, 0};

    if (take2(d, "_Z"))
        s = encoding(d);
    else {
        type(d);
        if (take(d, 'n'))
            put(d, &s, "-", 1);
        for (char c; (c = peek(d)) != 'E' && !d->is_cut; d->p++)
            put(d, &s, &c, 1);
        if (is_bool)
            s = put_text(d, is_word(d, s, "0") ? "false" : "true");
    }
    take(d, 'E');
    return s;
}

/* After the X: only what names something; the rest is left unread. */
static struct span expression(struct parse *d)
{
    struct span s = {0, 0};

    if (take(d, 'T'))
        s = template_param(d);
    else if (take(d, 'L'))
        s = literal(d);
    else
        return bad(d);
    if (!take(d, 'E') && d->p < d->end)
        return bad(d);
    return s;
}

static void argument_list(struct parse *d, struct span *list, unsigned *n);

static struct span argument(struct parse *d)
{
    struct span pack[ARG_MAX], s = {0, 0};
    unsigned n = 0;

    if (take(d, 'L'))
        return literal(d);
    if (take(d, 'X'))
        return expression(d);
    if (!take(d, 'J'))
        return type(d);
    argument_list(d, pack, &n);
    for (unsigned i = 0; i < n; i++) {
        put(d, &s, ", ", i ? 2 : 0);
        put_span(d, &s, pack[i]);
    }
    return s;
}

/* To the E that ends it. */
static void argument_list(struct parse *d, struct span *list, unsigned *n)
{
    if (++d->depth > DEPTH_MAX)
        bad(d);
    *n = 0;
    while (peek(d) != 'E') {
        struct span s = argument(d);

        if (*n < ARG_MAX)
            list[(*n)++] = s;
    }
    take(d, 'E');
    d->depth--;
}

/* Wrappers around the one argument that says what is done. */
static bool is_wrapper(const struct parse *d, struct span s)
{
    static const char *const wrapper[] = {
        "gpu_kernel_impl", "gpu_kernel_impl_nocast",    "gpu_index_kernel",
        "device_kernel",   "enable_3x_kernel_for_sm9x", "enable_3x_kernel_for_sm10x"};

    for (size_t i = 0; i < countof(wrapper); i++)
        if (is_word(d, s, wrapper[i]))
            return true;
    return false;
}

/* After the I: base with its arguments. */
static struct span template_args(struct parse *d, struct span base)
{
    struct span list[ARG_MAX], s = {0, 0};
    unsigned n, shown = 0;

    argument_list(d, list, &n);
    if (n && list[0].n && is_wrapper(d, base))
        return list[0];
    put_span(d, &s, base);
    put(d, &s, "<", 1);
    for (unsigned i = 0; i < n; i++) {
        if (is_dull(d, list[i]))
            continue;
        put(d, &s, ", ", shown++ ? 2 : 0);
        put_span(d, &s, list[i]);
    }
    put(d, &s, ">", 1);
    memcpy(d->arg, list, n * sizeof *list);
    d->n_arg = n;
    /* one pair of brackets a name: f<int>::operator()<long> is f<int> */
    return shown && !(base.n && d->text[base.at + base.n - 1] == '>') ? s : base;
}

/* ---- names --------------------------------------------------------------------------------------- */

/* After "Ul" or "Ut": types, E, number, _. */
static void unnamed(struct parse *d, bool is_lambda)
{
    while (is_lambda && peek(d) != 'E')
        type(d);
    if (is_lambda)
        take(d, 'E');
    number(d);
    take(d, '_');
}

/* A part of a name behind `before`. A lambda, its call, and a member `type` add nothing to that. */
static struct span component(struct parse *d, struct span before)
{
    char c = peek(d);
    struct span s;

    if (take2(d, "Ul"))
        return unnamed(d, true), before;
    if (take2(d, "Ut"))
        return unnamed(d, false), before;
    if (c == 'L') {
        d->p++;
        return component(d, before);
    }
    if (is_digit(c)) {
        s = source_name(d);
        return is_word(d, s, "type") && before.n ? before : s;
    }
    if (d->end - d->p >= 2 && (c == 'C' || c == 'D' || (c >= 'a' && c <= 'z'))) {
        bool is_call = take2(d, "cl") || c == 'C' || c == 'D';

        if (!is_call || c == 'C' || c == 'D')
            d->p += 2;
        return is_call && before.n ? before : put_text(d, "operator");
    }
    return d->p >= d->end ? before : bad(d);
}

static struct span nested_step(struct parse *d, struct span cur, bool *is_sub)
{
    *is_sub = false;
    if (take2(d, "St"))
        return *is_sub = true, cur;
    if (take(d, 'S'))
        return *is_sub = true, substitution(d);
    if (take(d, 'T'))
        return template_param(d);
    if (take(d, 'I'))
        return template_args(d, cur);
    return component(d, cur);
}

/* After the N; cur is what stands for a part without a name. */
static struct span nested(struct parse *d, struct span cur)
{
    bool is_sub;

    while (take(d, 'r') || take(d, 'V') || take(d, 'K') || take(d, 'R') || take(d, 'O'))
        ;
    while (peek(d) != 'E') {
        cur = nested_step(d, cur, &is_sub);
        if (!is_sub && peek(d) != 'E')
            sub_add(d, cur);
    }
    take(d, 'E');
    return cur;
}

/* After the Z. */
static struct span local(struct parse *d)
{
    struct span function = encoding(d), s;

    while (peek(d) != 'E')
        type(d);
    take(d, 'E');
    if (take(d, 's'))
        return function;
    if (take(d, 'd')) {
        number(d);
        take(d, '_');
    }
    s = take(d, 'N') ? nested(d, function) : component(d, function);
    if (take(d, '_')) {
        take(d, '_');
        number(d);
        take(d, '_');
    }
    return s;
}

static struct span name(struct parse *d)
{
    struct span s;
    bool is_sub = false;

    if (++d->depth > DEPTH_MAX)
        bad(d);
    if (take(d, 'N'))
        s = nested(d, (struct span){0, 0});
    else if (take(d, 'Z'))
        s = local(d);
    else {
        bool in_std = take2(d, "St");

        is_sub = !in_std && take(d, 'S');
        s = is_sub ? substitution(d) : component(d, (struct span){0, 0});
        if (peek(d) == 'I' && !is_sub)
            sub_add(d, s);
    }
    if (take(d, 'I'))
        s = template_args(d, s);
    d->depth--;
    return s;
}

static struct span encoding(struct parse *d)
{
    return name(d);
}

/* ---- types ------------------------------------------------------------------------------------------ */

static const char *builtin(char c)
{
    static const char *const word[26] = {
        ['a' - 'a'] = "schar",    ['b' - 'a'] = "bool",    ['c' - 'a'] = "char",
        ['d' - 'a'] = "double",   ['e' - 'a'] = "ldouble", ['f' - 'a'] = "float",
        ['g' - 'a'] = "float128", ['h' - 'a'] = "uchar",   ['i' - 'a'] = "int",
        ['j' - 'a'] = "uint",     ['l' - 'a'] = "long",    ['m' - 'a'] = "ulong",
        ['n' - 'a'] = "int128",   ['o' - 'a'] = "uint128", ['s' - 'a'] = "short",
        ['t' - 'a'] = "ushort",   ['v' - 'a'] = "void",    ['w' - 'a'] = "wchar",
        ['x' - 'a'] = "llong",    ['y' - 'a'] = "ullong",  ['z' - 'a'] = "..."};

    return c >= 'a' && c <= 'z' ? word[c - 'a'] : NULL;
}

/* After the F: to its E. */
static struct span function_type(struct parse *d)
{
    while (peek(d) != 'E')
        type(d);
    take(d, 'E');
    return put_text(d, "fn");
}

/* After the D. */
static struct span d_type(struct parse *d)
{
    if (take(d, 'p'))
        return type(d);
    if (take(d, 'n'))
        return put_text(d, "nullptr");
    if (take(d, 'F')) {
        number(d);
        return put_text(d, take(d, 'b') ? "bfloat16" : take(d, '_') ? "float16" : "float");
    }
    if (take(d, 'i') || take(d, 's') || take(d, 'u'))
        return put_text(d, "char");
    return bad(d);
}

/* The S of a type: std::x, or a substitution, perhaps with arguments. */
static struct span s_type(struct parse *d, bool *is_new)
{
    struct span s;

    if (d->end - d->p >= 2 && d->p[1] == 't')
        return name(d);
    d->p++;
    s = substitution(d);
    *is_new = take(d, 'I');
    return *is_new ? template_args(d, s) : s;
}

static struct span pointer(struct parse *d)
{
    struct span s = {0, 0};

    put_span(d, &s, type(d));
    put(d, &s, "*", 1);
    return s;
}

/* Types that are made of others; all of them can be substituted. */
static struct span compound(struct parse *d, char c, bool *is_new)
{
    struct span s;

    if (c == 'S')
        return s_type(d, is_new);
    if (c == 'N' || c == 'Z' || is_digit(c))
        return name(d);
    d->p += d->p < d->end;
    switch (c) {
    case 'P':
        return pointer(d);
    case 'K':
    case 'V':
    case 'r':
    case 'R':
    case 'O':
        return type(d);
    case 'F':
        return function_type(d);
    case 'T':
        s = template_param(d);
        if (peek(d) == 'I') {
            sub_add(d, s);
            d->p++;
            s = template_args(d, s);
        }
        return s;
    case 'A':
        number(d);
        take(d, '_');
        return type(d);
    case 'M':
        type(d);
        return type(d);
    case 'D':
        return d_type(d);
    case 'u':
        return source_name(d);
    }
    return bad(d);
}

static struct span type(struct parse *d)
{
    char c = peek(d);
    const char *word = builtin(c);
    struct span s;
    bool is_new = true;

    if (word) {
        d->p++;
        return put_text(d, word);
    }
    if (d->p >= d->end)
        return (struct span){0, 0};
    if (++d->depth > DEPTH_MAX)
        bad(d);
    s = compound(d, c, &is_new);
    d->depth--;
    if (is_new)
        sub_add(d, s);
    return s;
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
    s = encoding(&d);
    if (d.is_bad || s.n == 0)
        return copy(out, bytes, mangled, strlen(mangled), false);
    return copy(out, bytes, d.text + s.at, s.n, d.is_cut);
}
