/* The recorder. Runs in the tool, on the thread of `moeprof run`; may allocate and fail, may not sleep.
 *
 * Rows collect in one open transaction that is committed about once a second: that second is what a
 * SIGKILL costs. Totals by cell are rewritten, so less often: they are thousands of rows.
 */
#include "report/recorder.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "profiler/core/mfu.h"
#include "report/chunk.h"
#include "report/profile_file.h"
#include "report/recorder_meta.h"
#include "report/sums.h"

#define READ_RECORDS    4096u
#define COMMIT_NS       1000000000u
#define CHUNK_MIN       16384u /* smaller chunks compress worse; a slow job still gets one each ... */
#define CHUNK_NS        5000000000u /* ... five seconds */
#define TOTALS_FIRST_NS 5000000000u
#define TOTALS_MAX_NS   60000000000u /* the interval doubles up to this: some 20 k rows each time */
#define RECENT          16u          /* steps that the progress line speaks of */

struct rp_recorder {
    struct mp_reader reader;
    struct mp_steps *steps;
    struct rp_sums *sums;
    struct rp_profile *file; /* NULL once writing has failed */
    struct rp_meta_state meta;
    char *path;
    struct mp_err failure; /* code 0: none */
    bool in_transaction;

    union mp_record *chunk; /* (RP_CHUNK_MAX), n_chunk filled */
    size_t n_chunk;
    uint64_t chunk_lost; /* lost before chunk[0] */
    uint64_t lost_seen;  /* of reader.n_lost */

    uint64_t next_commit_ns, next_chunk_ns, next_totals_ns, totals_every_ns;
    uint64_t n_record;
    uint32_t n_step;
    struct mp_mfu *mfu;
    struct mp_peak peak;
};

static uint64_t monotonic_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- writing, until it fails once ------------------------------------------------------------- */

static void file_give_up(struct rp_recorder *r)
{
    rp_profile_rollback(r->file);
    rp_profile_close(r->file, NULL);
    r->file = NULL;
    r->in_transaction = false;
}

/* Every write passes here; the first failure ends writing and keeps its sentence. */
static void keep(struct rp_recorder *r, int rc, const struct mp_err *err)
{
    if (rc == MP_OK || !r->file)
        return;
    r->failure = *err;
    r->failure.code = rc;
    file_give_up(r);
}

static bool can_write(struct rp_recorder *r)
{
    struct mp_err err = {0};

    if (r->file && !r->in_transaction) {
        r->in_transaction = true;
        keep(r, rp_profile_begin(r->file, &err), &err);
    }
    return r->file != NULL;
}

static void commit(struct rp_recorder *r)
{
    struct mp_err err = {0};

    if (!r->file || !r->in_transaction)
        return;
    keep(r, rp_profile_commit(r->file, &err), &err);
    r->in_transaction = false;
}

static void chunk_write(struct rp_recorder *r)
{
    struct mp_err err = {0};

    if (r->n_chunk == 0)
        return;
    if (can_write(r))
        keep(r, rp_put_chunk(r->file, r->chunk, r->n_chunk, r->chunk_lost, &err), &err);
    r->n_chunk = 0;
    r->chunk_lost = 0;
    r->next_chunk_ns = monotonic_ns() + CHUNK_NS;
}

static void totals_write(struct rp_recorder *r, uint64_t now)
{
    struct mp_err err = {0};

    if (can_write(r))
        keep(r, rp_sums_write(r->sums, r->file, &err), &err);
    if (r->totals_every_ns < TOTALS_MAX_NS)
        r->totals_every_ns *= 2;
    r->next_totals_ns = now + r->totals_every_ns;
}

static void peak_find(struct rp_recorder *r)
{
    const struct mp_shm *shm = r->reader.shm;
    const struct rp_spec_text *t = &r->meta.spec.text;
    char gpu[sizeof shm->gpu_name];

    mp_shm_text(gpu, sizeof gpu, shm->gpu_name, sizeof shm->gpu_name);
    mp_peak_find(&r->peak, gpu, shm->gpu_cc, shm->gpu_sm_count,
                 *t->autocast ? t->autocast : t->dtype);
}

