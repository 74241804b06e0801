/* Pure text. The only place where percent and unit prefixes exist. */
#include "report/format.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *mark(struct mp_val v)
{
    return v.basis == MP_APPORTIONED || v.basis == MP_MODELLED ? "~" : "";
}

static bool is_unknown(char *out, struct mp_val v)
{
    if (v.basis != MP_UNKNOWN && isfinite(v.v))
        return false;
    strcpy(out, RP_DASH);
    return true;
}

/* Three significant digits below 1000, as many as needed above. */
static int digits_after(double v)
{
    return v >= 100 ? 0 : v >= 10 ? 1 : 2;
}

const char *rp_fmt_seconds(char out[RP_FIG], struct mp_val v)
{
    static const struct {
        double from, scale;
        const char *unit;
    } unit[] = {{1, 1, "s"}, {1e-3, 1e3, "ms"}, {1e-6, 1e6, "µs"}, {0, 1e9, "ns"}};
    size_t i = 0;

    if (is_unknown(out, v))
        return out;
    if (v.v == 0) {
        snprintf(out, RP_FIG, "%s0 s", mark(v));
        return out;
    }
    while (i + 1 < countof(unit) && v.v < unit[i].from * 0.9995)
        i++;
    v.v *= unit[i].scale;
    snprintf(out, RP_FIG, "%s%.*f %s", mark(v), i == 0 ? 3 : digits_after(v.v), v.v, unit[i].unit);
    return out;
}

const char *rp_fmt_percent(char out[RP_FIG], struct mp_val v)
{
    if (!is_unknown(out, v))
        snprintf(out, RP_FIG, "%s%.*f %%", mark(v), v.v > 0 && v.v < 0.00095 ? 2 : 1, v.v * 100);
    return out;
}

const char *rp_fmt_count(char out[RP_FIG], struct mp_val v)
{
    char plain[RP_FIG];
    size_t n, at = 0;

    if (is_unknown(out, v))
        return out;
    if (!(fabs(v.v) < 1e15))
        return rp_fmt_si(out, v);
    at = strlen(strcpy(out, mark(v)));
    n = (size_t)snprintf(plain, sizeof plain, "%.0f", v.v);
    for (size_t i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0 && plain[i - 1] != '-')
            out[at++] = ' ';
        out[at++] = plain[i];
    }
    out[at] = 0;
    return out;
}

const char *rp_fmt_si(char out[RP_FIG], struct mp_val v)
{
    static const char *const prefix[] = {"", " k", " M", " G", " T", " P", " E"};
    size_t i = 0;

    if (is_unknown(out, v))
        return out;
    while (v.v >= 999.5 && i + 1 < countof(prefix)) {
        v.v /= 1000;
        i++;
    }
    snprintf(out, RP_FIG, "%s%.*f%s", mark(v), i ? digits_after(v.v) : 0, v.v, prefix[i]);
    return out;
}

static bool starts_char(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

size_t rp_columns(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += starts_char(*text);
    return n;
}

const char *rp_cut(char *out, size_t out_bytes, const char *text, size_t columns)
{
    size_t n = 0, i = 0;

    if (rp_columns(text) <= columns && strlen(text) < out_bytes)
        return strcpy(out, text);
    for (; text[i] && i + 4 < out_bytes; i++)
        if (starts_char(text[i]) && ++n == columns)
            break;
    while (i && !starts_char(text[i]))
        i--;
    memcpy(out, text, i);
    strcpy(out + i, "…");
    return out;
}
