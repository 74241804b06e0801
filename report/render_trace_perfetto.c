/* Perfetto's TrackEvent. The tracks above the streams (step, pass, layer, phase, expert) hold runs: what
 * follows each other with the same value is one slice, from the start of its first operation to the end
 * of its last one or the start of the next run, so that slices of a track never overlap. */
#include "report/render_trace_part.h"

#include <stdlib.h>
#include <string.h>

#include "report/render_trace_proto.h"
#include "report/utf8.h"

/* Field numbers of perfetto/protos/perfetto/trace. */
enum {
    TRACE_PACKET = 1,
    PACKET_TIME = 8,
    PACKET_SEQUENCE = 10,
    PACKET_EVENT = 11,
    PACKET_INTERNED = 12,
    PACKET_FLAGS = 13,
    PACKET_TRACK = 60,
    EVENT_CATEGORY = 3,
    EVENT_NOTE = 4,
    EVENT_TYPE = 9,
    EVENT_NAME = 10,
    EVENT_TRACK = 11,
    EVENT_NAME_TEXT = 23,
    EVENT_VALUE = 44,
    TRACK_ID = 1,
    TRACK_NAME = 2,
    TRACK_PROCESS = 3,
    TRACK_PARENT = 5,
    TRACK_COUNTER = 8,
    TRACK_ORDERING = 11,
    TRACK_RANK = 12,
    PROCESS_PID = 1,
    PROCESS_NAME = 6,
    INTERNED_CATEGORY = 1,
    INTERNED_NAME = 2,
    INTERNED_NOTE = 3,
    INTERNED_ID = 1,
    INTERNED_TEXT = 2,
    NOTE_NAME = 1,
    NOTE_INT = 4,
};

enum { SLICE_BEGIN = 1, SLICE_END = 2, INSTANT = 3, COUNTER = 4 };
enum { STATE_CLEARED = 1, NEEDS_STATE = 2, EXPLICIT_ORDER = 3 };

/* Tracks of a profile: ids relative to its base. */
enum track { TRACK_STEP = 1, TRACK_PASS, TRACK_LAYER, TRACK_PHASE, TRACK_EXPERT, TRACK_COUNT };
#define TRACK_STREAM 100  /* + stream */
#define TRACK_LOAD   1000 /* + 2 * layer: tokens of the busiest expert; + 1: MaxVio */

/* Interned names: kernels by id + KERNEL_IID, words below it. */
#define WORD_CAP   4096
#define KERNEL_IID (WORD_CAP + 1)
#define LAYER_MAX  512
#define NO_KEY     INT64_MIN
#define STEP_RING                                                                                  \
    256 /* steps whose beginning is remembered: routing comes up to some steps later */

enum note { NOTE_LAYER = 1, NOTE_EXPERT, NOTE_STEP, NOTE_LAG, NOTE_COUNT };

struct run {
    int64_t key; /* NO_KEY: none open */
    uint64_t begin_ns, end_ns;
    uint64_t name; /* interned; 0: text as it is */
    char text[48];
};

struct load {
    uint32_t max, n, step;
    uint64_t sum;
};

struct perfetto {
    struct proto proto;
    struct trace_names names;
    unsigned index;
    uint64_t base; /* of track ids */
    uint64_t now_ns;
    bool *known; /* (WORD_CAP + names): interned */
    size_t n_known;
    uint64_t stream_end_ns[256];
    bool has_stream[256];
    struct run run[TRACK_COUNT];
    struct load load[LAYER_MAX];
    struct {
        uint32_t step;
        uint64_t ns;
    } begin[STEP_RING];
    bool has_load[LAYER_MAX];
};

/* ---- packets ------------------------------------------------------------------------------------- */

static size_t packet_begin(struct perfetto *t, uint64_t ns, unsigned flags)
{
    size_t at = proto_begin(&t->proto, TRACE_PACKET);

    if (ns)
        proto_uint(&t->proto, PACKET_TIME, ns);
    proto_uint(&t->proto, PACKET_SEQUENCE, t->index + 1);
    proto_uint(&t->proto, PACKET_FLAGS, flags);
    return at;
}

static void packet_end(struct perfetto *t, size_t at)
{
    proto_end(&t->proto, at);
    proto_drain(&t->proto, false);
}

static void intern(struct perfetto *t, unsigned kind, uint64_t id, const char *text, unsigned flags)
{
    size_t packet = packet_begin(t, 0, flags), data = proto_begin(&t->proto, PACKET_INTERNED),
           entry = proto_begin(&t->proto, kind);

    proto_uint(&t->proto, INTERNED_ID, id);
    proto_text(&t->proto, INTERNED_TEXT, text);
    proto_end(&t->proto, entry);
    proto_end(&t->proto, data);
    packet_end(t, packet);
}

