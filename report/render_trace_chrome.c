/* The JSON that torch.profiler writes, for tools that read it (HolisticTraceAnalysis, trace viewers): GPU
 * operations by stream, ProfilerStep annotations, and for each kernel the launch that it had, as far as
 * it is known: its start is measured, its duration is not and stands as 0. Times are microseconds since
 * baseTimeNanoseconds, which keeps them exact in a double. */
#include "report/render_trace_part.h"

#include <stdlib.h>
#include <string.h>

#define HOST_TID 1

struct chrome {
    FILE *f;
    struct trace_names names;
    char **quoted; /* (n_quoted) names as JSON strings, by id */
    size_t n_quoted;
    uint64_t base_ns;
    uint64_t n; /* operations so far: their correlation */
    int pid;
    uint32_t step;
    uint64_t step_begin_ns, step_end_ns; /* begin 0: none yet */
};

/* ---- JSON ------------------------------------------------------------------------------------------ */

/* As a JSON string in ASCII; bytes beyond it become question marks, since names are ASCII. */
static char *quote(const char *text)
{
    char *out = malloc(strlen(text) * 2 + 3), *o = out;

    if (!out)
        return NULL;
    *o++ = '"';
    for (; *text; text++) {
        bool bare = (unsigned char)*text >= 0x20 && (unsigned char)*text < 0x7f;

        if (*text == '"' || *text == '\\')
            *o++ = '\\';
        *o++ = bare ? *text : '?';
    }
    *o++ = '"';
    *o = 0;
    return out;
}

static const char *quoted_name(struct chrome *c, uint32_t id)
{
    const char *name = trace_name(&c->names, id);

    if (id >= c->names.cap)
        return "\"?\"";
    if (c->n_quoted < c->names.cap) {
        char **grown = realloc(c->quoted, c->names.cap * sizeof *grown);

        if (!grown)
            return "\"?\"";
        memset(grown + c->n_quoted, 0, (c->names.cap - c->n_quoted) * sizeof *grown);
        c->quoted = grown;
        c->n_quoted = c->names.cap;
    }
    if (!c->quoted[id])
        c->quoted[id] = quote(name);
    return c->quoted[id] ? c->quoted[id] : "\"?\"";
}

/* Nanoseconds as microseconds with three decimals, exactly; printf of doubles would be most of the time. */
static char *put_us(char *o, uint64_t ns)
{
    char digit[24];
    int n = 0;

    for (uint64_t v = ns; n < 4 || v; v /= 10)
        digit[n++] = (char)('0' + v % 10);
    while (n > 3)
        *o++ = digit[--n];
    *o++ = '.';
    while (n)
        *o++ = digit[--n];
    return o;
}

static char *put_text(char *o, const char *text)
{
    size_t n = strlen(text);

    memcpy(o, text, n);
    return o + n;
}

static char *put_int(char *o, int64_t v)
{
    char digit[24];
    int n = 0;
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;

    if (v < 0)
        *o++ = '-';
    do
        digit[n++] = (char)('0' + u % 10);
    while (u /= 10);
    while (n)
        *o++ = digit[--n];
    return o;
}

/* ---- events ---------------------------------------------------------------------------------------- */

static const char *category(const struct mp_event *e)
{
    return e->kind == MP_MEMCPY ? "gpu_memcpy" : e->kind == MP_MEMSET ? "gpu_memset" : "kernel";
}

static const char *operation_name(struct chrome *c, const struct mp_event *e)
{
    if (e->kind == MP_KERNEL)
        return quoted_name(c, e->name);
    if (e->kind == MP_MEMSET)
        return "\"Memset (Device)\"";
    if (e->kind == MP_GRAPH)
        return "\"CUDA graph\"";
    return e->flags & MP_FLAG_HTOD   ? "\"Memcpy HtoD\""
           : e->flags & MP_FLAG_DTOH ? "\"Memcpy DtoH\""
           : e->flags & MP_FLAG_DTOD ? "\"Memcpy DtoD\""
                                     : "\"Memcpy\"";
}

static char *put_args(char *o, const struct chrome *c, const struct mp_event *e)
{
    o = put_text(o, ",\"args\":{\"device\":0,\"context\":1,\"stream\":");
    o = put_int(o, e->stream);
    o = put_text(o, ",\"correlation\":");
    o = put_int(o, (int64_t)c->n);
    o = put_text(o, ",\"phase\":\"");
    o = put_text(
        o, mp_phase_name(e->phase < MP_PHASE_COUNT ? (enum mp_phase)e->phase : MP_PHASE_OTHER));
    o = put_text(o, "\",\"pass\":\"");
    o = put_text(o,
                 mp_pass_name(e->pass < MP_PASS_COUNT ? (enum mp_pass)e->pass : MP_PASS_FORWARD));
    o = put_text(o, "\",\"layer\":");
    o = put_int(o, e->layer);
    o = put_text(o, ",\"expert\":");
    o = put_int(o, e->expert);
    o = put_text(o, ",\"step\":");
    o = put_int(o, e->step);
    if (e->kind == MP_MEMCPY || e->kind == MP_MEMSET) {
        o = put_text(o, ",\"bytes\":");
        o = put_int(o, (int64_t)e->name * 1024);
    }
    return put_text(o, "}}");
}

static uint64_t since(const struct chrome *c, uint64_t ns)
{
    return ns > c->base_ns ? ns - c->base_ns : 0;
}

