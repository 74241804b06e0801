/* What the tests of the shared memory share: one process that plays guest and reader, in a directory of its own. */
#ifndef TESTS_SHM_FIXTURE_H
#define TESTS_SHM_FIXTURE_H

#include "profiler/core/shm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static struct mp_shm *shm;

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static inline int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/mp_shm_test_XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    return mp_shm_create(&shm, dir, NULL);
}

static inline int remove_one(void *arg, int pid)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%d.shm", (const char *)arg, pid);
    unlink(path);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    mp_shm_close(shm, dir, true);
    mp_shm_each(dir, remove_one, dir, NULL);
    return rmdir(dir);
}

static inline union mp_record numbered(uint64_t i)
{
    union mp_record r = {
        .event = {.start_ns = i, .kind = MP_KERNEL, .dur_ns = (uint32_t)i, .step = (uint32_t)i}};

    return r;
}

static inline struct mp_reader reader(bool from_oldest)
{
    struct mp_reader r;
    struct mp_err err = {0};

    if (mp_reader_open(&r, dir, getpid(), from_oldest, &err))
        fail_msg("%s", err.msg);
    return r;
}

#endif
