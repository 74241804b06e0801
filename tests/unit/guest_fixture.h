/* What the guest's tests share: a guest that is alive without an agent, in a job directory of its own,
 * and the records that it published. */
#ifndef TESTS_GUEST_FIXTURE_H
#define TESTS_GUEST_FIXTURE_H

#include "injector/guest.h"
#include "injector/sample.h"
#include "injector/thread.h"
#include "tests/mock/mock_load.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char guest_dir[64];

static inline int guest_up(void **state)
{
    (void)state;
    strcpy(guest_dir, "/tmp/mp_guest_XXXXXX");
    if (!mkdtemp(guest_dir))
        return -1;
    snprintf(inj.opts.dir, sizeof inj.opts.dir, "%s", guest_dir);
    atomic_store(&inj.life, INJ_ALIVE);
    inj_sample_mode(INJ_SAMPLE_ALWAYS);
    inj_sample_start();
    return inj_thread_init() || !inj_shm();
}

static inline int guest_down(void **state)
{
    struct mp_shm *shm = atomic_load(&inj.shm);

    (void)state;
    atomic_store(&inj.life, INJ_DEAD);
    mp_shm_close(shm, guest_dir, true);
    return rmdir(guest_dir);
}

/* Takes what the calling thread's outbox holds. */
static inline size_t guest_outbox(union mp_record *out, size_t n)
{
    return inj_thread_take(inj_thread_self(), out, n);
}

/* The one launch note that is in the outbox. */
static inline struct inj_note guest_note(void)
{
    union mp_record r[2];
    struct inj_note note;

    assert_int_equal(guest_outbox(r, 2), 1);
    assert_int_equal(r[0].head.kind, INJ_NOTE_LAUNCH);
    memcpy(&note, &r[0], sizeof note);
    return note;
}

/* Records published since the reader last read, newest up to n. */
static inline size_t guest_read(struct mp_reader *r, union mp_record *out, size_t n)
{
    mp_shm_flush(atomic_load(&inj.shm));
    return mp_reader_read(r, out, n);
}

#endif