static void track_open(struct perfetto *t, uint64_t id, const char *name, bool is_counter)
{
    size_t packet = packet_begin(t, 0, NEEDS_STATE), track = proto_begin(&t->proto, PACKET_TRACK);

    proto_uint(&t->proto, TRACK_ID, t->base + id);
    proto_uint(&t->proto, TRACK_PARENT, t->base);
    proto_text(&t->proto, TRACK_NAME, name);
    proto_uint(&t->proto, TRACK_RANK, id);
    if (is_counter)
        proto_end(&t->proto, proto_begin(&t->proto, TRACK_COUNTER));
    proto_end(&t->proto, track);
    packet_end(t, packet);
}

static void process_open(struct perfetto *t, const struct rp_report *r, int pid)
{
    size_t packet = packet_begin(t, 0, STATE_CLEARED), track = proto_begin(&t->proto, PACKET_TRACK),
           process;
    char name[200];

    if (r->run.rank < 0)
        snprintf(name, sizeof name, "%s", r->run.command);
    else
        snprintf(name, sizeof name, "rank %d: %s", r->run.rank, r->run.command);
    proto_uint(&t->proto, TRACK_ID, t->base);
    process = proto_begin(&t->proto, TRACK_PROCESS);
    proto_uint(&t->proto, PROCESS_PID, (uint64_t)pid);
    proto_text(&t->proto, PROCESS_NAME, rp_utf8_clean(name));
    proto_end(&t->proto, process);
    proto_uint(&t->proto, TRACK_ORDERING, EXPLICIT_ORDER);
    proto_end(&t->proto, track);
    packet_end(t, packet);
}

static void note(struct perfetto *t, enum note name, int64_t v)
{
    size_t at = proto_begin(&t->proto, EVENT_NOTE);

    proto_uint(&t->proto, NOTE_NAME, name);
    proto_uint(&t->proto, NOTE_INT, (uint64_t)v);
    proto_end(&t->proto, at);
}

/* What every event has; the caller may add fields, then ends event and packet. */
static size_t event_begin(struct perfetto *t, uint64_t ns, uint64_t track, unsigned type,
                          size_t *packet)
{
    size_t at;

    *packet = packet_begin(t, ns, NEEDS_STATE);
    at = proto_begin(&t->proto, PACKET_EVENT);
    proto_uint(&t->proto, EVENT_TYPE, type);
    proto_uint(&t->proto, EVENT_TRACK, t->base + track);
    return at;
}

static void event_end(struct perfetto *t, size_t event, size_t packet)
{
    proto_end(&t->proto, event);
    packet_end(t, packet);
}

static void slice_end(struct perfetto *t, uint64_t ns, uint64_t track)
{
    size_t packet, event = event_begin(t, ns, track, SLICE_END, &packet);

    event_end(t, event, packet);
}

static void name_use(struct perfetto *t, uint64_t iid, const char *text)
{
    if (iid < t->n_known && !t->known[iid]) {
        t->known[iid] = true;
        intern(t, INTERNED_NAME, iid, text, NEEDS_STATE);
    }
}

/* ---- runs -------------------------------------------------------------------------------------------- */

static void run_close(struct perfetto *t, enum track track, uint64_t next_ns)
{
    struct run *r = &t->run[track];
    uint64_t end = r->end_ns < next_ns ? r->end_ns : next_ns;
    size_t packet, event;

    if (r->key == NO_KEY)
        return;
    r->key = NO_KEY;
    if (r->name)
        name_use(t, r->name, r->text);
    event = event_begin(t, r->begin_ns, track, SLICE_BEGIN, &packet);
    if (r->name)
        proto_uint(&t->proto, EVENT_NAME, r->name);
    else
        proto_text(&t->proto, EVENT_NAME_TEXT, r->text);
    event_end(t, event, packet);
    slice_end(t, end > r->begin_ns ? end : r->begin_ns, track);
}

/* key < 0: this operation has no place on the track. */
static void run_feed(struct perfetto *t, enum track track, const struct mp_event *e, int64_t key,
                     uint64_t name, const char *text)
{
    struct run *r = &t->run[track];
    uint64_t end = e->start_ns + e->dur_ns;

    if (r->key != NO_KEY && r->key == key) {
        r->end_ns = end > r->end_ns ? end : r->end_ns;
        return;
    }
    run_close(t, track, e->start_ns);
    if (key < 0)
        return;
    *r = (struct run){.key = key, .begin_ns = e->start_ns, .end_ns = end, .name = name};
    snprintf(r->text, sizeof r->text, "%s", text);
}

