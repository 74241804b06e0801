/* Tables, statements, opening and closing of a profile. The words are explained in SCHEMA.md.
 *
 * Journal: WAL while recording, so that readers and the one writer do not wait for each other and a
 * kill costs at most what was not committed; upon closing the log is folded in and the file is a
 * plain single database that opens from a read-only place.
 */
#include "report/profile_db.h"

#if HAVE_SQLITE
#include "profiler/core/phase.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char schema[] =
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
    "CREATE TABLE spec(id INTEGER PRIMARY KEY CHECK(id = 1), json TEXT NOT NULL);"
    "CREATE TABLE phase(id INTEGER PRIMARY KEY, name TEXT NOT NULL);"
    "CREATE TABLE pass(id INTEGER PRIMARY KEY, name TEXT NOT NULL);"
    "CREATE TABLE basis(id INTEGER PRIMARY KEY, name TEXT NOT NULL);"
    "CREATE TABLE name(id INTEGER PRIMARY KEY, name TEXT NOT NULL);"
    "CREATE TABLE step(step INTEGER PRIMARY KEY, flags INT, begin_ns INT, window_ns INT, idle_ns "
    "INT,"
    " n_kernel INT, n_copy INT, n_memset INT, n_graph INT, n_own INT, kernel_ns INT, own_ns INT,"
    " launches INT, records INT, dropped INT, n_micro INT, n_segment INT,"
    " processed INT, useful INT, trainable INT, head_rows INT, useful_basis INT, host_end_ns INT);"
    "CREATE TABLE step_cell(step INT, phase INT, pass INT, n INT, booked_ns INT, raw_ns INT,"
    " PRIMARY KEY(step, phase, pass)) WITHOUT ROWID;"
    "CREATE TABLE route(step INT, layer INT, n_expert INT, tokens INT, basis INT, counts BLOB,"
    " PRIMARY KEY(step, layer)) WITHOUT ROWID;"
    "CREATE TABLE pairs(step INT, \"window\" INT, useful INT, processed INT, max_len INT, basis "
    "INT,"
    " PRIMARY KEY(step, \"window\")) WITHOUT ROWID;"
    "CREATE TABLE block(block INTEGER PRIMARY KEY, first_step INT, last_step INT, n_step INT,"
    " window_ns INT, idle_ns INT);"
    "CREATE TABLE cell(block INT, layer INT, phase INT, pass INT, expert INT, basis INT,"
    " n INT, booked_ns INT, raw_ns INT,"
    " PRIMARY KEY(block, layer, phase, pass, expert, basis)) WITHOUT ROWID;"
    "CREATE TABLE kernel(block INT, name INT, layer INT, phase INT, pass INT, n INT,"
    " total_ns INT, min_ns INT, max_ns INT, PRIMARY KEY(block, name, layer, phase, pass)) WITHOUT "
    "ROWID;"
    "CREATE TABLE expert(block INT, layer INT, expert INT, tokens INT,"
    " PRIMARY KEY(block, layer, expert)) WITHOUT ROWID;"
    "CREATE TABLE gauge(time_ns INTEGER PRIMARY KEY, sm_clock_mhz INT, mem_clock_mhz INT, power_mw "
    "INT,"
    " temp_c INT, throttle_bits INT, mem_used_bytes INT);"
    "CREATE TABLE log(id INTEGER PRIMARY KEY, time_ns INT, level INT, count INT, text TEXT);"
    "CREATE TABLE chunk(id INTEGER PRIMARY KEY, first_step INT, last_step INT, n INT, lost INT, "
    "records BLOB);"
    "CREATE TABLE arm(arm INTEGER PRIMARY KEY, status INT, name TEXT, why TEXT);"
    "CREATE TABLE block_ab(block INTEGER PRIMARY KEY, arm INT, pair INT, from_step INT, first_step "
    "INT,"
    " last_step INT, traced_from INT, traced_to INT, is_cut INT, allocated_bytes INT,"
    " allocated_peak_bytes INT, reserved_bytes INT, reserved_peak_bytes INT, saved_bytes INT,"
    " loss REAL);"
    "CREATE TABLE parity(arm INT, layer INT, passed INT, quantity TEXT, error REAL, own_error REAL,"
    " ratio REAL, tokens REAL, why TEXT, out_cosine REAL, own_out_cosine REAL, gradient TEXT,"
    " cosine REAL, own_cosine REAL, repeats INT, own_repeats INT);";

