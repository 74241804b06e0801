/* Names that are demangled already: without qualifiers, parameters and lambdas. One look at each byte. */
#include "report/demangle_part.h"

#include <stdbool.h>
#include <string.h>

#include "profiler/core/base.h"

struct text {
    char *out;
    size_t n, room;
};

static bool is_ident(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '~' || c == '$' || (unsigned char)c >= 0x80;
}

/* The first byte behind the bracket that p stands on and its partner. */
static const char *behind(const char *p, char open, char close)
{
    int depth = 0;

    for (; *p; p++) {
        depth += (*p == open) - (*p == close);
        if (depth == 0)
            return p + 1;
    }
    return p;
}

/* Takes back the qualifier that a :: ends, with its template arguments. */
static void take_back(struct text *t)
{
    int depth = 0;

    while (t->n) {
        char c = t->out[t->n - 1];

        depth += (c == '>') - (c == '<');
        if (depth < 0 || (depth == 0 && c != '<' && !is_ident(c)))
            return;
        t->n--;
    }
}

static const char *behind_scope(struct text *t, const char *p)
{
    if (*p == '{')
        return behind(p, '{', '}');
    if (strncmp(p, "operator()", 10) == 0)
        return p + 10;
    take_back(t);
    return p;
}

/* Only where there is something of C++ to take away. */
static bool is_cxx(const char *name)
{
    return strpbrk(name, "(<:") != NULL;
}

static const char *finish(struct text *t, const char *rest)
{
    while (t->n && t->out[t->n - 1] == ' ')
        t->n--;
    if (*rest) {
        while (t->n && (t->n > t->room - 4 || ((unsigned char)t->out[t->n - 1] & 0xc0) == 0x80))
            t->n--;
        t->n -= t->n && (unsigned char)t->out[t->n - 1] >= 0xc0;
    }
    strcpy(t->out + t->n, *rest ? "…" : "");
    return t->out;
}

const char *rp_kernel_text(char *out, size_t bytes, const char *name)
{
    struct text t = {.out = out, .room = bytes};
    const char *p = name;
    bool cxx = is_cxx(name);

    if (cxx && strncmp(p, "void ", 5) == 0)
        p += 5;
    while (*p && t.n + 4 < bytes) {
        if (cxx && *p == '(')
            p = behind(p, '(', ')');
        else if (cxx && p[0] == ':' && p[1] == ':')
            p = behind_scope(&t, p + 2);
        else if (cxx && strncmp(p, " const", 6) == 0 && !is_ident(p[6]))
            p += 6;
        else
            t.out[t.n++] = *p++;
    }
    if (t.n == 0 && cxx) /* nothing left: as it came */
        for (p = name; *p && t.n + 4 < bytes; p++)
            t.out[t.n++] = *p;
    return finish(&t, p);
}
