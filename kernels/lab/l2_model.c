/* l2_model: what the Hopper path's products read from memory, by a model of L2, to choose an order of tiles by.
 *
 *   l2_model SHAPE TOKENS [-c MB] [-d DRIFT] [-g ROWS] [-s]
 *       -c  what L2 keeps, 38 MB       -d  standard deviation of a step's time, 0.03 of it
 *       -g  row tiles of an expert before the next are begun, 9       -s  tiles shared out by number, not drawn
 *
 * 66 pairs of blocks take pair tiles of 256 x 256, 64 k a step. A step asks for 32 KB of rows and 32 KB of columns, by name;
 * what L2 (least recently used goes first) does not hold comes from memory. What is written passes through L2 too. Not in it:
 * two halves of L2 that both hold what both sides read, and gathered rows that two experts share.
 * Of what a profiler counted (H200, one call, v17 but for groups of up to 17) it gives 0.84 to 1.02 at qwen3-30b and dots1, 32768
 * tokens; 0.57 to 0.88 at gptoss20b, whose tiles at once are more than L2 keeps (of the weight gradients 1.02 and 0.77 with
 * -d 0.01); 1.00 to 1.35 at qwen3-30b and qwen3-235b, 4096 tokens, where L2 still has some of it from the step before. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/lab/shapes.h"

enum { MAX_TOKEN = 1 << 17, N_PAIR = 66, TILE = 256, STEP = 64, UNIT = TILE * STEP * 2, N_BUCKET = 1 << 20 };

enum product { UP, DOWN, DACT, DX, DW_DOWN, DW_UP, N_PRODUCT };
static const char *const product_name[] = { "up", "down", "dact", "dx", "dw_down", "dw_up" };

struct options {
    double cache_mb, drift;
    int row_group;
    int shared_out;
};

/* ---- L2 ---- */

struct line {
    long long name;
    int older, newer, next_in_bucket;
};

static struct {
    struct line *line;
    int bucket[N_BUCKET], n_line, n, oldest, newest;
} l2;

static int *bucket_of(long long name)
{
    return &l2.bucket[(unsigned long long)name * 0x9e3779b97f4a7c15ull >> 44];
}

static void take_out(int i)
{
    struct line *l = &l2.line[i];

    *(l->older < 0 ? &l2.oldest : &l2.line[l->older].newer) = l->newer;
    *(l->newer < 0 ? &l2.newest : &l2.line[l->newer].older) = l->older;
}

static void put_newest(int i)
{
    l2.line[i].older = l2.newest;
    l2.line[i].newer = -1;
    *(l2.newest < 0 ? &l2.oldest : &l2.line[l2.newest].newer) = i;
    l2.newest = i;
}

static int evict(void)
{
    int i = l2.oldest, *at = bucket_of(l2.line[i].name);

    take_out(i);
    while (*at != i)
        at = &l2.line[*at].next_in_bucket;
    *at = l2.line[i].next_in_bucket;
    return i;
}

/* Is it there? Afterwards it is. */
static int touch(long long name)
{
    int *bucket = bucket_of(name), i;

    for (i = *bucket; i >= 0; i = l2.line[i].next_in_bucket)
        if (l2.line[i].name == name) {
            take_out(i);
            put_newest(i);
            return 1;
        }
    i = l2.n < l2.n_line ? l2.n++ : evict();
    bucket = bucket_of(name);
    l2.line[i].name = name;
    l2.line[i].next_in_bucket = *bucket;
    *bucket = i;
    put_newest(i);
    return 0;
}

static void empty_l2(double mb)
{
    l2.n_line = (int)(mb * 1e6 / UNIT);
    l2.n = 0;
    l2.oldest = l2.newest = -1;
    free(l2.line);
    l2.line = calloc((size_t)l2.n_line, sizeof *l2.line);
    memset(l2.bucket, -1, sizeof l2.bucket);
    if (!l2.line || l2.n_line < 1)
        printf("l2_model: no room for %.1f MB of L2\n", mb), exit(1);
}

/* ---- tiles ---- */

