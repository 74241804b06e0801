/* See cells.h. */
#include "tests/mock/cells.h"

#include "profiler/core/shm.h"
#include "profiler/core/step.h"

#include <inttypes.h>

struct sums {
    FILE *out;
    struct mp_total *total;
};

/* The host's clock and the ring's speed are not part of the answer; everything else is. */
static void print_step(void *arg, const struct mp_step *s)
{
    struct sums *sums = arg;
    uint64_t tokens = 0, check = 0;

    for (uint32_t i = 0; i < s->n_route; i++)
        for (uint32_t e = 0; e < s->route[i].n_expert; e++) {
            tokens += s->route[i].count[e];
            check += s->route[i].count[e] * (uint64_t)(e + 1) * (uint64_t)(s->route[i].layer + 1);
        }
    fprintf(sums->out,
            "step %u flags %u launches %u records %u kernels %u copies %u sets %u own %u micro %u "
            "window %" PRIu64 " idle %" PRIu64 " routed %" PRIu64 " (%" PRIu64 ") tokens %" PRIu64
            " %" PRIu64 "\n",
            s->step, s->flags, s->launches, s->records, s->n_kernel, s->n_copy, s->n_memset,
            s->n_own, s->n_micro, s->window_ns, s->idle_ns, tokens, check, s->processed, s->useful);
    mp_total_add(sums->total, s);
}

static void print_cells(const struct sums *s)
{
    const struct mp_cell *c;
    size_t n;

    c = mp_total_cells(s->total, &n);
    for (size_t i = 0; i < n; i++)
        fprintf(s->out, "L%d %s %s E%d %s n %u raw %" PRIu64 " booked %" PRIu64 "\n", c[i].layer,
                mp_phase_name(c[i].phase), mp_pass_name(c[i].pass), c[i].expert,
                mp_basis_name(c[i].basis), c[i].n, c[i].raw_ns, c[i].booked_ns);
}

int cells_print(FILE *out, const char *dir, int pid)
{
    static union mp_record batch[1024];
    struct sums sums = {.out = out, .total = mp_total_new()};
    struct mp_steps *steps = mp_steps_new(print_step, &sums);
    struct mp_reader r;
    struct mp_err err;
    size_t n;

    if (mp_reader_open(&r, dir, pid, true, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    while ((n = mp_reader_read(&r, batch, countof(batch))))
        mp_steps_feed(steps, batch, n);
    mp_steps_finish(steps);
    fprintf(out, "records lost %" PRIu64 " late %" PRIu64 "\n", r.n_lost,
            mp_steps_stat(steps)->n_late);
    print_cells(&sums);
    mp_steps_free(steps);
    mp_total_free(sums.total);
    mp_reader_close(&r);
    return 0;
}
