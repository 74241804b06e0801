/* Watches `moeprof top` from outside, as a user would: runs it in a pseudo-terminal, reads its screen, and
 * beside it reads the job's ring without any delay of its own.
 *
 * Usage: top_watch DIR PID SECONDS TOOL    (DIR: job directory, PID: the job, TOOL: the moeprof to run)
 * Prints "name value" lines: from a step's closing to its number on screen (ms), CPU share of top, keys. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "profiler/core/shm.h"
#include "profiler/core/step.h"

#define W         100
#define H         30
#define STEPS_MAX 100000u
#define EAGER_OPS 64u /* as the dashboard takes a step for ended */
#define NS_PER_S  1000000000u

struct watch {
    struct mp_reader reader;
    struct mp_steps *steps;
    uint64_t closed_ns[STEPS_MAX], shown_ns[STEPS_MAX]; /* 0: not */
    uint32_t newest_shown;
    int tty;
    pid_t top;
    /* the screen, of a vt100 */
    char cell[H][W + 1];
    int x, y;
    char escape[32];
    int n_escape; /* 0: none is being read */
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* ---- the screen --------------------------------------------------------------------------------- */

static void erase(struct watch *w, int y, int from, int to)
{
    memset(&w->cell[y][from], ' ', (size_t)(to - from));
}

static int bounded(int v, int n)
{
    return v < 0 ? 0 : v >= n ? n - 1 : v;
}

/* One whole control sequence: ESC [ numbers letter. What only colours is none of ours. */
static void sequence(struct watch *w)
{
    char kind = w->escape[w->n_escape - 1], *end;
    int a = (int)strtol(w->escape + 2, &end, 10),
        b = *end == ';' ? (int)strtol(end + 1, NULL, 10) : 0, n = a ? a : 1;

    if (kind == 'H' || kind == 'f') {
        w->y = bounded(n - 1, H);
        w->x = bounded((b ? b : 1) - 1, W);
    } else if (kind == 'A' || kind == 'B') {
        w->y = bounded(w->y + (kind == 'A' ? -n : n), H);
    } else if (kind == 'C' || kind == 'D') {
        w->x = bounded(w->x + (kind == 'D' ? -n : n), W);
    } else if (kind == 'K') {
        erase(w, w->y, a == 0 ? bounded(w->x, W) : 0, a == 1 ? bounded(w->x, W) + 1 : W);
    } else if (kind == 'J') {
        erase(w, w->y, a ? 0 : bounded(w->x, W), W);
        for (int y = a == 2 ? 0 : w->y + 1; y < H; y++)
            erase(w, y, 0, W);
    }
}

static void plain(struct watch *w, unsigned char ch)
{
    if (ch == 27)
        w->escape[w->n_escape++] = (char)ch;
    else if (ch == '\r')
        w->x = 0;
    else if (ch == '\n')
        w->y = bounded(w->y + 1, H);
    else if (ch == '\b')
        w->x = bounded(w->x - 1, W);
    else if (ch == '\t')
        w->x = bounded((w->x / 8 + 1) * 8, W);
    else if (ch >= 0x20 && (ch & 0xc0) != 0x80 &&
             w->x < W) /* a character beyond ASCII is one cell */
        w->cell[w->y][w->x++] = ch < 0x7f ? (char)ch : '#';
}

static void feed(struct watch *w, unsigned char ch)
{
    if (w->n_escape == 0) {
        plain(w, ch);
        return;
    }
    if (w->n_escape < (int)sizeof w->escape - 1)
        w->escape[w->n_escape++] = (char)ch;
    w->escape[w->n_escape] = 0;
    if (w->escape[1] == '['                          ? w->n_escape > 2 && ch >= 0x40
        : w->escape[1] == '(' || w->escape[1] == ')' ? w->n_escape == 3
                                                     : true) {
        if (w->escape[1] == '[')
            sequence(w);
        w->n_escape = 0;
    }
}

static bool shows(const struct watch *w, const char *text)
{
    for (int y = 0; y < H; y++)
        if (strstr(w->cell[y], text))
            return true;
    return false;
}

/* The newest step that the overview speaks of: "Step 140: ..", "..; now 151, not watched". */
static uint32_t step_shown(const struct watch *w)
{
    for (int y = 0; y < H; y++) {
        const char *step = strstr(w->cell[y], " Step "), *now = strstr(w->cell[y], "; now ");

        if (step && strchr(step, ':'))
            return (uint32_t)strtoul((now ? now : step) + 6, NULL, 10);
    }
    return 0;
}

static void look(struct watch *w)
{
    unsigned char bytes[4096];
    ssize_t n;
    uint32_t step;

    while ((n = read(w->tty, bytes, sizeof bytes)) > 0)
        for (ssize_t i = 0; i < n; i++)
            feed(w, bytes[i]);
    step = step_shown(w);
    for (; w->newest_shown < step && step < STEPS_MAX; w->newest_shown++)
        w->shown_ns[w->newest_shown + 1] = now_ns();
}

/* ---- the ring ----------------------------------------------------------------------------------- */

static void on_step(void *arg, const struct mp_step *step)
{
    struct watch *w = arg;

    if (step->step < STEPS_MAX && !(step->flags & (MP_STEP_PARTIAL | MP_STEP_ASIDE)))
        w->closed_ns[step->step] = now_ns();
}

static void drain(struct watch *w)
{
    union mp_record record[4096];
    size_t n;

    while ((n = mp_reader_read(&w->reader, record, 4096)) > 0)
        mp_steps_feed(w->steps, record, n);
}

/* Both, a thousand times a second. */
static void watch_for(struct watch *w, double seconds)
{
    uint64_t end = now_ns() + (uint64_t)(seconds * NS_PER_S);

    while (now_ns() < end) {
        struct pollfd fd = {w->tty, POLLIN, 0};

        drain(w);
        if (poll(&fd, 1, 1) > 0)
            look(w);
        if (fd.revents & POLLHUP)
            return;
    }
}

/* ---- top ---------------------------------------------------------------------------------------- */

static void top_start(struct watch *w, const char *tool, const char *pid)
{
    struct winsize size = {.ws_row = H, .ws_col = W};
    char *name;
    int end;

    w->tty = posix_openpt(O_RDWR | O_NOCTTY);
    if (w->tty < 0 || grantpt(w->tty) || unlockpt(w->tty) || !(name = ptsname(w->tty)))
        exit(1);
    end = open(name, O_RDWR | O_NOCTTY);
    ioctl(end, TIOCSWINSZ, &size);
    w->top = fork();
    if (w->top == 0) {
        setsid();
        ioctl(end, TIOCSCTTY, 0);
        for (int fd = 0; fd < 3; fd++)
            dup2(end, fd);
        setenv("TERM", "vt100", 1);
        execl(tool, tool, "top", pid, (char *)NULL);
        _exit(127);
    }
    close(end);
    fcntl(w->tty, F_SETFL, O_NONBLOCK);
}

/* CPU time of top so far. */
static double cpu_s(const struct watch *w)
{
    char path[64], text[1024], *at;
    unsigned long user = 0, kernel = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)w->top);
    f = fopen(path, "r");
    text[f ? fread(text, 1, sizeof text - 1, f) : 0] = 0;
    if (f)
        fclose(f);
    at = strrchr(text, ')');
    if (at)
        sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel);
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

