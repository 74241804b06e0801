/* A profile of the synthetic job of tests/mock/fake_job.h, of any size, through the same steps and sums as a
 * recorder's. Its figures mean nothing. */
#ifndef MAKE_PROFILE_H
#define MAKE_PROFILE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/ab.h"
#include "report/chunk.h"
#include "report/sums.h"
#include "tests/mock/fake_job.h"

#define HOSTILE "</script><script>alert(1)</script><!-- \"'&|`@everyone\xff\xfe"

struct made {
    int steps, layers, experts;
    long events; /* at least so many kernels, instead of steps */
    bool grouped, checkpoint, hostile, no_routing;
    int ab_blocks;    /* an arm: a before/after, eager against grouped; steps follow from it */
    uint64_t n_event; /* out */
};

struct made_out {
    struct rp_profile *p;
    struct mp_steps *steps;
    struct rp_sums *sums;
    union mp_record *chunk;
    size_t n;
    uint64_t n_event;
    bool no_routing;
};

static inline void must(int rc, const char *what)
{
    if (rc == MP_OK)
        return;
    fprintf(stderr, "make_profile: %s: %s\n", what, mp_strcode(rc));
    exit(1);
}

static inline void made_flush(struct made_out *o)
{
    if (o->n)
        must(rp_put_chunk(o->p, o->chunk, o->n, 0, NULL), "chunk");
    o->n = 0;
}

static inline void made_step(void *arg, const struct mp_step *step)
{
    struct made_out *o = arg;

    must(rp_put_step(o->p, step, NULL), "step");
    must(rp_sums_step(o->sums, step), "sums");
}

static inline void made_put(void *arg, const union mp_record *record)
{
    struct made_out *o = arg;

    if (o->no_routing && record->head.kind == MP_ROUTING)
        return;
    o->n_event += record->head.kind == MP_KERNEL;
    must(rp_sums_record(o->sums, record), "record");
    must(mp_steps_feed(o->steps, record, 1), "feed");
    o->chunk[o->n++] = *record;
    if (o->n == RP_CHUNK_MAX)
        made_flush(o);
}

static inline void made_facts(struct made_out *o, const char *spec, bool hostile)
{
    const char *const text[][2] = {{"gpu_name", "NVIDIA H100 80GB HBM3"},
                                   {"comm", hostile ? HOSTILE : "python train.py"},
                                   {"hostname", hostile ? HOSTILE : "node"},
                                   {"feature.routing", hostile ? "failed: " HOSTILE : "on"},
                                   {"end", "exit"}};
    static const struct {
        const char *key;
        int64_t value;
    } number[] = {{"gpu_cc", 90},
                  {"gpu_sm_count", 132},
                  {"rank", -1},
                  {"world", 1},
                  {"pid", 4242},
                  {"created_ns", 1},
                  {"ended_ns", 3},
                  {"agent_cpu_ns", 9000000},
                  {"updated_ns", 2000000001}};

    for (size_t i = 0; i < countof(text); i++)
        must(rp_put_meta(o->p, text[i][0], text[i][1], NULL), "meta");
    for (size_t i = 0; i < countof(number); i++)
        must(rp_put_meta_int(o->p, number[i].key, number[i].value, NULL), "meta");
    for (uint32_t i = 0; i < FAKE_NAME_COUNT; i++)
        must(rp_put_name(o->p, i, hostile && i % 2 ? HOSTILE : fake_name[i], NULL), "name");
    must(rp_put_spec(o->p, spec, strlen(spec), NULL), "spec");
}

#define MADE_AB_FROM 3 /* steps before the first block */
#define MADE_AB_STEP 4 /* of a block: one dropped, three counted and traced */

static inline void made_ab_record(struct rp_ab_record *r, const struct made *m)
{
    struct rp_plan_slot slot[128];
    size_t n = rp_plan_size(2, (unsigned)m->ab_blocks);

    *r = (struct rp_ab_record){.seed = 7,
                               .n_step = MADE_AB_STEP - 1,
                               .n_drop = 1,
                               .n_planned = (uint32_t)m->ab_blocks,
                               .gpu = RP_GPU_FACTS_UNKNOWN,
                               .own = "eager",
                               .arm = {{.name = "original"}, {.name = "moeprof"}},
                               .n_arm = 2};
    rp_plan_make(slot, 2, (unsigned)m->ab_blocks, r->seed);
    for (size_t i = 0; i < n; i++) {
        uint32_t from = (uint32_t)(MADE_AB_FROM + i * MADE_AB_STEP);

        struct rp_ab_block b = {.arm = slot[i].arm,
                                .pair = slot[i].pair,
                                .from_step = from,
                                .first_step = from + 1,
                                .last_step = from + MADE_AB_STEP - 1,
                                .traced_from = from + 1,
                                .traced_to = from + MADE_AB_STEP - 1};

        for (int k = 0; k < RP_AB_MEMORY; k++)
            b.memory[k] = 30e9 + slot[i].arm * 1e9;
        b.loss = 2.5 - 0.001 * (double)i;
        must(rp_ab_add_block(r, &b), "block");
    }
}

static inline void made_ab_put(const char *path, const struct rp_ab_record *r)
{
    struct rp_profile *p;

    must(rp_profile_append(&p, path, NULL), "append");
    must(rp_ab_put(p, r, NULL), "before/after");
    must(rp_profile_close(p, NULL), "close");
}

static inline bool made_is_grouped(const struct made *m, const struct rp_ab_record *r,
                                   uint32_t step)
{
    size_t i = (step - MADE_AB_FROM) / MADE_AB_STEP;

    return m->ab_blocks ? step >= MADE_AB_FROM && i < r->n_block && r->block[i].arm == 1
                        : m->grouped;
}

static inline void made_profile(const char *path, struct made *m)
{
    struct made_out o = {.no_routing = m->no_routing};
    struct rp_ab_record ab = {.n_arm = 0};
    int steps = m->ab_blocks ? MADE_AB_FROM + 2 * m->ab_blocks * MADE_AB_STEP + 1 : m->steps;
    struct fake_job j;
    char *spec;

    if (m->ab_blocks)
        made_ab_record(&ab, m);
    must(rp_profile_create(&o.p, path, NULL), path);
    o.steps = mp_steps_new(made_step, &o);
    o.sums = rp_sums_new();
    o.chunk = calloc(RP_CHUNK_MAX, sizeof *o.chunk);
    must(o.steps && o.sums && o.chunk ? MP_OK : MP_ENOMEM, "memory");
    fake_init(&j, made_put, &o);
    j.n_layer = m->layers;
    j.n_expert = m->experts;
    j.grouped = m->grouped;
    j.checkpoint = m->checkpoint;
    spec = fake_spec(&j);
    must(rp_profile_begin(o.p, NULL), "begin");
    made_facts(&o, spec, m->hostile);
    for (int i = 0; m->events ? (long)o.n_event < m->events : i < steps; i++) {
        j.grouped = made_is_grouped(m, &ab, j.step);
        fake_step(&j);
    }
    made_flush(&o);
    mp_steps_finish(o.steps);
    must(rp_sums_write(o.sums, o.p, NULL), "sums");
    must(rp_profile_commit(o.p, NULL), "commit");
    must(rp_profile_close(o.p, NULL), "close");
    if (m->ab_blocks)
        made_ab_put(path, &ab);
    rp_ab_record_release(&ab);
    m->n_event = o.n_event;
    mp_steps_free(o.steps);
    rp_sums_free(o.sums);
    free(o.chunk);
    free(spec);
}

#endif
