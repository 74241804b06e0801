/* The guest with one door more, for tests of real torch on CPU tensors: a "kernel" that a test launches
 * wherever it likes (in a module, in an autograd node, in a backend's code) goes through the launch
 * callback on that thread, and the test is told where its time would be booked.
 *
 * Loaded in place of libmoeprof.so, with cuda=none. */
#include "injector/inject.h"

#include "injector/launch.h"
#include "injector/thread.h"
#include "profiler/core/attrib.h"

#include <string.h>

struct probe_place { /* as tests/bridge/probe.py reads it */
    int layer, expert, phase, pass;
};

int probe_launch(const char *name, const uint64_t *words, size_t n, struct probe_place *place);

/* One kernel of that name, whose arguments are `n` words. 0, or -1 when it was not noted. */
__attribute__((visibility("default"))) int probe_launch(const char *name, const uint64_t *words,
                                                        size_t n, struct probe_place *place)
{
    static _Atomic uint32_t next_corr = 1;
    size_t bytes = n * sizeof *words;
    void *extra[] = {(void *)EXTRA_POINTER, (void *)(uintptr_t)words, (void *)EXTRA_SIZE, &bytes,
                     (void *)EXTRA_END};
    struct launch_params p = {.f = (void *)(uintptr_t)name, .extra = extra};
    struct cupti_callback info = {.site = SITE_ENTER,
                                  .params = &p,
                                  .symbol_name = name,
                                  .correlation = atomic_fetch_add(&next_corr, 1)};
    struct inj_thread *t = inj_thread_self();
    uint64_t head = t ? atomic_load(&t->head) : 0;
    struct inj_note note;

    inj_launch_callback(NULL, DOMAIN_DRIVER, CB_cuLaunchKernel, &info);
    if (!t || atomic_load(&t->head) == head)
        return -1;
    memcpy(&note, &t->outbox[head & (INJ_OUTBOX_CAP - 1)], sizeof note);
    *place =
        (struct probe_place){note.layer, note.expert,
                             (int)mp_attrib_phase(note.phase, note.kclass, note.pass), note.pass};
    return 0;
}
