/* The walk over the steps and what follows from their sums. Several sums are kept at a time, because
 * which steps the report speaks of is known only at the end. */
#include "report/analyze.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/core/mfu.h"
#include "report/analyze_part.h"
#include "report/sums.h"

/* Sets of steps that figures may be made of. Times by phase: STEADY, unless the run is too short for a
 * warm-up to be left out. Durations, tokens, MFU: TIMED, also of steps that were not traced. */
enum scope {
    STEADY,
    WHOLE,
    LOSSY,
    PARTIAL,
    BLOCK_SCOPES,
    TIMED = BLOCK_SCOPES,
    TIMED_STEADY,
    UNTRACED,
    SCOPE_COUNT
};

static const unsigned scope_blocks[BLOCK_SCOPES] = {
    [STEADY] = 1u << RP_BLOCK_STEADY,
    [WHOLE] = 1u << RP_BLOCK_WARMUP | 1u << RP_BLOCK_STEADY,
    [LOSSY] = 1u << RP_BLOCK_LOSSY,
    [PARTIAL] = 1u << RP_BLOCK_PARTIAL,
};

struct walk {
    struct rp_acc acc[SCOPE_COUNT];
    uint32_t n_step, n_whole, n_timed, n_aside;
    uint32_t last_step; /* the one before, and when the host left it */
    uint64_t last_host_ns;
    struct rp_mfu_work *mfu;
    struct mp_err *err;
};

void rp_note(struct rp_report *r, const char *fmt, ...)
{
    va_list ap;

    if (r->n_note == RP_NOTES)
        return;
    va_start(ap, fmt);
    vsnprintf(r->note[r->n_note++], sizeof r->note[0], fmt, ap);
    va_end(ap);
}

struct mp_val rp_max_vio(const uint64_t *tokens, size_t n)
{
    uint64_t sum = 0, max = 0;

    for (size_t i = 0; i < n; i++) {
        sum += tokens[i];
        max = tokens[i] > max ? tokens[i] : max;
    }
    if (sum == 0)
        return (struct mp_val){0, MP_UNKNOWN};
    return (struct mp_val){(double)max * (double)n / (double)sum - 1, MP_MEASURED};
}

/* ---- sums --------------------------------------------------------------------------------------- */

static void add_known(uint64_t *sum, bool *known, uint64_t v)
{
    if (v == UINT64_MAX)
        *known = false;
    else
        *sum += v;
}

static void add_routes(struct rp_acc *a, const struct mp_step *step)
{
    for (uint32_t i = 0; i < step->n_route; i++) {
        const struct mp_route *r = &step->route[i];
        uint64_t sum = 0, max = 0;

        for (unsigned e = 0; e < r->n_expert; e++) {
            sum += r->count[e];
            max = r->count[e] > max ? r->count[e] : max;
        }
        if (sum == 0 || r->layer < 0 || r->layer >= RP_ACC_LAYERS)
            continue;
        a->vio_sum[r->layer] += (double)max * r->n_expert / (double)sum - 1;
        a->vio_n[r->layer]++;
    }
}

static int add_seconds(struct rp_acc *a, double seconds)
{
    if (a->n == a->cap) {
        size_t cap = a->cap ? a->cap * 2 : 64;
        double *grown = realloc(a->seconds, cap * sizeof *grown);

        if (!grown)
            return MP_ENOMEM;
        a->seconds = grown;
        a->cap = cap;
    }
    a->seconds[a->n] = seconds;
    return MP_OK;
}

static int add_step(struct rp_acc *a, const struct mp_step *s, uint64_t duration_ns)
{
    if (add_seconds(a, (double)duration_ns * 1e-9))
        return MP_ENOMEM;
    if (a->n == 0) {
        a->useful_known = a->processed_known = a->trainable_known = true;
        a->useful_basis = s->useful_basis;
        a->first = s->step;
    }
    a->n++;
    a->last = s->step;
    a->incomplete += (s->flags & MP_STEP_INCOMPLETE) != 0;
    a->window_ns += duration_ns;
    a->idle_ns += s->idle_ns;
    a->kernel_ns += s->kernel_ns;
    a->own_ns += s->own_ns;
    add_known(&a->useful, &a->useful_known, s->useful);
    add_known(&a->processed, &a->processed_known, s->processed);
    add_known(&a->trainable, &a->trainable_known, s->trainable);
    if (s->useful_basis > a->useful_basis) /* the weaker one speaks for the sum */
        a->useful_basis = s->useful_basis;
    for (uint32_t i = 0; i < s->n_cell; i++) {
        a->booked_ns[s->cell[i].phase][s->cell[i].pass] += s->cell[i].booked_ns;
        a->ops[s->cell[i].phase][s->cell[i].pass] += s->cell[i].n;
    }
    add_routes(a, s);
    return MP_OK;
}

