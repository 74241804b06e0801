/* Rows out of a profile. Any thread that owns the handle. What a file claims is checked here: ids are
 * clamped to the enumerations, counts to what a blob really holds, so that nothing behind this file
 * can be led out of an array by a damaged or a hostile profile. */
#include "report/profile_db.h"

#if HAVE_SQLITE
#include <stdlib.h>
#include <string.h>

#include "profiler/core/phase.h"
#include "report/chunk.h"

#define EXPERT_MAX 65535 /* n_expert is 16 bits wide in struct mp_route */

static uint64_t u64(sqlite3_stmt *s, int column)
{
    return (uint64_t)sqlite3_column_int64(s, column);
}

static uint32_t u32(sqlite3_stmt *s, int column)
{
    return (uint32_t)sqlite3_column_int64(s, column);
}

static uint64_t u64_or_unknown(sqlite3_stmt *s, int column)
{
    return sqlite3_column_type(s, column) == SQLITE_NULL ? UINT64_MAX : u64(s, column);
}

static uint8_t below(sqlite3_stmt *s, int column, int count)
{
    int64_t v = sqlite3_column_int64(s, column);

    return v >= 0 && v < count ? (uint8_t)v : 0;
}

static const char *text(sqlite3_stmt *s, int column)
{
    const char *t = (const char *)sqlite3_column_text(s, column);

    return t ? t : "";
}

/* ---- single values ------------------------------------------------------------------------------ */

static sqlite3_stmt *meta_row(struct rp_profile *p, const char *key)
{
    sqlite3_stmt *s = rp_db_bind(p, RP_GET_META, NULL, 0, NULL);

    if (!s)
        return NULL;
    sqlite3_bind_text(s, 1, key, -1, SQLITE_TRANSIENT);
    return rp_db_next(p, s, NULL) == 1 ? s : NULL;
}

bool rp_get_meta(struct rp_profile *p, const char *key, char *out, size_t out_bytes)
{
    sqlite3_stmt *s = meta_row(p, key);
    size_t n = 0;

    if (s) {
        n = strnlen(text(s, 0), out_bytes - 1);
        memcpy(out, text(s, 0), n);
        sqlite3_reset(s);
    }
    out[n] = 0;
    return s != NULL;
}

int64_t rp_get_meta_int(struct rp_profile *p, const char *key, int64_t otherwise)
{
    sqlite3_stmt *s = meta_row(p, key);

    if (!s)
        return otherwise;
    if (sqlite3_column_type(s, 0) == SQLITE_INTEGER)
        otherwise = sqlite3_column_int64(s, 0);
    sqlite3_reset(s);
    return otherwise;
}

int rp_get_spec(struct rp_profile *p, char **json, struct mp_err *err)
{
    sqlite3_stmt *s = rp_db_bind(p, RP_GET_SPEC, NULL, 0, err);
    int rc = s ? rp_db_next(p, s, err) : MP_EFORMAT;

    *json = NULL;
    if (rc != 1)
        return rc;
    *json = strdup(text(s, 0));
    sqlite3_reset(s);
    return *json ? MP_OK : mp_fail(err, MP_ENOMEM, "no memory for the model description");
}

const char *rp_get_name(struct rp_profile *p, uint32_t id)
{
    sqlite3_stmt *s = rp_db_bind(p, RP_GET_NAME, (const int64_t[]){id}, 1, NULL);

    return s && rp_db_next(p, s, NULL) == 1 ? text(s, 0) : "?";
}

int rp_get_block(struct rp_profile *p, int block, struct rp_block *b, struct mp_err *err)
{
    sqlite3_stmt *s = rp_db_bind(p, RP_GET_BLOCK, (const int64_t[]){block}, 1, err);
    int rc = s ? rp_db_next(p, s, err) : MP_EFORMAT;

    memset(b, 0, sizeof *b);
    if (rc != 1)
        return rc;
    *b = (struct rp_block){.first_step = u32(s, 0),
                           .last_step = u32(s, 1),
                           .n_step = u32(s, 2),
                           .window_ns = u64(s, 3),
                           .idle_ns = u64(s, 4)};
    sqlite3_reset(s);
    return MP_OK;
}

/* ---- walks -------------------------------------------------------------------------------------- */

