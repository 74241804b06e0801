/* The record of a before/after in a profile: tables arm, block_ab, parity; single facts in meta. What is
 * read is checked against the bounds of the structs: a profile is bytes from outside. */
#include "report/ab.h"
#include "report/profile_db.h"

#if HAVE_SQLITE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- writing ------------------------------------------------------------------------------------ */

static int put_facts(struct rp_profile *p, const struct rp_ab_record *r, struct mp_err *err)
{
    const struct {
        const char *key;
        int64_t value;
    } number[] = {{"ab_seed", (int64_t)r->seed}, {"ab_steps", r->n_step},
                  {"ab_drop", r->n_drop},        {"ab_traced", r->n_traced},
                  {"ab_blocks", r->n_planned},   {"ab_untraced", r->is_untraced}};
    int rc = rp_put_meta(p, "ab_own", r->own, err);

    if (!rc)
        rc = rp_put_meta(p, "ab_end", r->end, err);
    if (!rc)
        rc = rp_put_meta(p, "ab_known", r->known, err);
    if (!rc)
        rc = rp_gpu_put(p, "ab_gpu_", &r->gpu, err);
    for (size_t i = 0; !rc && i < countof(number); i++)
        rc = rp_put_meta_int(p, number[i].key, number[i].value, err);
    return rc;
}

static int put_arm(struct rp_profile *p, unsigned i, const struct rp_arm *a, struct mp_err *err)
{
    sqlite3_stmt *s = rp_db_bind(p, RP_PUT_ARM, (const int64_t[]){i, (int64_t)a->status}, 2, err);

    if (s) {
        sqlite3_bind_text(s, 3, a->name, -1, SQLITE_TRANSIENT);
        sqlite3_bind_text(s, 4, a->why, -1, SQLITE_TRANSIENT);
    }
    return rp_db_run(p, s, err);
}

static void bind_real(sqlite3_stmt *s, int column, double v)
{
    if (isfinite(v))
        sqlite3_bind_double(s, column, v);
    else
        sqlite3_bind_null(s, column);
}

static int put_block(struct rp_profile *p, size_t i, const struct rp_ab_block *b,
                     struct mp_err *err)
{
    int64_t v[9 + RP_AB_MEMORY] = {(int64_t)i,     b->arm,        b->pair,
                                   b->from_step,   b->first_step, b->last_step,
                                   b->traced_from, b->traced_to,  b->is_cut};
    sqlite3_stmt *s;

    for (int k = 0; k < RP_AB_MEMORY; k++)
        v[9 + k] = b->memory[k] >= 0 && b->memory[k] < 0x1p62 ? (int64_t)b->memory[k] : RP_NULL;
    s = rp_db_bind(p, RP_PUT_BLOCK_AB, v, countof(v), err);
    if (s)
        bind_real(s, countof(v) + 1, b->loss);
    return rp_db_run(p, s, err);
}

static int put_parity(struct rp_profile *p, const struct rp_parity *q, struct mp_err *err)
{
    sqlite3_stmt *s =
        rp_db_bind(p, RP_PUT_PARITY, (const int64_t[]){q->arm, q->layer, q->passed}, 3, err);

    if (s) {
        sqlite3_bind_text(s, 4, q->quantity, -1, SQLITE_TRANSIENT);
        bind_real(s, 5, q->error);
        bind_real(s, 6, q->own_error);
        bind_real(s, 7, q->ratio);
        bind_real(s, 8, q->tokens);
        sqlite3_bind_text(s, 9, q->why, -1, SQLITE_TRANSIENT);
        bind_real(s, 10, q->out_cosine[0]);
        bind_real(s, 11, q->out_cosine[1]);
        sqlite3_bind_text(s, 12, q->gradient, -1, SQLITE_TRANSIENT);
        bind_real(s, 13, q->cosine[0]);
        bind_real(s, 14, q->cosine[1]);
        bind_real(s, 15, q->repeats[0] < 0 ? NAN : q->repeats[0]);
        bind_real(s, 16, q->repeats[1] < 0 ? NAN : q->repeats[1]);
    }
    return rp_db_run(p, s, err);
}

static int put_all(struct rp_profile *p, const struct rp_ab_record *r, struct mp_err *err)
{
    int rc = put_facts(p, r, err);

    for (int id = RP_CLEAR_ARM; !rc && id <= RP_CLEAR_PARITY; id++)
        rc = rp_db_put(p, (enum rp_sql)id, NULL, 0, err);
    for (unsigned i = 0; !rc && i < r->n_arm; i++)
        rc = put_arm(p, i, &r->arm[i], err);
    for (size_t i = 0; !rc && i < r->n_block; i++)
        rc = put_block(p, i, &r->block[i], err);
    for (size_t i = 0; !rc && i < r->n_parity; i++)
        rc = put_parity(p, &r->parity[i], err);
    return rc;
}

int rp_ab_put(struct rp_profile *p, const struct rp_ab_record *r, struct mp_err *err)
{
    int rc = rp_profile_begin(p, err);

    if (!rc)
        rc = put_all(p, r, err);
    if (!rc)
        return rp_profile_commit(p, err);
    rp_profile_rollback(p);
    return rc;
}

/* ---- reading ------------------------------------------------------------------------------------ */

static void text_copy(char *out, size_t n, sqlite3_stmt *s, int column)
{
    bool there = column < sqlite3_column_count(s); /* an older schema lacks some */
    const char *t = there ? (const char *)sqlite3_column_text(s, column) : NULL;

    snprintf(out, n, "%s", t ? t : "");
}

/* A column that an older schema lacks is unknown. */
static double real_or_nan(sqlite3_stmt *s, int column)
{
    return column >= sqlite3_column_count(s) || sqlite3_column_type(s, column) == SQLITE_NULL
               ? NAN
               : sqlite3_column_double(s, column);
}