/* By the GPU's clock, else from one return of the optimizer to the next: the rule of core/mfu. */
static uint64_t duration_of(struct walk *w, const struct mp_step *s)
{
    uint64_t ns = s->window_ns;

    if (ns == 0 && w->last_host_ns && s->step == w->last_step + 1 &&
        s->host_end_ns > w->last_host_ns)
        ns = s->host_end_ns - w->last_host_ns;
    w->last_host_ns = s->host_end_ns;
    w->last_step = s->step;
    return ns;
}

static int add_timed(struct walk *w, const struct mp_step *s, uint64_t ns)
{
    int rc = MP_OK;

    if (ns == 0 || !mp_mfu_counts(s))
        return rc;
    rc = add_step(&w->acc[TIMED], s, ns);
    if (rc || w->n_timed++ < MP_MFU_WARMUP)
        return rc;
    rc = add_step(&w->acc[TIMED_STEADY], s, ns);
    return rc == MP_OK && s->window_ns == 0 ? add_step(&w->acc[UNTRACED], s, ns) : rc;
}

static int on_step(void *arg, const struct mp_step *step)
{
    struct walk *w = arg;
    unsigned block = 1u << rp_block_of(step, &w->n_whole);
    int rc = add_timed(w, step, duration_of(w, step));

    w->n_step++;
    w->n_aside += (step->flags & MP_STEP_ASIDE) != 0;
    for (int i = 0; i < BLOCK_SCOPES && rc == MP_OK; i++)
        if (scope_blocks[i] & block)
            rc = add_step(&w->acc[i], step, step->window_ns);
    if (rc)
        return mp_fail(w->err, MP_ENOMEM, "no memory for %u steps", w->n_step);
    return rp_mfu_work_add(w->mfu, step, w->err);
}

/* ---- figures of the chosen steps ------------------------------------------------------------------ */