#define STEP_COLUMNS                                                                               \
    "step, flags, begin_ns, window_ns, idle_ns, n_kernel, n_copy, n_memset, n_graph, n_own,"       \
    " kernel_ns, own_ns, launches, records, dropped, n_micro, n_segment, processed, useful,"       \
    " trainable, head_rows, useful_basis, host_end_ns"

static const char *const sql[RP_SQL_COUNT] = {
    [RP_SQL_BEGIN] = "BEGIN IMMEDIATE",
    [RP_SQL_COMMIT] = "COMMIT",
    [RP_PUT_META] = "INSERT OR REPLACE INTO meta(value, key) VALUES(?, ?)",
    [RP_PUT_SPEC] = "INSERT OR REPLACE INTO spec VALUES(1, ?)",
    [RP_PUT_NAME] = "INSERT OR REPLACE INTO name VALUES(?, ?)",
    [RP_PUT_STEP] = "INSERT OR REPLACE INTO step(" STEP_COLUMNS ")"
                    " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    [RP_PUT_STEP_CELL] = "INSERT OR REPLACE INTO step_cell VALUES(?,?,?,?,?,?)",
    [RP_PUT_ROUTE] = "INSERT OR REPLACE INTO route VALUES(?,?,?,?,?,?)",
    [RP_PUT_PAIRS] = "INSERT OR REPLACE INTO pairs VALUES(?,?,?,?,?,?)",
    [RP_PUT_GAUGE] = "INSERT OR REPLACE INTO gauge VALUES(?,?,?,?,?,?,?)",
    [RP_PUT_LOG] = "INSERT OR REPLACE INTO log VALUES(?,?,?,?,?)",
    [RP_PUT_CHUNK] = "INSERT INTO chunk(first_step, last_step, n, lost, records) VALUES(?,?,?,?,?)",
    [RP_PUT_BLOCK] = "INSERT OR REPLACE INTO block VALUES(?,?,?,?,?,?)",
    [RP_PUT_CELL] = "INSERT OR REPLACE INTO cell VALUES(?,?,?,?,?,?,?,?,?)",
    [RP_PUT_KERNEL] = "INSERT OR REPLACE INTO kernel VALUES(?,?,?,?,?,?,?,?,?)",
    [RP_PUT_EXPERT] = "INSERT OR REPLACE INTO expert VALUES(?,?,?,?)",
    [RP_CLEAR_CELL] = "DELETE FROM cell WHERE block = ?",
    [RP_CLEAR_KERNEL] = "DELETE FROM kernel WHERE block = ?",
    [RP_CLEAR_EXPERT] = "DELETE FROM expert WHERE block = ?",
    [RP_PUT_ARM] = "INSERT OR REPLACE INTO arm VALUES(?,?,?,?)",
    [RP_PUT_BLOCK_AB] = "INSERT OR REPLACE INTO block_ab VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    [RP_PUT_PARITY] = "INSERT INTO parity VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    [RP_CLEAR_ARM] = "DELETE FROM arm",
    [RP_CLEAR_BLOCK_AB] = "DELETE FROM block_ab",
    [RP_CLEAR_PARITY] = "DELETE FROM parity",
    [RP_GET_ARM] = "SELECT * FROM arm ORDER BY arm",
    [RP_GET_BLOCK_AB] = "SELECT * FROM block_ab ORDER BY block",
    [RP_GET_PARITY] = "SELECT * FROM parity ORDER BY arm, layer, quantity",
    [RP_GET_META] = "SELECT value FROM meta WHERE key = ?",
    [RP_GET_SPEC] = "SELECT json FROM spec",
    [RP_GET_NAME] = "SELECT name FROM name WHERE id = ?",
    [RP_GET_STEP] = "SELECT " STEP_COLUMNS ", step = (SELECT max(step) FROM step)"
                    " FROM step ORDER BY step",
    [RP_GET_STEP_CELL] = "SELECT phase, pass, n, booked_ns, raw_ns FROM step_cell WHERE step = ?",
    [RP_GET_ROUTE] = "SELECT layer, n_expert, counts, basis FROM route WHERE step = ?",
    [RP_GET_PAIRS] =
        "SELECT \"window\", useful, processed, max_len, basis FROM pairs WHERE step = ?",
    [RP_GET_GAUGE] = "SELECT * FROM gauge ORDER BY time_ns",
    [RP_GET_LOG] = "SELECT time_ns, level, count, text FROM log ORDER BY id",
    [RP_GET_CHUNK] = "SELECT n, lost, records FROM chunk ORDER BY id",
    [RP_GET_BLOCK] =
        "SELECT first_step, last_step, n_step, window_ns, idle_ns FROM block WHERE block = ?",
    [RP_GET_CELL] =
        "SELECT layer, phase, pass, expert, basis, n, booked_ns, raw_ns FROM cell WHERE block = ?",
    [RP_GET_KERNEL] = "SELECT name, layer, phase, pass, n, total_ns, min_ns, max_ns FROM kernel"
                      " WHERE block = ? ORDER BY total_ns DESC, name, layer, phase, pass",
    [RP_GET_EXPERT] = "SELECT layer, expert, tokens FROM expert WHERE block = ?",
};