/* What every walk does with its rows; `row` may answer non-zero to end it. */
struct walk {
    int (*row)(struct rp_profile *p, sqlite3_stmt *s, struct walk *w);
    void *fn_arg;
    union {
        int (*step)(void *, const struct mp_step *);
        int (*cell)(void *, const struct mp_cell *);
        int (*kernel)(void *, const struct rp_kernel *);
        int (*expert)(void *, int, int, uint64_t);
        int (*gauge)(void *, const struct rp_gauge *);
        int (*log)(void *, const struct rp_log *);
        int (*chunk)(void *, const union mp_record *, size_t, uint64_t);
    } fn;
    void *room; /* what a row callback collects into */
    struct mp_err *err;
};

static int walk(struct rp_profile *p, enum rp_sql id, const int64_t *key, struct walk *w)
{
    sqlite3_stmt *s = rp_db_bind(p, id, key, key != NULL, w->err);
    int rc = s ? MP_OK : MP_EFORMAT;

    while (s && (rc = rp_db_next(p, s, w->err)) == 1)
        if ((rc = w->row(p, s, w)) != 0)
            break;
    if (s)
        sqlite3_reset(s);
    return rc;
}

static int cell_row(struct rp_profile *p, sqlite3_stmt *s, struct walk *w)
{
    const struct mp_cell c = {
        .layer = (int16_t)sqlite3_column_int(s, 0),
        .phase = below(s, 1, MP_PHASE_COUNT),
        .pass = below(s, 2, MP_PASS_COUNT),
        .expert = (int16_t)sqlite3_column_int(s, 3),
        .basis = below(s, 4, MP_BASIS_COUNT),
        .n = u32(s, 5),
        .booked_ns = u64(s, 6),
        .raw_ns = u64(s, 7),
    };

    (void)p;
    return w->fn.cell(w->fn_arg, &c);
}

int rp_each_cell(struct rp_profile *p, int block, int (*fn)(void *, const struct mp_cell *),
                 void *arg, struct mp_err *err)
{
    struct walk w = {.row = cell_row, .fn_arg = arg, .fn.cell = fn, .err = err};

    return walk(p, RP_GET_CELL, (const int64_t[]){block}, &w);
}

static int kernel_row(struct rp_profile *p, sqlite3_stmt *s, struct walk *w)
{
    const struct rp_kernel k = {
        .name = u32(s, 0),
        .layer = (int16_t)sqlite3_column_int(s, 1),
        .phase = below(s, 2, MP_PHASE_COUNT),
        .pass = below(s, 3, MP_PASS_COUNT),
        .n = u32(s, 4),
        .total_ns = u64(s, 5),
        .min_ns = u32(s, 6),
        .max_ns = u32(s, 7),
    };

    (void)p;
    return w->fn.kernel(w->fn_arg, &k);
}

int rp_each_kernel(struct rp_profile *p, int block, int (*fn)(void *, const struct rp_kernel *),
                   void *arg, struct mp_err *err)
{
    struct walk w = {.row = kernel_row, .fn_arg = arg, .fn.kernel = fn, .err = err};

    return walk(p, RP_GET_KERNEL, (const int64_t[]){block}, &w);
}

static int expert_row(struct rp_profile *p, sqlite3_stmt *s, struct walk *w)
{
    (void)p;
    return w->fn.expert(w->fn_arg, (int16_t)sqlite3_column_int(s, 0),
                        (int16_t)sqlite3_column_int(s, 1), u64(s, 2));
}

int rp_each_expert(struct rp_profile *p, int block, int (*fn)(void *, int, int, uint64_t),
                   void *arg, struct mp_err *err)
{
    struct walk w = {.row = expert_row, .fn_arg = arg, .fn.expert = fn, .err = err};

    return walk(p, RP_GET_EXPERT, (const int64_t[]){block}, &w);
}

static int gauge_row(struct rp_profile *p, sqlite3_stmt *s, struct walk *w)
{
    struct rp_gauge g = {.time_ns = u64(s, 0)};

    (void)p;
    for (int i = 0; i < RP_GAUGE_COUNT; i++) {
        g.value[i] = u64(s, 1 + i);
        if (sqlite3_column_type(s, 1 + i) != SQLITE_NULL)
            g.valid |= 1u << i;
    }
    return w->fn.gauge(w->fn_arg, &g);
}

