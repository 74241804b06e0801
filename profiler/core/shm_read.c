/* Stage 6, the readers' side: reading a guest's file without trusting a byte of it. Tool only. */
#include "profiler/core/shm_part.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The producer may be writing up to a batch past head: what lies under that is not to be read. */
#define RING_REACH  ((uint64_t)(MP_RING_CAP - MP_RING_BATCH))
#define GUARD_BYTES 65536u /* a multiple of every page size in use; ends any unterminated name */
#define MAP_BYTES                                                                                  \
    ((sizeof(struct mp_shm) + GUARD_BYTES - 1) / GUARD_BYTES * GUARD_BYTES + GUARD_BYTES)

static bool is_running(int pid, uint64_t start_time)
{
    uint64_t start = pid > 0 ? mp_process_start(pid) : 0;

    return start != 0 && start == start_time;
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
    char path[MP_PATH_BYTES];
    struct stat st;
    const struct mp_shm *shm;
    uint64_t head;
    int fd, rc;

    memset(r, 0, sizeof *r);
    if ((rc = mp_shm_path(path, dir, pid, err)))
        return rc;
    fd = file_open(path, &st, err);
    if (fd < 0)
        return fd;
    /* a shorter file must not be mapped: reading past its end is a SIGBUS */
    shm = (uint64_t)st.st_size >= sizeof *shm ? guarded_map(fd) : NULL;
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
        mp_words_take(out + i, &r->shm->ring[(r->pos + i) & MP_RING_MASK], sizeof *out);
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
        return MP_NAME_FULL;
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
    mp_words_take(out, shm->spec, bytes);
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
    mp_words_take(&row, &r->shm->log[i % MP_LOG_CAP], sizeof row);
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
    running = ours ? is_running(pid, PEEK(fd, start_time)) : mp_process_start(pid) != 0;
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
        char path[MP_PATH_BYTES];

        if (!pid && name[0] == '.')
            pid = name_pid(name + 1, ".new");
        if (pid && mp_path_join(path, sizeof path, dir, name, NULL) == 0 &&
            is_left_over(path, pid, keep_s))
            unlink(path);
    }
    closedir(d);
}
