/* Keeps one point a step and sums when asked, so that the warm-up rule can look back.
 * Figures that are unknown for some step are summed over the others, with the others' time. */
#include "profiler/core/mfu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The figures that are summed; one row each in a point. */
enum { MODEL, EXECUTED, PALM, TRL, ADJUSTED, HF, USEFUL, PROCESSED, TRAINABLE, FIGURES };

struct point {
    uint64_t time_ns;
    struct mp_flop figure[FIGURES];
    bool counts;
};

struct mp_mfu {
    struct point *point; /* (n) */
    size_t n, cap;
    uint64_t host_end_ns; /* of the step before */
    uint32_t step;
};

/* ---- peaks -------------------------------------------------------------------------------- */

void mp_peak_find(struct mp_peak *peak, const char *gpu_name, int cc, int sm_count,
                  const char *dtype)
{
    const struct mp_gpu *gpu = mp_gpu_find(gpu_name, cc, sm_count);
    int code = mp_dtype_parse(dtype);

    memset(peak, 0, sizeof *peak);
    if (!*gpu_name) {
        snprintf(peak->why_not, sizeof peak->why_not, "no GPU seen yet");
    } else if (!gpu) {
        snprintf(peak->why_not, sizeof peak->why_not,
                 "no published peak known for '%.60s'; give one with --peak TFLOPS", gpu_name);
    } else if (code < 0) {
        snprintf(peak->why_not, sizeof peak->why_not,
                 "no tensor-core peak for matmuls in '%.40s'; give one with --peak TFLOPS", dtype);
    } else if (mp_gpu_peak(gpu, (enum mp_dtype)code) == 0) {
        snprintf(peak->why_not, sizeof peak->why_not, "no published %s peak of %s",
                 mp_dtype_name((enum mp_dtype)code), gpu->name);
    } else {
        peak->flops = mp_gpu_peak(gpu, (enum mp_dtype)code);
        snprintf(peak->label, sizeof peak->label, "dense %s %.1f TF, %s",
                 mp_dtype_name((enum mp_dtype)code), peak->flops / 1e12, gpu->name);
    }
}

void mp_peak_given(struct mp_peak *peak, double flops)
{
    memset(peak, 0, sizeof *peak);
    if (!(flops > 0 && flops < 1e21)) {
        snprintf(peak->why_not, sizeof peak->why_not, "the peak given is not a number of FLOP/s");
        return;
    }
    peak->flops = flops;
    snprintf(peak->label, sizeof peak->label, "given %.1f TF", flops / 1e12);
}

/* ---- points ------------------------------------------------------------------------------- */

bool mp_mfu_counts(const struct mp_step *step)
{
    return (step->flags & (MP_STEP_PARTIAL | MP_STEP_INCOMPLETE | MP_STEP_ASIDE)) == 0;
}

static struct mp_flop tokens(uint64_t n, enum mp_basis basis)
{
    return (struct mp_flop){n == UINT64_MAX ? 0 : n, n == UINT64_MAX ? MP_UNKNOWN : basis};
}

static struct point point_of(const struct mp_step *step, const struct mp_flops *flops)
{
    struct point p = {.time_ns = step->window_ns};

    if (flops) {
        p.figure[MODEL] = flops->model;
        p.figure[EXECUTED] = flops->executed;
        p.figure[PALM] = flops->palm;
        p.figure[TRL] = flops->trl;
        p.figure[ADJUSTED] = flops->adjusted;
        p.figure[HF] = flops->hf;
    }
    p.figure[USEFUL] = tokens(step->useful, step->useful_basis);
    p.figure[PROCESSED] = tokens(step->processed, MP_MEASURED);
    p.figure[TRAINABLE] = tokens(step->trainable, MP_MEASURED);
    p.counts = mp_mfu_counts(step) && p.time_ns > 0;
    return p;
}

int mp_mfu_add(struct mp_mfu *m, const struct mp_step *step, const struct mp_flops *flops)
{
    struct point p = point_of(step, flops);

    if (m->n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 256;
        struct point *more = realloc(m->point, cap * sizeof *more);

        if (!more)
            return MP_ENOMEM;
        m->point = more;
        m->cap = cap;
    }
    /* a job whose GPU could not be watched still has steps: from one return of the optimizer to the next */
    if (p.time_ns == 0 && m->host_end_ns && step->step == m->step + 1 &&
        step->host_end_ns > m->host_end_ns) {
        p.time_ns = step->host_end_ns - m->host_end_ns;
        p.counts = mp_mfu_counts(step);
    }
    m->host_end_ns = step->host_end_ns;
    m->step = step->step;
    m->point[m->n++] = p;
    return 0;
}

struct mp_mfu *mp_mfu_new(void)
{
    return calloc(1, sizeof(struct mp_mfu));
}

void mp_mfu_free(struct mp_mfu *m)
{
    if (!m)
        return;
    free(m->point);
    free(m);
}

/* ---- sums --------------------------------------------------------------------------------- */

struct total {
    double sum[FIGURES];
    uint64_t time_ns[FIGURES];
    enum mp_basis basis[FIGURES];
};

static void total_add(struct total *t, const struct point *p)
{
    for (int i = 0; i < FIGURES; i++) {
        enum mp_basis basis = p->figure[i].basis;

        if (basis == MP_UNKNOWN)
            continue;
        t->sum[i] += (double)p->figure[i].flop;
        t->time_ns[i] += p->time_ns;
        t->basis[i] =
            basis > t->basis[i] ? basis : t->basis[i]; /* the weakest: MEASURED is the lowest */
    }
}