static struct mp_val measured(double v)
{
    return (struct mp_val){v, MP_MEASURED};
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static struct mp_val median(const double *v, uint32_t n)
{
    double *sorted = malloc((n + 1) * sizeof *sorted);
    struct mp_val m = {0, MP_UNKNOWN};

    if (sorted && n) {
        memcpy(sorted, v, n * sizeof *sorted);
        qsort(sorted, n, sizeof *sorted, by_value);
        m = measured((sorted[(n - 1) / 2] + sorted[n / 2]) / 2);
    }
    free(sorted);
    return m;
}

static int fill_steps(struct rp_step_stat *out, const struct rp_acc *a, uint32_t recorded)
{
    *out = (struct rp_step_stat){.count = a->n,
                                 .first = a->first,
                                 .last = a->last,
                                 .recorded = recorded,
                                 .incomplete = a->incomplete,
                                 .window_s = (double)a->window_ns * 1e-9};
    if (a->n == 0)
        return MP_OK;
    out->seconds = malloc(a->n * sizeof *out->seconds);
    if (!out->seconds)
        return MP_ENOMEM;
    memcpy(out->seconds, a->seconds, a->n * sizeof *out->seconds);
    out->median_s = median(a->seconds, a->n);
    out->mean_s = measured(out->window_s / a->n);
    out->min_s = out->max_s = measured(a->seconds[0]);
    for (uint32_t i = 1; i < a->n; i++) {
        out->min_s.v = fmin(out->min_s.v, a->seconds[i]);
        out->max_s.v = fmax(out->max_s.v, a->seconds[i]);
    }
    return MP_OK;
}

static void fill_rate(struct mp_val *sum, struct mp_val *rate, bool known, uint64_t v,
                      enum mp_basis basis, double s)
{
    if (!known || s <= 0)
        return;
    *sum = (struct mp_val){(double)v, basis};
    *rate = (struct mp_val){(double)v / s, basis};
}

static void fill_tokens(struct rp_report *r, const struct rp_acc *a)
{
    struct rp_tokens *t = &r->tokens;
    double s = r->timed.window_s;

    fill_rate(&t->useful, &t->useful_s, a->useful_known && a->useful_basis != MP_UNKNOWN, a->useful,
              a->useful_basis, s);
    fill_rate(&t->processed, &t->processed_s, a->processed_known, a->processed, MP_MEASURED, s);
    fill_rate(&t->trainable, &t->trainable_s, a->trainable_known, a->trainable, MP_MEASURED, s);
}

static int by_booked(const void *a, const void *b)
{
    const struct rp_phase *x = a, *y = b;

    if (x->booked_ns != y->booked_ns)
        return x->booked_ns < y->booked_ns ? 1 : -1;
    return x->phase != y->phase ? (int)x->phase - (int)y->phase : (int)x->pass - (int)y->pass;
}

static int fill_phases(struct rp_report *r, const struct rp_acc *a)
{
    r->phase = calloc(MP_PHASE_COUNT * MP_PASS_COUNT, sizeof *r->phase);
    if (!r->phase)
        return MP_ENOMEM;
    if (a->window_ns == 0)
        return MP_OK;
    for (int phase = 0; phase < MP_PHASE_COUNT; phase++)
        for (int pass = 0; pass < MP_PASS_COUNT; pass++) {
            uint64_t ns = a->booked_ns[phase][pass];
            struct rp_phase *row = &r->phase[r->n_phase];

            if (a->ops[phase][pass] == 0 && ns == 0)
                continue;
            *row = (struct rp_phase){.phase = (enum mp_phase)phase,
                                     .pass = (enum mp_pass)pass,
                                     .booked_ns = ns,
                                     .n = a->ops[phase][pass]};
            row->seconds = measured((double)ns * 1e-9);
            row->step_s = measured((double)ns * 1e-9 / a->n);
            row->ratio = measured((double)ns / (double)a->window_ns);
            r->n_phase++;
        }
    qsort(r->phase, r->n_phase, sizeof *r->phase, by_booked);
    r->idle_s = measured((double)a->idle_ns * 1e-9);
    r->idle_ratio = measured((double)a->idle_ns / (double)a->window_ns);
    return MP_OK;
}

static void fill_coverage(struct rp_report *r, const struct rp_acc *a, struct rp_profile *p)
{
    int64_t agent = rp_get_meta_int(p, "agent_cpu_ns", 0);
    int64_t from = rp_get_meta_int(p, "created_ns", 0), to = rp_get_meta_int(p, "updated_ns", 0);
    int64_t life = from >= 0 && to > from ? to - from : 0; /* a file may claim anything */
    static const char *const lost[] = {"n_dropped", "n_lost", "n_lapped"};

    r->coverage.own_s = (double)a->own_ns * 1e-9;
    for (size_t i = 0; i < countof(lost); i++)
        r->coverage.dropped += (uint64_t)rp_get_meta_int(p, lost[i], 0);
    r->coverage.unbalanced = (uint64_t)rp_get_meta_int(p, "n_unbalanced", 0);
    r->coverage.unmatched = (uint64_t)rp_get_meta_int(p, "n_unmatched", 0);
    if (agent > 0 && life > 0)
        r->coverage.agent_ratio = measured((double)agent / (double)life);
}

static enum scope choose(struct rp_report *r, const struct walk *w)
{
    if (w->n_whole > MP_MFU_KEEP)
        return STEADY;
    if (w->n_whole) {
        rp_note(r, "only %u whole step(s) were traced: the warm-up is in the times by phase",
                w->n_whole);
        return WHOLE;
    }
    if (w->acc[LOSSY].n) {
        rp_note(r, "every step lost records: step times hold, times by phase are lower bounds");
        return LOSSY;
    }
    if (w->acc[PARTIAL].window_ns)
        rp_note(r, "no whole step was recorded: times are those of the part that was");
    else if (w->n_timed)
        rp_note(r, "the GPU was not watched: there are step times, but no times by phase");
    else if (!r->run.is_empty)
        rp_note(r, "no step was recorded: the job ended, or the recording did, before the first "
                   "optimizer step");
    return PARTIAL;
}

static const struct rp_acc *choose_timed(const struct walk *w, const struct rp_acc *otherwise)
{
    if (w->n_timed > MP_MFU_KEEP)
        return &w->acc[TIMED_STEADY];
    return w->n_timed ? &w->acc[TIMED] : otherwise;
}

static void notes_add(struct rp_report *r, const struct walk *w)
{
    if (r->run.is_live)
        rp_note(r, "the run is still being recorded: these are the figures so far");
    else if (!r->run.is_complete && !r->run.is_empty)
        rp_note(r, "the recorder was cut short: the last second or so is missing");
    if (strcmp(r->run.end, "killed") == 0)
        rp_note(r, "the training process was killed: its last step is recorded in part");
    if (r->coverage.unbalanced)
        rp_note(r, "the time of %llu step(s) does not add up: a fault of moeprof, please report it",
                (unsigned long long)r->coverage.unbalanced);
    if (w->n_aside)
        rp_note(r, "moeprof stepped aside for another profiler in %u step(s): they are not counted",
                w->n_aside);
    if (r->coverage.dropped)
        rp_note(r,
                "%llu records were lost: kernel times of the %u steps concerned are lower bounds",
                (unsigned long long)r->coverage.dropped, r->step.incomplete);
}

static int fill(struct rp_report *r, struct rp_profile *p, struct walk *w, struct mp_err *err)
{
    enum scope scope = choose(r, w);
    const struct rp_acc *a = &w->acc[scope], *timed = choose_timed(w, a);
    static const struct rp_acc nothing;
    int rc;

    if (a->window_ns == 0) /* steps without a GPU operation are no traced ones */
        a = &nothing;
    if (fill_steps(&r->step, a, w->n_step) || fill_steps(&r->timed, timed, w->n_step) ||
        fill_phases(r, a))
        return mp_fail(err, MP_ENOMEM, "no memory for the report");
    r->n_untraced = w->acc[UNTRACED].n;
    r->untraced_s = median(w->acc[UNTRACED].seconds, w->acc[UNTRACED].n);
    fill_tokens(r, timed);
    fill_coverage(r, a, p);
    rp_mfu_work_fill(w->mfu, r);
    if ((rc = rp_analyze_kernels(r, p, scope_blocks[scope], err)) ||
        (rc = rp_analyze_experts(r, p, scope_blocks[scope], a, err)))
        return rc;
    notes_add(r, w);
    return MP_OK;
}

static int analyze(struct rp_report *r, struct rp_profile *p, const struct rp_options *o,
                   struct mp_err *err)
{
    struct walk *w = calloc(1, sizeof *w);
    int rc;