int rp_each_gauge(struct rp_profile *p, int (*fn)(void *, const struct rp_gauge *), void *arg,
                  struct mp_err *err)
{
    struct walk w = {.row = gauge_row, .fn_arg = arg, .fn.gauge = fn, .err = err};

    return walk(p, RP_GET_GAUGE, NULL, &w);
}

static int log_row(struct rp_profile *p, sqlite3_stmt *s, struct walk *w)
{
    const struct rp_log l = {
        .time_ns = u64(s, 0), .level = u32(s, 1), .count = u32(s, 2), .text = text(s, 3)};

    (void)p;
    return w->fn.log(w->fn_arg, &l);
}

int rp_each_log(struct rp_profile *p, int (*fn)(void *, const struct rp_log *), void *arg,
                struct mp_err *err)
{
    struct walk w = {.row = log_row, .fn_arg = arg, .fn.log = fn, .err = err};

    return walk(p, RP_GET_LOG, NULL, &w);
}

/* What is wrong with a blob knows nothing of the file that it stands in. */
static int blob_fail(const struct rp_profile *p, int rc, const struct mp_err *why,
                     struct mp_err *err)
{
    return rc == MP_EFORMAT ? rp_db_damaged(p, why->msg, err) : mp_fail(err, rc, "%s", why->msg);
}

static int chunk_row(struct rp_profile *p, sqlite3_stmt *s, struct walk *w)
{
    struct mp_err why;
    size_t n = 0;
    int rc = rp_chunk_unpack(w->room, RP_CHUNK_MAX, &n, sqlite3_column_blob(s, 2),
                             (size_t)sqlite3_column_bytes(s, 2), &why);

    return rc ? blob_fail(p, rc, &why, w->err) : w->fn.chunk(w->fn_arg, w->room, n, u64(s, 1));
}

int rp_each_chunk(struct rp_profile *p,
                  int (*fn)(void *, const union mp_record *, size_t, uint64_t), void *arg,
                  struct mp_err *err)
{
    struct walk w = {.row = chunk_row, .fn_arg = arg, .fn.chunk = fn, .err = err};
    int rc;

    w.room = malloc(RP_CHUNK_MAX * sizeof(union mp_record));
    if (!w.room)
        return mp_fail(err, MP_ENOMEM, "no memory to read records");
    rc = walk(p, RP_GET_CHUNK, NULL, &w);
    free(w.room);
    return rc;
}

/* ---- steps: one row, and three walks for what hangs on it ----------------------------------------- */

struct step_room {
    struct mp_step step;
    struct mp_cell cell[MP_PHASE_COUNT * MP_PASS_COUNT];
    size_t route_cap;
};

static int step_cell_row(struct rp_profile *p, sqlite3_stmt *s, struct walk *w)
{
    struct step_room *room = w->room;

    (void)p;
    if (room->step.n_cell == countof(room->cell))
        return MP_OK;
    room->cell[room->step.n_cell++] = (struct mp_cell){
        .layer = -1,
        .expert = -1,
        .phase = below(s, 0, MP_PHASE_COUNT),
        .pass = below(s, 1, MP_PASS_COUNT),
        .n = u32(s, 2),
        .booked_ns = u64(s, 3),
        .raw_ns = u64(s, 4),
        .basis = MP_MEASURED,
    };
    return MP_OK;
}

static int pairs_row(struct rp_profile *p, sqlite3_stmt *s, struct walk *w)
{
    struct mp_step *step = &((struct step_room *)w->room)->step;

    (void)p;
    if (step->n_pairs < MP_WINDOW_MAX)
        step->pairs[step->n_pairs++] = (struct mp_pairs_sum){
            .window = u32(s, 0),
            .useful = u64(s, 1),
            .processed = u64(s, 2),
            .max_len = u32(s, 3),
            .basis = (enum mp_basis)below(s, 4, MP_BASIS_COUNT),
        };
    return MP_OK;
}

static struct mp_route *route_new(struct step_room *room)
{
    struct mp_step *step = &room->step;

    if (step->n_route == room->route_cap) {
        size_t cap = room->route_cap ? room->route_cap * 2 : 64;
        struct mp_route *grown = realloc(step->route, cap * sizeof *grown);

        if (!grown)
            return NULL;
        step->route = grown;
        room->route_cap = cap;
    }
    return &step->route[step->n_route];
}

