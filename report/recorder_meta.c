/* Copies the slow side of a guest's shared memory into the profile. What it reads may change under it
 * or be hostile: texts go through mp_shm_text, the rest are single atomics. Tables say which field is
 * kept under which key. */
#include "report/recorder_meta.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "report/features.h"

#define TEXT(field)                                                                                \
    {                                                                                              \
#field, offsetof(struct mp_shm, field), sizeof(((struct mp_shm *)0)->field)                \
    }

static const struct {
    const char *key;
    size_t offset, bytes;
} text_fact[] = {TEXT(session), TEXT(comm), TEXT(gpu_name), TEXT(gpu_uuid)};

#define INT(field)                                                                                 \
    {                                                                                              \
#field, offsetof(struct mp_shm, field), sizeof(((struct mp_shm *)0)->field)                \
    }

static const struct {
    const char *key;
    size_t offset, bytes; /* 4: int32_t, 8: uint64_t */
} int_fact[] = {
    INT(pid),           INT(rank),          INT(world),          INT(created_ns),
    INT(gpu_index),     INT(gpu_cc),        INT(gpu_sm_count),   INT(gpu_clock_mhz),
    INT(gpu_mem_bytes), INT(cupti_version), INT(driver_version),
};

static const struct {
    const char *key;
    size_t offset;
} counter[] = {
    {"n_launch", offsetof(struct mp_shm, n_launch)},
    {"n_record", offsetof(struct mp_shm, n_record)},
    {"n_dropped", offsetof(struct mp_shm, n_dropped)},
    {"n_lost", offsetof(struct mp_shm, n_lost)},
    {"n_unmatched", offsetof(struct mp_shm, n_unmatched)},
    {"agent_cpu_ns", offsetof(struct mp_shm, agent_cpu_ns)},
};

static const void *at(const struct mp_shm *shm, size_t offset)
{
    return (const char *)shm + offset;
}

static uint64_t counter_get(const struct mp_shm *shm, size_t offset)
{
    return atomic_load_explicit((const _Atomic uint64_t *)at(shm, offset), memory_order_relaxed);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}

static int facts_write(const struct mp_shm *shm, struct rp_profile *p, struct mp_err *err)
{
    char text[128] = "";
    int rc = MP_OK;

    for (size_t i = 0; rc == MP_OK && i < countof(text_fact); i++) {
        mp_shm_text(text, sizeof text, at(shm, text_fact[i].offset), text_fact[i].bytes);
        rc = rp_put_meta(p, text_fact[i].key, text, err);
    }
    for (size_t i = 0; rc == MP_OK && i < countof(int_fact); i++) {
        int32_t narrow;
        uint64_t wide;

        memcpy(&narrow, at(shm, int_fact[i].offset), sizeof narrow);
        memcpy(&wide, at(shm, int_fact[i].offset), int_fact[i].bytes == 8 ? 8 : 4);
        rc = rp_put_meta_int(p, int_fact[i].key, int_fact[i].bytes == 8 ? (int64_t)wide : narrow,
                             err);
    }
    if (rc == MP_OK && gethostname(text, sizeof text - 1) == 0)
        rc = rp_put_meta(p, "hostname", text, err);
    return rc;
}

static int counters_write(const struct rp_meta_state *m, const struct mp_reader *r,
                          struct rp_profile *p, struct mp_err *err)
{
    int rc = rp_put_meta_int(p, "updated_ns", (int64_t)now_ns(), err);

    for (size_t i = 0; rc == MP_OK && i < countof(counter); i++)
        rc = rp_put_meta_int(p, counter[i].key, (int64_t)counter_get(r->shm, counter[i].offset),
                             err);
    if (rc == MP_OK)
        rc = rp_put_meta_int(p, "n_unbalanced", m->n_unbalanced, err);
    if (rc == MP_OK)
        rc =
            rp_put_meta_int(p, "recorder_cpu_ns", (int64_t)clock_ns(CLOCK_PROCESS_CPUTIME_ID), err);
    return rc ? rc : rp_put_meta_int(p, "n_lapped", (int64_t)m->n_lapped, err);
}

