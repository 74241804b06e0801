/* Stage 6: what a guest publishes, and how others read it without trusting it.
 *
 * Producer side: linked into the guest, so libc only, no allocation, no wait. Reader side: the tool.
 * The ring words are stored with release and loaded with acquire, one by one: free on x86, and a
 * reader that saw any word of record w then also sees the head that was published before w was
 * written, which tells it that the record under it is gone. No fence, so ThreadSanitizer can check it.
 */
#include "profiler/core/shm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RING_MASK (MP_RING_CAP - 1)
/* The producer may be writing up to a batch past head: what lies under that is not to be read. */
#define RING_REACH  ((uint64_t)(MP_RING_CAP - MP_RING_BATCH))
#define GUARD_BYTES 65536u /* a multiple of every page size in use; ends any unterminated name */
#define PATH_BYTES  4096
#define MAP_BYTES                                                                                  \
    ((sizeof(struct mp_shm) + GUARD_BYTES - 1) / GUARD_BYTES * GUARD_BYTES + GUARD_BYTES)

typedef uint64_t __attribute__((may_alias)) word;

MP_STATIC_ASSERT((MP_RING_CAP & RING_MASK) == 0, "slots are found by a mask");
MP_STATIC_ASSERT(offsetof(struct mp_shm, spec) % sizeof(word) == 0,
                 "the description moves in words");
MP_STATIC_ASSERT(offsetof(struct mp_shm, log) % sizeof(word) == 0, "log rows move in words");
MP_STATIC_ASSERT(sizeof(struct mp_log_row) % sizeof(word) == 0, "log rows move in words");
MP_STATIC_ASSERT(MP_SPEC_CAP % sizeof(word) == 0, "the description moves in words");

static const char name_full[] = "(name table full)";

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

/* dst is shared and word-aligned, with room for bytes rounded up to a word. */
static void words_put(void *dst, const void *src, size_t bytes)
{
    word *to = dst;

    for (size_t done = 0; done < bytes; done += sizeof(word)) {
        size_t part = bytes - done < sizeof(word) ? bytes - done : sizeof(word);
        uint64_t w = 0;

        memcpy(&w, (const char *)src + done, part);
        __atomic_store_n(to++, w, __ATOMIC_RELEASE);
    }
}

static void words_take(void *dst, const void *src, size_t bytes)
{
    const word *from = src;

    for (size_t done = 0; done < bytes; done += sizeof(word)) {
        size_t part = bytes - done < sizeof(word) ? bytes - done : sizeof(word);
        uint64_t w = __atomic_load_n(from++, __ATOMIC_ACQUIRE);

        memcpy((char *)dst + done, &w, part);
    }
}

/* Copies bytes of a shared text one by one; always terminated. */
static void text_put(char *dst, size_t dst_bytes, const char *src)
{
    size_t n = strnlen(src, dst_bytes - 1);

    for (size_t i = 0; i < dst_bytes; i++)
        __atomic_store_n(dst + i, i < n ? src[i] : 0, __ATOMIC_RELEASE);
}

void mp_shm_text(char *out, size_t out_bytes, const char *field, size_t field_bytes)
{
    size_t i = 0;

    if (out_bytes == 0)
        return;
    for (; i + 1 < out_bytes && i < field_bytes; i++) {
        unsigned char c = (unsigned char)__atomic_load_n(field + i, __ATOMIC_ACQUIRE);

        if (c == 0)
            break;
        out[i] = c < 32 || c == 127 ? '?' : (char)c;
    }
    out[i] = 0;
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

static int path_format(char *out, size_t out_bytes, const char *dir, const char *leaf,
                       struct mp_err *err)
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
        rc = path_format(out, out_bytes, runtime, "moeprof", err);
        return rc ? rc : dir_claim(out, err);
    }
    snprintf(leaf, sizeof leaf, "moeprof-%u", (unsigned)geteuid());
    rc = path_format(out, out_bytes, "/dev/shm", leaf, err);
    return rc ? rc : dir_claim(out, err);
}

