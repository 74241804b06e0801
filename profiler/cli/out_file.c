#include "profiler/cli/out_file.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "profiler/cli/cmd.h"

/* A recording cannot be made again: `--html *.moeprof` must not cost one. */
static bool is_profile(const char *path)
{
    char head[72] = "";
    FILE *f = fopen(path, "rb");
    size_t got = f ? fread(head, 1, sizeof head, f) : 0;

    if (f)
        fclose(f);
    return got == sizeof head && memcmp(head, "SQLite format 3", 16) == 0 &&
           memcmp(head + 68, "MOEP", 4) == 0;
}

/* Pipes and devices are written to, not replaced; of a link what it points to is. */
static int place(struct cli_out *o, const char *path, struct mp_err *err)
{
    char target[PATH_MAX];
    struct stat st;

    o->beside[0] = o->target[0] = 0;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return MP_OK;
    if (is_profile(path))
        return mp_fail(err, MP_EINVAL, "'%s' is a profile: name another file to write to", path);
    if (!realpath(path, target))
        snprintf(target, sizeof target, "%s", path);
    if ((size_t)snprintf(o->target, sizeof o->target, "%s", target) >= sizeof o->target ||
        (size_t)snprintf(o->beside, sizeof o->beside, "%s.part", target) >= sizeof o->beside)
        return mp_fail(err, MP_EINVAL, "the name of the file is too long");
    return MP_OK;
}

int cli_out_open(struct cli_out *o, const char *path, struct mp_err *err)
{
    int rc;

    o->path = path;
    o->f = stdout;
    if (strcmp(path, "-") == 0)
        return MP_OK;
    if ((rc = place(o, path, err)))
        return rc;
    o->f = fopen(*o->beside ? o->beside : path, "w");
    if (o->f)
        setvbuf(o->f, NULL, _IOFBF, 1 << 20); /* traces are gigabytes */
    return o->f ? MP_OK : mp_fail(err, MP_EIO, "cannot write '%s': %s", path, strerror(errno));
}

int cli_out_close(struct cli_out *o, int rc, struct mp_err *err)
{
    bool bad;

    if (o->f == stdout)
        return rc;
    bad = fflush(o->f) != 0; /* of a full disk it fails again, so that errno tells why */
    bad |= ferror(o->f) != 0;
    if (bad)
        rc = mp_fail(err, MP_EIO, "cannot write '%s': %s", o->path, strerror(errno));
    if ((fclose(o->f) != 0 || (*o->beside && !rc && rename(o->beside, o->target))) && !rc)
        rc = mp_fail(err, MP_EIO, "cannot write '%s': %s", o->path, strerror(errno));
    if (!rc)
        cli_say("wrote %s", o->path);
    else if (*o->beside)
        remove(o->beside);
    return rc;
}
