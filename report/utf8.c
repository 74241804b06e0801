#include "report/utf8.h"

#include <stdbool.h>

static bool follows(const unsigned char *s, int n)
{
    for (int i = 1; i <= n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return false;
    return true;
}

size_t rp_utf8(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;

    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] < 0xe0)
        return follows(s, 1) ? 2 : 0;
    if (s[0] >= 0xe0 && s[0] < 0xf0) {
        bool bad = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0);

        return !bad && follows(s, 2) ? 3 : 0;
    }
    if (s[0] >= 0xf0 && s[0] < 0xf5) {
        bool bad = (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90);

        return !bad && follows(s, 3) ? 4 : 0;
    }
    return 0;
}

char *rp_utf8_clean(char *text)
{
    for (char *s = text; *s;) {
        size_t n = rp_utf8(s);

        if (n == 0 || (unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
        s += n ? n : 1;
    }
    return text;
}
