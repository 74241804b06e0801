/* Traces of made-up jobs: Perfetto's bytes are parsed by a reader of this file, that knows the wire format
 * and nothing of the writer; the JSON has a golden. */
#include "tests/html/renders.h"

#include "report/render_trace.h"

struct bytes {
    const uint8_t *p, *end;
};

static uint64_t varint(struct bytes *b)
{
    uint64_t v = 0;

    for (int shift = 0;; shift += 7) {
        assert_true(b->p < b->end && shift < 64);
        v |= (uint64_t)(*b->p & 0x7f) << shift;
        if (!(*b->p++ & 0x80))
            return v;
    }
}

/* The next field: its number; v or sub by its type. */
static unsigned field(struct bytes *b, uint64_t *v, struct bytes *sub)
{
    uint64_t key = varint(b);

    *sub = (struct bytes){NULL, NULL};
    switch (key & 7) {
    case 0:
        *v = varint(b);
        break;
    case 1:
        assert_true(b->end - b->p >= 8);
        memcpy(v, b->p, 8);
        b->p += 8;
        break;
    case 2:
        *v = varint(b);
        assert_true((uint64_t)(b->end - b->p) >= *v);
        *sub = (struct bytes){b->p, b->p + *v};
        b->p += *v;
        break;
    default:
        fail_msg("wire type %u", (unsigned)(key & 7));
    }
    return (unsigned)(key >> 3);
}

/* What is open on each track, by the last bytes of its id. */
struct tracks {
    bool known[65536];
    int depth[65536];
    uint64_t last_ns[65536];
    unsigned begins, ends, counters, instants, packets, descriptors;
    bool iid[131072];
};

static void event(struct tracks *t, struct bytes e, uint64_t ns)
{
    uint64_t v, type = 0, track = 0, name = 0;
    struct bytes sub;

    while (e.p < e.end)
        switch (field(&e, &v, &sub)) {
        case 9:
            type = v;
            break;
        case 11:
            track = v & 0xffff;
            break;
        case 10:
            name = v;
            break;
        }
    assert_true(t->known[track]);
    assert_true(ns > 1000000000000000000ull);
    if (name)
        assert_true(t->iid[name]);
    t->begins += type == 1;
    t->ends += type == 2;
    t->counters += type == 4;
    t->instants += type == 3;
    t->depth[track] += type == 1 ? 1 : type == 2 ? -1 : 0;
    assert_in_range(t->depth[track], 0, 1);
    if (type == 1 || type == 2) {
        assert_true(ns >= t->last_ns[track]);
        t->last_ns[track] = ns;
    }
}

static void interned(struct tracks *t, struct bytes b)
{
    uint64_t v;
    struct bytes sub, inner;

    while (b.p < b.end)
        if (field(&b, &v, &sub) == 2)
            while (sub.p < sub.end)
                if (field(&sub, &v, &inner) == 1) {
                    assert_false(t->iid[v]); /* told once */
                    t->iid[v] = true;
                }
}

static void packet(struct tracks *t, struct bytes b)
{
    uint64_t v, ns = 0;
    struct bytes sub, inner, of = {NULL, NULL};

    t->packets++;
    while (b.p < b.end)
        switch (field(&b, &v, &sub)) {
        case 8:
            ns = v;
            break;
        case 11:
            of = sub;
            break;
        case 12:
            interned(t, sub);
            break;
        case 60:
            t->descriptors++;
            assert_int_equal(field(&sub, &v, &inner), 1);
            t->known[v & 0xffff] = true;
            break;
        }
    if (of.p)
        event(t, of, ns);
}

static char *trace_of(struct shown *s, enum rp_trace_format format, size_t *size)
{
    char *text = NULL;
    FILE *f = open_memstream(&text, size);
    struct mp_err err = {0};

    if (rp_render_trace(f, format, s->p, s->r, 0, &err))
        fail_msg("%s", err.msg);
    fclose(f);
    return text;
}

static void perfetto(const struct made *made)
{
    struct tracks *t = calloc(1, sizeof *t);
    struct shown s;
    struct bytes b, sub;
    size_t size;
    char *text;
    uint64_t v;

    shown_make(&s, *made);
    text = trace_of(&s, RP_TRACE_PERFETTO, &size);
    b = (struct bytes){(uint8_t *)text, (uint8_t *)text + size};
    while (b.p < b.end) {
        assert_int_equal(field(&b, &v, &sub), 1);
        packet(t, sub);
    }
    assert_int_equal(t->begins, t->ends);
    assert_true(made->steps == 0 || t->begins > 100);
    assert_int_equal(t->instants, made->steps);
    assert_int_equal(t->counters, made->no_routing ? 0 : 2 * made->steps * made->layers);
    free(text);
    free(t);
    shown_release(&s);
}

static void perfetto_holds(void **state)
{
    static const struct made job[] = {
        {.steps = 6, .layers = 2, .experts = 16},
        {.steps = 6, .layers = 2, .experts = 16, .grouped = true, .checkpoint = true},
        {.steps = 4, .layers = 94, .experts = 512, .grouped = true},
        {.steps = 3, .layers = 2, .experts = 8, .hostile = true},
        {.steps = 3, .layers = 2, .experts = 8, .no_routing = true},
        {.steps = 0, .layers = 1, .experts = 4},
    };

    (void)state;
    for (size_t i = 0; i < countof(job); i++)
        perfetto(&job[i]);
}

static void chrome(void **state)
{
    struct shown s;
    size_t size;
    char *text;

    (void)state;
    shown_make(&s, (struct made){.steps = 2, .layers = 1, .experts = 3, .grouped = true});
    text = trace_of(&s, RP_TRACE_CHROME, &size);
    golden("trace_chrome.json", text);
    free(text);
    shown_release(&s);
    shown_make(&s, (struct made){.steps = 2, .layers = 1, .experts = 3, .hostile = true});
    text = trace_of(&s, RP_TRACE_CHROME, &size);
    for (size_t i = 0; i < size; i++)
        assert_true((unsigned char)text[i] < 0x7f);
    free(text);
    shown_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(perfetto_holds), cmocka_unit_test(chrome)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