static void meta_write(struct rp_recorder *r)
{
    struct mp_err err = {0};

    if (rp_meta_spec(&r->meta, &r->reader))
        peak_find(r);

    if (can_write(r))
        keep(r, rp_meta_write(&r->meta, &r->reader, r->file, &err), &err);
}

static void tick(struct rp_recorder *r)
{
    uint64_t now = monotonic_ns();

    if (now < r->next_commit_ns)
        return;
    if (r->n_chunk >= CHUNK_MIN || now >= r->next_chunk_ns)
        chunk_write(r);
    if (now >= r->next_totals_ns)
        totals_write(r, now);
    meta_write(r);
    commit(r);
    r->next_commit_ns = now + COMMIT_NS;
}

void rp_recorder_ab(struct rp_recorder *r, const struct rp_ab_record *record)
{
    struct mp_err err = {0};

    commit(r); /* the record is a transaction of its own */
    if (r->file)
        keep(r, rp_ab_put(r->file, record, &err), &err);
}

void rp_recorder_gpu(struct rp_recorder *r, const struct rp_gpu_facts *g)
{
    struct mp_err err = {0};

    if (can_write(r))
        keep(r, rp_gpu_put(r->file, "gpu_", g, &err), &err);
}

/* ---- reading ------------------------------------------------------------------------------------ */

static void on_step(void *arg, const struct mp_step *step)
{
    struct rp_recorder *r = arg;
    struct mp_flops flops;
    struct mp_err err = {.msg = "no memory for the totals of the run"};

    r->n_step++;
    r->meta.n_unbalanced += mp_step_check(step, NULL) != MP_OK;
    if (r->meta.has_spec)
        mp_flops_step(&flops, &r->meta.spec.model, step);
    mp_mfu_add(r->mfu, step, r->meta.has_spec ? &flops : NULL); /* of the progress line only */
    keep(r, rp_sums_step(r->sums, step), &err);
    if (can_write(r))
        keep(r, rp_put_step(r->file, step, &err), &err);
}

static void note_gap(struct rp_recorder *r, uint64_t lost)
{
    if (lost == 0)
        return;
    chunk_write(r); /* what came before the gap */
    r->chunk_lost = lost;
    r->meta.n_lapped += lost;
    mp_steps_gap(r->steps, lost);
}

static void take(struct rp_recorder *r, const union mp_record *record, size_t n)
{
    struct mp_err err = {.msg = "no memory for the totals of the run"};

    for (size_t i = 0; i < n; i++)
        keep(r, rp_sums_record(r->sums, &record[i]), &err);
    keep(r, mp_steps_feed(r->steps, record, n), &err);
    if (r->n_chunk + n > RP_CHUNK_MAX)
        chunk_write(r);
    memcpy(r->chunk + r->n_chunk, record, n * sizeof *record);
    r->n_chunk += n;
    r->n_record += n;
}

static size_t drain(struct rp_recorder *r)
{
    union mp_record record[READ_RECORDS];
    size_t n, sum = 0;

    while ((n = mp_reader_read(&r->reader, record, READ_RECORDS)) > 0) {
        note_gap(r, r->reader.n_lost - r->lost_seen);
        r->lost_seen = r->reader.n_lost;
        take(r, record, n);
        sum += n;
        if (sum >= MP_RING_CAP) /* a guest faster than we are must not keep us from committing */
            break;
    }
    return sum;
}

size_t rp_recorder_poll(struct rp_recorder *r)
{
    size_t n;

    if (!r->meta.has_spec && rp_meta_spec(&r->meta, &r->reader))
        peak_find(r);
    n = drain(r);

    tick(r);
    return n;
}