struct tile {
    int rows, columns; /* names, of all experts */
    int n_step;
    double part; /* of TILE rows that exist */
    double last; /* of the last step's k that exist */
};

struct work {
    struct tile *tile;
    int n_tile, written;              /* units a whole tile writes, or reads once */
    double once_bytes, operand_bytes; /* read once beside the operands; of these, each element once */
};

static double lot(void)
{
    return (rand() + 0.5) / (RAND_MAX + 1.0);
}

static double normal(void)
{
    return sqrt(-2 * log(lot())) * cos(6.283185307179586 * lot());
}

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

/* Rows of each expert where tokens choose at random. */
static int *draw_rows(const struct shape *s, int n_token)
{
    int *n_row = calloc((size_t)s->n_expert, sizeof *n_row);
    double p = (double)s->top_k / s->n_expert, mean = n_token * p, deviation = sqrt(mean * (1 - p));

    for (int e = 0; e < s->n_expert; e++)
        n_row[e] = (int)fmax(0, mean + deviation * normal() + 0.5);
    return n_row;
}

static void add(struct work *w, int rows, int columns, int n_step, double part, double last)
{
    if (!(w->n_tile & (w->n_tile - 1))) { /* a power of two: full */
        w->tile = realloc(w->tile, (size_t)(w->n_tile ? 2 * w->n_tile : 1) * sizeof *w->tile);
        if (!w->tile)
            printf("l2_model: no memory\n"), exit(1);
    }
    w->tile[w->n_tile++] = (struct tile){ rows, columns, n_step, part, last };
}

/* As order() of hopper_gemm.cuh: groups of an expert's row tiles, in shares as equal as can be. */
static void list_products(struct work *w, const int *n_row, int n_expert, int n_column, int n_step, int row_group)
{
    for (int e = 0, row = 0; e < n_expert; e++) {
        int n = ceil_div(n_row[e], TILE), share = n ? ceil_div(n, ceil_div(n, row_group)) : 1;
        for (int first = 0; first < n; first += share)
            for (int c = 0; c < n_column; c++)
                for (int r = first; r < n && r < first + share; r++)
                    add(w, row + r, e * n_column + c, n_step, fmin(1, (n_row[e] - r * TILE) / (double)TILE), 1);
        row += n;
        w->operand_bytes += (double)UNIT * n_step * (n_row[e] / (double)TILE + (n ? n_column : 0));
    }
}

static void list_gradients(struct work *w, const int *n_row, int n_expert, int n_m, int n_column)
{
    for (int e = 0; e < n_expert; e++) {
        int n_step = ceil_div(n_row[e] + !n_row[e], STEP);
        for (int c = 0; c < n_column; c++)
            for (int m = 0; m < n_m; m++)
                add(w, e * n_m + m, e * n_column + c, n_step, 1, n_row[e] / (double)STEP - (n_step - 1));
        w->operand_bytes += 2. * TILE * n_row[e] * (n_m + n_column);
    }
}

static struct work list(enum product p, const struct shape *s, const int *n_row, int row_group)
{
    struct work w = { .written = p == UP ? 6 : p == DACT ? 10 : 4 };
    int h = ceil_div(s->hidden, TILE), i = ceil_div(s->inter, TILE);

    for (int e = 0; p == DACT && e < s->n_expert; e++)
        w.once_bytes += 4. * s->inter * n_row[e]; /* the pre-activations */
    if (p == DW_DOWN || p == DW_UP)
        list_gradients(&w, n_row, s->n_expert, h, p == DW_UP ? ceil_div(2 * s->inter, TILE) : i);
    else
        list_products(&w, n_row, s->n_expert,
                      p == UP     ? ceil_div(s->inter, TILE / 2)
                      : p == DACT ? i
                                  : h,
                      ceil_div(p == DOWN ? s->inter
                               : p == DX ? 2 * s->inter
                                         : s->hidden,
                               STEP),
                      row_group);
    return w;
}

/* ---- pairs of blocks ---- */

struct pair {
    double now, pace;
    int tile, step;
};