/* DIR/PID.shm, or with `fresh` the name under which a file is built. */
static int file_path(char *out, const char *dir, int pid, bool fresh, struct mp_err *err)
{
    char leaf[40];

    snprintf(leaf, sizeof leaf, fresh ? ".%d.new" : "%d.shm", pid);
    return path_format(out, PATH_BYTES, dir, leaf, err);
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

/* Field 22 of /proc/PID/stat; 0 when there is no such process or only its zombie. */
static uint64_t process_start(int pid)
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

static bool is_running(int pid, uint64_t start_time)
{
    uint64_t start = pid > 0 ? process_start(pid) : 0;

    return start != 0 && start == start_time;
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
    shm->start_time = process_start(shm->pid);
    shm->created_ns = now_ns();
    shm->rank = -1;
    shm->world = 1;
    shm->gpu_index = -1;
    command_head(shm->comm, sizeof shm->comm);
    memcpy(shm->name_heap, name_full, sizeof name_full);
    shm->name_heap_used = sizeof name_full;
    atomic_store_explicit(&shm->heartbeat_ns, shm->created_ns, memory_order_relaxed);
    shm->magic = MP_SHM_MAGIC;
}

int mp_shm_create(struct mp_shm **shm, const char *dir, struct mp_err *err)
{
    char fresh[PATH_BYTES], path[PATH_BYTES];
    int fd, rc;

    if ((rc = file_path(fresh, dir, getpid(), true, err)) ||
        (rc = file_path(path, dir, getpid(), false, err)))
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
    words_put(&shm->ring[shm->n_written & RING_MASK], record, sizeof *record);
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
    words_put(shm->spec, json, bytes);
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
        words_put(&shm->log[n % MP_LOG_CAP], &row, sizeof row);
        /* release; pairs with the acquire in mp_reader_log */
        atomic_store_explicit(&shm->n_log, n + 1, memory_order_release);
    }
    write_end();
}

void mp_shm_close(struct mp_shm *shm, const char *dir, bool unlink_file)
{
    char path[PATH_BYTES];

    if (!shm)
        return;
    if (shm->pid == getpid())
        mp_shm_flush(shm);
    if (unlink_file && shm->pid == getpid() && file_path(path, dir, shm->pid, false, NULL) == 0)
        unlink(path);
    munmap(shm, sizeof *shm);
}

/* ---- readers ------------------------------------------------------------------------------ */

/* Opens DIR/PID.shm and checks what the file system knows of it; fd or a negative code. */
static int file_open(const char *path, struct stat *st, struct mp_err *err)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return mp_fail(err,
                       errno == ENOENT   ? MP_EGONE
                       : errno == EACCES ? MP_EPERM
                                         : MP_EIO,
                       "cannot open '%.100s': %s", path, strerror(errno));
    if (fstat(fd, st) != 0 || !S_ISREG(st->st_mode)) {
        close(fd);
        return mp_fail(err, MP_EFORMAT, "'%.100s' is not a file of moeprof", path);
    }
    if (st->st_uid != geteuid()) {
        close(fd);
        return mp_fail(err, MP_EPERM, "'%.100s' belongs to user %u, not to you", path,
                       (unsigned)st->st_uid);
    }
    return fd;
}

static int header_check(const struct mp_shm *head, const struct stat *st, int pid, const char *path,
                        struct mp_err *err)
{
    if (head->magic != MP_SHM_MAGIC)
        return mp_fail(err, MP_EFORMAT, "'%.100s' is not a file of moeprof", path);
    if (head->version != MP_SHM_VERSION)
        return mp_fail(
            err, MP_EVERSION,
            "'%.80s' has layout %u, this moeprof reads %u; use the version that the job runs with",
            path, head->version, MP_SHM_VERSION);
    if (head->size_bytes != sizeof *head || (uint64_t)st->st_size < sizeof *head ||
        head->pid != pid)
        return mp_fail(err, MP_EFORMAT, "'%.100s' is damaged", path);
    return 0;
}

