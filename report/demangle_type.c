/* Types and template arguments. */
#include "report/demangle_part.h"

#include <string.h>

#include "profiler/core/base.h"

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
        if (dm_starts(d, s, dull[i]))
            return true;
    return s.n == 0;
}

/* After the L. */
static struct span literal(struct parse *d)
{
    bool is_bool = dm_peek(d) == 'b';
    struct span s = {0, 0};

    if (dm_take2(d, "_Z"))
        s = dm_encoding(d);
    else {
        dm_type(d);
        if (dm_take(d, 'n'))
            dm_put(d, &s, "-", 1);
        for (char c; (c = dm_peek(d)) != 'E' && !d->is_cut; d->p++)
            dm_put(d, &s, &c, 1);
        if (is_bool)
            s = dm_put_text(d, dm_is_word(d, s, "0") ? "false" : "true");
    }
    dm_take(d, 'E');
    return s;
}

/* After the X: only what names something; the rest is left unread. */
static struct span expression(struct parse *d)
{
    struct span s = {0, 0};

    if (dm_take(d, 'T'))
        s = dm_template_param(d);
    else if (dm_take(d, 'L'))
        s = literal(d);
    else
        return dm_bad(d);
    if (!dm_take(d, 'E') && d->p < d->end)
        return dm_bad(d);
    return s;
}

static void argument_list(struct parse *d, struct span *list, unsigned *n);

static struct span argument(struct parse *d)
{
    struct span pack[ARG_MAX], s = {0, 0};
    unsigned n = 0;

    if (dm_take(d, 'L'))
        return literal(d);
    if (dm_take(d, 'X'))
        return expression(d);
    if (!dm_take(d, 'J'))
        return dm_type(d);
    argument_list(d, pack, &n);
    for (unsigned i = 0; i < n; i++) {
        dm_put(d, &s, ", ", i ? 2 : 0);
        dm_put_span(d, &s, pack[i]);
    }
    return s;
}

/* To the E that ends it. */
static void argument_list(struct parse *d, struct span *list, unsigned *n)
{
    if (++d->depth > DEPTH_MAX)
        dm_bad(d);
    *n = 0;
    while (dm_peek(d) != 'E') {
        struct span s = argument(d);

        if (*n < ARG_MAX)
            list[(*n)++] = s;
    }
    dm_take(d, 'E');
    d->depth--;
}

/* Wrappers around the one argument that says what is done. */
static bool is_wrapper(const struct parse *d, struct span s)
{
    static const char *const wrapper[] = {
        "gpu_kernel_impl", "gpu_kernel_impl_nocast",    "gpu_index_kernel",
        "device_kernel",   "enable_3x_kernel_for_sm9x", "enable_3x_kernel_for_sm10x"};

    for (size_t i = 0; i < countof(wrapper); i++)
        if (dm_is_word(d, s, wrapper[i]))
            return true;
    return false;
}

/* After the I: base with its arguments. */
struct span dm_template_args(struct parse *d, struct span base)
{
    struct span list[ARG_MAX], s = {0, 0};
    unsigned n, shown = 0;

    argument_list(d, list, &n);
    if (n && list[0].n && is_wrapper(d, base))
        return list[0];
    dm_put_span(d, &s, base);
    dm_put(d, &s, "<", 1);
    for (unsigned i = 0; i < n; i++) {
        if (is_dull(d, list[i]))
            continue;
        dm_put(d, &s, ", ", shown++ ? 2 : 0);
        dm_put_span(d, &s, list[i]);
    }
    dm_put(d, &s, ">", 1);
    memcpy(d->arg, list, n * sizeof *list);
    d->n_arg = n;
    /* one pair of brackets a name: f<int>::operator()<long> is f<int> */
    return shown && !(base.n && d->text[base.at + base.n - 1] == '>') ? s : base;
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
    while (dm_peek(d) != 'E')
        dm_type(d);
    dm_take(d, 'E');
    return dm_put_text(d, "fn");
}

/* After the D. */
static struct span d_type(struct parse *d)
{
    if (dm_take(d, 'p'))
        return dm_type(d);
    if (dm_take(d, 'n'))
        return dm_put_text(d, "nullptr");
    if (dm_take(d, 'F')) {
        dm_number(d);
        return dm_put_text(d, dm_take(d, 'b') ? "bfloat16" : dm_take(d, '_') ? "float16" : "float");
    }
    if (dm_take(d, 'i') || dm_take(d, 's') || dm_take(d, 'u'))
        return dm_put_text(d, "char");
    return dm_bad(d);
}

/* The S of a type: std::x, or a substitution, perhaps with arguments. */
static struct span s_type(struct parse *d, bool *is_new)
{
    struct span s;

    if (d->end - d->p >= 2 && d->p[1] == 't')
        return dm_name(d);
    d->p++;
    s = dm_substitution(d);
    *is_new = dm_take(d, 'I');
    return *is_new ? dm_template_args(d, s) : s;
}

static struct span pointer(struct parse *d)
{
    struct span s = {0, 0};

    dm_put_span(d, &s, dm_type(d));
    dm_put(d, &s, "*", 1);
    return s;
}

/* Types that are made of others; all of them can be substituted. */
static struct span compound(struct parse *d, char c, bool *is_new)
{
    struct span s;

    if (c == 'S')
        return s_type(d, is_new);
    if (c == 'N' || c == 'Z' || dm_is_digit(c))
        return dm_name(d);
    d->p += d->p < d->end;
    switch (c) {
    case 'P':
        return pointer(d);
    case 'K':
    case 'V':
    case 'r':
    case 'R':
    case 'O':
        return dm_type(d);
    case 'F':
        return function_type(d);
    case 'T':
        s = dm_template_param(d);
        if (dm_peek(d) == 'I') {
            dm_sub_add(d, s);
            d->p++;
            s = dm_template_args(d, s);
        }
        return s;
    case 'A':
        dm_number(d);
        dm_take(d, '_');
        return dm_type(d);
    case 'M':
        dm_type(d);
        return dm_type(d);
    case 'D':
        return d_type(d);
    case 'u':
        return dm_source_name(d);
    }
    return dm_bad(d);
}

struct span dm_type(struct parse *d)
{
    char c = dm_peek(d);
    const char *word = builtin(c);
    struct span s;
    bool is_new = true;

    if (word) {
        d->p++;
        return dm_put_text(d, word);
    }
    if (d->p >= d->end)
        return (struct span){0, 0};
    if (++d->depth > DEPTH_MAX)
        dm_bad(d);
    s = compound(d, c, &is_new);
    d->depth--;
    if (is_new)
        dm_sub_add(d, s);
    return s;
}
