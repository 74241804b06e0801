/* Rows into a profile. Owner: the recorder's one thread. No decision is taken here: each function
 * turns a struct into the integers of one row, in the order of the columns in profile_schema.c. */
#include "report/profile_db.h"

#if HAVE_SQLITE
#include <stdlib.h>
#include <string.h>

#include "report/chunk.h"

#define PUT(p, id, err, ...)                                                                       \
    rp_db_put(p, id, (const int64_t[]){__VA_ARGS__},                                               \
              (int)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), err)

#define BIND(p, id, err, ...)                                                                      \
    rp_db_bind(p, id, (const int64_t[]){__VA_ARGS__},                                              \
               (int)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), err)

/* UINT64_MAX stands for unknown in the structs of core. */
static int64_t known(uint64_t v)
{
    return v == UINT64_MAX ? RP_NULL : (int64_t)v;
}

int rp_profile_begin(struct rp_profile *p, struct mp_err *err)
{
    return rp_db_put(p, RP_SQL_BEGIN, NULL, 0, err);
}

int rp_profile_commit(struct rp_profile *p, struct mp_err *err)
{
    return rp_db_put(p, RP_SQL_COMMIT, NULL, 0, err);
}

void rp_profile_rollback(struct rp_profile *p)
{
    if (!sqlite3_get_autocommit(p->db))
        sqlite3_exec(p->db, "ROLLBACK", NULL, NULL, NULL);
}

int rp_put_meta(struct rp_profile *p, const char *key, const char *value, struct mp_err *err)
{
    sqlite3_stmt *s = BIND(p, RP_PUT_META, err, RP_NULL);

    if (s) {
        sqlite3_bind_text(s, 1, value, -1, SQLITE_TRANSIENT);
        sqlite3_bind_text(s, 2, key, -1, SQLITE_TRANSIENT);
    }
    return rp_db_run(p, s, err);
}

int rp_put_meta_int(struct rp_profile *p, const char *key, int64_t value, struct mp_err *err)
{
    sqlite3_stmt *s = BIND(p, RP_PUT_META, err, value);

    if (s)
        sqlite3_bind_text(s, 2, key, -1, SQLITE_TRANSIENT);
    return rp_db_run(p, s, err);
}

int rp_put_spec(struct rp_profile *p, const char *json, size_t bytes, struct mp_err *err)
{
    sqlite3_stmt *s = rp_db_bind(p, RP_PUT_SPEC, NULL, 0, err);

    if (s)
        sqlite3_bind_text(s, 1, json, (int)bytes, SQLITE_TRANSIENT);
    return rp_db_run(p, s, err);
}

int rp_put_name(struct rp_profile *p, uint32_t id, const char *name, struct mp_err *err)
{
    sqlite3_stmt *s = BIND(p, RP_PUT_NAME, err, id);

    if (s)
        sqlite3_bind_text(s, 2, name, -1, SQLITE_TRANSIENT);
    return rp_db_run(p, s, err);
}

/* ---- steps -------------------------------------------------------------------------------------- */

static int put_step_row(struct rp_profile *p, const struct mp_step *s, struct mp_err *err)
{
    return PUT(p, RP_PUT_STEP, err, s->step, s->flags, (int64_t)s->begin_ns, (int64_t)s->window_ns,
               (int64_t)s->idle_ns, s->n_kernel, s->n_copy, s->n_memset, s->n_graph, s->n_own,
               (int64_t)s->kernel_ns, (int64_t)s->own_ns, s->launches, s->records, s->dropped,
               s->n_micro, s->n_segment, known(s->processed), known(s->useful), known(s->trainable),
               known(s->head_rows), (int64_t)s->useful_basis,
               s->host_end_ns ? (int64_t)s->host_end_ns : RP_NULL);
}

static int put_step_cells(struct rp_profile *p, const struct mp_step *s, struct mp_err *err)
{
    struct mp_cell sum[MP_PHASE_COUNT][MP_PASS_COUNT] = {0};
    int rc = MP_OK;

    for (uint32_t i = 0; i < s->n_cell; i++) {
        const struct mp_cell *c = &s->cell[i];
        struct mp_cell *to = &sum[c->phase % MP_PHASE_COUNT][c->pass % MP_PASS_COUNT];

        to->n += c->n;
        to->booked_ns += c->booked_ns;
        to->raw_ns += c->raw_ns;
    }
    for (int phase = 0; phase < MP_PHASE_COUNT; phase++)
        for (int pass = 0; rc == MP_OK && pass < MP_PASS_COUNT; pass++) {
            const struct mp_cell *c = &sum[phase][pass];

            if (c->n || c->booked_ns)
                rc = PUT(p, RP_PUT_STEP_CELL, err, s->step, phase, pass, c->n,
                         (int64_t)c->booked_ns, (int64_t)c->raw_ns);
        }
    return rc;
}

static int put_route(struct rp_profile *p, uint32_t step, const struct mp_route *r,
                     struct mp_err *err)
{
    size_t bytes = rp_counts_bound(r->n_expert);
    uint8_t *blob = malloc(bytes);
    uint64_t tokens = 0;
    sqlite3_stmt *s;
    int rc;

