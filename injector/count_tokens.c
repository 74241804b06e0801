/* See count_tokens.h. */
#include "injector/count_tokens.h"

#include "injector/guest.h"
#include "injector/thread.h"

static struct mp_micro open_micro; /* the running one, not yet published */
static bool is_open;

/* ---- tensors ---------------------------------------------------------------------------------------- */

static bool element_on(const struct inj_mask *m, size_t i)
{
    switch (m->mask ? m->mask_bytes : 0) {
    case 0:
        return true;
    case 8:
        return ((const int64_t *)m->mask)[i] != 0;
    case 4:
        return m->mask_float ? ((const float *)m->mask)[i] != 0.0f
                             : ((const int32_t *)m->mask)[i] != 0;
    default:
        return ((const uint8_t *)m->mask)[i] != 0;
    }
}

static uint64_t pairs_of(uint64_t len, uint32_t window)
{
    uint64_t w = window && window < len ? window : len;

    return len ? w * len - w * (w - 1) / 2 : 0;
}

static void row_add(struct inj_sums *s, const struct inj_mask *m, size_t row)
{
    uint64_t useful = 0;

    for (size_t i = row * m->cols; i < (row + 1) * m->cols; i++) {
        uint64_t seen;

        s->trainable += m->labels && ((const int64_t *)m->labels)[i] != -100;
        if (!element_on(m, i))
            continue;
        useful++;
        if (!m->position_ids)
            continue;
        seen = (uint64_t)((const int64_t *)m->position_ids)[i] + 1;
        s->segments += seen == 1;
        s->longest = seen > s->longest ? seen : s->longest;
        for (int k = 0; k < m->n_window; k++)
            s->pairs[k] += m->window[k] && seen > m->window[k] ? m->window[k] : seen;
    }
    s->useful += useful;
    if (m->position_ids)
        return;
    s->segments += useful > 0;
    s->longest = useful > s->longest ? useful : s->longest;
    for (int k = 0; k < m->n_window; k++)
        s->pairs[k] += pairs_of(useful, m->window[k]);
}

void inj_sums_add(struct inj_sums *s, const struct inj_mask *m)
{
    for (size_t row = 0; row < m->rows; row++)
        row_add(s, m, row);
}

/* ---- what the host knows -------------------------------------------------------------------------- */

static void post(union mp_record *r)
{
    struct inj_thread *t = inj_thread_self();

    r->head.step = atomic_load(&inj.step);
    if (t)
        inj_thread_post(t, r);
}

void inj_count_flush(void)
{
    union mp_record r = {.micro = open_micro};

    if (!is_open)
        return;
    is_open = false;
    if (r.micro.useful == UINT32_MAX) { /* nobody could count it: every token is taken as useful */
        r.micro.useful = r.micro.processed;
        r.micro.basis = r.micro.processed ? MP_MODELLED : MP_UNKNOWN;
    }
    if (r.micro.n_segment == UINT16_MAX)
        r.micro.n_segment = (uint16_t)r.micro.batch;
    r.micro.kind = MP_MICRO;
    post(&r);
}

void inj_count_micro(const struct mp_micro *micro)
{
    inj_count_flush();
    open_micro = *micro;
    is_open = true;
}

void inj_count_pairs(const struct mp_pairs *pairs)
{
    union mp_record r = {.pairs = *pairs};

    r.pairs.kind = MP_PAIRS;
    post(&r);
}

void inj_known_add(struct inj_known *k, const struct inj_mask *m)
{
    const struct mp_micro *open = is_open ? &open_micro : NULL;

    is_open = false;
    k->processed += (uint64_t)m->rows * m->cols;
    k->batch += m->rows;
    k->n_micro++;
    k->has_labels |= m->labels != NULL;
    k->head_unknown |= !open || open->head_rows == UINT32_MAX;
    k->head_rows += open ? open->head_rows : 0;
    k->segments_unknown |= !open || open->n_segment == UINT16_MAX;
    k->segments += open ? open->n_segment : 0;
    if (m->n_window)
        k->n_window = m->n_window;
    for (int i = 0; i < m->n_window; i++) {
        k->window[i] = m->window[i];
        k->pairs_processed[i] += m->rows * pairs_of(m->cols, m->window[i]);
    }
}

/* ---- records --------------------------------------------------------------------------------------- */

void inj_tokens_emit(const struct inj_known *k, const struct inj_sums *s, uint32_t step,
                     inj_put_fn put, void *arg)
{
    uint64_t segments = k->segments_unknown ? s->segments : k->segments;
    union mp_record r = {
        .micro = {.processed = (uint32_t)k->processed,
                  .useful = (uint32_t)s->useful,
                  .trainable = k->has_labels ? (uint32_t)s->trainable : UINT32_MAX,
                  .head_rows = k->head_unknown ? UINT32_MAX : (uint32_t)k->head_rows,
                  .step = step,
                  .n_micro = (uint16_t)k->n_micro,
                  .n_segment = (uint16_t)(segments < 65535 ? segments : 65535),
                  .kind = MP_MICRO,
                  .basis = MP_MEASURED,
                  .batch = (uint32_t)k->batch}};

    put(arg, &r);
    for (int i = 0; i < k->n_window; i++) {
        r = (union mp_record){.pairs = {.useful = s->pairs[i],
                                        .processed = k->pairs_processed[i],
                                        .step = step,
                                        .window = k->window[i],
                                        .kind = MP_PAIRS,
                                        .basis = MP_MEASURED,
                                        .n_micro = (uint16_t)k->n_micro,
                                        .max_len = (uint32_t)s->longest}};
        put(arg, &r);
    }
}
