/* The profile: one SQLite database a rank. What the tables mean: report/SCHEMA.md.
 *
 * One writer (the recorder), any number of readers, also while it is being written: WAL mode.
 * Writers see their rows as durable after rp_profile_commit; a SIGKILL loses what came after it.
 * Readers trust nothing: any file gives rows or an error code, never a fault.
 * Error codes: MP_EFORMAT no profile, or a damaged one; MP_EVERSION another schema; MP_EFULL no
 * space left; MP_EIO; MP_ENOTSUP built without SQLite.
 */
#ifndef RP_PROFILE_FILE_H
#define RP_PROFILE_FILE_H

#include "profiler/core/step.h"

#define RP_SCHEMA_VERSION 4
#define RP_SCHEMA_OLDEST  1 /* still read: without the tables of a before/after */
#define RP_SUFFIX         ".moeprof"

struct rp_profile; /* opaque */

/* A new, empty profile at path; an older *profile* there is replaced, any other file is refused, and
 * so is one that somebody writes: MP_EBUSY. */
int rp_profile_create(struct rp_profile **p, const char *path, struct mp_err *err);
/* Whether create would work, changing nothing: asked before a job is started. */
int rp_profile_may_create(const char *path, struct mp_err *err);
/* Read-only. */
int rp_profile_open(struct rp_profile **p, const char *path, struct mp_err *err);
/* To add rows to one that was closed. */
int rp_profile_append(struct rp_profile **p, const char *path, struct mp_err *err);
/* Commits and folds the log into the one file; NULL is fine. The handle is gone in any case. */
int rp_profile_close(struct rp_profile *p, struct mp_err *err);

/* ---- rows that are neither steps nor cells ---------------------------------------------------- */

enum rp_gauge_id {
    RP_SM_CLOCK_MHZ,
    RP_MEM_CLOCK_MHZ,
    RP_POWER_MW,
    RP_TEMP_C,
    RP_THROTTLE_BITS,
    RP_MEM_USED_BYTES,
    RP_GAUGE_COUNT
};

struct rp_gauge {
    uint64_t time_ns;
    uint64_t value[RP_GAUGE_COUNT];
    uint32_t valid; /* bit i: value[i] is known; the bits of mp_shm.gauges_valid */
};

struct rp_log {
    uint64_t time_ns;
    uint32_t level, count; /* 0 info, 1 warning, 2 error; how often */
    const char *text;
};

#define RP_BLOCK_WARMUP   0 /* the first two complete steps */
#define RP_BLOCK_STEADY   1 /* the complete steps after them: what statistics are made of */
#define RP_BLOCK_PARTIAL  2 /* steps recorded in part: the first of an attach, the last one */
#define RP_BLOCK_LOSSY    3 /* steps of true duration that lost records */
#define RP_BLOCK_UNTRACED 4 /* steps whose GPU was not watched: no cells, only tokens */
#define RP_BLOCK_COUNT    5

struct rp_block {
    uint32_t first_step, last_step, n_step;
    uint64_t window_ns, idle_ns;
};

struct rp_kernel {
    uint32_t name; /* id in the name table */
    int16_t layer;
    uint8_t phase, pass;
    uint32_t n;
    uint64_t total_ns;
    uint32_t min_ns, max_ns;
};

/* ---- writing: between begin and commit ---------------------------------------------------------- */

int rp_profile_begin(struct rp_profile *p, struct mp_err *err);
int rp_profile_commit(struct rp_profile *p, struct mp_err *err);
void rp_profile_rollback(struct rp_profile *p);

int rp_put_meta(struct rp_profile *p, const char *key, const char *value, struct mp_err *err);
int rp_put_meta_int(struct rp_profile *p, const char *key, int64_t value, struct mp_err *err);
int rp_put_spec(struct rp_profile *p, const char *json, size_t bytes, struct mp_err *err);
int rp_put_name(struct rp_profile *p, uint32_t id, const char *name, struct mp_err *err);
/* The step with its cells folded to (phase, pass), its routes and pairs. */
int rp_put_step(struct rp_profile *p, const struct mp_step *step, struct mp_err *err);
int rp_put_gauge(struct rp_profile *p, const struct rp_gauge *gauge, struct mp_err *err);
int rp_put_log(struct rp_profile *p, int64_t id, const struct rp_log *log, struct mp_err *err);
/* `lost`: records that were lost just before the first one of this chunk. */
int rp_put_chunk(struct rp_profile *p, const union mp_record *record, size_t n, uint64_t lost,
                 struct mp_err *err);

/* Totals of a block: rp_put_block clears its rows, the others fill them again. */
int rp_put_block(struct rp_profile *p, int block, const struct rp_block *b, struct mp_err *err);
int rp_put_cells(struct rp_profile *p, int block, const struct mp_cell *cell, size_t n,
                 struct mp_err *err);
int rp_put_kernel(struct rp_profile *p, int block, const struct rp_kernel *k, struct mp_err *err);
int rp_put_expert_tokens(struct rp_profile *p, int block, int layer, const uint64_t *tokens,
                         size_t n, struct mp_err *err);

/* ---- reading ------------------------------------------------------------------------------------ */

/* Callbacks get borrowed rows, valid for the call; a non-zero answer ends the walk and is returned. */

/* Copies the value as text; "" and false when there is none. */
bool rp_get_meta(struct rp_profile *p, const char *key, char *out, size_t out_bytes);
int64_t rp_get_meta_int(struct rp_profile *p, const char *key, int64_t otherwise);
/* The model description, malloced; NULL when the job had none. */
int rp_get_spec(struct rp_profile *p, char **json, struct mp_err *err);
/* The name of a kernel, borrowed until the next call; "?" when unknown. */
const char *rp_get_name(struct rp_profile *p, uint32_t id);
int rp_get_block(struct rp_profile *p, int block, struct rp_block *b, struct mp_err *err);

/* Steps in order. step->cell has layer and expert -1: the sums by phase and pass. */
int rp_each_step(struct rp_profile *p, int (*fn)(void *arg, const struct mp_step *step), void *arg,
                 struct mp_err *err);
int rp_each_cell(struct rp_profile *p, int block, int (*fn)(void *arg, const struct mp_cell *cell),
                 void *arg, struct mp_err *err);
int rp_each_kernel(struct rp_profile *p, int block, int (*fn)(void *arg, const struct rp_kernel *k),
                   void *arg, struct mp_err *err);
int rp_each_expert(struct rp_profile *p, int block,
                   int (*fn)(void *arg, int layer, int expert, uint64_t tokens), void *arg,
                   struct mp_err *err);
int rp_each_gauge(struct rp_profile *p, int (*fn)(void *arg, const struct rp_gauge *gauge),
                  void *arg, struct mp_err *err);
int rp_each_log(struct rp_profile *p, int (*fn)(void *arg, const struct rp_log *log), void *arg,
                struct mp_err *err);
/* Raw records, chunk by chunk, in stream order. */
int rp_each_chunk(struct rp_profile *p,
                  int (*fn)(void *arg, const union mp_record *record, size_t n, uint64_t lost),
                  void *arg, struct mp_err *err);

#endif
