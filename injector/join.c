/* See join.h. Stages 2 to 4 of the data path. */
#include "injector/join.h"

#include "injector/activity.h"
#include "injector/count.h"
#include "injector/decode.h"
#include "injector/other.h"
#include "injector/sample.h"
#include "injector/trace.h"
#include "profiler/core/attrib.h"

#include <string.h>
#include <sys/mman.h>

#define STEP_LOG2    6 /* steps that may be open at once */
#define STEP_CAP     (1u << STEP_LOG2)
#define CLOCK_OFF_NS 3600000000000u
#define GRACE_NS     2000000000u /* a launch without a record by then never gets one */

struct pending { /* a step that is not closed; slot = step mod STEP_CAP */
    uint32_t step;
    bool used;
    bool ended;           /* it is over: its mark was taken, or a later step's */
    bool marked;          /* its own mark was taken */
    uint32_t ended_round; /* in which that was */
    uint32_t launches, records;
    uint32_t flags;
    uint64_t ended_ns;
    struct mp_step_mark mark;
};

static struct mp_corr *corr;
static struct pending pending[STEP_CAP];
static uint32_t next_close; /* oldest step that is not closed */
static uint32_t newest;     /* newest step seen; [next_close, newest] is less than STEP_CAP long */
static bool any_step, any_closed;
static uint32_t ended_below; /* steps below it are over */
static uint32_t round_no;    /* passes over all outboxes */
static uint64_t newest_ns;   /* when the newest launch was made; 0 none yet */
static uint32_t last_step;   /* of the last record that had a launch */
static uint64_t dropped_seen, lost_seen;

/* Kernel names: CUPTI keeps one pointer a kernel until it is left, then the text is looked at again. */
#define NAME_LOG2 14
struct name {
    uint64_t hash; /* 0 free */
    uint32_t index;
    uint8_t kclass;
};
static struct name by_hash[1u << NAME_LOG2];
static struct {
    const char *ptr;
    const struct name *name;
} by_ptr[1u << NAME_LOG2];

/* CUDA stream id → small index */
static uint32_t streams[255];
static unsigned n_stream;

