/* One rule for all: the mark of the basis, four significant figures at most, then the unit. */
#include "profiler/dash/fmt.h"

#include <math.h>
#include <stdio.h>

static bool is_unknown(struct mp_val v)
{
    return v.basis == MP_UNKNOWN || !isfinite(v.v);
}

static const char *mark(struct mp_val v)
{
    return v.basis == MP_APPORTIONED || v.basis == MP_MODELLED ? "~" : "";
}

/* Decimals that leave about three figures. */
static int decimals_for(double v)
{
    double size = fabs(v);

    return size < 9.995 ? 2 : size < 99.95 ? 1 : 0;
}

static const char *scaled(char *out, struct mp_val v, double unit_size, const char *space,
                          const char *unit)
{
    double x = v.v / unit_size;

    snprintf(out, DASH_FMT_BYTES, "%s%.*f%s%s", mark(v), decimals_for(x), x, space, unit);
    return out;
}

const char *dash_fmt_num(char out[DASH_FMT_BYTES], struct mp_val v, int decimals, const char *unit)
{
    if (is_unknown(v))
        return DASH_UNKNOWN;
    snprintf(out, DASH_FMT_BYTES, "%s%.*f%s%s", mark(v), decimals, v.v, *unit ? " " : "", unit);
    return out;
}

const char *dash_fmt_frac(char out[DASH_FMT_BYTES], struct mp_val frac)
{
    frac.v *= 100;
    return dash_fmt_num(out, frac, 1, "%");
}

const char *dash_fmt_ns(char out[DASH_FMT_BYTES], struct mp_val ns)
{
    double size = fabs(ns.v);

    if (is_unknown(ns))
        return DASH_UNKNOWN;
    if (size >= 999.5e6)
        return scaled(out, ns, 1e9, " ", "s");
    if (size >= 999.5e3)
        return scaled(out, ns, 1e6, " ", "ms");
    if (size >= 999.5)
        return scaled(out, ns, 1e3, " ", "µs");
    return dash_fmt_num(out, ns, 0, "ns");
}

const char *dash_fmt_si(char out[DASH_FMT_BYTES], struct mp_val v, const char *unit)
{
    static const char *const prefix[] = {"", "k", "M", "G", "T", "P", "E"};
    double size = fabs(v.v), unit_size = 1;
    char tail[24];
    size_t i = 0;

    if (is_unknown(v))
        return DASH_UNKNOWN;
    while (size / unit_size >= 999.5 && i + 1 < countof(prefix)) {
        unit_size *= 1000;
        i++;
    }
    snprintf(tail, sizeof tail, "%s%s", prefix[i], unit);
    if (i == 0 && v.v == floor(v.v))
        return dash_fmt_num(out, v, 0, tail);
    return scaled(out, v, unit_size, *tail ? " " : "", tail);
}

const char *dash_fmt_bytes(char out[DASH_FMT_BYTES], struct mp_val bytes)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double unit_size = 1;
    size_t i = 0;

    if (is_unknown(bytes))
        return DASH_UNKNOWN;
    while (fabs(bytes.v) / unit_size >= 1023.5 && i + 1 < countof(unit)) {
        unit_size *= 1024;
        i++;
    }
    return scaled(out, bytes, unit_size, " ", unit[i]);
}

struct mp_val dash_measured(double v)
{
    return (struct mp_val){v, isfinite(v) ? MP_MEASURED : MP_UNKNOWN};
}
