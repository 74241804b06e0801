/* Stage 6, the guest's side: the job directory, and what a guest publishes in it.
 *
 * Linked into the guest, so libc only; after mp_shm_create nothing here allocates or waits, and only
 * mp_shm_close makes a system call beyond the clock.
 */
#include "profiler/core/shm_part.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* One writer at a time in feature, log and spec; in process memory, so a reader cannot hold it. */
static atomic_flag writing = ATOMIC_FLAG_INIT;

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* False after a bounded number of tries: a thread that was stopped here must not stop another. */
static bool write_begin(void)
{
    for (int i = 0; i < 1000; i++)
        if (!atomic_flag_test_and_set_explicit(&writing, memory_order_acquire))
            return true;
    return false;
}

static void write_end(void)
{
    atomic_flag_clear_explicit(&writing, memory_order_release);
}

/* Copies bytes of a shared text one by one; always terminated. */
static void text_put(char *dst, size_t dst_bytes, const char *src)
{
    size_t n = strnlen(src, dst_bytes - 1);

    for (size_t i = 0; i < dst_bytes; i++)
        __atomic_store_n(dst + i, i < n ? src[i] : 0, __ATOMIC_RELEASE);
}

/* ---- the job directory ------------------------------------------------------------------- */

/* 0 when path is a directory that is ours alone, made if missing. */
static int dir_claim(const char *path, struct mp_err *err)
{
    struct stat st;
    int fd, rc = 0;

    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return mp_fail(err, MP_EIO, "cannot create job directory '%.100s': %s", path,
                       strerror(errno));
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return mp_fail(err, errno == EACCES ? MP_EPERM : MP_EIO,
                       "cannot open job directory '%.100s': %s", path, strerror(errno));
    if (fstat(fd, &st) != 0)
        rc = mp_fail(err, MP_EIO, "cannot look at job directory '%.100s': %s", path,
                     strerror(errno));
    else if (st.st_uid != geteuid())
        rc = mp_fail(err, MP_EPERM, "job directory '%.100s' belongs to user %u, not to you", path,
                     (unsigned)st.st_uid);
    else if (st.st_mode & 077)
        rc = mp_fail(err, MP_EPERM, "job directory '%.100s' is open to others; chmod 700 it", path);
    close(fd);
    return rc;
}

int mp_path_join(char *out, size_t out_bytes, const char *dir, const char *leaf, struct mp_err *err)
{
    int n = snprintf(out, out_bytes, "%s/%s", dir, leaf);

    if (n < 0 || (size_t)n >= out_bytes)
        return mp_fail(err, MP_EINVAL, "path '%.100s' is too long", dir);
    return 0;
}

int mp_shm_dir(char *out, size_t out_bytes, const char *wanted, struct mp_err *err)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char leaf[32];
    int rc;

    if (wanted && *wanted) {
        if (strlen(wanted) >= out_bytes)
            return mp_fail(err, MP_EINVAL, "path '%.100s' is too long", wanted);
        strcpy(out, wanted);
        return dir_claim(out, err);
    }
    /* set but not there is common (containers, su): not a reason to fail */
    if (runtime && *runtime == '/' && access(runtime, W_OK | X_OK) == 0) {
        rc = mp_path_join(out, out_bytes, runtime, "moeprof", err);
        return rc ? rc : dir_claim(out, err);
    }
    snprintf(leaf, sizeof leaf, "moeprof-%u", (unsigned)geteuid());
    rc = mp_path_join(out, out_bytes, "/dev/shm", leaf, err);
    return rc ? rc : dir_claim(out, err);
}

int mp_shm_path(char *out, const char *dir, int pid, struct mp_err *err)
{
    char leaf[40];

    snprintf(leaf, sizeof leaf, "%d.shm", pid);
    return mp_path_join(out, MP_PATH_BYTES, dir, leaf, err);
}

/* ---- processes ---------------------------------------------------------------------------- */