/* Presses each key and waits for what it should show; returns how many did. */
static int keys_try(struct watch *w, int *n)
{
    static const struct {
        const char *key, *text;
    } row[] = {{"2", "layer and expert"},
               {"3", "Kernels by name"},
               {"4", "At the mark"},
               {"5", "What works"},
               {"?", "pause the display"},
               {"\033", "What works"},
               {"1", " Step "},
               {" ", "PAUSED"},
               {" ", "every 0.5 s"},
               {"m", "by PaLM"}};
    int good = 0;

    *n = (int)(sizeof row / sizeof *row);
    for (int i = 0; i < *n; i++) {
        uint64_t end = now_ns() + 2u * NS_PER_S;

        if (write(w->tty, row[i].key, strlen(row[i].key)) < 0)
            return good;
        do
            watch_for(w, 0.05);
        while (!shows(w, row[i].text) && now_ns() < end);
        good += shows(w, row[i].text);
        if (!shows(w, row[i].text))
            printf("key_%d_without '%s'\n", i, row[i].text);
    }
    return good;
}

static bool top_end(struct watch *w)
{
    int status = 1;
    uint64_t end = now_ns() + 3u * NS_PER_S;
    struct termios t;

    if (write(w->tty, "q", 1) != 1)
        return false;
    while (waitpid(w->top, &status, WNOHANG) == 0 && now_ns() < end)
        watch_for(w, 0.05);
    return status == 0 && tcgetattr(w->tty, &t) == 0 && (t.c_lflag & ICANON) && (t.c_lflag & ECHO);
}

/* ---- figures ------------------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void latencies(const struct watch *w, uint64_t from_ns, uint64_t to_ns)
{
    static double ms[STEPS_MAX];
    size_t n = 0, never = 0;

    for (uint32_t s = 0; s < STEPS_MAX; s++) {
        uint64_t closed = w->closed_ns[s], shown = w->shown_ns[s];

        if (closed < from_ns || closed > to_ns)
            continue;
        if (!shown)
            never++;
        else
            ms[n++] = shown > closed ? (double)(shown - closed) / 1e6 : 0;
    }
    qsort(ms, n, sizeof *ms, by_value);
    printf("steps %zu\nnever_shown %zu\n", n, never);
    if (n)
        printf("latency_ms_p50 %.0f\nlatency_ms_p99 %.0f\nlatency_ms_max %.0f\n", ms[n / 2],
               ms[(n * 99 + 99) / 100 - 1], ms[n - 1]);
}

int main(int argc, char **argv)
{
    struct watch *w = calloc(1, sizeof *w);
    uint64_t from, to;
    double cpu;
    int n = 0, good;
    struct mp_err err = {.msg = "usage: top_watch DIR PID SECONDS TOOL"};

    if (!w || argc != 5 || mp_reader_open(&w->reader, argv[1], atoi(argv[2]), false, &err)) {
        fprintf(stderr, "top_watch: %s\n", err.msg);
        return 1;
    }
    w->steps = mp_steps_new(on_step, w);
    mp_steps_eager(w->steps, EAGER_OPS);
    for (int y = 0; y < H; y++)
        erase(w, y, 0, W);
    top_start(w, argv[4], argv[2]);
    watch_for(w, 2); /* it starts, and reads what the ring holds */
    from = now_ns();
    cpu = cpu_s(w);
    watch_for(w, atof(argv[3]));
    to = now_ns() - NS_PER_S; /* a step that has just closed has a second to appear */
    printf("cpu_ratio %.5f\n", (cpu_s(w) - cpu) / atof(argv[3]));
    good = keys_try(w, &n);
    printf("keys_good %d\nkeys %d\n", good, n);
    printf("left_well %d\n", top_end(w));
    latencies(w, from, to);
    mp_steps_free(w->steps);
    mp_reader_close(&w->reader);
    free(w);
    return 0;
}