    if (!w)
        return mp_fail(err, MP_ENOMEM, "no memory for the report");
    w->err = err;
    rc = rp_analyze_run(r, p, err);
    if (rc == MP_OK)
        rc = rp_mfu_work_new(&w->mfu, r, p, o, err);
    if (rc == MP_OK)
        rc = rp_each_step(p, on_step, w, err);
    if (rc == MP_OK)
        rc = fill(r, p, w, err);
    rp_mfu_work_free(w->mfu);
    for (int i = 0; i < SCOPE_COUNT; i++)
        free(w->acc[i].seconds);
    free(w);
    return rc;
}

int rp_analyze(struct rp_report **out, struct rp_profile *p, const char *file,
               const struct rp_options *o, struct mp_err *err)
{
    struct rp_report *r = calloc(1, sizeof *r);
    int rc;

    *out = NULL;
    if (!r)
        return mp_fail(err, MP_ENOMEM, "no memory for the report");
    snprintf(r->run.file, sizeof r->run.file, "%s", file);
    rc = analyze(r, p, o, err);
    if (rc)
        rp_report_free(r);
    else
        *out = r;
    return rc;
}

void rp_report_free(struct rp_report *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n_kernel; i++)
        free(r->kernel[i].name);
    free(r->kernel);
    free(r->phase);
    free(r->layer);
    free(r->expert);
    free(r->step.seconds);
    free(r->timed.seconds);
    rp_spec_release(&r->spec);
    free(r);
}