/* ---- errors and statements ---------------------------------------------------------------------- */

static int code_of(int sqlite_code)
{
    switch (sqlite_code & 0xff) {
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
    case SQLITE_ERROR: /* a table or column that must be there is not */
    case SQLITE_MISMATCH:
        return MP_EFORMAT;
    case SQLITE_FULL:
        return MP_EFULL;
    case SQLITE_NOMEM:
        return MP_ENOMEM;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
        return MP_EPERM;
    default:
        return MP_EIO;
    }
}

int rp_db_damaged(const struct rp_profile *p, const char *why, struct mp_err *err)
{
    return mp_fail(err, MP_EFORMAT,
                   "profile '%.80s' is damaged: %.60s; use another copy of it, or record it again",
                   p->path, why);
}

int rp_db_fail(struct rp_profile *p, struct mp_err *err)
{
    int code = code_of(sqlite3_errcode(p->db)), no = sqlite3_system_errno(p->db);
    const char *why = sqlite3_errmsg(p->db);

    if (code == MP_EFULL)
        why = "no space left on the device";
    else if (code == MP_EIO && no)
        why = strerror(no);
    if (p->is_writer)
        return mp_fail(err, code, "cannot write profile '%.100s': %.80s", p->path, why);
    if (code == MP_EFORMAT)
        return rp_db_damaged(p, why, err);
    return mp_fail(err, code, "cannot read profile '%.100s': %.80s", p->path, why);
}

sqlite3_stmt *rp_db_bind(struct rp_profile *p, enum rp_sql id, const int64_t *v, int n,
                         struct mp_err *err)
{
    sqlite3_stmt **s = &p->stmt[id];

    if (!*s &&
        sqlite3_prepare_v3(p->db, sql[id], -1, SQLITE_PREPARE_PERSISTENT, s, NULL) != SQLITE_OK) {
        rp_db_fail(p, err);
        return NULL;
    }
    sqlite3_reset(*s);
    for (int i = 0; i < n; i++)
        if (v[i] == RP_NULL)
            sqlite3_bind_null(*s, i + 1);
        else
            sqlite3_bind_int64(*s, i + 1, v[i]);
    return *s;
}

int rp_db_run(struct rp_profile *p, sqlite3_stmt *stmt, struct mp_err *err)
{
    int rc = stmt && sqlite3_step(stmt) == SQLITE_DONE ? MP_OK : rp_db_fail(p, err);

    sqlite3_reset(stmt);
    return rc;
}

int rp_db_put(struct rp_profile *p, enum rp_sql id, const int64_t *v, int n, struct mp_err *err)
{
    sqlite3_stmt *stmt = rp_db_bind(p, id, v, n, err);

    return stmt ? rp_db_run(p, stmt, err) : err ? err->code : MP_EIO;
}

