/* Launchers (torchrun, accelerate, a shell) start the trainer as a grandchild, so children are not
 * enough: every guest that carries our session is looked at. A guest is opened once and kept; it is
 * told apart by pid and inode, because a process that calls exec makes a new file under its old pid.
 * One recorder each for those that train; those that sleep cost a look at their state word. */
#include "profiler/cli/follow.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "profiler/cli/cmd.h"
#include "profiler/cli/gpu_facts.h"
#include "report/profile_file.h"
#include "report/profile_link.h"

struct guest {
    int pid;
    ino_t inode;
    enum { WATCHED, RECORDED, DONE, FOREIGN } stage;
    struct mp_reader reader; /* while WATCHED */
    struct rp_recorder *rec; /* while RECORDED */
    bool failure_said, is_replaced;
    int named_rank; /* of which FILE.rankN is; 0: none */
};

struct cli_follow {
    const char *dir, *session, *out;
    bool out_taken;
    struct guest *guest; /* (n) */
    size_t n;
    struct cli_follow_result result;
};

struct cli_follow *cli_follow_new(const char *dir, const char *session, const char *out)
{
    struct cli_follow *f = calloc(1, sizeof *f);

    if (f)
        *f = (struct cli_follow){.dir = dir, .session = session, .out = out};
    return f;
}

/* ---- names of files ----------------------------------------------------------------------------- */

/* The last path component of the job's script, or of its command. */
static void job_name(char *out, size_t n, const char *comm)
{
    char first[64] = "", second[64] = "", *word, *dot;

    sscanf(comm, "%63s %63s", first, second);
    word = strstr(first, "python") && second[0] && second[0] != '-' ? second : first;
    word = strrchr(word, '/') ? strrchr(word, '/') + 1 : word;
    dot = strstr(word, ".py");
    if (dot && dot[3] == 0)
        *dot = 0;
    for (char *c = word; *c; c++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.", *c))
            *c = '_';
    snprintf(out, n, "%.40s", *word ? word : "job");
}

/* FILE with a mark before its suffix: a.moeprof -> a.rank1.moeprof. */
static void marked_name(char *out, size_t n, const char *file, const char *mark)
{
    size_t len = strlen(file), tail = strlen(RP_SUFFIX);
    bool has = len > tail && strcmp(file + len - tail, RP_SUFFIX) == 0;

    snprintf(out, n, "%.*s.%s%s", (int)(has ? len - tail : len), file, mark, has ? RP_SUFFIX : "");
}

/* A rank that was started again, or that of a second launcher, gets a file of its own. */
static bool rank_is_named(const struct cli_follow *f, int rank)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->guest[i].named_rank == rank)
            return true;
    return false;
}

static void file_name(struct cli_follow *f, char *out, size_t n, struct guest *g)
{
    const struct mp_shm *shm = g->reader.shm;
    bool ranked = shm->world > 1 && shm->rank >= 0;
    char comm[sizeof shm->comm], name[48], date[32], mark[32];
    time_t now = time(NULL);

    if (f->out && !f->out_taken && (!ranked || shm->rank == 0)) {
        f->out_taken = true;
        snprintf(out, n, "%s", f->out);
        return;
    }
    if (!ranked || shm->rank == 0)
        snprintf(mark, sizeof mark, "pid%d", shm->pid);
    else if (rank_is_named(f, shm->rank))
        snprintf(mark, sizeof mark, "rank%d.pid%d", shm->rank, shm->pid);
    else
        snprintf(mark, sizeof mark, "rank%d", g->named_rank = shm->rank);
    if (f->out) {
        marked_name(out, n, f->out, mark);
        return;
    }
    mp_shm_text(comm, sizeof comm, shm->comm, sizeof shm->comm);
    job_name(name, sizeof name, comm);
    strftime(date, sizeof date, "%Y%m%d-%H%M%S", localtime(&now));
    snprintf(out, n, "moeprof-%s-%s-%d" RP_SUFFIX, name, date, shm->pid);
}

/* ---- one guest ---------------------------------------------------------------------------------- */

static void record_end(struct cli_follow *f, struct guest *g, const char *end)
{
    const char *failure;
    struct rp_status st;

    rp_link_remove(f->dir, g->pid);
    rp_recorder_end(g->rec, end);
    rp_recorder_status(g->rec, &st);
    failure = rp_recorder_failure(g->rec);
    if (failure) {
        f->result.n_failed++;
        if (!g->failure_said)
            cli_say("%s", failure);
        if (access(st.path, F_OK) == 0)
            cli_say("what was recorded before that is in '%s'", st.path);
    } else {
        f->result.n_profile++;
        cli_say("recorded %u steps of process %d in '%s'", st.n_step, g->pid, st.path);
    }
    rp_recorder_free(g->rec);
    g->rec = NULL;
    g->stage = DONE;
}