static int route_row(struct rp_profile *p, sqlite3_stmt *s, struct walk *w)
{
    struct step_room *room = w->room;
    struct mp_route *r = route_new(room);
    int64_t n = sqlite3_column_int64(s, 1);
    struct mp_err why;
    int rc;

    if (n <= 0 || n > EXPERT_MAX) {
        rc = mp_fail(&why, MP_EFORMAT, "it claims a layer of %lld experts", (long long)n);
        return blob_fail(p, rc, &why, w->err);
    }
    if (sqlite3_column_bytes(s, 2) == 0) /* written without zstd */
        return MP_OK;
    if (!r || !(r->count = calloc((size_t)n, sizeof *r->count)))
        return mp_fail(w->err, MP_ENOMEM, "no memory for routing counts");
    r->layer = (int16_t)sqlite3_column_int(s, 0);
    r->n_expert = (uint16_t)n;
    r->basis = below(s, 3, MP_BASIS_COUNT);
    room->step.n_route++;
    rc = rp_counts_unpack(r->count, (size_t)n, sqlite3_column_blob(s, 2),
                          (size_t)sqlite3_column_bytes(s, 2), &why);
    return rc ? blob_fail(p, rc, &why, w->err) : MP_OK;
}

static void step_clear(struct step_room *room)
{
    for (uint32_t i = 0; i < room->step.n_route; i++)
        free(room->step.route[i].count);
    room->step = (struct mp_step){.route = room->step.route, .cell = room->cell};
}

static void step_scalars(struct mp_step *t, sqlite3_stmt *s)
{
    t->step = u32(s, 0), t->flags = u32(s, 1);
    t->begin_ns = u64(s, 2), t->window_ns = u64(s, 3), t->idle_ns = u64(s, 4);
    t->n_kernel = u32(s, 5), t->n_copy = u32(s, 6), t->n_memset = u32(s, 7), t->n_graph = u32(s, 8);
    t->n_own = u32(s, 9), t->kernel_ns = u64(s, 10), t->own_ns = u64(s, 11);
    t->launches = u32(s, 12), t->records = u32(s, 13), t->dropped = u32(s, 14);
    t->n_micro = u32(s, 15), t->n_segment = u32(s, 16);
    t->processed = u64_or_unknown(s, 17), t->useful = u64_or_unknown(s, 18);
    t->trainable = u64_or_unknown(s, 19), t->head_rows = u64_or_unknown(s, 20);
    t->useful_basis = (enum mp_basis)below(s, 21, MP_BASIS_COUNT);
    t->host_end_ns = u64(s, 22);
    /* an untraced step that nothing follows ended with its process, while the GPU still worked on it */
    if (u32(s, 23) && t->window_ns == 0)
        t->flags |= MP_STEP_PARTIAL;
}

static int step_row(struct rp_profile *p, sqlite3_stmt *s, struct walk *w)
{
    static const struct {
        enum rp_sql id;
        int (*row)(struct rp_profile *, sqlite3_stmt *, struct walk *);
    } part[] = {
        {RP_GET_STEP_CELL, step_cell_row}, {RP_GET_ROUTE, route_row}, {RP_GET_PAIRS, pairs_row}};
    struct step_room *room = w->room;
    int rc = MP_OK;

    step_clear(room);
    step_scalars(&room->step, s);
    for (size_t i = 0; rc == MP_OK && i < countof(part); i++) {
        struct walk inner = {.row = part[i].row, .room = room, .err = w->err};

        rc = walk(p, part[i].id, (const int64_t[]){room->step.step}, &inner);
    }
    return rc ? rc : w->fn.step(w->fn_arg, &room->step);
}

int rp_each_step(struct rp_profile *p, int (*fn)(void *, const struct mp_step *), void *arg,
                 struct mp_err *err)
{
    struct step_room room = {.route_cap = 0};
    struct walk w = {.row = step_row, .fn_arg = arg, .fn.step = fn, .room = &room, .err = err};
    int rc = walk(p, RP_GET_STEP, NULL, &w);

    step_clear(&room);
    free(room.step.route);
    return rc;
}
#endif