int rp_db_next(struct rp_profile *p, sqlite3_stmt *stmt, struct mp_err *err)
{
    int rc = sqlite3_step(stmt);

    if (rc == SQLITE_ROW)
        return 1;
    rc = rc == SQLITE_DONE ? MP_OK : rp_db_fail(p, err);
    sqlite3_reset(stmt);
    return rc;
}

/* ---- opening ------------------------------------------------------------------------------------ */

static int handle_new(struct rp_profile **out, const char *path, int flags, struct mp_err *err)
{
    struct rp_profile *p = calloc(1, sizeof *p);
    char plain[4200];
    int rc;

    *out = NULL;
    /* not ":memory:", not "file:a?mode=memory": those are files to everybody but SQLite */
    snprintf(plain, sizeof plain, "%s%s", *path == '/' ? "" : "./", path);
    if (!p || !(p->path = strdup(path))) {
        free(p);
        return mp_fail(err, MP_ENOMEM, "no memory to open '%.100s'", path);
    }
    p->is_writer = flags & SQLITE_OPEN_CREATE;
    p->lock = -1;
    if (sqlite3_open_v2(plain, &p->db, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) {
        rc = rp_db_fail(p, err);
        sqlite3_close(p->db);
        free(p->path);
        free(p);
        return rc;
    }
    sqlite3_busy_timeout(p->db, 2000);
    *out = p;
    return MP_OK;
}

static void handle_free(struct rp_profile *p)
{
    for (int i = 0; i < RP_SQL_COUNT; i++)
        sqlite3_finalize(p->stmt[i]);
    sqlite3_close(p->db);
    rp_lock_drop(p->lock, p->path);
    free(p->path);
    free(p);
}

static int exec(struct rp_profile *p, const char *text, struct mp_err *err)
{
    return sqlite3_exec(p->db, text, NULL, NULL, NULL) == SQLITE_OK ? MP_OK : rp_db_fail(p, err);
}

static int pragma_int(struct rp_profile *p, const char *text, int64_t *value, struct mp_err *err)
{
    sqlite3_stmt *s = NULL;
    int rc = MP_OK;

    if (sqlite3_prepare_v2(p->db, text, -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW)
        *value = sqlite3_column_int64(s, 0);
    else
        rc = rp_db_fail(p, err);
    sqlite3_finalize(s);
    return rc;
}

/* A database says in its header how long it is: what is shorter was cut. Not so beside a WAL. */
static int check_length(const char *path, struct mp_err *err)
{
    unsigned char h[100];
    char wal[4200];
    struct stat st;
    uint64_t page, pages;
    FILE *f = fopen(path, "rb");
    size_t got;

    if (!f)
        return mp_fail(err, errno == EACCES ? MP_EPERM : MP_EIO, "cannot open '%.120s': %s", path,
                       strerror(errno));
    got = fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode) ? fread(h, 1, sizeof h, f) : 0;
    fclose(f);
    if (got == 0)
        return mp_fail(err, MP_EFORMAT, "'%.120s' is %s: no profile", path,
                       S_ISREG(st.st_mode) ? "empty" : "not a file");
    if (got < sizeof h || memcmp(h, "SQLite format 3", 16) != 0)
        return mp_fail(err, MP_EFORMAT, "'%.120s' is not a moeprof profile", path);
    page = (uint64_t)h[16] << 8 | h[17];
    page = page == 1 ? 65536 : page;
    pages = (uint64_t)h[28] << 24 | (uint64_t)h[29] << 16 | (uint64_t)h[30] << 8 | h[31];
    snprintf(wal, sizeof wal, "%s-wal", path);
    if ((uint64_t)st.st_size < page * pages && access(wal, F_OK) != 0)
        return mp_fail(err, MP_EFORMAT, "profile '%.100s' was cut: %llu of %llu bytes are there",
                       path, (unsigned long long)st.st_size, (unsigned long long)(page * pages));
    return MP_OK;
}

static int check_identity(struct rp_profile *p, struct mp_err *err)
{
    int64_t id = 0, version = 0;
    int rc;

    if ((rc = pragma_int(p, "PRAGMA application_id", &id, err)) ||
        (rc = pragma_int(p, "PRAGMA user_version", &version, err)))
        return rc;
    if (id != RP_APPLICATION_ID)
        return mp_fail(err, MP_EFORMAT, "'%.120s' is a database, but not a moeprof profile",
                       p->path);
    if (version < RP_SCHEMA_OLDEST || version > RP_SCHEMA_VERSION)
        return mp_fail(
            err, MP_EVERSION,
            "profile '%.80s' has schema %lld, this moeprof reads schema %d to %d: use %s moeprof",
            p->path, (long long)version, RP_SCHEMA_OLDEST, RP_SCHEMA_VERSION,
            version > RP_SCHEMA_VERSION ? "a newer" : "an older");
    return MP_OK;
}

int rp_profile_open(struct rp_profile **out, const char *path, struct mp_err *err)
{
    int rc = check_length(path, err);

    *out = NULL;
    if (rc)
        return rc;
    if ((rc = handle_new(out, path, SQLITE_OPEN_READONLY, err)))
        return rc;
    sqlite3_db_config(*out ? (*out)->db : NULL, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    if ((rc = exec(*out, "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON", err)) ||
        (rc = check_identity(*out, err))) {
        handle_free(*out);
        *out = NULL;
    }
    return rc;
}

/* A profile of an older schema lacks tables: nothing may be added to it. */
static int old_open(struct rp_profile **out, const char *path, struct mp_err *err)
{
    int64_t version = 0;
    int rc = check_length(path, err);

    if (rc || (rc = handle_new(out, path, SQLITE_OPEN_READWRITE, err)))
        return rc;
    (*out)->is_writer = true;
    if ((rc = check_identity(*out, err)) == MP_OK &&
        (rc = pragma_int(*out, "PRAGMA user_version", &version, err)) == MP_OK &&
        version != RP_SCHEMA_VERSION)
        rc = mp_fail(err, MP_EVERSION,
                     "profile '%.100s' has an older schema: nothing is added to it", path);
    if (rc) {
        handle_free(*out);
        *out = NULL;
    }
    return rc;
}

/* Opens a profile to write into it; no file of it is touched while another does. */
static int locked(struct rp_profile **out, const char *path, struct mp_err *err,
                  int (*fn)(struct rp_profile **, const char *, struct mp_err *))
{
    int lock, rc = rp_lock_take(&lock, path, err);

    if (rc)
        return rc;
    if ((rc = fn(out, path, err)))
        rp_lock_drop(lock, path);
    else
        (*out)->lock = lock;
    return rc;
}

int rp_profile_append(struct rp_profile **out, const char *path, struct mp_err *err)
{
    *out = NULL;
    return locked(out, path, err, old_open);
}

/* ---- creating ----------------------------------------------------------------------------------- */

static int dictionary_fill(struct rp_profile *p, struct mp_err *err)
{
    char text[128];
    int rc = MP_OK;

    for (int i = 0; !rc && i < MP_PHASE_COUNT; i++) {
        snprintf(text, sizeof text, "INSERT INTO phase VALUES(%d, '%s')", i,
                 mp_phase_name((enum mp_phase)i));
        rc = exec(p, text, err);
    }
    for (int i = 0; !rc && i < MP_PASS_COUNT; i++) {
        snprintf(text, sizeof text, "INSERT INTO pass VALUES(%d, '%s')", i,
                 mp_pass_name((enum mp_pass)i));
        rc = exec(p, text, err);
    }
    for (int i = 0; !rc && i < MP_BASIS_COUNT; i++) {
        snprintf(text, sizeof text, "INSERT INTO basis VALUES(%d, '%s')", i,
                 mp_basis_name((enum mp_basis)i));
        rc = exec(p, text, err);
    }
    return rc;
}

static int schema_fill(struct rp_profile *p, struct mp_err *err)
{
    char text[160];
    int rc;

    snprintf(text, sizeof text, "BEGIN; PRAGMA application_id = %d; PRAGMA user_version = %d",
             RP_APPLICATION_ID, RP_SCHEMA_VERSION);
    if ((rc = exec(p, text, err)) || (rc = exec(p, schema, err)) ||
        (rc = dictionary_fill(p, err)) ||
        (rc = rp_put_meta_int(p, "schema_version", RP_SCHEMA_VERSION, err)) ||
        (rc = rp_put_meta(p, "moeprof_version", MP_VERSION, err)))
        return rc;
    return exec(p, "COMMIT; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", err);
}

/* Also what is not there: a name that is free. */
static bool is_profile(const char *path)
{
    unsigned char h[72] = {0};
    FILE *f = fopen(path, "rb");
    size_t got = f ? fread(h, 1, sizeof h, f) : 0;

    if (f)
        fclose(f);
    return got == 0 || (got == sizeof h && memcmp(h, "SQLite format 3", 16) == 0 &&
                        memcmp(h + 68, "MOEP", 4) == 0);
}

static int not_profile(const char *path, struct mp_err *err)
{
    return mp_fail(err, MP_EINVAL,
                   "'%.100s' exists and is not a profile: name another file with -o", path);
}

static int place_check(const char *path, struct mp_err *err)
{
    char dir[4096];
    const char *slash = strrchr(path, '/');
    struct stat st;

    if (!*path) /* SQLite would take it for a database of its own that nobody finds again */
        return mp_fail(err, MP_EINVAL, "the name of the profile is empty: name a file with -o");
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return not_profile(path, err);
    if (access(slash == path ? "/" : dir, W_OK | X_OK) != 0)
        return mp_fail(err, MP_EPERM, "cannot write profile '%.100s': %s", path, strerror(errno));
    return MP_OK;
}

int rp_profile_may_create(const char *path, struct mp_err *err)
{
    int rc = place_check(path, err);

    return rc || is_profile(path) ? rc : not_profile(path, err);
}

static void remove_old(const char *path)
{
    static const char *const tail[] = {"", "-wal", "-shm", "-journal"};
    char name[4200];

    for (size_t i = 0; i < countof(tail); i++) {
        snprintf(name, sizeof name, "%s%s", path, tail[i]);
        unlink(name);
    }
}

static int new_open(struct rp_profile **out, const char *path, struct mp_err *err)
{
    int rc;

    if (!is_profile(path))
        return not_profile(path, err);
    remove_old(path);
    if ((rc = handle_new(out, path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, err)))
        return rc;
    if ((rc = schema_fill(*out, err))) {
        handle_free(*out);
        *out = NULL;
        remove_old(path); /* a file without tables helps nobody */
    }
    return rc;
}

int rp_profile_create(struct rp_profile **out, const char *path, struct mp_err *err)
{
    int rc = place_check(path, err); /* first: a lock is a file too */

    *out = NULL;
    return rc ? rc : locked(out, path, err, new_open);
}

int rp_profile_close(struct rp_profile *p, struct mp_err *err)
{
    int rc = MP_OK;

    if (!p)
        return rc;
    if (p->is_writer) {
        if (!sqlite3_get_autocommit(p->db))
            rc = rp_profile_commit(p, err);
        for (int i = 0; i < RP_SQL_COUNT; i++) {
            sqlite3_finalize(p->stmt[i]);
            p->stmt[i] = NULL;
        }
        /* Refused while a reader looks on, or on a full disk: the WAL stays, and is as good. */
        sqlite3_exec(p->db, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL);
    }
    handle_free(p);
    return rc;
}

#else

#define NO_SQLITE "this moeprof was built without SQLite: install libsqlite3-dev and run make again"

int rp_profile_open(struct rp_profile **out, const char *path, struct mp_err *err)
{
    (void)path;
    *out = NULL;
    return mp_fail(err, MP_ENOTSUP, NO_SQLITE);
}

int rp_profile_append(struct rp_profile **out, const char *path, struct mp_err *err)
{
    return rp_profile_open(out, path, err);
}

int rp_profile_may_create(const char *path, struct mp_err *err)
{
    (void)path;
    return mp_fail(err, MP_ENOTSUP, NO_SQLITE);
}

int rp_profile_create(struct rp_profile **out, const char *path, struct mp_err *err)
{
    *out = NULL;
    return rp_profile_may_create(path, err);
}

int rp_profile_close(struct rp_profile *p, struct mp_err *err)
{
    (void)p, (void)err;
    return MP_OK;
}

#endif
