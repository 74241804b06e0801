/* One function a file; rows come from the report or, where that has only the top, from the profile. */
#include "report/render_csv.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "report/demangle.h"
#include "report/utf8.h"

struct csv {
    FILE *f;
    struct rp_profile *p;
    const struct rp_report *r;
    struct mp_err *err;
    int block;
};

static void text(FILE *f, const char *any)
{
    char clean[1024], *s = clean;

    snprintf(clean, sizeof clean, "%s", any);
    rp_utf8_clean(clean);
    if (!strpbrk(s, ",\"\r\n")) {
        fputs(s, f);
        return;
    }
    fputc('"', f);
    for (; *s; s++) {
        if (*s == '"')
            fputc('"', f);
        fputc(*s, f);
    }
    fputc('"', f);
}

static void value(FILE *f, struct mp_val v)
{
    if (v.basis != MP_UNKNOWN && isfinite(v.v))
        fprintf(f, ",%.9g", v.v);
    else
        fputc(',', f);
}

static void count(FILE *f, uint64_t v)
{
    if (v == UINT64_MAX)
        fputc(',', f);
    else
        fprintf(f, ",%llu", (unsigned long long)v);
}

static void seconds(FILE *f, uint64_t ns)
{
    fprintf(f, ",%llu.%09llu", (unsigned long long)(ns / 1000000000u),
            (unsigned long long)(ns % 1000000000u));
}

static void end(FILE *f)
{
    fputs("\r\n", f);
}

/* ---- the files -------------------------------------------------------------------------------------- */

static int step_row(void *arg, const struct mp_step *s)
{
    FILE *f = ((struct csv *)arg)->f;

    fprintf(f, "%u,%u,%llu", s->step, s->flags, (unsigned long long)s->begin_ns);
    seconds(f, s->window_ns);
    seconds(f, s->idle_ns);
    seconds(f, s->kernel_ns);
    fprintf(f, ",%u,%u,%u,%u,%u", s->n_kernel, s->n_copy, s->n_memset, s->n_graph, s->n_micro);
    count(f, s->processed);
    count(f, s->useful_basis == MP_UNKNOWN ? UINT64_MAX : s->useful);
    count(f, s->trainable);
    fprintf(f, ",%u", s->dropped);
    end(f);
    return 0;
}

static int steps(struct csv *c)
{
    fputs(
        "step,flags,begin_ns,window_seconds,idle_seconds,kernel_seconds,kernels,copies,memsets,"
        "graphs,micro_batches,processed_tokens,useful_tokens,trainable_tokens,dropped_records\r\n",
        c->f);
    return rp_each_step(c->p, step_row, c, c->err);
}

static int phases(struct csv *c)
{
    fputs("phase,pass,seconds,seconds_per_step,ratio,operations\r\n", c->f);
    for (size_t i = 0; i < c->r->n_phase; i++) {
        const struct rp_phase *p = &c->r->phase[i];

        fprintf(c->f, "%s,%s", mp_phase_name(p->phase), mp_pass_name(p->pass));
        value(c->f, p->seconds);
        value(c->f, p->step_s);
        value(c->f, p->ratio);
        count(c->f, p->n);
        end(c->f);
    }
    fputs("idle,", c->f);
    value(c->f, c->r->idle_s);
    value(c->f, (struct mp_val){c->r->idle_s.v / (c->r->step.count ? c->r->step.count : 1),
                                c->r->idle_s.basis});
    value(c->f, c->r->idle_ratio);
    fputc(',', c->f);
    end(c->f);
    return MP_OK;
}

static int layers(struct csv *c)
{
    fputs("layer,seconds,tokens,max_violation,max_violation_step,experts,idle_experts", c->f);
    for (int p = 0; p < MP_PHASE_COUNT; p++)
        fprintf(c->f, ",%s_seconds", mp_phase_name((enum mp_phase)p));
    end(c->f);
    for (size_t i = 0; i < c->r->n_layer; i++) {
        const struct rp_layer *l = &c->r->layer[i];

        fprintf(c->f, "%d,%.9g", l->layer, l->total_s);
        value(c->f, l->tokens);
        value(c->f, l->max_vio);
        value(c->f, l->max_vio_step);
        fprintf(c->f, ",%d,%d", l->n_expert, l->n_dead);
        for (int p = 0; p < MP_PHASE_COUNT; p++)
            fprintf(c->f, ",%.9g", l->seconds[p]);
        end(c->f);
    }
    return MP_OK;
}

