/* See replay_file.h. */
#include "tests/mock/replay_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if HAVE_ZSTD
#include <zstd.h>
#endif

static void die(const char *path, const char *why)
{
    fprintf(stderr, "%s: %s\n", path, why);
    exit(1);
}

static void *need(void *p)
{
    if (!p)
        die("replay", "out of memory");
    return p;
}

/* ---- bytes ------------------------------------------------------------------------------------------ */

static uint8_t *slurp(const char *path, size_t *n)
{
    FILE *in = fopen(path, "rb");
    uint8_t *bytes = NULL;
    size_t cap = 0;

    *n = 0;
    if (!in)
        die(path, "cannot be opened");
    do {
        cap = cap ? cap * 2 : 1u << 20;
        bytes = need(realloc(bytes, cap));
        *n += fread(bytes + *n, 1, cap - *n, in);
    } while (*n == cap);
    fclose(in);
    return bytes;
}

#if HAVE_ZSTD
static uint8_t *unpack(const char *path, uint8_t *packed, size_t *n)
{
    unsigned long long size = ZSTD_getFrameContentSize(packed, *n);
    uint8_t *bytes;

    if (size == ZSTD_CONTENTSIZE_ERROR)
        return packed; /* not compressed */
    if (size == ZSTD_CONTENTSIZE_UNKNOWN || size > 1ull << 31)
        die(path, "compressed without its size");
    bytes = need(malloc(size));
    if (ZSTD_decompress(bytes, size, packed, *n) != size)
        die(path, "damaged");
    free(packed);
    *n = size;
    return bytes;
}

int replay_pack(const char *from, const char *to)
{
    size_t n, bound, packed;
    uint8_t *bytes = slurp(from, &n);
    FILE *out = fopen(to, "wb");
    uint8_t *buffer;

    bound = ZSTD_compressBound(n);
    buffer = need(malloc(bound));
    packed = ZSTD_compress(buffer, bound, bytes, n, 19);
    if (!out || ZSTD_isError(packed) || fwrite(buffer, 1, packed, out) != packed || fclose(out))
        die(to, "cannot be written");
    fprintf(stderr, "%s: %zu bytes, %zu packed\n", to, n, packed);
    free(buffer);
    free(bytes);
    return 0;
}
#else
static uint8_t *unpack(const char *path, uint8_t *packed, size_t *n)
{
    (void)path;
    (void)n;
    return packed;
}

int replay_pack(const char *from, const char *to)
{
    (void)from;
    die(to, "built without zstd");
    return 1;
}
#endif

/* ---- items ---------------------------------------------------------------------------------------------- */

struct parse {
    struct replay_file *f;
    struct replay_op
        *launch[INJ_THREAD_MAX];      /* the thread's last, which facts and words complete */
    uint64_t time_ns[INJ_THREAD_MAX]; /* of the thread's last operation */
};

const char *replay_text(const struct replay_file *f, uint64_t address)
{
    for (size_t i = 0; i < f->n_name; i++)
        if (f->name[i].address == address)
            return f->name[i].text;
    return NULL;
}

static void add_name(struct replay_file *f, const uint8_t *data, uint32_t bytes)
{
    struct replay_name *n = &f->name[f->n_name++];

    memcpy(&n->address, data, sizeof n->address);
    n->text = need(strndup((const char *)data + sizeof n->address, bytes - sizeof n->address));
}

static void add_activity(struct replay_file *f, const uint8_t *data, uint32_t bytes)
{
    struct replay_activity *a = &f->activity[f->n_activity++];
    uint64_t address;
    const char *text;

    a->bytes = bytes;
    a->record = need(malloc(bytes));
    memcpy(a->record, data, bytes);
    if (a->record[0] != ACT_CONCURRENT_KERNEL || bytes < KERNEL_GRAPH_NODE)
        return;
    memcpy(&address, a->record + KERNEL_NAME, sizeof address);
    text = replay_text(f, address);
    memcpy(a->record + KERNEL_NAME, &text, sizeof text);
}

static void add_words(struct replay_op *op, const struct inj_trace_words *w)
{
    if (!op->word)
        op->word = need(calloc(REPLAY_WORDS, sizeof *op->word));
    for (uint32_t i = 0; i < w->n && i < 2 && op->n_word < REPLAY_WORDS; i++)
        op->word[op->n_word++] = w->word[i];
}

static void add_op(struct parse *p, const struct inj_trace_item *item, const uint8_t *data)
{
    struct replay_file *f = p->f;
    unsigned thread = item->thread % INJ_THREAD_MAX, kind = data[24];
    struct replay_op *op;

    if (item->tag == INJ_TRACE_NOTE && (kind == INJ_TRACE_FACTS || kind == INJ_TRACE_WORDS)) {
        op = p->launch[thread];
        if (op && kind == INJ_TRACE_FACTS)
            op->facts = (const struct inj_trace_facts *)(const void *)data;
        else if (op)
            add_words(op, (const struct inj_trace_words *)(const void *)data);
        return;
    }
    op = &f->op[f->n_op];
    *op = (struct replay_op){.order = (uint32_t)f->n_op++,
                             .thread = (uint16_t)thread,
                             .tag = item->tag,
                             .data = data,
                             .bytes = item->bytes,
                             .activity = f->n_activity};
    if (item->tag == INJ_TRACE_POSTED)
        op->time_ns = p->time_ns[thread];
    else
        memcpy(&op->time_ns, data, sizeof op->time_ns); /* stands first in all the others */
    if (item->tag == INJ_TRACE_ROUND)
        return;
    p->time_ns[thread] = op->time_ns;
    p->launch[thread] = item->tag == INJ_TRACE_NOTE && kind == INJ_TRACE_LAUNCH ? op : NULL;
}

