/* See trace.h. First half on application threads, second on the agent's. */
#include "injector/trace.h"

#include "injector/torch_abi.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

_Atomic bool inj_trace_wanted;

/* ---- application threads ------------------------------------------------------------------------ */

static uint8_t torch_flags(void)
{
    if (!inj_torch_trusted())
        return 0;
    return (uint8_t)(INJ_TRACED_TORCH | (inj_torch_grad_enabled() ? INJ_TRACED_GRAD : 0));
}

void inj_trace_scope(enum inj_trace_op op, int depth, int layer, int arg)
{
    struct inj_thread *t = inj_thread_self();
    struct inj_trace_scope n = {.time_ns = inj_now_ns(),
                                .layer = (int16_t)layer,
                                .arg = (int16_t)arg,
                                .kind = INJ_TRACE_SCOPE,
                                .op = (uint8_t)op,
                                .depth = (int8_t)depth,
                                .step = atomic_load(&inj.step)};
    struct inj_node node;

    if (!t)
        return;
    n.flags = torch_flags();
    if (n.flags & INJ_TRACED_TORCH) {
        n.next_seq = (uint32_t)inj_torch_next_seq();
        n.torch_id = (uint32_t)inj_torch_thread_id();
        if (inj_torch_node(&node)) {
            n.flags |= INJ_TRACED_NODE;
            n.node_seq = (uint32_t)node.seq;
        }
    }
    inj_thread_post(t, &n);
}

void inj_trace_set_ranges(const struct mp_ranges *r)
{
    struct inj_thread *t = inj_thread_self();
    struct inj_trace_scope n = {
        .time_ns = inj_now_ns(), .table = (uint64_t)(uintptr_t)r, .kind = INJ_TRACE_SET_RANGES};

    if (t)
        inj_thread_post(t, &n);
}

void inj_trace_launch(struct inj_thread *t, uint32_t cbid, void *handle,
                      const struct cupti_callback *info, bool extra)
{
    struct inj_trace_launch n = {.time_ns = inj_now_ns(),
                                 .handle = (uint64_t)(uintptr_t)handle,
                                 .corr = info->correlation,
                                 .cbid = (uint16_t)cbid,
                                 .kind = INJ_TRACE_LAUNCH};
    struct inj_trace_facts facts = {.name = (uint64_t)(uintptr_t)info->symbol_name,
                                    .kind = INJ_TRACE_FACTS};
    struct inj_node node;

    n.flags =
        (uint8_t)(torch_flags() | (t->own ? INJ_TRACED_OWN : 0) | (extra ? INJ_TRACED_EXTRA : 0));
    if (n.flags & INJ_TRACED_TORCH) {
        facts.next_seq = (uint32_t)inj_torch_next_seq();
        facts.torch_id = (uint32_t)inj_torch_thread_id();
        if (inj_torch_node(&node)) {
            n.flags |= INJ_TRACED_NODE;
            n.flags |= inj_torch_is_select(&node) ? INJ_TRACED_SELECT : 0;
            facts.node_seq = node.seq;
            facts.node_tid = (uint32_t)node.tid;
        }
    }
    inj_thread_post(t, &n);
    inj_thread_post(t, &facts);
}

void inj_trace_words(struct inj_thread *t, const struct mp_ranges *r, const void *bytes, size_t n)
{
    struct inj_trace_words w = {.kind = INJ_TRACE_WORDS};

    for (size_t i = 0; r && i + 8 <= n; i += 8) {
        uint64_t word;

        memcpy(&word, (const char *)bytes + i, 8);
        if (word - r->lo >= r->hi - r->lo)
            continue;
        w.word[w.n++] = word;
        if (w.n == 2) {
            inj_thread_post(t, &w);
            w.n = 0;
        }
    }
    if (w.n)
        inj_thread_post(t, &w);
}

/* ---- the file, agent ------------------------------------------------------------------------------ */

static struct {
    int fd;
    size_t used;
    uint64_t n_mark;
    uint8_t pending[1u << 16];
} file = {.fd = -1};

/* names already written, by address */
#define NAME_CAP (1u << 14)
static uint64_t known[NAME_CAP];

void inj_trace_flush(void)
{
    size_t done = 0;

    while (file.fd >= 0 && done < file.used) {
        ssize_t n = write(file.fd, file.pending + done, file.used - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            atomic_store(&inj_trace_wanted, false);
            inj_log(2, "the trace file cannot be written: %s", strerror(errno));
            close(file.fd);
            file.fd = -1;
            break;
        }
        done += (size_t)n;
    }
    file.used = 0;
}