static int experts(struct csv *c)
{
    fputs("layer,expert,tokens,seconds,basis,shared_seconds,shared_basis\r\n", c->f);
    for (size_t i = 0; i < c->r->n_expert; i++) {
        const struct rp_expert *e = &c->r->expert[i];

        fprintf(c->f, "%d,%d", e->layer, e->expert);
        value(c->f, e->tokens);
        value(c->f, e->seconds);
        fprintf(c->f, ",%s", mp_basis_name(e->seconds.basis));
        value(c->f, e->shared_seconds);
        fprintf(c->f, ",%s", mp_basis_name(e->shared_seconds.basis));
        end(c->f);
    }
    return MP_OK;
}

static const char *block_name(int block)
{
    static const char *const name[RP_BLOCK_COUNT] = {[RP_BLOCK_WARMUP] = "warmup",
                                                     [RP_BLOCK_STEADY] = "steady",
                                                     [RP_BLOCK_PARTIAL] = "partial",
                                                     [RP_BLOCK_LOSSY] = "lossy"};

    return name[block] ? name[block] : "other";
}

static int kernel_row(void *arg, const struct rp_kernel *k)
{
    struct csv *c = arg;
    char shown[RP_KERNEL_NAME];
    const char *name = rp_get_name(c->p, k->name);

    fprintf(c->f, "%s,%d,%s,%s,", block_name(c->block), k->layer,
            mp_phase_name((enum mp_phase)k->phase), mp_pass_name((enum mp_pass)k->pass));
    text(c->f, rp_kernel_name(shown, sizeof shown, name));
    fprintf(c->f, ",%u", k->n);
    seconds(c->f, k->total_ns);
    seconds(c->f, k->min_ns);
    seconds(c->f, k->max_ns);
    fputc(',', c->f);
    text(c->f, name);
    end(c->f);
    return 0;
}

static int kernels(struct csv *c)
{
    int rc = MP_OK;

    fputs("block,layer,phase,pass,name,count,seconds,min_seconds,max_seconds,full_name\r\n", c->f);
    for (c->block = 0; rc == MP_OK && c->block < RP_BLOCK_COUNT; c->block++)
        rc = rp_each_kernel(c->p, c->block, kernel_row, c, c->err);
    return rc;
}

/* ---- the folder --------------------------------------------------------------------------------------- */

static int file_write(struct csv *c, const char *dir, const char *name, int (*fill)(struct csv *))
{
    char path[4096];
    int rc;

    if ((size_t)snprintf(path, sizeof path, "%s/%s.csv", dir, name) >= sizeof path)
        return mp_fail(c->err, MP_EINVAL, "the name of the folder is too long");
    c->f = fopen(path, "w");
    if (!c->f)
        return mp_fail(c->err, MP_EIO, "cannot write '%s': %s", path, strerror(errno));
    rc = fill(c);
    if ((ferror(c->f) != 0) + (fclose(c->f) != 0) && rc == MP_OK)
        rc = mp_fail(c->err, MP_EIO, "cannot write '%s': %s", path, strerror(errno));
    return rc;
}

int rp_render_csv(const char *dir, struct rp_profile *p, const struct rp_report *r,
                  struct mp_err *err)
{
    static const struct {
        const char *name;
        int (*fill)(struct csv *);
    } file[] = {{"steps", steps},
                {"phases", phases},
                {"layers", layers},
                {"experts", experts},
                {"kernels", kernels}};
    struct csv c = {.p = p, .r = r, .err = err};
    int rc = MP_OK;

    if (mkdir(dir, 0777) && errno != EEXIST)
        return mp_fail(err, MP_EIO, "cannot make '%s': %s", dir, strerror(errno));
    for (size_t i = 0; rc == MP_OK && i < countof(file); i++)
        rc = file_write(&c, dir, file[i].name, file[i].fill);
    return rc;
}