static int earliest(const struct pair *pairs)
{
    int at = -1;

    for (int i = 0; i < N_PAIR; i++)
        if (pairs[i].tile >= 0 && (at < 0 || pairs[i].now < pairs[at].now))
            at = i;
    return at;
}

/* Bytes that a step has from memory. */
static double step_bytes(const struct tile *t, int step, int written)
{
    static long long fresh = 1LL << 50;
    long long rows = ((long long)t->rows << 16 | step) * 2, columns = ((long long)t->columns << 16 | step) * 2 + 1;
    double unit = UNIT * (step == t->n_step - 1 ? t->last : 1), each = written * t->part / t->n_step;

    for (int n = (int)(each * (step + 1)) - (int)(each * step); n > 0; n--)
        touch(fresh++);
    double bytes = touch(rows) ? 0 : unit * t->part;
    return bytes + (touch(columns) ? 0 : unit);
}

static double run(const struct work *w, const struct options *o)
{
    struct pair pairs[N_PAIR];
    int next = 0, at;
    double bytes = w->once_bytes;

    empty_l2(o->cache_mb);
    for (int i = 0; i < N_PAIR; i++, next++)
        pairs[i] = (struct pair){ 2 * lot(), 1 + 0.3 * o->drift * normal(), next < w->n_tile ? next : -1, 0 };
    while ((at = earliest(pairs)) >= 0) {
        struct pair *p = &pairs[at];
        const struct tile *t = &w->tile[p->tile];
        bytes += step_bytes(t, p->step, w->written);
        p->now += (t->part > 0.5 ? 1 : 0.6) * p->pace * fmax(0.2, 1 + 3 * o->drift * normal());
        if (++p->step < t->n_step)
            continue;
        p->now += 0.5 * lot(); /* between tiles */
        p->step = 0;
        p->tile = o->shared_out ? p->tile + N_PAIR : next++;
        if (p->tile >= w->n_tile)
            p->tile = -1;
    }
    return bytes;
}

/* ---- the program ---- */

static int usage(void)
{
    fprintf(stderr, "usage: l2_model SHAPE TOKENS [-c MB] [-d DRIFT] [-g ROWS] [-s]; 1 to %d tokens; shapes:", MAX_TOKEN);
    for (int i = 0; i < N_SHAPE; i++)
        fprintf(stderr, " %s", shapes[i].name);
    fprintf(stderr, "\n");
    return 2;
}

static const struct shape *find_shape(const char *name)
{
    for (int i = 0; i < N_SHAPE; i++)
        if (!strcmp(shapes[i].name, name))
            return &shapes[i];
    return NULL;
}

/* 0, or -1 where an option is not known or not a number in its range. */
static int parse(struct options *o, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "-s")) {
            o->shared_out = 1;
            continue;
        }
        if (!strcmp(argv[i], "-c"))
            o->cache_mb = atof(value);
        else if (!strcmp(argv[i], "-d"))
            o->drift = atof(value);
        else if (!strcmp(argv[i], "-g"))
            o->row_group = atoi(value);
        else
            return -1;
        i++;
    }
    return o->cache_mb >= 1 && o->drift >= 0 && o->row_group > 0 ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct options o = { .cache_mb = 38, .drift = 0.03, .row_group = 9 };
    const struct shape *s = argc > 2 ? find_shape(argv[1]) : NULL;
    int n_token = argc > 2 ? atoi(argv[2]) : 0;

    if (!s || n_token < 1 || n_token > MAX_TOKEN || parse(&o, argc - 3, argv + 3))
        return usage();
    srand(1);
    int *n_row = draw_rows(s, n_token);
    printf("%s, %d tokens, L2 %.0f MB, drift %g, groups of %d: read from memory, modelled\n", s->name, n_token, o.cache_mb,
           o.drift, o.row_group);
    for (int p = 0; p < N_PRODUCT; p++) {
        struct work w = list(p, s, n_row, o.row_group);
        printf("%-8s %7.0f MB, each expert's rows and weights once: %7.0f\n", product_name[p], run(&w, &o) / 1e6,
               (w.once_bytes + w.operand_bytes) / 1e6);
        free(w.tile);
    }
    free(n_row);
    return 0;
}