/* ---- life --------------------------------------------------------------------------------------- */

void rp_recorder_free(struct rp_recorder *r)
{
    if (!r)
        return;
    rp_profile_close(r->file, NULL);
    if (r->steps)
        mp_steps_free(r->steps);
    rp_sums_free(r->sums);
    if (r->mfu)
        mp_mfu_free(r->mfu);
    rp_meta_release(&r->meta);
    mp_reader_close(&r->reader);
    free(r->chunk);
    free(r->path);
    free(r);
}

int rp_recorder_new(struct rp_recorder **out, struct mp_reader *reader, const char *path,
                    struct mp_err *err)
{
    struct rp_recorder *r = calloc(1, sizeof *r);
    int rc = MP_OK;

    *out = NULL;
    if (!r) {
        mp_reader_close(reader);
        return mp_fail(err, MP_ENOMEM, "no memory to record");
    }
    r->reader = *reader;
    r->path = strdup(path);
    r->chunk = malloc(RP_CHUNK_MAX * sizeof *r->chunk);
    r->steps = mp_steps_new(on_step, r);
    r->sums = rp_sums_new();
    r->mfu = mp_mfu_new();
    if (!r->path || !r->chunk || !r->steps || !r->sums || !r->mfu)
        rc = mp_fail(err, MP_ENOMEM, "no memory to record");
    if (rc == MP_OK)
        rc = rp_profile_create(&r->file, path, err);
    if (rc == MP_EBUSY)
        r->reader.shm = NULL; /* it stays with the caller */
    if (rc) {
        rp_recorder_free(r);
        return rc;
    }
    r->totals_every_ns = TOTALS_FIRST_NS;
    r->next_commit_ns = r->next_chunk_ns = monotonic_ns();
    r->next_totals_ns = r->next_commit_ns + TOTALS_FIRST_NS;
    note_gap(r, r->reader.pos); /* overwritten before we came */
    *out = r;
    return MP_OK;
}

void rp_recorder_end(struct rp_recorder *r, const char *end)
{
    struct mp_err err = {0};
    int rc;

    while (drain(r) >= MP_RING_CAP)
        ;
    mp_steps_finish(r->steps);
    chunk_write(r);
    totals_write(r, 0);
    meta_write(r);
    if (can_write(r))
        keep(r, rp_meta_end(r->file, end, &err), &err);
    commit(r);
    rc = rp_profile_close(r->file, &err);
    r->file = NULL;
    if (rc && !r->failure.code)
        r->failure = err;
}

/* ---- status ------------------------------------------------------------------------------------- */

bool rp_recorder_is_over(const struct rp_recorder *r, const char **end)
{
    bool alive = mp_reader_alive(&r->reader); /* before the state: an exit writes it last */
    unsigned state = atomic_load_explicit(&r->reader.shm->state, memory_order_acquire);

    *end = state == MP_GUEST_ENDED ? "exit" : "killed";
    return !alive || state == MP_GUEST_ENDED;
}

void rp_recorder_status(const struct rp_recorder *r, struct rp_status *out)
{
    const struct mp_shm *shm = r->reader.shm;
    struct mp_mfu_sum sum;

    mp_mfu_get(r->mfu, RECENT, &r->peak, &sum);
    *out = (struct rp_status){
        .pid = shm->pid,
        .rank = shm->world > 1 ? shm->rank : -1,
        .world = shm->world,
        .path = r->path,
        .state = (enum mp_guest_state)atomic_load_explicit(&shm->state, memory_order_relaxed),
        .n_step = r->n_step,
        .step_s = sum.median_s,
        .tokens_s = sum.useful_per_s,
        .mfu = sum.mfu,
        .n_record = r->n_record,
        .n_dropped = rp_meta_dropped(&r->meta, &r->reader),
    };
}

const char *rp_recorder_failure(const struct rp_recorder *r)
{
    return r->failure.code ? r->failure.msg : NULL;
}
