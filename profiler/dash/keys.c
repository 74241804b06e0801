/* Actions are small functions on the model; where a key means something else on another screen, its
 * action asks for the screen. */
#include "profiler/dash/keys.h"

#include "profiler/dash/utf8.h"
#include "profiler/dash/view.h"

#include <string.h>

static int *row(struct dash_model *m)
{
    return &m->ui.row[m->ui.screen];
}

static int *col(struct dash_model *m)
{
    return &m->ui.col[m->ui.screen];
}

static void act_quit(struct dash_model *m, int arg)
{
    (void)arg;
    m->ui.quit = true;
}

static void act_screen(struct dash_model *m, int screen)
{
    if (dash_frame_has(m, (enum dash_screen)screen))
        m->ui.screen = (enum dash_screen)screen;
}

static void act_next_screen(struct dash_model *m, int step)
{
    int n = DASH_HELP; /* help is not among the tabs */

    if (m->ui.screen == DASH_HELP) {
        m->ui.screen = m->ui.before_help;
        return;
    }
    do
        m->ui.screen = (enum dash_screen)(((int)m->ui.screen + step + n) % n);
    while (!dash_frame_has(m, m->ui.screen));
}

static void act_help(struct dash_model *m, int arg)
{
    (void)arg;
    if (m->ui.screen == DASH_HELP) {
        m->ui.screen = m->ui.before_help;
        return;
    }
    m->ui.before_help = m->ui.screen;
    m->ui.screen = DASH_HELP;
}

/* From help to the screen before, from a filter to none, from any other screen to the first. */
static void act_back(struct dash_model *m, int arg)
{
    (void)arg;
    if (m->ui.screen == DASH_HELP)
        m->ui.screen = m->ui.before_help;
    else if (m->ui.screen == DASH_KERNELS && m->ui.expanded)
        m->ui.expanded = false;
    else if (m->ui.screen == DASH_KERNELS && m->ui.filter[0])
        m->ui.filter[0] = 0;
    else
        m->ui.screen = DASH_OVERVIEW;
}

static void act_row(struct dash_model *m, int step)
{
    *row(m) += step;
}

static void act_col(struct dash_model *m, int step)
{
    *col(m) += m->ui.screen == DASH_TIMELINE ? step * 4 : step;
}

static void act_page(struct dash_model *m, int step)
{
    *row(m) += step * (m->ui.page > 1 ? m->ui.page - 1 : 1);
}

static void act_end(struct dash_model *m, int last)
{
    *row(m) = last ? 1 << 30 : 0;
}

static void act_filter(struct dash_model *m, int arg)
{
    (void)arg;
    m->ui.screen = DASH_KERNELS;
    m->ui.editing = true;
    memcpy(m->ui.filter_before, m->ui.filter, sizeof m->ui.filter);
}

static void act_sort(struct dash_model *m, int step)
{
    if (m->ui.screen == DASH_KERNELS)
        m->ui.sort = (enum dash_sort)(((int)m->ui.sort + step + DASH_SORT_COUNT) % DASH_SORT_COUNT);
}

static void act_reverse(struct dash_model *m, int arg)
{
    (void)arg;
    if (m->ui.screen == DASH_KERNELS)
        m->ui.reverse = !m->ui.reverse;
}

static void act_group(struct dash_model *m, int arg)
{
    (void)arg;
    if (m->ui.screen == DASH_KERNELS)
        m->ui.group = (enum dash_group)((m->ui.group + 1) % DASH_GROUP_COUNT);
}

/* Experts: load or time. */
static void act_toggle(struct dash_model *m, int arg)
{
    (void)arg;
    if (m->ui.screen == DASH_EXPERTS)
        m->ui.expert_metric = m->ui.expert_metric == DASH_LOAD ? DASH_TIME : DASH_LOAD;
}

static void act_expand(struct dash_model *m, int arg)
{
    (void)arg;
    m->ui.expanded = !m->ui.expanded;
}

static void act_pause(struct dash_model *m, int arg)
{
    (void)arg;
    dash_model_pause(m, !m->paused);
}