static void append(const void *bytes, size_t n)
{
    while (n) {
        size_t room = sizeof file.pending - file.used, part = n < room ? n : room;

        memcpy(file.pending + file.used, bytes, part);
        file.used += part;
        bytes = (const char *)bytes + part;
        n -= part;
        if (file.used == sizeof file.pending)
            inj_trace_flush();
    }
}

static void item(enum inj_trace_tag tag, unsigned thread, const void *payload, size_t bytes)
{
    struct inj_trace_item head = {(uint16_t)tag, (uint16_t)thread, (uint32_t)bytes};

    if (file.fd < 0)
        return;
    append(&head, sizeof head);
    append(payload, bytes);
}

static void name(uint64_t address)
{
    uint32_t at = (uint32_t)((address >> 3) * 2654435761u) & (NAME_CAP - 1);
    struct {
        uint64_t address;
        char text[4096];
    } payload;
    size_t n;

    while (known[at] && known[at] != address)
        at = (at + 1) & (NAME_CAP - 1);
    if (!address || known[at])
        return;
    known[at] = address;
    payload.address = address;
    n = strnlen((const char *)(uintptr_t)address, sizeof payload.text);
    memcpy(payload.text, (const char *)(uintptr_t)address, n);
    item(INJ_TRACE_NAME, 0, &payload, sizeof payload.address + n);
}

int inj_trace_open(const char *path, uint32_t cupti_version, struct mp_err *err)
{
    struct inj_trace_head head = {INJ_TRACE_MAGIC, cupti_version, 0};

    file.fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file.fd < 0) {
        atomic_store(&inj_trace_wanted, false);
        return mp_fail(err, MP_EIO, "the trace file '%s' cannot be made: %s", path,
                       strerror(errno));
    }
    item(INJ_TRACE_HEAD, 0, &head, sizeof head);
    return MP_OK;
}

static void ranges(unsigned slot, const struct inj_trace_scope *n)
{
    const struct mp_ranges *r = (const struct mp_ranges *)(uintptr_t)n->table;
    struct inj_trace_item head = {INJ_TRACE_RANGES, (uint16_t)slot, sizeof n->time_ns};

    if (file.fd < 0)
        return;
    head.bytes += (uint32_t)((r ? r->n : 0) * sizeof r->range[0]);
    append(&head, sizeof head);
    append(&n->time_ns, sizeof n->time_ns);
    if (r)
        append(r->range, r->n * sizeof r->range[0]);
}

void inj_trace_take(unsigned slot, const union mp_record *record)
{
    switch (record->head.kind) {
    case INJ_NOTE_LAUNCH:
        return;
    case MP_STEP:
        file.n_mark++;
        return;
    case INJ_TRACE_SET_RANGES:
        ranges(slot, (const struct inj_trace_scope *)record);
        return;
    case INJ_TRACE_FACTS:
        name(((const struct inj_trace_facts *)record)->name);
        break;
    default:
        break;
    }
    item(record->head.kind >= INJ_TRACE_KIND ? INJ_TRACE_NOTE : INJ_TRACE_POSTED, slot, record,
         sizeof *record);
}

void inj_trace_counted(const union mp_record *record)
{
    item(INJ_TRACE_COUNTED, 0, record, sizeof *record);
}

void inj_trace_round(void)
{
    struct inj_trace_round r = {inj_now_ns(), file.n_mark};

    item(INJ_TRACE_ROUND, 0, &r, sizeof r);
}

void inj_trace_buffer(uint8_t *buffer, size_t valid_bytes,
                      int (*next_record)(uint8_t *buffer, size_t valid_bytes, uint8_t **record))
{
    uint8_t *record = NULL, *next = NULL;

    while (next_record(buffer, valid_bytes, &next) == CUPTI_OK) {
        if (record)
            item(INJ_TRACE_ACTIVITY, 0, record, (size_t)(next - record));
        record = next;
        if (*(const uint32_t *)(const void *)record == ACT_CONCURRENT_KERNEL) {
            uint64_t address;

            memcpy(&address, record + KERNEL_NAME, sizeof address);
            name(address);
        }
    }
    if (record)
        item(INJ_TRACE_ACTIVITY, 0, record, (size_t)(buffer + valid_bytes - record));
}
