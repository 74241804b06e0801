/* Who writes a profile holds FILE-lock beside it, so that a second recording of the same name does not
 * replace it. The kernel lets go of the lock when its holder dies, however it does.
 *
 * Not on the database itself: closing a second descriptor of it drops SQLite's own locks, and where a
 * network file system makes record locks out of flock, SQLite would wait for us.
 */
#include "report/profile_db.h"

#if HAVE_SQLITE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIES 100 /* each is a recording that ended while we came */

static void name_make(char *out, size_t n, const char *path)
{
    snprintf(out, n, "%s-lock", path);
}

/* A shared folder may hold that of another user. */
static int file_open(const char *name)
{
    const int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    int fd = open(name, O_RDWR | O_CREAT | flags, 0666);

    return fd < 0 && errno == EACCES ? open(name, O_RDONLY | flags) : fd;
}

/* Its holder removes it upon the end: a descriptor that came too late locks a file without a name. */
static bool has_name(int fd, const char *name)
{
    struct stat mine, there;

    return fstat(fd, &mine) == 0 && stat(name, &there) == 0 && mine.st_dev == there.st_dev &&
           mine.st_ino == there.st_ino;
}

int rp_lock_take(int *fd, const char *path, struct mp_err *err)
{
    char name[4200];

    name_make(name, sizeof name, path);
    for (int i = 0; i < TRIES; i++) {
        if ((*fd = file_open(name)) < 0)
            return MP_OK;
        /* where there are no such locks we go on without */
        if (flock(*fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
            close(*fd);
            *fd = -1;
            return mp_fail(err, MP_EBUSY,
                           "profile '%.90s' is being written by another moeprof: name another file",
                           path);
        }
        if (has_name(*fd, name))
            return MP_OK;
        close(*fd);
    }
    *fd = -1;
    return MP_OK;
}

void rp_lock_drop(int fd, const char *path)
{
    char name[4200];

    if (fd < 0)
        return;
    name_make(name, sizeof name, path);
    if (has_name(fd, name))
        unlink(name); /* before the lock goes, or it could be that of the next */
    close(fd);
}
#endif
