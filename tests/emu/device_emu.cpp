/* device_emu.cpp: see device.h. Chooses between the paths as the registry does on a Hopper GPU. */
#include "tests/emu/device.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

enum { ALIGNED_BYTES = 256 }; /* as cudaMalloc's */

const char *dev_path;

/* Nobody has written it: NaNs of any type, and counts that are past every end. */
void *dev_alloc(size_t n)
{
    void *p = NULL;
    if (posix_memalign(&p, ALIGNED_BYTES, n + !n))
        printf("no memory\n"), exit(1);
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)p)[i] = i % 2 ? 0x7f : 0xff;
    return p;
}

void dev_free(void *p)
{
    free(p);
}

void dev_put(void *to, const void *from, size_t n)
{
    if (n)
        memcpy(to, from, n);
}

void dev_get(void *to, const void *from, size_t n)
{
    dev_put(to, from, n);
}

int dev_forward(const mk_forward *f, const struct mk_plan *plan)
{
    if (!(f->flags & MK_FLAG_PORTABLE) && !mk_hopper_fits_forward(f))
        return dev_path = "hopper", mk_hopper_forward(f, plan, NULL);
    dev_path = "portable";
    int rc = mk_portable_fits_forward(f);
    return rc ? rc : mk_portable_forward(f, plan, NULL);
}

int dev_backward(const mk_backward *b, const struct mk_plan *plan)
{
    struct mk_plan mine = *plan;

    mk_plan_apart(&mine, b);
    if (!(b->flags & MK_FLAG_PORTABLE) && !mk_hopper_fits_backward(b))
        return dev_path = "hopper", mk_hopper_backward(b, &mine, NULL);
    dev_path = "portable";
    int rc = mk_portable_fits_backward(b);
    return rc ? rc : mk_portable_backward(b, &mine, NULL);
}
