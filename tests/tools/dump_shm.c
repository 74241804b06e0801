/* Prints what a guest has published: facts, features, log, spec, and a summary or all of the records.
 * Usage: dump_shm DIR PID [all]. For people who debug the guest, and for scripts that check it. */
#include "profiler/core/phase.h"
#include "profiler/core/shm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_facts(const struct mp_shm *s)
{
    printf("state %u step %u gpu '%s' uuid %s cc %d sms %d clock %d cupti %d driver %d\n", s->state,
           s->step, s->gpu_name, s->gpu_uuid, s->gpu_cc, s->gpu_sm_count, s->gpu_clock_mhz,
           s->cupti_version, s->driver_version);
    printf(
        "launches %lu records %lu dropped %lu lost %lu unmatched %lu agent_cpu_ms %.1f names %u\n",
        s->n_launch, s->n_record, s->n_dropped, s->n_lost, s->n_unmatched, s->agent_cpu_ns / 1e6,
        s->n_name);
    for (int i = 0; i < MP_FEATURE_COUNT; i++)
        printf("feature %d state %u %s\n", i, s->feature[i].state, s->feature[i].why);
    for (uint64_t i = 0; i < s->n_log && i < MP_LOG_CAP; i++)
        printf("log %u x%u %s\n", s->log[i].level, s->log[i].count, s->log[i].text);
}

static void print_event(const struct mp_reader *r, const struct mp_event *e)
{
    printf("ev %u %lu step %u %s/%s L%d E%d dur %u lag %u fl %u s%u ", e->kind, e->start_ns,
           e->step, mp_pass_name(e->pass), mp_phase_name(e->phase), e->layer, e->expert, e->dur_ns,
           e->lag_us, e->flags, e->stream);
    if (e->kind == MP_KERNEL)
        printf("%.120s\n", mp_reader_name(r, e->name));
    else
        printf("%u KiB\n", e->name);
}

static void print_record(const struct mp_reader *r, const union mp_record *x)
{
    switch (x->head.kind) {
    case MP_STEP:
        printf("STEP %u launches %u records %u micro %u flags %u\n", x->mark.step, x->mark.launches,
               x->mark.records, x->mark.n_micro, x->mark.flags);
        break;
    case MP_MICRO:
        printf(
            "MICRO step %u processed %u useful %u trainable %d head %d seg %u batch %u basis %u\n",
            x->micro.step, x->micro.processed, x->micro.useful, (int)x->micro.trainable,
            (int)x->micro.head_rows, x->micro.n_segment, x->micro.batch, x->micro.basis);
        break;
    case MP_PAIRS:
        printf("PAIRS step %u window %u useful %lu processed %lu max %u\n", x->pairs.step,
               x->pairs.window, x->pairs.useful, x->pairs.processed, x->pairs.max_len);
        break;
    case MP_ROUTING:
        printf("ROUTE step %u L%d E%d+%u: %u %u %u %u\n", x->routing.step, x->routing.layer,
               x->routing.expert0, x->routing.n, x->routing.count[0], x->routing.count[1],
               x->routing.count[2], x->routing.count[3]);
        break;
    default:
        print_event(r, &x->event);
    }
}

int main(int argc, char **argv)
{
    static union mp_record batch[1024];
    static char spec[MP_SPEC_CAP];
    struct mp_reader r;
    struct mp_err err;
    size_t n;

    if (argc < 3)
        return 2;
    if (mp_reader_open(&r, argv[1], atoi(argv[2]), true, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    print_facts(r.shm);
    if (argc > 3 && mp_reader_spec(&r, spec, sizeof spec) > 0)
        printf("SPEC %s\n", spec);
    while (argc > 3 && (n = mp_reader_read(&r, batch, countof(batch))))
        for (size_t i = 0; i < n; i++)
            print_record(&r, &batch[i]);
    mp_reader_close(&r);
    return 0;
}