static struct mp_val rate(const struct total *t, int figure, double per)
{
    if (t->basis[figure] == MP_UNKNOWN || t->time_ns[figure] == 0 || per <= 0)
        return (struct mp_val){0, MP_UNKNOWN};
    return (struct mp_val){t->sum[figure] * 1e9 / (double)t->time_ns[figure] / per,
                           t->basis[figure]};
}

static void fill_rates(struct mp_mfu_sum *out, const struct total *t, const struct mp_peak *peak)
{
    double p = peak ? peak->flops : 0;

    out->mfu = rate(t, MODEL, p);
    out->hfu = rate(t, EXECUTED, p);
    out->palm_mfu = rate(t, PALM, p);
    out->trl_mfu = rate(t, TRL, p);
    out->adjusted_mfu = rate(t, ADJUSTED, p);
    out->hf_mfu = rate(t, HF, p);
    out->model_flops = rate(t, MODEL, 1);
    out->executed_flops = rate(t, EXECUTED, 1);
    out->useful_per_s = rate(t, USEFUL, 1);
    out->processed_per_s = rate(t, PROCESSED, 1);
    out->trainable_per_s = rate(t, TRAINABLE, 1);
    out->model_flop = (struct mp_val){t->sum[MODEL], t->basis[MODEL]};
    out->executed_flop = (struct mp_val){t->sum[EXECUTED], t->basis[EXECUTED]};
}

static int by_time(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void fill_times(struct mp_mfu_sum *out, uint64_t *time_ns, size_t n)
{
    uint64_t low, high;

    if (n == 0)
        return;
    qsort(time_ns, n, sizeof *time_ns, by_time);
    low = time_ns[(n - 1) / 2];
    high = time_ns[n / 2];
    out->median_s = (struct mp_val){((double)low + (double)high) / 2 * 1e-9, MP_MEASURED};
    out->min_s = (struct mp_val){(double)time_ns[0] * 1e-9, MP_MEASURED};
    out->max_s = (struct mp_val){(double)time_ns[n - 1] * 1e-9, MP_MEASURED};
}

static void sum_one(struct mp_mfu_sum *out, struct total *t, const struct point *p)
{
    out->n_step++;
    out->n_unknown += p->figure[MODEL].basis == MP_UNKNOWN;
    out->time_ns += p->time_ns;
    total_add(t, p);
}

void mp_mfu_get(const struct mp_mfu *m, uint32_t n_last, const struct mp_peak *peak,
                struct mp_mfu_sum *out)
{
    uint64_t *time_ns = malloc((m->n ? m->n : 1) * sizeof *time_ns);
    size_t complete = 0, seen = 0, skip;
    struct total t = {{0}, {0}, {0}};

    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < m->n; i++)
        complete += m->point[i].counts;
    out->n_excluded = (uint32_t)(m->n - complete);
    out->n_warmup = complete > MP_MFU_KEEP ? MP_MFU_WARMUP : 0;
    skip = out->n_warmup;
    if (n_last && complete - skip > n_last)
        skip = complete - n_last;
    for (size_t i = 0; i < m->n; i++) {
        if (!m->point[i].counts || seen++ < skip)
            continue;
        if (time_ns)
            time_ns[out->n_step] = m->point[i].time_ns;
        sum_one(out, &t, &m->point[i]);
    }
    fill_rates(out, &t, peak);
    if (time_ns)
        fill_times(out, time_ns, out->n_step);
    free(time_ns);
}

bool mp_mfu_of_step(const struct mp_step *step, const struct mp_flops *flops,
                    const struct mp_peak *peak, struct mp_mfu_sum *out)
{
    struct point p = point_of(step, flops);
    struct total t = {{0}, {0}, {0}};

    memset(out, 0, sizeof *out);
    if (p.time_ns == 0) {
        out->n_excluded = 1;
        return false;
    }
    sum_one(out, &t, &p);
    fill_rates(out, &t, peak);
    fill_times(out, &p.time_ns, 1);
    return p.counts;
}

/* ---- words -------------------------------------------------------------------------------- */

void mp_mfu_convention(char *out, size_t bytes, const struct mp_model *model,
                       const struct mp_peak *peak)
{
    bool frozen = false, lora = false, moe = false, causal = model->n_attn == 0;

    for (uint32_t i = 0; i < model->n_op; i++) {
        frozen |= !model->op[i].wgrad || !model->op[i].dgrad;
        lora |= model->op[i].lora;
        moe |= model->op[i].per == MP_PER_ASSIGNMENT;
    }
    for (uint32_t i = 0; i < model->n_attn; i++)
        causal |= model->attn[i].causal;
    snprintf(out, bytes, "%s, useful tokens, %s%s, %s", causal ? "causal" : "non-causal",
             moe ? "routed assignments, " : "",
             lora     ? "frozen-aware with LoRA"
             : frozen ? "frozen-aware"
                      : "all weights trained",
             peak && peak->flops > 0 ? peak->label : "no peak");
}

void mp_mfu_converted(char *out, size_t bytes, const struct mp_mfu_sum *sum)
{
    const struct {
        const char *name;
        struct mp_val v;
    } item[] = {
        {"HFU", sum->hfu},
        {"PaLM convention", sum->palm_mfu},
        {"TRL compute_mfu", sum->trl_mfu},
        {"HF total_flos", sum->hf_mfu},
    };
    size_t used = 0;

    if (bytes)
        out[0] = 0;
    for (size_t i = 0; i < countof(item) && used < bytes; i++) {
        if (item[i].v.basis == MP_UNKNOWN)
            continue;
        used += (size_t)snprintf(out + used, bytes - used, "%s%s %s%.1f %%", used ? " | " : "",
                                 item[i].name, item[i].v.basis > MP_MEASURED ? "~" : "",
                                 item[i].v.v * 100);
    }
}