static void act_job(struct dash_model *m, int step)
{
    dash_model_select(m, step);
}

static void act_interval(struct dash_model *m, int longer)
{
    static const double s[] = {0.1, 0.2, 0.5, 1, 2, 5, 10};
    size_t i = 0;

    while (i + 1 < countof(s) && s[i] + 1e-9 < m->ui.interval_s)
        i++;
    if (longer)
        i = i + 1 < countof(s) ? i + 1 : i;
    else
        i = i > 0 ? i - 1 : 0;
    m->ui.interval_s = s[i];
}

static void act_theme(struct dash_model *m, int arg)
{
    (void)arg;
    m->ui.theme = (enum dash_theme)((m->ui.theme + 1) % DASH_THEME_COUNT);
}

static void act_convention(struct dash_model *m, int arg)
{
    (void)arg;
    m->ui.convention = (enum dash_convention)((m->ui.convention + 1) % DASH_CONVENTION_COUNT);
}

static void act_redraw(struct dash_model *m, int arg)
{
    (void)arg;
    m->ui.redraw = true;
}

static void act_order(struct dash_model *m, int order)
{
    m->ui.order = (enum dash_order)order;
}

static void act_ab_end(struct dash_model *m, int arg)
{
    (void)arg;
    if (m->ui.screen == DASH_AB)
        m->ui.order = DASH_ORDER_AB;
}

struct binding {
    uint32_t key;
    void (*act)(struct dash_model *m, int arg);
    int arg;
};

static const struct binding binding[] = {
    {'q', act_quit, 0},
    {DASH_KEY_F10, act_quit, 0},
    {'?', act_help, 0},
    {'h', act_help, 0},
    {DASH_KEY_F1, act_help, 0},
    {'1', act_screen, DASH_OVERVIEW},
    {'2', act_screen, DASH_EXPERTS},
    {'3', act_screen, DASH_KERNELS},
    {'4', act_screen, DASH_TIMELINE},
    {'5', act_screen, DASH_LOG},
    {'6', act_screen, DASH_AB},
    {DASH_KEY_TAB, act_next_screen, 1},
    {DASH_KEY_BACKTAB, act_next_screen, -1},
    {DASH_KEY_ESC, act_back, 0},
    {DASH_KEY_UP, act_row, -1},
    {'k', act_row, -1},
    {DASH_KEY_DOWN, act_row, 1},
    {'j', act_row, 1},
    {DASH_KEY_LEFT, act_col, -1},
    {DASH_KEY_RIGHT, act_col, 1},
    {'l', act_col, 1},
    {DASH_KEY_PGUP, act_page, -1},
    {DASH_KEY_PGDN, act_page, 1},
    {DASH_KEY_HOME, act_end, 0},
    {'g', act_end, 0},
    {DASH_KEY_END, act_end, 1},
    {'G', act_end, 1},
    {'/', act_filter, 0},
    {'<', act_sort, -1},
    {'>', act_sort, 1},
    {DASH_KEY_F6, act_sort, 1},
    {'r', act_reverse, 0},
    {'b', act_group, 0},
    {'t', act_toggle, 0},
    {'e', act_expand, 0},
    {DASH_KEY_ENTER, act_expand, 0},
    {' ', act_pause, 0},
    {'[', act_job, -1},
    {'p', act_job, -1},
    {']', act_job, 1},
    {'n', act_job, 1},
    {'+', act_interval, 1},
    {'=', act_interval, 1},
    {'-', act_interval, 0},
    {'c', act_theme, 0},
    {'m', act_convention, 0},
    {'L' - '@', act_redraw, 0},
    {'a', act_order, DASH_ORDER_SWAP},
    {'w', act_order, DASH_ORDER_REPORT},
    {'x', act_ab_end, 0},
};