/* A name that another run records into leaves that one alone: ours gets a mark more. */
static int recorder_open(struct guest *g, char *path, size_t n, struct mp_err *err)
{
    char taken[4096], mark[32];
    int rc = rp_recorder_new(&g->rec, &g->reader, path, err);

    if (rc != MP_EBUSY)
        return rc;
    snprintf(taken, sizeof taken, "%s", path);
    snprintf(mark, sizeof mark, "pid%d", g->pid);
    marked_name(path, n, taken, mark);
    cli_say("another run is being recorded into '%s': this one goes into '%s'", taken, path);
    rc = rp_recorder_new(&g->rec, &g->reader, path, err);
    if (rc == MP_EBUSY)
        mp_reader_close(&g->reader);
    return rc;
}

static void record_begin(struct cli_follow *f, struct guest *g)
{
    char path[4096], why[sizeof((struct mp_feature_row *)0)->why];
    struct rp_gpu_facts gpu;
    struct mp_err err;

    file_name(f, path, sizeof path, g);
    g->stage = RECORDED;
    if (recorder_open(g, path, sizeof path, &err) == MP_OK) {
        cli_say("recording process %d into '%s'", g->pid, path);
        if (mp_reader_feature(&g->reader, MP_FEATURE_CUPTI, why, sizeof why) == MP_FEATURE_FAILED)
            cli_say("%s", why);
        rp_link_put(f->dir, g->pid, path);
        cli_gpu_facts(&gpu, f->dir, g->pid);
        rp_recorder_gpu(g->rec, &gpu);
        return;
    }
    cli_fail(&err);
    f->result.n_failed++;
    g->stage = DONE;
}

/* Remembers why a guest that never trained did not. */
static void take_reason(struct cli_follow *f, const struct mp_reader *r)
{
    for (int i = 0; i < MP_FEATURE_COUNT && f->result.why[0] == 0; i++)
        if (mp_reader_feature(r, (enum mp_feature)i, f->result.why, sizeof f->result.why) !=
            MP_FEATURE_FAILED)
            f->result.why[0] = 0;
}

static void watch_end(struct cli_follow *f, struct guest *g)
{
    take_reason(f, &g->reader);
    mp_reader_close(&g->reader);
    g->stage = DONE;
}

static enum mp_guest_state state_of(const struct mp_shm *shm)
{
    return (enum mp_guest_state)atomic_load_explicit(&shm->state, memory_order_acquire);
}

/* A guest that ended or switched itself off is worth a profile only if it published something. */
static bool has_trained(const struct mp_shm *shm)
{
    enum mp_guest_state state = state_of(shm);

    if (state == MP_GUEST_RECORDING || state == MP_GUEST_ASIDE)
        return true;
    return state != MP_GUEST_ASLEEP && atomic_load_explicit(&shm->head, memory_order_acquire) > 0;
}

static size_t guest_poll(struct cli_follow *f, struct guest *g)
{
    const char *end;
    bool over;
    size_t n;

    if (g->stage == WATCHED) {
        bool alive = mp_reader_alive(&g->reader); /* before the look at its state */

        if (has_trained(g->reader.shm))
            record_begin(f, g);
        else if (!alive || g->is_replaced)
            watch_end(f, g);
    }
    if (g->stage != RECORDED)
        return 0;
    over = rp_recorder_is_over(g->rec, &end);
    n = rp_recorder_poll(g->rec); /* after the look at the process: nothing can come behind it */
    if (rp_recorder_failure(g->rec) && !g->failure_said) {
        g->failure_said = true;
        cli_say("%s; the job goes on, its recording ended here", rp_recorder_failure(g->rec));
    }
    if (over || g->is_replaced)
        record_end(f, g, end);
    return n;
}

/* ---- the directory ------------------------------------------------------------------------------ */

static struct guest *guest_add(struct cli_follow *f)
{
    struct guest *grown = realloc(f->guest, (f->n + 1) * sizeof *grown);

    if (!grown)
        return NULL;
    f->guest = grown;
    return &f->guest[f->n++];
}

/* Whether this very file is known; an older one of the same pid is marked as replaced. */
static bool is_known(struct cli_follow *f, int pid, ino_t inode)
{
    for (size_t i = 0; i < f->n; i++) {
        if (f->guest[i].pid == pid && f->guest[i].inode == inode)
            return true;
        if (f->guest[i].pid == pid)
            f->guest[i].is_replaced = true;
    }
    return false;
}

