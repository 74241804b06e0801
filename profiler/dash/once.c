/* Text: the same view as on the terminal, on a grid that nobody scrolls. */
#include "profiler/dash/once.h"

#include "profiler/dash/view.h"

#define ONCE_W 100
#define ONCE_H 26

static int print_job(const struct dash_model *m, const struct dash_job *job, bool ascii, FILE *out)
{
    struct dash_rect head = {0, 0, ONCE_W, 1};
    struct dash_layout l;
    struct dash_cells c;
    int x = 0;

    if (dash_cells_init(&c, ONCE_W, ONCE_H) != MP_OK)
        return MP_ENOMEM;
    c.ascii = ascii;
    c.mono = true;
    if (job->pid > 0)
        x = dash_putf(&c, head, x, 0, DASH_BOLD, "PID %d  ", job->pid);
    if (job->rank >= 0)
        x = dash_putf(&c, head, x, 0, DASH_NORMAL, "rank %d/%d  ", job->rank, job->world);
    dash_put_fit(&c, head, x, 0, ONCE_W - x, DASH_NORMAL, job->title);
    dash_layout(&l, DASH_OVERVIEW, ONCE_W, ONCE_H, 1, false);
    dash_view_overview.draw(m, job, &l, &c);
    dash_cells_print(&c, 0, 1, out);
    dash_cells_print(&c, 2, ONCE_H - 3, out); /* the tabs' and the footer's rows stay out */
    dash_cells_release(&c);
    return MP_OK;
}

int dash_once_text(const struct dash_model *m, bool ascii, FILE *out)
{
    int n, rc = MP_OK;
    struct dash_job *const *job = dash_model_shown(m, &n);

    for (int i = 0; i < n && rc == MP_OK; i++) {
        if (i > 0)
            fputc('\n', out);
        rc = print_job(m, job[i], ascii, out);
    }
    return rc;
}