static void add_item(struct parse *p, const char *path, const struct inj_trace_item *item,
                     const uint8_t *data)
{
    struct replay_file *f = p->f;
    struct inj_trace_head head;

    switch (item->tag) {
    case INJ_TRACE_HEAD:
        memcpy(&head, data, sizeof head);
        if (head.magic != INJ_TRACE_MAGIC)
            die(path, "not a trace of this version");
        f->cupti_version = head.cupti_version;
        break;
    case INJ_TRACE_NAME:
        add_name(f, data, item->bytes);
        break;
    case INJ_TRACE_COUNTED:
        memcpy(&f->counted[f->n_counted++], data, sizeof f->counted[0]);
        break;
    case INJ_TRACE_ACTIVITY:
        add_activity(f, data, item->bytes);
        break;
    default:
        add_op(p, item, data);
    }
}

/* ---- order ------------------------------------------------------------------------------------------------- */

static int by_time(const void *a, const void *b)
{
    const struct replay_op *x = a, *y = b;

    if (x->time_ns != y->time_ns)
        return x->time_ns < y->time_ns ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static bool ends_step(const struct replay_op *op)
{
    return op->tag == INJ_TRACE_NOTE && op->data[24] == INJ_TRACE_SCOPE &&
           ((const struct inj_trace_scope *)(const void *)op->data)->op == INJ_OP_STEP_END;
}

/* A round comes after exactly those marks that the agent had taken before it. */
static void place_rounds(struct replay_file *f)
{
    uint64_t *end = need(calloc(f->n_op + 2, sizeof *end)), n_end = 0;

    for (size_t i = 0; i < f->n_op; i++)
        if (ends_step(&f->op[i]))
            end[n_end++] = f->op[i].time_ns;
    for (size_t i = 0; i < f->n_op; i++) {
        struct replay_op *op = &f->op[i];
        struct inj_trace_round r;

        if (op->tag != INJ_TRACE_ROUND)
            continue;
        memcpy(&r, op->data, sizeof r);
        if (r.n_mark && r.n_mark <= n_end && op->time_ns <= end[r.n_mark - 1])
            op->time_ns = end[r.n_mark - 1] + 1;
        if (r.n_mark < n_end && op->time_ns >= end[r.n_mark])
            op->time_ns = end[r.n_mark] - 1;
    }
    free(end);
}

/* Each round delivers the records that follow it in the file, up to the next round. */
static void share_activity(struct replay_file *f)
{
    struct replay_op *last = NULL;

    for (size_t i = 0; i < f->n_op; i++) {
        if (f->op[i].tag != INJ_TRACE_ROUND)
            continue;
        if (last)
            last->n_activity = f->op[i].activity - last->activity;
        last = &f->op[i];
    }
    if (last)
        last->n_activity = f->n_activity - last->activity;
}

static size_t count_items(const struct replay_file *f, const char *path)
{
    struct inj_trace_item item;
    size_t n = 0;

    for (size_t at = 0; at + sizeof item <= f->n_bytes; at += sizeof item + item.bytes, n++) {
        memcpy(&item, f->bytes + at, sizeof item);
        if (item.bytes > f->n_bytes - at - sizeof item || item.bytes < 8 ||
            (item.tag == INJ_TRACE_NOTE && item.bytes != sizeof(union mp_record)))
            die(path, "cut short or damaged");
    }
    return n;
}

void replay_read(struct replay_file *f, const char *path)
{
    struct parse *p = need(calloc(1, sizeof *p));
    struct inj_trace_item item;
    size_t n;

    memset(f, 0, sizeof *f);
    p->f = f;
    f->bytes = slurp(path, &f->n_bytes);
    f->bytes = unpack(path, f->bytes, &f->n_bytes);
    n = count_items(f, path);
    f->op = need(calloc(n + 1, sizeof *f->op));
    f->activity = need(calloc(n + 1, sizeof *f->activity));
    f->name = need(calloc(n + 1, sizeof *f->name));
    f->counted = need(calloc(n + 1, sizeof *f->counted));
    for (size_t at = 0; at + sizeof item <= f->n_bytes; at += sizeof item + item.bytes) {
        memcpy(&item, f->bytes + at, sizeof item);
        add_item(p, path, &item, f->bytes + at + sizeof item);
    }
    free(p);
    if (!f->n_op)
        die(path, "an empty trace");
    share_activity(f);
    place_rounds(f);
    qsort(f->op, f->n_op, sizeof *f->op, by_time);
}
