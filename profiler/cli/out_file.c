#include "profiler/cli/out_file.h"

#include <errno.h>
#include <string.h>

#include "profiler/cli/cmd.h"

int cli_out_open(struct cli_out *o, const char *path, struct mp_err *err)
{
    o->path = path;
    o->f = stdout;
    if (strcmp(path, "-") == 0)
        return MP_OK;
    if ((size_t)snprintf(o->beside, sizeof o->beside, "%s.part", path) >= sizeof o->beside)
        return mp_fail(err, MP_EINVAL, "the name of the file is too long");
    o->f = fopen(o->beside, "w");
    if (o->f)
        setvbuf(o->f, NULL, _IOFBF, 1 << 20); /* traces are gigabytes */
    return o->f ? MP_OK : mp_fail(err, MP_EIO, "cannot write '%s': %s", path, strerror(errno));
}

int cli_out_close(struct cli_out *o, int rc, struct mp_err *err)
{
    int bad;

    if (o->f == stdout)
        return rc;
    bad = ferror(o->f) != 0;
    bad += fclose(o->f) != 0;
    if (rc == MP_OK && (bad || rename(o->beside, o->path)))
        rc = mp_fail(err, MP_EIO, "cannot write '%s': %s", o->path, strerror(errno));
    if (rc)
        remove(o->beside);
    else
        cli_say("wrote %s", o->path);
    return rc;
}
