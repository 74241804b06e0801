/* See seqlog.h. Stage 1 of the data path: on application threads, in the launch callback; may not
 * allocate, lock or call out. */
#include "profiler/core/seqlog.h"

static struct mp_seqnote *slot(const struct mp_seqlog *log, uint64_t i)
{
    return (struct mp_seqnote *)&log->note[i & (MP_SEQLOG_CAP - 1)];
}

void mp_seqlog_put(struct mp_seqlog *log, uint64_t seq, struct mp_ctx ctx)
{
    uint64_t n = atomic_load_explicit(&log->n, memory_order_relaxed);

    if (n && slot(log, n - 1)->seq >= seq) {
        slot(log, n - 1)->ctx = ctx;
        return;
    }
    *slot(log, n) = (struct mp_seqnote){.seq = seq, .ctx = ctx};
    atomic_store_explicit(&log->n, n + 1, memory_order_release);
}

/* Last index in [lo, hi) whose seq <= wanted; the caller knows that lo qualifies. */
static uint64_t bisect(const struct mp_seqlog *log, uint64_t lo, uint64_t hi, uint64_t wanted)
{
    while (hi - lo > 1) {
        uint64_t mid = lo + (hi - lo) / 2;

        if (slot(log, mid)->seq <= wanted)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

void mp_seqlog_amend(struct mp_seqlog *log, uint64_t seq, struct mp_ctx ctx)
{
    uint64_t n = atomic_load_explicit(&log->n, memory_order_relaxed);
    uint64_t lo = n > MP_SEQLOG_CAP ? n - MP_SEQLOG_CAP : 0, at;

    if (n == lo || slot(log, lo)->seq > seq)
        return;
    at = bisect(log, lo, n, seq);
    if (slot(log, at)->seq == seq)
        slot(log, at)->ctx = ctx;
}

bool mp_seqlog_find(const struct mp_seqlog *log, uint64_t seq, uint64_t *hint, struct mp_ctx *out)
{
    uint64_t n = atomic_load_explicit(&log->n, memory_order_acquire);
    /* the slot about to be overwritten is not trusted */
    uint64_t lo = n > MP_SEQLOG_CAP - 1 ? n - (MP_SEQLOG_CAP - 1) : 0;
    uint64_t hi = n, at = *hint;

    if (n == lo || slot(log, lo)->seq > seq)
        return false;
    if (at >= lo && at < n) { /* gallop from the last answer */
        for (uint64_t step = 1; slot(log, at)->seq > seq; step *= 2) {
            hi = at;
            at = at > lo + step ? at - step : lo;
        }
        lo = at;
    }
    at = bisect(log, lo, hi, seq);
    *hint = at;
    *out = slot(log, at)->ctx;
    return true;
}
