/* Curses draws what differs; on top of that unchanged rows are not even handed to it. */
#include "profiler/dash/term.h"

#include "profiler/dash/theme.h"
#include "profiler/dash/utf8.h"

#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool dash_term_utf8(void)
{
    const char *codeset = nl_langinfo(CODESET);

    return codeset && (strcmp(codeset, "UTF-8") == 0 || strcmp(codeset, "utf8") == 0);
}

#if HAVE_NCURSES

#define NCURSES_WIDECHAR 1
#include <ncurses.h>

#include <poll.h>
#include <signal.h>
#include <term.h>
#include <termios.h>
#include <time.h>

#define RESTORE_BYTES 256

static struct {
    bool open, ascii, no_color;
    int colours;
    enum dash_theme theme; /* for which the pairs are set */
    bool paired;
    struct dash_cells last; /* what the screen shows */
    struct dash_utf8_feed in;
} term;

/* For the handler of fatal signals: what is written must be ready before. */
static char restore_text[RESTORE_BYTES];
static size_t restore_bytes;
static struct termios restore_mode;
static volatile sig_atomic_t asked_to_end;

static const int ending[] = {SIGINT, SIGTERM, SIGHUP};
static const int fatal[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};

static void on_ending(int sig)
{
    (void)sig;
    asked_to_end = 1;
}

static void on_fatal(int sig)
{
    ssize_t n = write(STDOUT_FILENO, restore_text, restore_bytes);

    (void)n;
    tcsetattr(STDOUT_FILENO, TCSANOW, &restore_mode);
    raise(sig); /* SA_RESETHAND: the default now */
}

static void remember(const char *capability)
{
    char *text = tigetstr(capability);
    size_t n = text && text != (char *)-1 ? strlen(text) : 0;

    if (restore_bytes + n > RESTORE_BYTES)
        return;
    memcpy(restore_text + restore_bytes, text ? text : "", n);
    restore_bytes += n;
}

static void catch_signals(void)
{
    struct sigaction act;

    memset(&act, 0, sizeof act);
    sigemptyset(&act.sa_mask);
    act.sa_handler = on_ending;
    for (size_t i = 0; i < countof(ending); i++)
        sigaction(ending[i], &act, NULL);
    act.sa_handler = on_fatal;
    act.sa_flags = (int)(SA_RESETHAND | SA_NODEFER);
    for (size_t i = 0; i < countof(fatal); i++)
        sigaction(fatal[i], &act, NULL);
    signal(SIGPIPE, SIG_IGN);
}

bool dash_term_possible(void)
{
    const char *name = getenv("TERM");

    return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && name && *name &&
           strcmp(name, "dumb") != 0;
}

int dash_term_open(const struct dash_term_options *o, struct mp_err *err)
{
    const char *no_color = getenv("NO_COLOR");
    SCREEN *screen;

    tcgetattr(STDOUT_FILENO, &restore_mode);
    set_escdelay(25); /* ms: a bare Esc shall not wait a second for the rest of a sequence */
    screen = newterm(NULL, stdout, stdin);
    if (!screen)
        return mp_fail(err, MP_ENOTSUP,
                       "cannot open a terminal of type '%.60s': --once prints text instead",
                       getenv("TERM") ? getenv("TERM") : "");
    set_term(screen);
    term.open = true;
    term.ascii = o->ascii || !dash_term_utf8();
    term.no_color = o->no_color || (no_color && *no_color);
    if (!term.no_color && has_colors()) {
        start_color();
        use_default_colors();
        term.colours = COLORS;
    }
    cbreak();
    noecho();
    nonl();
    curs_set(0);
    keypad(stdscr, TRUE);
    restore_bytes = 0;
    remember("sgr0");
    remember("cnorm");
    remember("rmkx");
    remember("rmcup");
    catch_signals();
    atexit(dash_term_close);
    return MP_OK;
}

void dash_term_close(void)
{
    if (!term.open)
        return;
    term.open = false;
    dash_cells_release(&term.last);
    endwin();
}

void dash_term_size(int *w, int *h)
{
    getmaxyx(stdscr, *h, *w);
}

bool dash_term_ascii(void)
{
    return term.ascii;
}

bool dash_term_mono(enum dash_theme theme)
{
    return term.colours < 8 || theme == DASH_THEME_MONO;
}

/* ---- out ------------------------------------------------------------------------------------ */

static attr_t attributes(unsigned attr)
{
    return (attr & DASH_ATTR_BOLD ? A_BOLD : 0) | (attr & DASH_ATTR_REVERSE ? A_REVERSE : 0) |
           (attr & DASH_ATTR_DIM ? A_DIM : 0);
}

static void set_pairs(enum dash_theme theme)
{
    for (int i = 1; i < DASH_STYLE_COUNT && term.colours >= 8; i++) {
        struct dash_look look = dash_look(theme, (enum dash_style)i, term.colours);

        init_pair((short)i, look.fg, look.bg);
    }
    term.theme = theme;
    term.paired = true;
}

