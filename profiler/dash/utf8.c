/* A strict decoder (no overlong forms, no surrogates) and a short table of widths. Marks that combine
 * are dropped rather than drawn: a cell holds one character. */
#include "profiler/dash/utf8.h"

#include "profiler/core/base.h"

struct range {
    uint32_t first, last;
};

static const struct range invisible[] = {
    {0x00, 0x1f},     {0x7f, 0x9f},       {0xad, 0xad},     {0x300, 0x36f},   {0x483, 0x489},
    {0x591, 0x5bd},   {0x610, 0x61a},     {0x64b, 0x65f},   {0x200b, 0x200f}, {0x2028, 0x202e},
    {0x2060, 0x206f}, {0x20d0, 0x20ff},   {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f}, {0xfeff, 0xfeff},
    {0xfff9, 0xfffb}, {0xe0000, 0xe0fff},
};

static const struct range wide[] = {
    {0x1100, 0x115f},   {0x231a, 0x231b},   {0x2e80, 0x303e},   {0x3041, 0xa4cf},
    {0xa960, 0xa97c},   {0xac00, 0xd7a3},   {0xf900, 0xfaff},   {0xfe30, 0xfe6f},
    {0xff00, 0xff60},   {0xffe0, 0xffe6},   {0x1f300, 0x1f64f}, {0x1f680, 0x1f6ff},
    {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd},
};

static const struct {
    uint32_t ch;
    char ascii;
} plain[] = {
    {0x2013, '-'},  {0x2014, '-'}, {0x2026, '.'}, {0xd7, 'x'},   {0xb5, 'u'},
    {0x3bc, 'u'},   {0xb7, '.'},   {0xb0, ' '},   {0x2500, '-'}, {0x2502, '|'},
    {0x2192, '>'},  {0x2190, '<'}, {0x2191, '^'}, {0x2193, 'v'}, {0x25cf, '*'},
    {0x25cb, 'o'},  {0x25b6, '>'}, {0x25b2, '^'}, {0x25bc, 'v'}, {0x2018, '\''},
    {0x2019, '\''}, {0x201c, '"'}, {0x201d, '"'}, {0x2248, '~'}, {0xa0, ' '},
};

static bool in_table(const struct range *table, size_t n, uint32_t ch)
{
    for (size_t i = 0; i < n; i++)
        if (ch >= table[i].first && ch <= table[i].last)
            return true;
    return false;
}

/* How many continuation bytes follow, and the bits of the lead byte; -1: not a lead byte. */
static int lead(unsigned char byte, uint32_t *bits)
{
    if (byte >= 0xc2 && byte <= 0xdf) {
        *bits = byte & 0x1fu;
        return 1;
    }
    if (byte >= 0xe0 && byte <= 0xef) {
        *bits = byte & 0x0fu;
        return 2;
    }
    if (byte >= 0xf0 && byte <= 0xf4) {
        *bits = byte & 0x07u;
        return 3;
    }
    return -1;
}

uint32_t dash_utf8_next(const char **s)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)*s;
    uint32_t ch = 0;
    int n;

    if (!*p)
        return 0;
    ++*s;
    if (*p < 0x80)
        return *p;
    n = lead(*p, &ch);
    if (n < 0)
        return DASH_BAD_CHAR;
    for (int i = 1; i <= n; i++) {
        if ((p[i] & 0xc0) != 0x80) /* the terminating NUL fails this too */
            return DASH_BAD_CHAR;
        ch = ch << 6 | (p[i] & 0x3fu);
    }
    if (ch < least[n] || ch > 0x10ffff || (ch >= 0xd800 && ch <= 0xdfff))
        return DASH_BAD_CHAR;
    *s += n;
    return ch;
}

uint32_t dash_utf8_feed(struct dash_utf8_feed *f, unsigned char byte)
{
    const char *s = f->byte;
    uint32_t bits, ch;
    int n_more;

    if ((byte & 0xc0) != 0x80)
        f->n = 0;
    f->byte[f->n++] = (char)byte;
    f->byte[f->n] = 0;
    n_more = lead((unsigned char)f->byte[0], &bits);
    if (f->n <= n_more)
        return 0;
    f->n = 0;
    ch = dash_utf8_next(&s);
    return ch == DASH_BAD_CHAR ? 0 : ch;
}

size_t dash_utf8_put(char out[4], uint32_t ch)
{
    if (ch < 0x80) {
        out[0] = (char)ch;
        return 1;
    }
    if (ch < 0x800) {
        out[0] = (char)(0xc0 | ch >> 6);
        out[1] = (char)(0x80 | (ch & 0x3f));
        return 2;
    }
    if (ch < 0x10000) {
        out[0] = (char)(0xe0 | ch >> 12);
        out[1] = (char)(0x80 | (ch >> 6 & 0x3f));
        out[2] = (char)(0x80 | (ch & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | ch >> 18);
    out[1] = (char)(0x80 | (ch >> 12 & 0x3f));
    out[2] = (char)(0x80 | (ch >> 6 & 0x3f));
    out[3] = (char)(0x80 | (ch & 0x3f));
    return 4;
}

int dash_char_width(uint32_t ch)
{
    if (ch >= 0x20 && ch < 0x7f)
        return 1;
    if (in_table(invisible, countof(invisible), ch))
        return 0;
    return in_table(wide, countof(wide), ch) ? 2 : 1;
}

int dash_text_width(const char *s)
{
    int width = 0;
    uint32_t ch;

    while ((ch = dash_utf8_next(&s)))
        width += dash_char_width(ch);
    return width;
}

char dash_char_ascii(uint32_t ch)
{
    if (ch >= 0x20 && ch < 0x7f)
        return (char)ch;
    for (size_t i = 0; i < countof(plain); i++)
        if (plain[i].ch == ch)
            return plain[i].ascii;
    return '?';
}