/* Maps the file over the front of zero pages, so that no text in it runs out of the mapping. */
static void *guarded_map(int fd)
{
    char *at = mmap(NULL, MAP_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED)
        return NULL;
    if (mmap(at, sizeof(struct mp_shm), PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        munmap(at, MAP_BYTES);
        return NULL;
    }
    return at;
}

static uint64_t ring_oldest(uint64_t head)
{
    return head > RING_REACH ? head - RING_REACH : 0;
}

int mp_reader_open(struct mp_reader *r, const char *dir, int pid, bool from_oldest,
                   struct mp_err *err)
{
    char path[PATH_BYTES];
    struct stat st;
    const struct mp_shm *shm;
    uint64_t head;
    int fd, rc;

    memset(r, 0, sizeof *r);
    if ((rc = file_path(path, dir, pid, false, err)))
        return rc;
    fd = file_open(path, &st, err);
    if (fd < 0)
        return fd;
    /* a shorter file must not be mapped: reading past its end is a SIGBUS */
    shm = (uint64_t)st.st_size >= sizeof *shm ? guarded_map(fd) : NULL;
    rc = errno;
    close(fd);
    if (!shm)
        return mp_fail(err, MP_EFORMAT, "'%.100s' is cut short or cannot be mapped", path);
    rc = header_check(shm, &st, pid, path, err);
    if (rc) {
        munmap((void *)(uintptr_t)shm, MAP_BYTES);
        return rc;
    }
    head = atomic_load_explicit(&shm->head, memory_order_acquire);
    r->shm = shm;
    r->pos = from_oldest ? ring_oldest(head) : head;
    return 0;
}

void mp_reader_close(struct mp_reader *r)
{
    if (r->shm)
        munmap((void *)(uintptr_t)r->shm, MAP_BYTES);
    r->shm = NULL;
}

/* Copies m records from r->pos, then drops those that were overwritten meanwhile. */
static size_t ring_take(struct mp_reader *r, union mp_record *out, size_t m)
{
    uint64_t oldest;
    size_t torn = 0;

    for (size_t i = 0; i < m; i++)
        words_take(out + i, &r->shm->ring[(r->pos + i) & RING_MASK], sizeof *out);
    oldest = ring_oldest(atomic_load_explicit(&r->shm->head, memory_order_acquire));
    if (oldest > r->pos)
        torn = oldest - r->pos < m ? (size_t)(oldest - r->pos) : m;
    memmove(out, out + torn, (m - torn) * sizeof *out);
    r->n_lost += torn;
    r->pos += m;
    return m - torn;
}

size_t mp_reader_read(struct mp_reader *r, union mp_record *out, size_t n)
{
    size_t got = 0;

    if (n == 0)
        return 0;
    /* lapped in the middle of the copy, all of it: try again, but not for ever */
    for (int attempt = 0; attempt < 8 && got == 0; attempt++) {
        uint64_t head = atomic_load_explicit(&r->shm->head, memory_order_acquire);
        uint64_t oldest = ring_oldest(head);

        if (head <= r->pos)
            return 0;
        if (oldest > r->pos) {
            r->n_lost += oldest - r->pos;
            r->pos = oldest;
        }
        got = ring_take(r, out, head - r->pos < n ? (size_t)(head - r->pos) : n);
    }
    return got;
}

const char *mp_reader_name(const struct mp_reader *r, uint32_t i)
{
    uint32_t offset;

    if (i == MP_NAME_CAP - 1)
        return name_full;
    if (i >= MP_NAME_CAP || i >= atomic_load_explicit(&r->shm->n_name, memory_order_acquire))
        return "?";
    offset = r->shm->name_offset[i];
    if (offset >= MP_NAME_HEAP || !memchr(r->shm->name_heap + offset, 0, MP_NAME_HEAP - offset))
        return "?";
    return r->shm->name_heap + offset;
}

int mp_reader_spec(struct mp_reader *r, char *out, size_t out_bytes)
{
    const struct mp_shm *shm = r->shm;
    uint32_t gen = atomic_load_explicit(&shm->spec_gen, memory_order_acquire);
    uint32_t bytes = __atomic_load_n(&shm->spec_bytes, __ATOMIC_ACQUIRE);

    if (gen == r->spec_gen || gen % 2 || bytes > MP_SPEC_CAP)
        return 0;
    if (bytes >= out_bytes)
        return MP_EFULL;
    words_take(out, shm->spec, bytes);
    if (atomic_load_explicit(&shm->spec_gen, memory_order_acquire) != gen)
        return 0;
    out[bytes] = 0;
    r->spec_gen = gen;
    return (int)bytes;
}

bool mp_reader_log(const struct mp_reader *r, uint64_t i, struct mp_log_row *out)
{
    struct mp_log_row row;

    if (i >= atomic_load_explicit(&r->shm->n_log, memory_order_acquire))
        return false;
    words_take(&row, &r->shm->log[i % MP_LOG_CAP], sizeof row);
    if (i + MP_LOG_CAP <= atomic_load_explicit(&r->shm->n_log, memory_order_acquire))
        return false;
    *out = row;
    mp_shm_text(out->text, sizeof out->text, row.text, sizeof row.text);
    return true;
}

enum mp_feature_state mp_reader_feature(const struct mp_reader *r, enum mp_feature feature,
                                        char *why, size_t why_bytes)
{
    const struct mp_feature_row *row;
    uint32_t state;

    mp_shm_text(why, why_bytes, "", 0);
    if ((unsigned)feature >= MP_FEATURE_COUNT)
        return MP_FEATURE_WAITING;
    row = &r->shm->feature[feature];
    state = atomic_load_explicit(&row->state, memory_order_acquire);
    if (state == MP_FEATURE_FAILED)
        mp_shm_text(why, why_bytes, row->why, sizeof row->why);
    return state <= MP_FEATURE_FAILED ? (enum mp_feature_state)state : MP_FEATURE_WAITING;
}

bool mp_reader_alive(const struct mp_reader *r)
{
    return is_running(r->shm->pid, r->shm->start_time);
}

/* ---- the files of a directory ------------------------------------------------------------- */

/* The pid of a name like "123" + suffix, or 0. */
static int name_pid(const char *name, const char *suffix)
{
    char *end;
    long pid;

    if (*name < '1' || *name > '9')
        return 0;
    pid = strtol(name, &end, 10);
    return pid < INT32_MAX && strcmp(end, suffix) == 0 ? (int)pid : 0;
}

int mp_shm_each(const char *dir, int (*fn)(void *arg, int pid), void *arg, struct mp_err *err)
{
    DIR *d = opendir(dir);
    struct dirent *entry;
    int rc = 0;

    if (!d)
        return mp_fail(err, errno == EACCES ? MP_EPERM : MP_EIO,
                       "cannot read job directory '%.100s': %s", dir, strerror(errno));
    while (rc == 0 && (entry = readdir(d))) {
        int pid = name_pid(entry->d_name, ".shm");

        if (pid)
            rc = fn(arg, pid);
    }
    closedir(d);
    return rc;
}

/* Eight bytes of a file that may be too damaged to map; 0 past its end. */
static uint64_t peek(int fd, size_t offset)
{
    uint64_t v = 0;

    return pread(fd, &v, sizeof v, (off_t)offset) == (ssize_t)sizeof v ? v : 0;
}
#define PEEK(fd, field) peek(fd, offsetof(struct mp_shm, field))

/* True when the process behind the file is gone and has been silent for keep_s. tmpfs does not date
 * what is written through a mapping, so the heartbeat counts too, unless it is in the future. */
static bool is_left_over(const char *path, int pid, int keep_s)
{
    bool ours, running;
    int64_t last, beat, now = time(NULL);
    struct stat st;
    int fd = file_open(path, &st, NULL);

    if (fd < 0)
        return false;
    ours = PEEK(fd, magic) == MP_SHM_MAGIC;
    /* without a readable header only the pid can speak for it */
    running = ours ? is_running(pid, PEEK(fd, start_time)) : process_start(pid) != 0;
    beat = ours ? (int64_t)(PEEK(fd, heartbeat_ns) / 1000000000u) : 0;
    close(fd);
    last = beat > st.st_mtime && beat <= now ? beat : st.st_mtime;
    return !running && now - last >= keep_s;
}

void mp_shm_sweep(const char *dir, int keep_s)
{
    DIR *d = opendir(dir);
    struct dirent *entry;

    if (!d)
        return;
    while ((entry = readdir(d))) {
        const char *name = entry->d_name;
        int pid = name_pid(name, ".shm");
        char path[PATH_BYTES];

        if (!pid && name[0] == '.')
            pid = name_pid(name + 1, ".new");
        if (pid && path_format(path, sizeof path, dir, name, NULL) == 0 &&
            is_left_over(path, pid, keep_s))
            unlink(path);
    }
    closedir(d);
}