/* Cells of one style from x on; returns the column after. */
static int put_run(const struct dash_cell *row, int w, int x, int y, enum dash_theme theme)
{
    wchar_t text[512];
    uint32_t style = row[x].style;
    struct dash_look look = dash_look(theme, (enum dash_style)style, term.colours);
    int begin = x, n = 0;

    for (; x < w && n + 1 < (int)countof(text) && row[x].style == style; x++)
        if (row[x].ch)
            text[n++] = (wchar_t)row[x].ch;
    attr_set(attributes(look.attr), look.fg == -1 && look.bg == -1 ? 0 : (short)style, NULL);
    mvaddnwstr(y, begin, text, n);
    return x;
}

static bool same_row(const struct dash_cells *c, int y)
{
    size_t at = (size_t)y * (size_t)c->w;

    return memcmp(&c->cell[at], &term.last.cell[at], (size_t)c->w * sizeof *c->cell) == 0;
}

void dash_term_show(const struct dash_cells *c, enum dash_theme theme, bool anew)
{
    bool fits = term.last.w == c->w && term.last.h == c->h;

    if (!term.paired || term.theme != theme) {
        set_pairs(theme);
        anew = true;
    }
    if (!fits) {
        dash_cells_release(&term.last);
        anew = true;
        if (dash_cells_init(&term.last, c->w, c->h) != MP_OK)
            return;
    }
    if (anew)
        clearok(stdscr, TRUE);
    for (int y = 0; y < c->h; y++) {
        if (!anew && same_row(c, y))
            continue;
        for (int x = 0; x < c->w;)
            x = put_run(&c->cell[(size_t)y * (size_t)c->w], c->w, x, y, theme);
    }
    memcpy(term.last.cell, c->cell, (size_t)c->w * (size_t)c->h * sizeof *c->cell);
    refresh();
}

/* ---- in ------------------------------------------------------------------------------------- */

static uint32_t special_key(int key)
{
    static const struct {
        int curses;
        uint32_t key;
    } row[] = {
        {KEY_UP, DASH_KEY_UP},
        {KEY_DOWN, DASH_KEY_DOWN},
        {KEY_LEFT, DASH_KEY_LEFT},
        {KEY_RIGHT, DASH_KEY_RIGHT},
        {KEY_PPAGE, DASH_KEY_PGUP},
        {KEY_NPAGE, DASH_KEY_PGDN},
        {KEY_HOME, DASH_KEY_HOME},
        {KEY_END, DASH_KEY_END},
        {KEY_BTAB, DASH_KEY_BACKTAB},
        {KEY_ENTER, DASH_KEY_ENTER},
        {KEY_BACKSPACE, DASH_KEY_BACKSPACE},
        {KEY_F(1), DASH_KEY_F1},
        {KEY_F(6), DASH_KEY_F6},
        {KEY_F(10), DASH_KEY_F10},
        {KEY_RESIZE, DASH_KEY_RESIZE},
    };

    for (size_t i = 0; i < countof(row); i++)
        if (row[i].curses == key)
            return row[i].key;
    return DASH_KEY_NONE;
}

static uint32_t plain_key(uint32_t key)
{
    switch (key) {
    case 27:
        return DASH_KEY_ESC;
    case '\t':
        return DASH_KEY_TAB;
    case '\r':
    case '\n':
        return DASH_KEY_ENTER;
    case 8:
    case 127:
        return DASH_KEY_BACKSPACE;
    default:
        return key;
    }
}

/* A terminal that hung up answers at once and for ever: that must not become a busy loop. */
static void check_hangup(void)
{
    struct pollfd fd = {STDIN_FILENO, POLLIN, 0};

    if (poll(&fd, 1, 0) > 0 && (fd.revents & (POLLHUP | POLLERR | POLLNVAL)))
        asked_to_end = 1;
}

/* By bytes: get_wch() keeps what follows a byte that is no UTF-8 until many more have come. */
uint32_t dash_term_key(int timeout_ms)
{
    uint32_t ch;
    int key;

    timeout(timeout_ms);
    while ((key = getch()) != ERR) {
        if (key > UINT8_MAX) {
            term.in.n = 0;
            return special_key(key);
        }
        ch = dash_utf8_feed(&term.in, (unsigned char)key);
        if (ch)
            return plain_key(ch);
        timeout(0); /* the rest of a character is there, or comes with the next call */
    }
    check_hangup();
    return DASH_KEY_NONE;
}

bool dash_term_ended(void)
{
    return asked_to_end;
}

#else

bool dash_term_possible(void)
{
    return false;
}

int dash_term_open(const struct dash_term_options *o, struct mp_err *err)
{
    (void)o;
    return mp_fail(err, MP_ENOTSUP, "built without ncurses: --once prints text instead");
}

void dash_term_close(void)
{
}

void dash_term_size(int *w, int *h)
{
    *w = 80;
    *h = 24;
}

bool dash_term_ascii(void)
{
    return true;
}

bool dash_term_mono(enum dash_theme theme)
{
    (void)theme;
    return true;
}

void dash_term_show(const struct dash_cells *c, enum dash_theme theme, bool anew)
{
    (void)c;
    (void)theme;
    (void)anew;
}

uint32_t dash_term_key(int timeout_ms)
{
    (void)timeout_ms;
    return DASH_KEY_NONE;
}

bool dash_term_ended(void)
{
    return true;
}

#endif