int inj_join_init(void)
{
    void *p;

    if (corr)
        return MP_OK;
    p = mmap(NULL, sizeof *corr, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return MP_ENOMEM;
    corr = p;
    return MP_OK;
}

static struct pending *slot_of(uint32_t step)
{
    struct pending *p = &pending[step & (STEP_CAP - 1)];

    return p->used && p->step == step ? p : NULL;
}

static void close_step(struct mp_shm *shm, struct pending *p)
{
    union mp_record r = {.mark = p->mark};
    uint64_t dropped = inj_activity_dropped(), lost = inj_thread_lost();

    r.mark.kind = MP_STEP;
    r.mark.step = p->step;
    r.mark.launches = p->launches;
    r.mark.records = p->records;
    r.mark.dropped = (uint32_t)(dropped - dropped_seen);
    r.mark.flags = (uint16_t)(p->flags | p->mark.flags);
    if (p->records < p->launches || !p->marked || lost != lost_seen)
        r.mark.flags |= MP_STEP_INCOMPLETE;
    dropped_seen = dropped;
    lost_seen = lost;
    mp_shm_put(shm, &r);
    p->used = false;
}

/* Closes the oldest step, whatever it lacks. One that nothing was heard of leaves no mark. */
static void close_oldest(struct mp_shm *shm)
{
    struct pending *p = slot_of(next_close);

    if (p)
        close_step(shm, p);
    next_close++;
    any_closed = true;
}

/* The open step of that number, made at first mention; NULL when it has been closed. Makes room: a job
 * with very short steps, one of which waits for a record in vain, has more than STEP_CAP of them open. */
static struct pending *step_of(struct mp_shm *shm, uint32_t step)
{
    struct pending *p;

    if (!any_step) {
        next_close = newest = step;
        any_step = true;
    }
    if (step < next_close && !any_closed && newest - step < STEP_CAP)
        next_close = step; /* outboxes are read thread by thread: the first one read may be ahead */
    if (step < next_close)
        return NULL;
    while (step - next_close >= STEP_CAP)
        close_oldest(shm);
    if (step > newest)
        newest = step;
    p = slot_of(step);
    if (!p) {
        p = &pending[step & (STEP_CAP - 1)];
        *p = (struct pending){.used = true, .step = step};
    }
    return p;
}

static void take_launch(struct mp_shm *shm, const struct inj_note *n)
{
    struct mp_launch l = {.time_ns = n->time_ns,
                          .corr = n->corr,
                          .step = n->step,
                          .layer = n->layer,
                          .expert = n->expert,
                          .phase = n->phase,
                          .pass = n->pass,
                          .kclass = n->kclass,
                          .flags = n->flags};
    struct pending *p;

    mp_corr_put(corr, &l);
    newest_ns = n->time_ns;
    if (n->counts && !(n->flags & MP_FLAG_OWN) && (p = step_of(shm, n->step)))
        p->launches++;
}

static void end_step(struct pending *p, uint64_t end_ns)
{
    if (p->ended)
        return;
    p->ended = true;
    p->ended_ns = end_ns;
    p->ended_round = round_no;
}

static void take_mark(struct mp_shm *shm, const struct mp_step_mark *mark)
{
    struct pending *p = step_of(shm, mark->step);

    if (!p)
        return;
    end_step(p, mark->end_ns);
    p->marked = true;
    p->mark = *mark;
    /* A mark that found a full outbox never comes. */
    for (uint32_t s = next_close; s < mark->step; s++)
        if ((p = slot_of(s)))
            end_step(p, mark->end_ns);
    if (mark->step >= ended_below)
        ended_below = mark->step + 1;
}

static void take_outbox(struct mp_shm *shm, unsigned slot, struct inj_thread *t)
{
    static union mp_record batch[512];
    size_t n;

    while ((n = inj_thread_take(t, batch, countof(batch)))) {
        for (size_t k = 0; k < n; k++) {
            if (inj_trace_on())
                inj_trace_take(slot, &batch[k]);
            if (batch[k].head.kind == INJ_NOTE_LAUNCH)
                take_launch(shm, (const struct inj_note *)&batch[k]);
            else if (batch[k].head.kind == MP_STEP)
                take_mark(shm, &batch[k].mark);
            else if (batch[k].head.kind < INJ_TRACE_KIND)
                mp_shm_put(shm, &batch[k]);
        }
    }
}

/* Twice: what other threads launched before a step's mark was posted is there in the next pass at the
 * latest, and only then may the step be closed. */
void inj_join_launches(struct mp_shm *shm)
{
    struct inj_thread *t;

    for (int pass = 0; pass < 2; pass++) {
        round_no++;
        for (unsigned i = 0; (t = inj_thread_at(i)); i++)
            take_outbox(shm, i, t);
    }
}

static uint64_t hash(const char *text) /* FNV-1a, never 0 */
{
    uint64_t h = 14695981039346656037u;

    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 1099511628211u;
    return h | 1;
}

static const struct name *name_by_text(struct mp_shm *shm, const char *text)
{
    static struct name beyond = {.index = MP_NAME_CAP - 1}; /* of names too many */
    uint64_t h = hash(text);
    uint32_t at = (uint32_t)(h >> (64 - NAME_LOG2));

    for (unsigned probe = 0; probe < 64; probe++, at = (at + 1) & ((1u << NAME_LOG2) - 1)) {
        struct name *n = &by_hash[at];

        if (!n->hash)
            *n = (struct name){h, mp_shm_name_add(shm, text), (uint8_t)mp_kname_class(text)};
        if (n->hash == h)
            return n;
    }
    beyond.kclass = (uint8_t)mp_kname_class(text);
    return &beyond;
}

static const struct name *name_of(struct mp_shm *shm, const char *ptr)
{
    uint32_t at;

    ptr = ptr ? ptr : "?";
    at = (uint32_t)(((uintptr_t)ptr >> 3) * 2654435761u) >> (32 - NAME_LOG2);
    for (unsigned probe = 0; probe < 64; probe++, at = (at + 1) & ((1u << NAME_LOG2) - 1)) {
        if (!by_ptr[at].ptr) {
            by_ptr[at].name = name_by_text(shm, ptr);
            by_ptr[at].ptr = ptr;
        }
        if (by_ptr[at].ptr == ptr)
            return by_ptr[at].name;
    }
    return name_by_text(shm, ptr);
}

void inj_join_forget_names(void)
{
    memset(by_ptr, 0, sizeof by_ptr);
}

static uint8_t stream_of(uint32_t stream)
{
    for (unsigned i = 0; i < n_stream; i++)
        if (streams[i] == stream)
            return (uint8_t)i;
    if (n_stream == countof(streams))
        return 255;
    streams[n_stream] = stream;
    return (uint8_t)n_stream++;
}

static void set_times(struct mp_event *e, const struct inj_activity *a)
{
    uint64_t ns = a->end_ns > a->start_ns ? a->end_ns - a->start_ns : 0;

    e->start_ns = a->start_ns;
    e->dur_ns = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
    if (ns > UINT32_MAX)
        e->flags |= MP_FLAG_SATURATED;
}

static uint16_t lag_us(uint64_t launched_ns, uint64_t started_ns)
{
    uint64_t us;

    if (!launched_ns || started_ns <= launched_ns)
        return 0;
    us = (started_ns - launched_ns) / 1000 + 1;
    return us > UINT16_MAX ? UINT16_MAX : (uint16_t)us;
}

static void set_place(struct mp_event *e, const struct mp_launch *l, enum mp_kclass kclass)
{
    e->step = l->step;
    e->layer = l->layer;
    e->expert = l->expert;
    e->pass = l->pass;
    e->flags |= l->flags;
    e->lag_us = lag_us(l->time_ns, e->start_ns);
    e->phase = (uint8_t)mp_attrib_phase(l->phase, kclass, l->pass);
    e->basis = e->layer >= 0 || e->phase != MP_PHASE_OTHER ? MP_MEASURED : MP_UNKNOWN;
}

/* Copies between host and GPU are a phase of their own wherever they happen; those inside the GPU and
 * memsets belong to the code that makes them. */
static void set_copy_phase(struct mp_event *e)
{
    if (e->kind == MP_KERNEL)
        return;
    if (e->flags & (MP_FLAG_HTOD | MP_FLAG_DTOH) || e->phase == MP_PHASE_OTHER)
        e->phase = MP_PHASE_COPY;
}

/* A stamp of another clock: seen when another profiler had set its own, and only then looked for. It would
 * tear its step's window. */
static bool off_the_clock(const struct inj_activity *a)
{
    return inj_other_was_here() && newest_ns &&
           (a->start_ns > newest_ns + CLOCK_OFF_NS || a->start_ns + CLOCK_OFF_NS < newest_ns);
}

void inj_join_activity(void *arg, const uint8_t *record)
{
    struct mp_shm *shm = arg;
    struct inj_activity a;
    union mp_record r = {0};
    struct mp_event *e = &r.event;
    const struct mp_launch *l;
    enum mp_kclass kclass = MP_KC_COPY;
    struct pending *p;

    if (!inj_decode(&a, record))
        return;
    if (off_the_clock(&a)) {
        inj_activity_drop();
        return;
    }
    e->kind = a.kind;
    e->flags = a.flags;
    e->layer = e->expert = -1;
    e->step = last_step;
    set_times(e, &a);
    if (a.kind == MP_OVERHEAD) {
        mp_shm_put(shm, &r);
        return;
    }
    e->stream = stream_of(a.stream);
    e->name = (uint32_t)((a.bytes + 1023) / 1024);
    if (a.kind == MP_KERNEL) {
        const struct name *name = name_of(shm, a.name);

        e->name = name->index;
        kclass = name->kclass;
    }
    l = mp_corr_get(corr, a.corr);
    if (!l && !inj_sample_covers(a.start_ns))
        return;
    if (l) {
        set_place(e, l, kclass);
        last_step = l->step;
    } else {
        e->flags |= MP_FLAG_NO_LAUNCH;
        e->phase = (uint8_t)mp_attrib_phase(MP_PHASE_OTHER, kclass, MP_PASS_FORWARD);
        atomic_fetch_add_explicit(&shm->n_unmatched, 1, memory_order_relaxed);
    }
    set_copy_phase(e);
    if (a.kind == MP_KERNEL && l && !(e->flags & (MP_FLAG_OWN | MP_FLAG_GRAPH)) &&
        (p = step_of(shm, e->step)))
        p->records++;
    atomic_fetch_add_explicit(&shm->n_record, 1, memory_order_relaxed);
    mp_shm_put(shm, &r);
}

static void put_shm(void *shm, const union mp_record *record)
{
    if (inj_trace_on())
        inj_trace_counted(record);
    mp_shm_put(shm, record);
}

void inj_join_mark_steps(struct mp_shm *shm, uint32_t from, uint32_t to, unsigned flags)
{
    struct pending *p;

    if (any_closed && from < next_close)
        from = next_close;
    for (uint32_t step = from; step <= to; step++)
        if ((p = step_of(shm, step)))
            p->flags |= flags;
}

bool inj_join_quiet(void)
{
    for (unsigned i = 0; i < STEP_CAP; i++)
        if (pending[i].used && pending[i].launches)
            return false;
    return true;
}

static bool complete(const struct pending *p, bool counts_wait, uint32_t counts_from)
{
    return p->marked && p->ended_round < round_no && p->records >= p->launches &&
           !(counts_wait && counts_from <= p->step);
}

void inj_join_steps(struct mp_shm *shm, uint64_t now_ns, bool all)
{
    uint32_t oldest = 0;
    bool waiting = inj_count_collect(put_shm, shm, &oldest);

    while (any_step && next_close <= newest) {
        struct pending *p = slot_of(next_close);
        bool late;

        if (p ? !p->ended : next_close >= ended_below)
            break;
        late = p && now_ns > p->ended_ns + GRACE_NS;
        if (p && !all && !late && !complete(p, waiting, oldest))
            break;
        close_oldest(shm);
    }
}