static int visit(void *arg, int pid)
{
    struct cli_follow *f = arg;
    struct guest fresh = {.pid = pid}, *g;
    char text[4200];
    struct stat st;

    snprintf(text, sizeof text, "%s/%d.shm", f->dir, pid);
    if (stat(text, &st) != 0 || is_known(f, pid, st.st_ino))
        return 0;
    fresh.inode = st.st_ino;
    if (mp_reader_open(&fresh.reader, f->dir, pid, true, NULL) != MP_OK)
        return 0; /* being made, or another version: the next look decides */
    mp_shm_text(text, sizeof text, fresh.reader.shm->session, sizeof fresh.reader.shm->session);
    if (strcmp(text, f->session) != 0)
        fresh.stage = FOREIGN;
    g = guest_add(f);
    if (!g || fresh.stage == FOREIGN)
        mp_reader_close(&fresh.reader);
    if (g)
        *g = fresh;
    return 0;
}

size_t cli_follow_poll(struct cli_follow *f)
{
    size_t n = 0;

    mp_shm_each(f->dir, visit, f, NULL);
    for (size_t i = 0; i < f->n; i++)
        n += guest_poll(f, &f->guest[i]);
    return n;
}

void cli_follow_end(struct cli_follow *f, const char *end)
{
    cli_follow_poll(f);
    for (size_t i = 0; i < f->n; i++) {
        if (f->guest[i].stage == WATCHED)
            watch_end(f, &f->guest[i]);
        if (f->guest[i].stage == RECORDED)
            record_end(f, &f->guest[i], end);
    }
}

/* Files of processes that are gone were read to the end: nobody else needs them. */
static void shm_remove(const struct cli_follow *f, const struct guest *g)
{
    char path[4200];

    snprintf(path, sizeof path, "%s/%d.shm", f->dir, g->pid);
    if (g->stage == DONE && kill(g->pid, 0) != 0)
        unlink(path);
}

void cli_follow_free(struct cli_follow *f)
{
    for (size_t i = 0; f && i < f->n; i++)
        shm_remove(f, &f->guest[i]);
    if (f)
        free(f->guest);
    free(f);
}

unsigned cli_follow_active(const struct cli_follow *f)
{
    unsigned n = 0;

    for (size_t i = 0; i < f->n; i++)
        n += f->guest[i].stage == RECORDED;
    return n;
}

size_t cli_follow_targets(const struct cli_follow *f, struct cli_target *out, size_t max)
{
    struct rp_status st;
    size_t n = 0;

    for (size_t i = 0; i < f->n; i++) {
        if (f->guest[i].stage != RECORDED)
            continue;
        rp_recorder_status(f->guest[i].rec, &st);
        if (n < max) {
            out[n] = (struct cli_target){.pid = st.pid, .rank = st.rank, .world = st.world};
            snprintf(out[n].path, sizeof out[n].path, "%s", st.path);
        }
        n++;
    }
    return n;
}

void cli_follow_ab(struct cli_follow *f, int pid, const struct rp_ab_record *record)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->guest[i].stage == RECORDED && f->guest[i].pid == pid)
            rp_recorder_ab(f->guest[i].rec, record);
}

void cli_follow_result(const struct cli_follow *f, struct cli_follow_result *out)
{
    *out = f->result;
}

/* ---- progress ----------------------------------------------------------------------------------- */

static const char *value(char *out, size_t n, struct mp_val v, const char *fmt, double scale)
{
    if (v.basis == MP_UNKNOWN)
        return "–";
    snprintf(out, n, fmt, v.v * scale);
    return out;
}

static int status_line(const struct rp_status *st, char *out, size_t n)
{
    char step[32], mfu[32], tokens[32], who[24] = "";

    if (st->rank >= 0)
        snprintf(who, sizeof who, "rank %d: ", st->rank);
    return snprintf(out, n, "%s%u steps | %s s/step | MFU %s | %s tokens/s | %llu dropped%s", who,
                    st->n_step, value(step, sizeof step, st->step_s, "%.3f", 1),
                    value(mfu, sizeof mfu, st->mfu, "%.1f %%", 100),
                    value(tokens, sizeof tokens, st->tokens_s, "%.0f", 1),
                    (unsigned long long)st->n_dropped,
                    st->state == MP_GUEST_ASIDE ? " | stepped aside for another profiler" : "");
}

bool cli_follow_line(const struct cli_follow *f, char *out, size_t out_bytes)
{
    const struct guest *shown = NULL;
    unsigned more = 0;
    struct rp_status st;
    int n;

    for (size_t i = 0; i < f->n; i++) {
        if (f->guest[i].stage != RECORDED)
            continue;
        if (shown)
            more++;
        else
            shown = &f->guest[i];
    }
    if (!shown)
        return false;
    rp_recorder_status(shown->rec, &st);
    n = status_line(&st, out, out_bytes);
    if (more && n > 0 && (size_t)n < out_bytes)
        snprintf(out + n, out_bytes - (size_t)n, " | and %u more process%s", more,
                 more > 1 ? "es" : "");
    return true;
}
