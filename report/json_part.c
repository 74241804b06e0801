/* See json_part.h. */
#include "report/json_part.h"

#include <math.h>

int rp_json_missing(struct mp_err *err)
{
    return mp_fail(
        err, MP_ENOTSUP,
        "this moeprof was built without jansson: install libjansson-dev and run make again");
}

#if HAVE_JANSSON

json_t *rp_json_known(double v, bool is_known)
{
    return is_known && isfinite(v) ? json_real(v) : json_null();
}

json_t *rp_json_value(struct mp_val v)
{
    return rp_json_known(v.v, v.basis != MP_UNKNOWN);
}

json_t *rp_json_text(const char *t)
{
    json_t *s = *t ? json_string(t) : json_null();

    return s ? s : json_null();
}

json_t *rp_json_interval(const struct rp_interval *in, bool is_known)
{
    return json_pack("{so so so}", "value", rp_json_known(in->value, is_known), "low",
                     rp_json_known(in->low, is_known), "high", rp_json_known(in->high, is_known));
}

json_t *rp_json_steady(const struct rp_steady *s)
{
    bool k = s->is_known;

    return json_pack("{so so so so so}", "is_steady", k ? json_boolean(s->is_steady) : json_null(),
                     "change_ratio", rp_json_known(s->change, k), "drift_ratio",
                     rp_json_known(s->drift, k), "drift_p", rp_json_known(s->drift_p, k), "lag1",
                     rp_json_value(s->lag1));
}

json_t *rp_json_series(const double *v, size_t n)
{
    json_t *all = json_array();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(all, json_real(v[i]));
    return all;
}

json_t *rp_json_notes(const char *note, size_t stride, size_t n)
{
    json_t *all = json_array();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(all, rp_json_text(note + i * stride));
    return all;
}

int rp_json_write(FILE *f, json_t *document, const char *what, struct mp_err *err)
{
    int rc;

    if (!document)
        return mp_fail(err, MP_ENOMEM, "no memory for %s", what);
    rc = json_dumpf(document, f, JSON_INDENT(1) | JSON_REAL_PRECISION(12) | JSON_ENSURE_ASCII);
    json_decref(document);
    return rc || fputc('\n', f) == EOF ? mp_fail(err, MP_EIO, "cannot write %s", what) : MP_OK;
}

#endif
