/* Types and error codes that every room but kernels/ shares.
 *
 * Errors: a function that can fail returns int, 0 or a negative MP_E* code, and puts its result
 * through an out pointer. `struct mp_err` carries a sentence where a human will read it:
 * cause first, subject in single quotes, what to do next, lower case, no full stop.
 */
#ifndef MP_BASE_H
#define MP_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MP_STATIC_ASSERT(cond, why) _Static_assert(cond, why)
#define countof(array)              (sizeof(array) / sizeof((array)[0]))

enum mp_code {
    MP_OK = 0,
    MP_EINVAL = -1,   /* caller gave something outside the documented range */
    MP_ENOMEM = -2,   /* allocation failed */
    MP_EIO = -3,      /* read, write, open, map: errno in the sentence */
    MP_EFORMAT = -4,  /* bytes from outside do not parse */
    MP_EVERSION = -5, /* bytes from another version of moeprof */
    MP_ENOTSUP = -6,  /* not built in, or this machine cannot */
    MP_EGONE = -7,    /* the target is gone */
    MP_EFULL = -8,    /* fixed capacity reached; the loss is counted by the owner */
    MP_EBUSY = -9,    /* another tool holds it */
    MP_EPERM = -10,   /* not allowed: other user, read-only */
};

struct mp_err {
    int code; /* enum mp_code */
    char msg[200];
};

/* Text of a code, never NULL. */
const char *mp_strcode(int code);

/* Fills *err (may be NULL) printf-style and returns code, so that `return mp_fail(...)` reads well. */
int mp_fail(struct mp_err *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
#ifdef __clang_analyzer__ /* it does not see into a variadic function: that code comes back, never 0 */
#define mp_fail(err, code, ...) ((void)(mp_fail)(err, code, __VA_ARGS__), (code))
#endif

/* Where a figure came from. A figure with MP_UNKNOWN is never shown as 0 and never summed. */
enum mp_basis { MP_UNKNOWN = 0, MP_MEASURED, MP_APPORTIONED, MP_MODELLED, MP_BASIS_COUNT };

struct mp_val {
    double v;
    enum mp_basis basis;
};

const char *mp_basis_name(enum mp_basis basis);

#endif