/* Reads up to n - 1 bytes of /proc/PID/leaf; returns the length or -1. */
static ssize_t proc_read(int pid, const char *leaf, char *out, size_t n)
{
    char path[64];
    ssize_t got;
    int fd;

    snprintf(path, sizeof path, "/proc/%d/%s", pid, leaf);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    got = read(fd, out, n - 1);
    close(fd);
    out[got > 0 ? got : 0] = 0;
    return got;
}

uint64_t mp_process_start(int pid)
{
    char text[1024], *at;

    if (proc_read(pid, "stat", text, sizeof text) <= 0)
        return 0;
    at = strrchr(text, ')'); /* the command before it may hold blanks and brackets */
    if (!at || at[1] != ' ' || at[2] == 'Z' || at[2] == 'X')
        return 0;
    for (int field = 2; field < 22; field++) {
        at = strchr(at + 1, ' ');
        if (!at)
            return 0;
    }
    return strtoull(at + 1, NULL, 10);
}

static void command_head(char *out, size_t n)
{
    ssize_t got = proc_read(getpid(), "cmdline", out, n);

    for (ssize_t i = 0; i + 1 < got; i++)
        if (out[i] == 0)
            out[i] = ' ';
}

/* ---- guest -------------------------------------------------------------------------------- */

/* Allocates and maps the empty file behind fd. */
static int file_map(struct mp_shm **shm, int fd, const char *path, struct mp_err *err)
{
    void *at;
    int rc;

    do
        rc = posix_fallocate(fd, 0, sizeof(struct mp_shm));
    while (rc == EINTR);
    if (rc)
        return mp_fail(err, MP_EIO, "cannot allocate %zu MiB for '%.80s': %s",
                       sizeof(struct mp_shm) >> 20, path, strerror(rc));
    at = mmap(NULL, sizeof(struct mp_shm), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return mp_fail(err, MP_EIO, "cannot map '%.100s': %s", path, strerror(errno));
    *shm = at;
    return 0;
}

static void header_fill(struct mp_shm *shm)
{
    shm->version = MP_SHM_VERSION;
    shm->size_bytes = sizeof *shm;
    shm->pid = getpid();
    shm->uid = geteuid();
    shm->start_time = mp_process_start(shm->pid);
    shm->created_ns = now_ns();
    shm->rank = -1;
    shm->world = 1;
    shm->gpu_index = -1;
    command_head(shm->comm, sizeof shm->comm);
    memcpy(shm->name_heap, MP_NAME_FULL, sizeof MP_NAME_FULL);
    shm->name_heap_used = sizeof MP_NAME_FULL;
    atomic_store_explicit(&shm->heartbeat_ns, shm->created_ns, memory_order_relaxed);
    shm->magic = MP_SHM_MAGIC;
}

int mp_shm_create(struct mp_shm **shm, const char *dir, struct mp_err *err)
{
    char leaf[40], fresh[MP_PATH_BYTES], path[MP_PATH_BYTES];
    int fd, rc;

    snprintf(leaf, sizeof leaf, ".%d.new", getpid());
    if ((rc = mp_path_join(fresh, sizeof fresh, dir, leaf, err)) ||
        (rc = mp_shm_path(path, dir, getpid(), err)))
        return rc;
    unlink(fresh); /* left by a creation that was killed; the pid is ours, so nobody else's */
    fd = open(fresh, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return mp_fail(err, MP_EIO, "cannot create '%.100s': %s", fresh, strerror(errno));
    rc = file_map(shm, fd, fresh, err);
    close(fd);
    if (rc)
        goto fail;
    header_fill(*shm);
    if (rename(fresh, path) == 0)
        return 0;
    rc = mp_fail(err, MP_EIO, "cannot name '%.100s': %s", path, strerror(errno));
    munmap(*shm, sizeof **shm);
fail:
    *shm = NULL;
    unlink(fresh);
    return rc;
}

void mp_shm_flush(struct mp_shm *shm)
{
    /* release; pairs with the acquire in mp_reader_read */
    atomic_store_explicit(&shm->head, shm->n_written, memory_order_release);
}

void mp_shm_put(struct mp_shm *shm, const union mp_record *record)
{
    mp_words_put(&shm->ring[shm->n_written & MP_RING_MASK], record, sizeof *record);
    shm->n_written++;
    if (shm->n_written % MP_RING_BATCH == 0)
        mp_shm_flush(shm);
}

uint32_t mp_shm_name_add(struct mp_shm *shm, const char *name)
{
    uint32_t i = atomic_load_explicit(&shm->n_name, memory_order_relaxed);
    uint32_t used = shm->name_heap_used;
    size_t bytes = strlen(name) + 1;

    if (i >= MP_NAME_CAP - 1 || bytes > MP_NAME_HEAP - used)
        return MP_NAME_CAP - 1;
    memcpy(shm->name_heap + used, name, bytes);
    shm->name_offset[i] = used;
    shm->name_heap_used = used + (uint32_t)bytes;
    /* release; pairs with the acquire in mp_reader_name */
    atomic_store_explicit(&shm->n_name, i + 1, memory_order_release);
    return i;
}

int mp_shm_spec_set(struct mp_shm *shm, const char *json, size_t bytes)
{
    uint32_t gen;

    if (bytes == 0)
        return MP_EINVAL;
    if (bytes > MP_SPEC_CAP)
        return MP_EFULL;
    if (!write_begin())
        return MP_EBUSY;
    gen = atomic_load_explicit(&shm->spec_gen, memory_order_relaxed);
    atomic_store_explicit(&shm->spec_gen, gen + 1, memory_order_release);
    __atomic_store_n(&shm->spec_bytes, (uint32_t)bytes, __ATOMIC_RELEASE);
    mp_words_put(shm->spec, json, bytes);
    /* release; pairs with the acquire in mp_reader_spec */
    atomic_store_explicit(&shm->spec_gen, gen + 2, memory_order_release);
    write_end();
    return 0;
}

void mp_shm_feature(struct mp_shm *shm, enum mp_feature feature, enum mp_feature_state state,
                    const char *why)
{
    struct mp_feature_row *row;

    if ((unsigned)feature >= MP_FEATURE_COUNT || !write_begin())
        return;
    row = &shm->feature[feature];
    if (state == MP_FEATURE_FAILED &&
        atomic_load_explicit(&row->state, memory_order_relaxed) != MP_FEATURE_FAILED)
        text_put(row->why, sizeof row->why, why ? why : "");
    /* release; pairs with the acquire in mp_reader_feature */
    atomic_store_explicit(&row->state, state, memory_order_release);
    write_end();
}

/* The row that already says text, or NULL. */
static struct mp_log_row *log_find(struct mp_shm *shm, const char *text, uint64_t n)
{
    size_t rows = n < MP_LOG_CAP ? (size_t)n : MP_LOG_CAP;

    for (size_t i = 0; i < rows; i++)
        if (strncmp(shm->log[i].text, text, sizeof shm->log[i].text - 1) == 0)
            return &shm->log[i];
    return NULL;
}

void mp_shm_log(struct mp_shm *shm, int level, const char *text)
{
    struct mp_log_row row = {.time_ns = now_ns(), .count = 1, .level = (uint32_t)level}, *same;
    uint64_t n;

    if (!write_begin())
        return;
    n = atomic_load_explicit(&shm->n_log, memory_order_relaxed);
    same = log_find(shm, text, n);
    if (same) {
        __atomic_fetch_add(&same->count, 1, __ATOMIC_RELAXED);
    } else {
        memcpy(row.text, text, strnlen(text, sizeof row.text - 1));
        mp_words_put(&shm->log[n % MP_LOG_CAP], &row, sizeof row);
        /* release; pairs with the acquire in mp_reader_log */
        atomic_store_explicit(&shm->n_log, n + 1, memory_order_release);
    }
    write_end();
}

void mp_shm_close(struct mp_shm *shm, const char *dir, bool unlink_file)
{
    char path[MP_PATH_BYTES];

    if (!shm)
        return;
    if (shm->pid == getpid())
        mp_shm_flush(shm);
    if (unlink_file && shm->pid == getpid() && mp_shm_path(path, dir, shm->pid, NULL) == 0)
        unlink(path);
    munmap(shm, sizeof *shm);
}