    if (!blob)
        return mp_fail(err, MP_ENOMEM, "no memory for a routing row");
    for (unsigned i = 0; i < r->n_expert; i++)
        tokens += r->count[i];
    rc = rp_counts_pack(blob, &bytes, r->count, r->n_expert, err);
    if (rc == MP_ENOTSUP) { /* without zstd the sum is kept, the counts are not */
        bytes = 0;
        rc = MP_OK;
    }
    if (rc == MP_OK) {
        s = BIND(p, RP_PUT_ROUTE, err, step, r->layer, r->n_expert, (int64_t)tokens,
                 (int64_t)r->basis);
        if (s)
            sqlite3_bind_blob(s, 6, blob, (int)bytes, SQLITE_TRANSIENT);
        rc = rp_db_run(p, s, err);
    }
    free(blob);
    return rc;
}

int rp_put_step(struct rp_profile *p, const struct mp_step *s, struct mp_err *err)
{
    int rc = put_step_row(p, s, err);

    if (rc == MP_OK)
        rc = put_step_cells(p, s, err);
    for (uint32_t i = 0; rc == MP_OK && i < s->n_route; i++)
        rc = put_route(p, s->step, &s->route[i], err);
    for (uint32_t i = 0; rc == MP_OK && i < s->n_pairs && i < MP_WINDOW_MAX; i++) {
        const struct mp_pairs_sum *w = &s->pairs[i];

        rc = PUT(p, RP_PUT_PAIRS, err, s->step, w->window, (int64_t)w->useful,
                 (int64_t)w->processed, w->max_len, (int64_t)w->basis);
    }
    return rc;
}

/* ---- single rows -------------------------------------------------------------------------------- */

int rp_put_gauge(struct rp_profile *p, const struct rp_gauge *g, struct mp_err *err)
{
    int64_t v[1 + RP_GAUGE_COUNT] = {(int64_t)g->time_ns};

    for (int i = 0; i < RP_GAUGE_COUNT; i++)
        v[1 + i] = g->valid >> i & 1 ? (int64_t)g->value[i] : RP_NULL;
    return rp_db_put(p, RP_PUT_GAUGE, v, countof(v), err);
}

int rp_put_log(struct rp_profile *p, int64_t id, const struct rp_log *log, struct mp_err *err)
{
    sqlite3_stmt *s = BIND(p, RP_PUT_LOG, err, id, (int64_t)log->time_ns, log->level, log->count);

    if (s)
        sqlite3_bind_text(s, 5, log->text, -1, SQLITE_TRANSIENT);
    return rp_db_run(p, s, err);
}

int rp_put_chunk(struct rp_profile *p, const union mp_record *record, size_t n, uint64_t lost,
                 struct mp_err *err)
{
    size_t bytes = rp_chunk_bound(n);
    uint8_t *blob = malloc(bytes);
    sqlite3_stmt *s;
    int rc;

    if (!blob)
        return mp_fail(err, MP_ENOMEM, "no memory for a chunk of records");
    rc = rp_chunk_pack(blob, &bytes, record, n, err);
    if (rc == MP_OK) {
        s = BIND(p, RP_PUT_CHUNK, err, record[0].head.step, record[n - 1].head.step, (int64_t)n,
                 (int64_t)lost);
        if (s)
            sqlite3_bind_blob(s, 5, blob, (int)bytes, SQLITE_TRANSIENT);
        rc = rp_db_run(p, s, err);
    }
    free(blob);
    return rc == MP_ENOTSUP ? MP_OK : rc; /* without zstd a profile has no raw records */
}

/* ---- totals of a block -------------------------------------------------------------------------- */

int rp_put_block(struct rp_profile *p, int block, const struct rp_block *b, struct mp_err *err)
{
    int rc = PUT(p, RP_PUT_BLOCK, err, block, b->first_step, b->last_step, b->n_step,
                 (int64_t)b->window_ns, (int64_t)b->idle_ns);

    for (int id = RP_CLEAR_CELL; rc == MP_OK && id <= RP_CLEAR_EXPERT; id++)
        rc = PUT(p, (enum rp_sql)id, err, block);
    return rc;
}

int rp_put_cells(struct rp_profile *p, int block, const struct mp_cell *cell, size_t n,
                 struct mp_err *err)
{
    int rc = MP_OK;

    for (size_t i = 0; rc == MP_OK && i < n; i++) {
        const struct mp_cell *c = &cell[i];

        rc = PUT(p, RP_PUT_CELL, err, block, c->layer, c->phase, c->pass, c->expert, c->basis, c->n,
                 (int64_t)c->booked_ns, (int64_t)c->raw_ns);
    }
    return rc;
}

int rp_put_kernel(struct rp_profile *p, int block, const struct rp_kernel *k, struct mp_err *err)
{
    return PUT(p, RP_PUT_KERNEL, err, block, k->name, k->layer, k->phase, k->pass, k->n,
               (int64_t)k->total_ns, k->min_ns, k->max_ns);
}

int rp_put_expert_tokens(struct rp_profile *p, int block, int layer, const uint64_t *tokens,
                         size_t n, struct mp_err *err)
{
    int rc = MP_OK;

    for (size_t i = 0; rc == MP_OK && i < n; i++)
        rc = PUT(p, RP_PUT_EXPERT, err, block, layer, (int64_t)i, (int64_t)tokens[i]);
    return rc;
}
#endif