/* Words: passes from 1, phases from 16, layers from 64, experts from 1024; steps are not interned. */
static void runs_feed(struct perfetto *t, const struct mp_event *e)
{
    char text[32];
    int64_t pass = e->pass < MP_PASS_COUNT ? e->pass : 0,
            phase = e->phase < MP_PHASE_COUNT ? e->phase : MP_PHASE_OTHER,
            layer = e->layer < LAYER_MAX ? e->layer : -1,
            expert = e->expert < WORD_CAP - 1024 ? e->expert : -1;

    snprintf(text, sizeof text, "step %u", e->step);
    run_feed(t, TRACK_STEP, e, e->step, 0, text);
    run_feed(t, TRACK_PASS, e, pass, 1 + (uint64_t)pass, mp_pass_name((enum mp_pass)pass));
    snprintf(text, sizeof text, "layer %d", (int)layer);
    run_feed(t, TRACK_LAYER, e, layer, 64 + (uint64_t)layer, text);
    run_feed(t, TRACK_PHASE, e, phase, 16 + (uint64_t)phase, mp_phase_name((enum mp_phase)phase));
    snprintf(text, sizeof text, "expert %d", (int)expert);
    run_feed(t, TRACK_EXPERT, e, expert < 0 || layer < 0 ? -1 : layer << 16 | expert,
             1024 + (uint64_t)expert, text);
}

/* ---- operations ---------------------------------------------------------------------------------------- */

static void stream_use(struct perfetto *t, unsigned stream)
{
    char name[24];

    if (t->has_stream[stream])
        return;
    t->has_stream[stream] = true;
    snprintf(name, sizeof name, "stream %u", stream);
    track_open(t, TRACK_STREAM + stream, name, false);
}

static uint64_t operation_name(struct perfetto *t, const struct mp_event *e)
{
    static const char *const copy[] = {"memcpy", "memcpy HtoD", "memcpy DtoH", "memcpy DtoD"};
    int way = e->flags & MP_FLAG_HTOD   ? 1
              : e->flags & MP_FLAG_DTOH ? 2
              : e->flags & MP_FLAG_DTOD ? 3
                                        : 0;
    uint64_t iid = 40 + (uint64_t)way;

    switch (e->kind) {
    case MP_KERNEL:
        iid = KERNEL_IID + (uint64_t)e->name;
        iid = iid < t->n_known ? iid : 46;
        name_use(t, iid, trace_name(&t->names, e->name));
        return iid;
    case MP_MEMCPY:
        name_use(t, iid, copy[way]);
        return iid;
    case MP_MEMSET:
        name_use(t, 44, "memset");
        return 44;
    }
    name_use(t, 45, "CUDA graph");
    return 45;
}

/* Operations of a stream follow each other; where one begins before the last has ended (programmatic
 * launches) it is shown from that end on. */
static void slice(struct perfetto *t, const struct mp_event *e)
{
    uint64_t *last = &t->stream_end_ns[e->stream], begin = e->start_ns,
             end = e->start_ns + e->dur_ns, name;
    size_t packet, event;

    stream_use(t, e->stream);
    name = operation_name(t, e);
    if (begin < *last && end > *last)
        begin = *last;
    event = event_begin(t, begin, TRACK_STREAM + (uint64_t)e->stream, SLICE_BEGIN, &packet);
    proto_uint(&t->proto, EVENT_NAME, name);
    proto_uint(&t->proto, EVENT_CATEGORY, 1 + (e->phase < MP_PHASE_COUNT ? (uint64_t)e->phase : 0));
    if (e->layer >= 0)
        note(t, NOTE_LAYER, e->layer);
    if (e->expert >= 0)
        note(t, NOTE_EXPERT, e->expert);
    note(t, NOTE_STEP, e->step);
    if (e->lag_us)
        note(t, NOTE_LAG, e->lag_us);
    event_end(t, event, packet);
    slice_end(t, end, TRACK_STREAM + (uint64_t)e->stream);
    *last = end > *last ? end : *last;
}

static int on_operation(void *arg, const struct mp_event *e)
{
    struct perfetto *t = arg;

    t->now_ns = e->start_ns;
    if (t->begin[e->step % STEP_RING].step != e->step || t->begin[e->step % STEP_RING].ns == 0) {
        t->begin[e->step % STEP_RING].step = e->step;
        t->begin[e->step % STEP_RING].ns = e->start_ns;
    }
    slice(t, e);
    if (!(e->flags & MP_FLAG_OWN))
        runs_feed(t, e);
    return ferror(t->proto.out) ? MP_EIO : 0;
}

/* ---- routing and marks ----------------------------------------------------------------------------------- */

static void counter(struct perfetto *t, uint64_t ns, uint64_t track, double v)
{
    size_t packet, event = event_begin(t, ns, track, COUNTER, &packet);

    proto_double(&t->proto, EVENT_VALUE, v);
    event_end(t, event, packet);
}

