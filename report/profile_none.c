/* Built without SQLite: nothing here is ever reached, because no profile can be opened. It keeps the
 * rest of the tool free of #if. */
#include "report/profile_file.h"

#if !HAVE_SQLITE

#define NONE(decl)                                                                                 \
    int decl                                                                                       \
    {                                                                                              \
        return MP_ENOTSUP;                                                                         \
    }

#pragma GCC diagnostic ignored "-Wunused-parameter"
NONE(rp_profile_begin(struct rp_profile *p, struct mp_err *err))
NONE(rp_profile_commit(struct rp_profile *p, struct mp_err *err))
NONE(rp_put_meta(struct rp_profile *p, const char *key, const char *value, struct mp_err *err))
NONE(rp_put_meta_int(struct rp_profile *p, const char *key, int64_t value, struct mp_err *err))
NONE(rp_put_spec(struct rp_profile *p, const char *json, size_t bytes, struct mp_err *err))
NONE(rp_put_name(struct rp_profile *p, uint32_t id, const char *name, struct mp_err *err))
NONE(rp_put_step(struct rp_profile *p, const struct mp_step *step, struct mp_err *err))
NONE(rp_put_gauge(struct rp_profile *p, const struct rp_gauge *gauge, struct mp_err *err))
NONE(rp_put_log(struct rp_profile *p, int64_t id, const struct rp_log *log, struct mp_err *err))
NONE(rp_put_chunk(struct rp_profile *p, const union mp_record *r, size_t n, uint64_t lost,
                  struct mp_err *err))
NONE(rp_put_block(struct rp_profile *p, int block, const struct rp_block *b, struct mp_err *err))
NONE(rp_put_cells(struct rp_profile *p, int block, const struct mp_cell *c, size_t n,
                  struct mp_err *err))
NONE(rp_put_kernel(struct rp_profile *p, int block, const struct rp_kernel *k, struct mp_err *err))
NONE(rp_put_expert_tokens(struct rp_profile *p, int block, int layer, const uint64_t *t, size_t n,
                          struct mp_err *err))
NONE(rp_get_spec(struct rp_profile *p, char **json, struct mp_err *err))
NONE(rp_get_block(struct rp_profile *p, int block, struct rp_block *b, struct mp_err *err))
NONE(rp_each_step(struct rp_profile *p, int (*fn)(void *, const struct mp_step *), void *arg,
                  struct mp_err *err))
NONE(rp_each_cell(struct rp_profile *p, int block, int (*fn)(void *, const struct mp_cell *),
                  void *arg, struct mp_err *err))
NONE(rp_each_kernel(struct rp_profile *p, int block, int (*fn)(void *, const struct rp_kernel *),
                    void *arg, struct mp_err *err))
NONE(rp_each_expert(struct rp_profile *p, int block, int (*fn)(void *, int, int, uint64_t),
                    void *arg, struct mp_err *err))
NONE(rp_each_gauge(struct rp_profile *p, int (*fn)(void *, const struct rp_gauge *), void *arg,
                   struct mp_err *err))
NONE(rp_each_log(struct rp_profile *p, int (*fn)(void *, const struct rp_log *), void *arg,
                 struct mp_err *err))
NONE(rp_each_chunk(struct rp_profile *p,
                   int (*fn)(void *, const union mp_record *, size_t, uint64_t), void *arg,
                   struct mp_err *err))

void rp_profile_rollback(struct rp_profile *p)
{
}

bool rp_get_meta(struct rp_profile *p, const char *key, char *out, size_t out_bytes)
{
    out[0] = 0;
    return false;
}

int64_t rp_get_meta_int(struct rp_profile *p, const char *key, int64_t otherwise)
{
    return otherwise;
}

const char *rp_get_name(struct rp_profile *p, uint32_t id)
{
    return "?";
}
#endif