static char *put_operation(char *o, struct chrome *c, const struct mp_event *e)
{
    o = put_text(o, ",\n{\"ph\":\"X\",\"cat\":\"");
    o = put_text(o, category(e));
    o = put_text(o, "\",\"name\":");
    o = put_text(o, operation_name(c, e));
    o = put_text(o, ",\"pid\":0,\"tid\":");
    o = put_int(o, e->stream);
    o = put_text(o, ",\"ts\":");
    o = put_us(o, since(c, e->start_ns));
    o = put_text(o, ",\"dur\":");
    o = put_us(o, e->dur_ns);
    return put_args(o, c, e);
}

static char *put_launch(char *o, const struct chrome *c, const struct mp_event *e)
{
    o = put_text(o, ",\n{\"ph\":\"X\",\"cat\":\"cuda_runtime\",\"name\":\"");
    o = put_text(o, e->kind == MP_MEMCPY   ? "cudaMemcpyAsync"
                    : e->kind == MP_MEMSET ? "cudaMemsetAsync"
                                           : "cudaLaunchKernel");
    o = put_text(o, "\",\"pid\":");
    o = put_int(o, c->pid);
    o = put_text(o, ",\"tid\":1,\"ts\":");
    o = put_us(o, since(c, e->start_ns - (uint64_t)e->lag_us * 1000));
    o = put_text(o, ",\"dur\":0.000,\"args\":{\"correlation\":");
    o = put_int(o, (int64_t)c->n);
    return put_text(o, "}}");
}

static void step_put(const struct chrome *c)
{
    if (c->step_begin_ns == 0)
        return;
    fprintf(c->f,
            ",\n{\"ph\":\"X\",\"cat\":\"user_annotation\",\"name\":\"ProfilerStep#%u\",\"pid\":%d,"
            "\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f,\"args\":{\"External id\":%u}}",
            c->step, c->pid, HOST_TID, (double)since(c, c->step_begin_ns) * 1e-3,
            (double)(c->step_end_ns - c->step_begin_ns) * 1e-3, c->step);
}

/* A step lasts to the next one's first operation. */
static void step_feed(struct chrome *c, const struct mp_event *e)
{
    uint64_t end = e->start_ns + e->dur_ns;

    if (c->step_begin_ns == 0 || e->step > c->step) {
        c->step_end_ns = e->start_ns > c->step_begin_ns ? e->start_ns : c->step_end_ns;
        step_put(c);
        c->step = e->step;
        c->step_begin_ns = e->start_ns;
        c->step_end_ns = end;
    }
    c->step_end_ns = end > c->step_end_ns ? end : c->step_end_ns;
}

static int on_operation(void *arg, const struct mp_event *e)
{
    struct chrome *c = arg;
    char line[2048], *o = line;

    c->n++;
    o = put_operation(o, c, e);
    if (e->lag_us && e->lag_us < UINT16_MAX)
        o = put_launch(o, c, e);
    fwrite(line, 1, (size_t)(o - line), c->f);
    step_feed(c, e);
    return ferror(c->f) ? MP_EIO : 0;
}

static void head(struct chrome *c, const struct rp_report *r, int64_t sms)
{
    char *gpu = quote(r->run.gpu), *command = quote(r->run.command);

    fprintf(c->f,
            "{\"schemaVersion\":1,\"displayTimeUnit\":\"ms\",\"baseTimeNanoseconds\":%llu,\n"
            "\"deviceProperties\":[{\"id\":0,\"name\":%s,\"numSms\":%lld}],\n"
            "\"distributedInfo\":{\"backend\":\"nccl\",\"rank\":%d,\"world_size\":%d},\n"
            "\"traceEvents\":[\n"
            "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":%d,\"tid\":0,\"ts\":0,\"args\":{"
            "\"name\":%s}},\n"
            "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":0,\"tid\":0,\"ts\":0,\"args\":{"
            "\"name\":\"GPU\"}}",
            (unsigned long long)c->base_ns, gpu ? gpu : "\"?\"", (long long)sms,
            r->run.rank < 0 ? 0 : r->run.rank, r->run.world < 1 ? 1 : r->run.world, c->pid,
            command ? command : "\"?\"");
    free(gpu);
    free(command);
}

static int base_find(void *arg, const struct mp_step *s)
{
    struct chrome *c = arg;

    if (s->begin_ns == 0)
        return 0;
    c->base_ns = s->begin_ns - 100000000; /* launches come before what they launch */
    return 1;
}

int trace_chrome(FILE *out, struct rp_profile *p, const struct rp_report *r, struct mp_err *err)
{
    struct chrome c = {.f = out, .names.p = p, .pid = (int)rp_get_meta_int(p, "pid", 1)};
    struct rp_events_fn fn = {.operation = on_operation, .arg = &c};
    int rc = rp_each_step(p, base_find, &c, err);

    if (rc >= 0) {
        head(&c, r, rp_get_meta_int(p, "gpu_sm_count", 0));
        rc = rp_events_walk(p, &fn, NULL, err);
        step_put(&c);
        fputs("\n]}\n", out);
    }
    for (size_t i = 0; i < c.n_quoted; i++)
        free(c.quoted[i]);
    free(c.quoted);
    trace_names_release(&c.names);
    return rc == MP_OK && ferror(out) ? mp_fail(err, MP_EIO, "cannot write the trace") : rc;
}
