/* See profile_link.h. */
#include "report/profile_link.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "report/profile_file.h"

static void link_name(char out[PATH_MAX], const char *dir, int pid)
{
    snprintf(out, PATH_MAX, "%s/%d" RP_SUFFIX, dir, pid);
}

void rp_link_put(const char *dir, int pid, const char *path)
{
    char name[PATH_MAX], whole[PATH_MAX];

    link_name(name, dir, pid);
    unlink(name);
    if (realpath(path, whole) && symlink(whole, name))
        return; /* nobody finds it, that is all */
}

void rp_link_remove(const char *dir, int pid)
{
    char name[PATH_MAX];

    link_name(name, dir, pid);
    unlink(name);
}

bool rp_link_get(char *out, size_t n, const char *dir, int pid)
{
    char name[PATH_MAX];
    ssize_t k;

    link_name(name, dir, pid);
    k = n ? readlink(name, out, n) : -1;
    if (k <= 0 || (size_t)k >= n) { /* cut off is as good as none */
        if (n)
            out[0] = 0;
        return false;
    }
    out[k] = 0;
    return true;
}