/* 1, 0, or -1 for NULL and a column that is not there. */
static int flag_or_none(sqlite3_stmt *s, int column)
{
    double v = real_or_nan(s, column);

    return isnan(v) ? -1 : v != 0;
}

static uint32_t u32(sqlite3_stmt *s, int column)
{
    return (uint32_t)sqlite3_column_int64(s, column);
}

static void get_facts(struct rp_ab_record *r, struct rp_profile *p)
{
    r->seed = (uint64_t)rp_get_meta_int(p, "ab_seed", 0);
    r->n_step = (uint32_t)rp_get_meta_int(p, "ab_steps", 0);
    r->n_drop = (uint32_t)rp_get_meta_int(p, "ab_drop", 0);
    r->n_traced = (uint32_t)rp_get_meta_int(p, "ab_traced", 0);
    r->n_planned = (uint32_t)rp_get_meta_int(p, "ab_blocks", 0);
    r->is_untraced = rp_get_meta_int(p, "ab_untraced", 0) != 0;
    rp_get_meta(p, "ab_own", r->own, sizeof r->own);
    rp_get_meta(p, "ab_end", r->end, sizeof r->end);
    rp_get_meta(p, "ab_known", r->known, sizeof r->known);
    rp_gpu_get(&r->gpu, p, "ab_gpu_");
}

static int get_arm(struct rp_ab_record *r, sqlite3_stmt *s)
{
    struct rp_arm *a = &r->arm[r->n_arm];
    int64_t status = sqlite3_column_int64(s, 1);

    if (r->n_arm == RP_AB_ARMS || sqlite3_column_int64(s, 0) != r->n_arm)
        return MP_EFORMAT;
    a->status =
        status >= 0 && status < RP_ARM_STATUS_COUNT ? (enum rp_arm_status)status : RP_ARM_REFUSED;
    text_copy(a->name, sizeof a->name, s, 2);
    text_copy(a->why, sizeof a->why, s, 3);
    r->n_arm++;
    return MP_OK;
}

static int get_block(struct rp_ab_record *r, sqlite3_stmt *s)
{
    struct rp_ab_block b = {.arm = u32(s, 1),
                            .pair = u32(s, 2),
                            .from_step = u32(s, 3),
                            .first_step = u32(s, 4),
                            .last_step = u32(s, 5),
                            .traced_from = u32(s, 6),
                            .traced_to = u32(s, 7),
                            .is_cut = u32(s, 8) != 0,
                            .loss = real_or_nan(s, 9 + RP_AB_MEMORY)};

    for (int k = 0; k < RP_AB_MEMORY; k++)
        b.memory[k] = real_or_nan(s, 9 + k);
    return b.arm < r->n_arm ? rp_ab_add_block(r, &b) : MP_EFORMAT;
}

static int get_parity(struct rp_ab_record *r, sqlite3_stmt *s)
{
    struct rp_parity q = {.arm = u32(s, 0),
                          .layer = (int)sqlite3_column_int64(s, 1),
                          .passed = u32(s, 2) != 0,
                          .error = real_or_nan(s, 4),
                          .own_error = real_or_nan(s, 5),
                          .ratio = real_or_nan(s, 6),
                          .tokens = real_or_nan(s, 7),
                          .out_cosine = {real_or_nan(s, 9), real_or_nan(s, 10)},
                          .cosine = {real_or_nan(s, 12), real_or_nan(s, 13)},
                          .repeats = {flag_or_none(s, 14), flag_or_none(s, 15)}};

    text_copy(q.quantity, sizeof q.quantity, s, 3);
    text_copy(q.why, sizeof q.why, s, 8);
    text_copy(q.gradient, sizeof q.gradient, s, 11);
    return q.arm < r->n_arm ? rp_ab_add_parity(r, &q) : MP_EFORMAT;
}

static int walk(struct rp_ab_record *r, struct rp_profile *p, enum rp_sql id,
                int (*fn)(struct rp_ab_record *, sqlite3_stmt *), struct mp_err *err)
{
    sqlite3_stmt *s = rp_db_bind(p, id, NULL, 0, err);
    int rc = s ? MP_OK : MP_EFORMAT;

    while (!rc && (rc = rp_db_next(p, s, err)) == 1) {
        rc = fn(r, s);
        if (rc)
            rc == MP_ENOMEM ? mp_fail(err, rc, "no memory to read profile '%.100s'", p->path)
                            : rp_db_damaged(p, "its before/after", err);
    }
    if (s)
        sqlite3_reset(s);
    return rc;
}

int rp_ab_get(struct rp_ab_record *out, struct rp_profile *p, struct mp_err *err)
{
    int rc;

    *out = (struct rp_ab_record){0};
    if (rp_get_meta_int(p, "ab_blocks", -1) < 0) /* also of profiles older than the tables */
        return MP_OK;
    get_facts(out, p);
    if ((rc = walk(out, p, RP_GET_ARM, get_arm, err)) ||
        (rc = walk(out, p, RP_GET_BLOCK_AB, get_block, err)) ||
        (rc = walk(out, p, RP_GET_PARITY, get_parity, err)))
        rp_ab_record_release(out);
    return rc;
}

#else

int rp_ab_put(struct rp_profile *p, const struct rp_ab_record *r, struct mp_err *err)
{
    (void)p, (void)r, (void)err;
    return MP_ENOTSUP;
}

int rp_ab_get(struct rp_ab_record *out, struct rp_profile *p, struct mp_err *err)
{
    (void)p, (void)err;
    *out = (struct rp_ab_record){0};
    return MP_ENOTSUP;
}

#endif