static uint64_t step_begin(const struct perfetto *t, uint32_t step)
{
    return t->begin[step % STEP_RING].step == step && t->begin[step % STEP_RING].ns
               ? t->begin[step % STEP_RING].ns
               : t->now_ns;
}

/* What a layer's experts got in one step, from the beginning of that step on. */
static void load_put(struct perfetto *t, int layer)
{
    struct load *l = &t->load[layer];
    uint64_t track = TRACK_LOAD + 2 * (uint64_t)layer, ns = step_begin(t, l->step);
    char name[64];

    if (l->sum && !t->has_load[layer]) {
        t->has_load[layer] = true;
        snprintf(name, sizeof name, "layer %d: tokens of the busiest expert", layer);
        track_open(t, track, name, true);
        snprintf(name, sizeof name, "layer %d: MaxVio", layer);
        track_open(t, track + 1, name, true);
    }
    if (l->sum) {
        counter(t, ns, track, l->max);
        counter(t, ns, track + 1, (double)l->max * l->n / (double)l->sum - 1);
    }
    memset(l, 0, sizeof *l);
}

static int on_routing(void *arg, const struct mp_routing *r)
{
    struct perfetto *t = arg;
    struct load *l;

    if (r->layer < 0 || r->layer >= LAYER_MAX)
        return 0;
    l = &t->load[r->layer];
    if (l->n && l->step != r->step)
        load_put(t, r->layer);
    l->step = r->step;
    for (int i = 0; i < r->n && i < 4; i++) {
        l->max = r->count[i] > l->max ? r->count[i] : l->max;
        l->sum += r->count[i];
        l->n++;
    }
    return 0;
}

static int on_mark(void *arg, const struct mp_step_mark *m)
{
    struct perfetto *t = arg;
    size_t packet, event;

    if (m->end_ns == 0)
        return 0;
    name_use(t, 47, "optimizer step returned");
    event = event_begin(t, m->end_ns, TRACK_COUNT, INSTANT, &packet);
    proto_uint(&t->proto, EVENT_NAME, 47);
    note(t, NOTE_STEP, m->step);
    event_end(t, event, packet);
    return 0;
}

/* ---- the whole ------------------------------------------------------------------------------------------- */

static void preamble(struct perfetto *t, const struct rp_report *r, int pid)
{
    static const char *const track[] = {
        [TRACK_STEP] = "steps",   [TRACK_PASS] = "pass",      [TRACK_LAYER] = "layers",
        [TRACK_PHASE] = "phases", [TRACK_EXPERT] = "experts", [TRACK_COUNT] = "host"};
    static const char *const name[] = {[NOTE_LAYER] = "layer",
                                       [NOTE_EXPERT] = "expert",
                                       [NOTE_STEP] = "step",
                                       [NOTE_LAG] = "launch_to_start_us"};

    process_open(t, r, pid);
    for (int i = 1; i < NOTE_COUNT; i++)
        intern(t, INTERNED_NOTE, (uint64_t)i, name[i], NEEDS_STATE);
    for (int p = 0; p < MP_PHASE_COUNT; p++)
        intern(t, INTERNED_CATEGORY, 1 + (uint64_t)p, mp_phase_name((enum mp_phase)p), NEEDS_STATE);
    for (unsigned i = TRACK_STEP; i <= TRACK_COUNT; i++)
        track_open(t, i, track[i], false);
    for (int i = 0; i < TRACK_COUNT; i++)
        t->run[i].key = NO_KEY;
}

int trace_perfetto(FILE *out, struct rp_profile *p, const struct rp_report *r, unsigned index,
                   struct mp_err *err)
{
    struct perfetto *t = calloc(1, sizeof *t);
    struct rp_events_fn fn = {on_operation, on_routing, on_mark, t};
    int rc;

    if (!t)
        return mp_fail(err, MP_ENOMEM, "no memory for the trace");
    t->proto.out = out;
    t->names.p = p;
    t->index = index;
    t->base = ((uint64_t)index + 1) << 16;
    t->n_known = KERNEL_IID + 65536;
    t->known = calloc(t->n_known, sizeof *t->known);
    if (t->known) {
        preamble(t, r, (int)rp_get_meta_int(p, "pid", index + 1));
        rc = rp_events_walk(p, &fn, NULL, err);
        for (unsigned i = TRACK_STEP; i < TRACK_COUNT; i++)
            run_close(t, (enum track)i, UINT64_MAX);
        for (int layer = 0; layer < LAYER_MAX; layer++)
            load_put(t, layer);
        proto_drain(&t->proto, true);
    } else {
        rc = mp_fail(err, MP_ENOMEM, "no memory for the trace");
    }
    trace_names_release(&t->names);
    free(t->known);
    free(t);
    return rc == MP_OK && ferror(out) ? mp_fail(err, MP_EIO, "cannot write the trace") : rc;
}