static int gauge_write(const struct mp_shm *shm, struct rp_profile *p, struct mp_err *err)
{
    struct rp_gauge g = {.time_ns = now_ns(), .valid = atomic_load(&shm->gauges_valid)};

    if (g.valid == 0)
        return MP_OK;
    g.value[RP_SM_CLOCK_MHZ] = atomic_load(&shm->sm_clock_mhz);
    g.value[RP_MEM_CLOCK_MHZ] = atomic_load(&shm->mem_clock_mhz);
    g.value[RP_POWER_MW] = atomic_load(&shm->power_mw);
    g.value[RP_TEMP_C] = atomic_load(&shm->temp_c);
    g.value[RP_THROTTLE_BITS] = atomic_load(&shm->throttle_bits);
    g.value[RP_MEM_USED_BYTES] = atomic_load(&shm->mem_used_bytes);
    return rp_put_gauge(p, &g, err);
}

static int log_write(struct rp_meta_state *m, const struct mp_reader *r, struct rp_profile *p,
                     struct mp_err *err)
{
    uint64_t n = atomic_load(&r->shm->n_log), i = n < MP_LOG_CAP ? 0 : n - MP_LOG_CAP + 1;
    int rc = MP_OK;

    for (; rc == MP_OK && i < n; i++) {
        uint64_t *seen = &m->log_seen[i % MP_LOG_CAP];
        struct mp_log_row row;
        struct rp_log log;

        if (!mp_reader_log(r, i, &row) || row.time_ns + row.count == *seen)
            continue;
        *seen = row.time_ns + row.count;
        log = (struct rp_log){
            .time_ns = row.time_ns, .level = row.level, .count = row.count, .text = row.text};
        rc = rp_put_log(p, (int64_t)i, &log, err);
    }
    return rc;
}

static int names_write(struct rp_meta_state *m, const struct mp_reader *r, struct rp_profile *p,
                       struct mp_err *err)
{
    uint32_t n = atomic_load_explicit(&r->shm->n_name, memory_order_acquire);
    int rc = MP_OK;

    for (; rc == MP_OK && m->n_name < n && m->n_name < MP_NAME_CAP; m->n_name++)
        rc = rp_put_name(p, m->n_name, mp_reader_name(r, m->n_name), err);
    return rc;
}

bool rp_meta_spec(struct rp_meta_state *m, struct mp_reader *r)
{
    int n;

    if (!m->json && !(m->json = malloc(MP_SPEC_CAP + 1)))
        return false;
    n = mp_reader_spec(r, m->json, MP_SPEC_CAP + 1);
    if (n <= 0)
        return false;
    m->json_bytes = (size_t)n;
    rp_spec_release(&m->spec);
    m->has_spec = rp_spec_parse(&m->spec, m->json, (size_t)n, NULL) == MP_OK;
    return true;
}

static int spec_write(struct rp_meta_state *m, struct rp_profile *p, struct mp_err *err)
{
    size_t n = m->json_bytes;

    m->json_bytes = 0;
    return n ? rp_put_spec(p, m->json, n, err) : MP_OK;
}

void rp_meta_release(struct rp_meta_state *m)
{
    free(m->json);
    m->json = NULL;
    rp_spec_release(&m->spec);
}

int rp_meta_write(struct rp_meta_state *m, struct mp_reader *reader, struct rp_profile *p,
                  struct mp_err *err)
{
    int rc = m->has_facts ? MP_OK : facts_write(reader->shm, p, err);

    m->has_facts = true;
    if (rc || (rc = counters_write(m, reader, p, err)) || (rc = rp_features_put(p, reader, err)) ||
        (rc = gauge_write(reader->shm, p, err)) || (rc = log_write(m, reader, p, err)) ||
        (rc = names_write(m, reader, p, err)))
        return rc;
    return spec_write(m, p, err);
}

int rp_meta_end(struct rp_profile *p, const char *end, struct mp_err *err)
{
    int rc = rp_put_meta_int(p, "ended_ns", (int64_t)now_ns(), err);

    return rc ? rc : rp_put_meta(p, "end", end, err);
}

uint64_t rp_meta_dropped(const struct rp_meta_state *m, const struct mp_reader *r)
{
    return atomic_load(&r->shm->n_dropped) + atomic_load(&r->shm->n_lost) + m->n_lapped;
}
