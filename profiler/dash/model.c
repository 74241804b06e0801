/* Jobs in order of rank and PID; selection by key, so that it stays when another job goes. */
#include "profiler/dash/model.h"

#include <stdlib.h>
#include <string.h>

void dash_model_init(struct dash_model *m)
{
    memset(m, 0, sizeof *m);
    m->ui.interval_s = 0.5;
}

static void thaw(struct dash_model *m)
{
    for (int i = 0; i < m->n_frozen; i++)
        dash_job_free(m->frozen[i]);
    m->n_frozen = 0;
    m->paused = false;
}

void dash_model_release(struct dash_model *m)
{
    thaw(m);
    for (int i = 0; i < m->n_job; i++)
        dash_job_free(m->job[i]);
    free(m->kernel);
    memset(m, 0, sizeof *m);
}

struct dash_job *dash_model_find(const struct dash_model *m, uint64_t key)
{
    for (int i = 0; i < m->n_job; i++)
        if (m->job[i]->key == key)
            return m->job[i];
    return NULL;
}

struct dash_job *dash_model_open(struct dash_model *m, uint64_t key, int pid)
{
    struct dash_job *job = dash_model_find(m, key);

    if (job || m->n_job == DASH_JOB_MAX)
        return job;
    job = dash_job_new(key, pid);
    if (!job)
        return NULL;
    job->watched_ns = m->now_ns;
    m->job[m->n_job++] = job;
    return job;
}

void dash_model_drop(struct dash_model *m, uint64_t key)
{
    for (int i = 0; i < m->n_job; i++) {
        if (m->job[i]->key != key)
            continue;
        dash_job_free(m->job[i]);
        memmove(&m->job[i], &m->job[i + 1], (size_t)(m->n_job - i - 1) * sizeof *m->job);
        m->n_job--;
        return;
    }
}

static int by_rank(const void *pa, const void *pb)
{
    const struct dash_job *a = *(struct dash_job *const *)pa, *b = *(struct dash_job *const *)pb;

    return a->rank != b->rank ? a->rank - b->rank : a->pid - b->pid;
}

void dash_model_sort(struct dash_model *m)
{
    qsort(m->job, (size_t)m->n_job, sizeof *m->job, by_rank);
}

struct dash_job *const *dash_model_shown(const struct dash_model *m, int *n)
{
    *n = m->paused ? m->n_frozen : m->n_job;
    return m->paused ? m->frozen : m->job;
}

const struct dash_job *dash_model_job(const struct dash_model *m, int *index)
{
    int n, at = 0;
    struct dash_job *const *job = dash_model_shown(m, &n);
    for (int i = n; i-- > 0;)
        if (m->ui.job_key ? job[i]->key == m->ui.job_key : job[i]->alive)
            at = i;
    if (index)
        *index = at;
    return n ? job[at] : NULL;
}

void dash_model_select(struct dash_model *m, int step)
{
    int n, at;
    struct dash_job *const *job = dash_model_shown(m, &n);

    if (!dash_model_job(m, &at))
        return;
    m->ui.job_key = job[(at + step % n + n) % n]->key;
}

int dash_model_pause(struct dash_model *m, bool on)
{
    thaw(m);
    if (!on)
        return MP_OK;
    m->paused = true;
    for (int i = 0; i < m->n_job; i++) {
        m->frozen[i] = dash_job_dup(m->job[i]);
        if (!m->frozen[i]) {
            thaw(m);
            return MP_ENOMEM;
        }
        m->n_frozen++;
    }
    return MP_OK;
}

/* ---- fitting -------------------------------------------------------------------------------- */

static int clamp(int v, int lo, int hi)
{
    return v > hi ? (hi > lo ? hi : lo) : v < lo ? lo : v;
}

/* Moves *top so that `at` is among the `page` shown, and no empty rows are shown at the end. */
static void scroll_to(int *top, int at, int page, int n)
{
    if (at < *top)
        *top = at;
    if (at >= *top + page)
        *top = at - page + 1;
    *top = clamp(*top, 0, n - page);
}

void dash_model_query(struct dash_model *m)
{
    struct dash_query q = {m->ui.group, m->ui.sort, m->ui.reverse, m->ui.filter};
    const struct dash_job *job = dash_model_job(m, NULL);
    int n;

    free(m->kernel);
    m->kernel = NULL;
    n = job && m->ui.screen == DASH_KERNELS ? dash_kernels_query(&job->kernels, &q, &m->kernel) : 0;
    m->n_kernel = n < 0 ? 0 : n;
}

void dash_model_fit(struct dash_model *m, struct dash_extent e)
{
    struct dash_ui *ui = &m->ui;
    enum dash_screen screen = ui->screen;

    ui->page = e.page < 1 ? 1 : e.page;
    ui->row[screen] = clamp(ui->row[screen], 0, e.rows - 1);
    ui->col[screen] = clamp(ui->col[screen], 0, e.cols - 1);
    scroll_to(&ui->top[screen], ui->row[screen], ui->page, e.rows);
}
