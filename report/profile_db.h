/* What the profile_*.c files share: the handle and its prepared statements. Private to them, as
 * sqlite3.h is. */
#ifndef RP_PROFILE_DB_H
#define RP_PROFILE_DB_H

#include "report/profile_file.h"

#if HAVE_SQLITE
#include <sqlite3.h>

#define RP_APPLICATION_ID 0x4d4f4550 /* "MOEP" */
#define RP_NULL           INT64_MIN  /* stands for SQL NULL in rows of integers */

/* One row in profile_schema.c adds a statement. */
enum rp_sql {
    RP_SQL_BEGIN,
    RP_SQL_COMMIT,
    RP_PUT_META,
    RP_PUT_SPEC,
    RP_PUT_NAME,
    RP_PUT_STEP,
    RP_PUT_STEP_CELL,
    RP_PUT_ROUTE,
    RP_PUT_PAIRS,
    RP_PUT_GAUGE,
    RP_PUT_LOG,
    RP_PUT_CHUNK,
    RP_PUT_BLOCK,
    RP_PUT_CELL,
    RP_PUT_KERNEL,
    RP_PUT_EXPERT,
    RP_CLEAR_CELL,
    RP_CLEAR_KERNEL,
    RP_CLEAR_EXPERT,
    RP_PUT_ARM,
    RP_PUT_BLOCK_AB,
    RP_PUT_PARITY,
    RP_CLEAR_ARM,
    RP_CLEAR_BLOCK_AB,
    RP_CLEAR_PARITY,
    RP_GET_ARM,
    RP_GET_BLOCK_AB,
    RP_GET_PARITY,
    RP_GET_META,
    RP_GET_SPEC,
    RP_GET_NAME,
    RP_GET_STEP,
    RP_GET_STEP_CELL,
    RP_GET_ROUTE,
    RP_GET_PAIRS,
    RP_GET_GAUGE,
    RP_GET_LOG,
    RP_GET_CHUNK,
    RP_GET_BLOCK,
    RP_GET_CELL,
    RP_GET_KERNEL,
    RP_GET_EXPERT,
    RP_SQL_COUNT
};

struct rp_profile {
    sqlite3 *db;
    sqlite3_stmt *stmt[RP_SQL_COUNT]; /* prepared upon first use */
    bool is_writer;
    int lock; /* of a writer, else -1 */
    char *path;
};

/* MP_EBUSY: somebody writes the profile. *fd is -1 where files cannot be locked: that is no error. */
int rp_lock_take(int *fd, const char *path, struct mp_err *err);
void rp_lock_drop(int fd, const char *path);

/* The error of the last SQLite call on p as a sentence and code. */
int rp_db_fail(struct rp_profile *p, struct mp_err *err);

/* MP_EFORMAT: which file is damaged, why, and what can be done about it. */
int rp_db_damaged(const struct rp_profile *p, const char *why, struct mp_err *err);

/* The statement, reset, with the first n parameters bound to v; NULL upon error (*err is filled). */
sqlite3_stmt *rp_db_bind(struct rp_profile *p, enum rp_sql id, const int64_t *v, int n,
                         struct mp_err *err);

/* Runs a bound statement that returns no rows. */
int rp_db_run(struct rp_profile *p, sqlite3_stmt *stmt, struct mp_err *err);

/* Binds n integers and runs. */
int rp_db_put(struct rp_profile *p, enum rp_sql id, const int64_t *v, int n, struct mp_err *err);

/* Next row: 1; none left: 0, the statement is reset; else a negative code. */
int rp_db_next(struct rp_profile *p, sqlite3_stmt *stmt, struct mp_err *err);
#endif

#endif