static const struct dash_key_help help[] = {
    {"Everywhere", NULL},
    {"1 .. 6, Tab", "screens; 6 where a before/after ran (moeprof ab)"},
    {"[ ] or p n", "previous, next job"},
    {"Space", "pause the display; collection goes on"},
    {"+ -", "longer, shorter time between drawings"},
    {"m", "whose MFU: ours, PaLM's, TRL's, adjusted, total_flos"},
    {"w", "write an HTML report into the working directory"},
    {"a", "swap experts to moeprof's kernels or back; asks first"},
    {"c", "colours: for dark, for light terminals, none"},
    {"Ctrl-L", "draw everything anew"},
    {"? h F1", "this help"},
    {"Esc", "back"},
    {"q F10", "quit; the training goes on"},
    {"Lists", NULL},
    {"arrows, j k l", "move"},
    {"PgUp PgDn, g G", "by pages, to the first, to the last"},
    {"Experts", NULL},
    {"t", "load (tokens) or GPU time"},
    {"arrows", "choose a layer and an expert"},
    {"Kernels", NULL},
    {"/", "filter: words of a name or phase, L12 for layer 12"},
    {"< > F6", "column to sort by"},
    {"r", "reverse the order"},
    {"b", "rows by name, by layer, by phase, by all three"},
    {"e Enter", "the whole name"},
    {"Timeline", NULL},
    {"left right", "move the mark"},
    {"A/B", NULL},
    {"j k", "choose an arm"},
    {"x", "end the before/after, asks first; the job goes on"},
};

const struct dash_key_help *dash_keys_help(size_t *n)
{
    *n = countof(help);
    return help;
}

/* ---- typing a filter ------------------------------------------------------------------------ */

static void filter_append(struct dash_ui *ui, uint32_t ch)
{
    char bytes[4];
    size_t n = dash_utf8_put(bytes, ch), len = strlen(ui->filter);

    if (dash_char_width(ch) == 0 || len + n >= sizeof ui->filter)
        return;
    memcpy(ui->filter + len, bytes, n);
    ui->filter[len + n] = 0;
}

static void filter_erase(struct dash_ui *ui)
{
    size_t len = strlen(ui->filter);

    while (len > 0 && ((unsigned char)ui->filter[len - 1] & 0xc0) == 0x80)
        len--;
    ui->filter[len ? len - 1 : 0] = 0;
}

static void edit_filter(struct dash_ui *ui, uint32_t key)
{
    if (key == DASH_KEY_ENTER) {
        ui->editing = false;
    } else if (key == DASH_KEY_ESC) {
        ui->editing = false;
        memcpy(ui->filter, ui->filter_before, sizeof ui->filter);
    } else if (key == DASH_KEY_BACKSPACE) {
        filter_erase(ui);
    } else if (key < DASH_KEY_UP) {
        filter_append(ui, key);
    }
}

/* ---- a dialog ------------------------------------------------------------------------------- */

/* True when the key was the dialog's. A question takes all of them; what was said goes away at any key. */
static bool answer(struct dash_ui *ui, uint32_t key)
{
    struct dash_dialog *d = &ui->dialog;
    bool leaves = key == DASH_KEY_ESC || key == DASH_KEY_ENTER;

    switch (d->kind) {
    case DASH_ASK:
        if (key == 'y' || key == 'Y')
            ui->order = d->yes;
        else if (key == 'n' || key == 'N' || key == 'q' || key == DASH_KEY_ESC)
            ui->order = DASH_ORDER_CANCEL;
        else
            return key != DASH_KEY_RESIZE;
        d->kind = DASH_NO_DIALOG;
        return true;
    case DASH_BUSY:
        if (key == DASH_KEY_ESC)
            ui->order = DASH_ORDER_CANCEL;
        return key == DASH_KEY_ESC;
    case DASH_SAY:
        if (key == DASH_KEY_RESIZE)
            return false;
        d->kind = DASH_NO_DIALOG;
        return leaves;
    case DASH_NO_DIALOG:
        break;
    }
    return false;
}

bool dash_key_press(struct dash_model *m, uint32_t key)
{
    if (answer(&m->ui, key))
        return true;
    if (m->ui.editing) {
        edit_filter(&m->ui, key);
        return true;
    }
    for (size_t i = 0; i < countof(binding); i++) {
        if (binding[i].key != key)
            continue;
        binding[i].act(m, binding[i].arg);
        return true;
    }
    return false;
}
