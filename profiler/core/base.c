/* Names of codes and bases, and the one way to word an error. */
#include "profiler/core/base.h"

#include <stdarg.h>
#include <stdio.h>

static const char *const basis_name[MP_BASIS_COUNT] = {
    [MP_UNKNOWN] = "unknown",
    [MP_MEASURED] = "measured",
    [MP_APPORTIONED] = "apportioned",
    [MP_MODELLED] = "modelled",
};

static const char *const code_name[] = {
    "ok",
    "invalid argument",
    "out of memory",
    "input or output failed",
    "not understood",
    "wrong version",
    "not supported",
    "target is gone",
    "full",
    "busy",
    "not allowed",
};

const char *mp_strcode(int code)
{
    size_t i = code <= 0 ? (size_t)-code : countof(code_name);

    return i < countof(code_name) ? code_name[i] : "unknown error";
}

const char *mp_basis_name(enum mp_basis basis)
{
    return (unsigned)basis < MP_BASIS_COUNT ? basis_name[basis] : basis_name[MP_UNKNOWN];
}

int(mp_fail)(struct mp_err *err, int code, const char *fmt, ...)
{
    va_list ap;

    if (!err)
        return code;
    err->code = code;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    return code;
}
