/* See swap_answer.h. Layers that say the same are one line. */
#include "profiler/cli/swap_answer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/cli/cmd.h"

#if HAVE_JANSSON
#include <jansson.h>
#endif

#define ROWS_MAX 8192u /* of a guest gone wild */

bool cli_swap_answer_add(struct cli_swap_answer *a, const struct mp_msg *msg)
{
    if (a->n == a->cap) {
        size_t cap = a->cap ? 2 * a->cap : 64;
        struct mp_msg *more = cap <= ROWS_MAX ? realloc(a->row, cap * sizeof *more) : NULL;

        if (!more)
            return false;
        a->row = more;
        a->cap = cap;
    }
    a->row[a->n++] = *msg;
    return true;
}

void cli_swap_answer_free(struct cli_swap_answer *a)
{
    free(a->row);
    *a = (struct cli_swap_answer){0};
}

const struct mp_msg *cli_swap_answer_done(const struct cli_swap_answer *a)
{
    return &a->row[a->n - 1];
}

/* ---- text ------------------------------------------------------------------------------------ */

static bool alike(const struct mp_msg *a, const struct mp_msg *b)
{
    return a->kind == b->kind && a->flags == b->flags && strcmp(a->name, b->name) == 0 &&
           strcmp(a->text, b->text) == 0;
}

static void print_layers(const struct mp_msg *row, size_t n)
{
    static const char *const state[] = {"stays", "can be swapped", "stays", "swapped"};

    printf("\n%-9s %-28s %-15s %s\n", "layers", "class", "", "");
    for (size_t i = 0, k; i < n; i = k) {
        char span[32];

        for (k = i + 1; k < n && alike(&row[i], &row[k]);)
            k++;
        if (k == i + 1)
            snprintf(span, sizeof span, "%d", row[i].layer);
        else
            snprintf(span, sizeof span, "%d-%d", row[i].layer, row[k - 1].layer);
        printf("%-9s %-28s %-15s %s\n", span, row[i].name, state[row[i].flags & 3], row[i].text);
    }
}

static void print_state(const struct mp_msg *m, int pid)
{
    printf("process %d: %s runs", pid,
           strcmp(m->name, "original") ? m->name : "its own implementation");
    printf("%s%s%s, %.0f of %.0f layers can be swapped, %.0f are\n\n", *m->text ? " (" : "",
           *m->text ? "its own: " : "", *m->text ? m->text : "", m->value[1], m->value[0],
           m->value[2]);
}

static void print_arm(const struct mp_msg *m)
{
    printf("%c %-14s %s%s\n", m->flags & MP_WIRE_ACTIVE ? '*' : ' ', m->name,
           m->flags & MP_WIRE_YES ? "" : "not here: ", m->text);
}

/* The row of cosines that follows a row of parity, or NULL. */
static const struct mp_msg *cosine_of(const struct mp_msg *m, const struct mp_msg *end)
{
    return m + 1 < end && m[1].kind == MP_WIRE_COSINE && m[1].layer == m->layer ? m + 1 : NULL;
}

/* Of the output and the gradients with the reference, the lesser one; "-" unknown. */
static const char *cosine_text(char out[16], const struct mp_msg *cosine)
{
    double least = cosine ? fmin(cosine->value[0], cosine->value[2]) : NAN;

    snprintf(out, 16, isfinite(least) ? "%.7f" : "-", least);
    return out;
}

static void print_parity(const struct mp_msg *m, const struct mp_msg *cosine, bool first)
{
    char text[16];

    if (first)
        printf("%-6s %-7s %-12s %10s %10s %7s %7s %10s\n", "layer", "parity", "furthest", "error",
               "own error", "ratio", "tokens", "cosine");
    if (isfinite(m->value[0]))
        printf("%-6d %-7s %-12s %10.2e %10.2e %7.2f %7.0f %10s\n", m->layer,
               m->flags & MP_WIRE_YES ? "passed" : "FAILED", m->name, m->value[0], m->value[1],
               m->value[2], m->value[3], cosine_text(text, cosine));
    else
        printf("%-6d %-7s %s\n", m->layer, "FAILED", m->text);
}

static size_t run_of(const struct cli_swap_answer *a, size_t i, unsigned kind)
{
    size_t k = i;

    while (k < a->n && a->row[k].kind == kind)
        k++;
    return k - i;
}

void cli_swap_text(const struct cli_swap_answer *a, int pid, const char *verb)
{
    const struct mp_msg *done = cli_swap_answer_done(a);
    bool first = true;

    for (size_t i = 0; i < a->n; i++) {
        const struct mp_msg *m = &a->row[i];

        if (m->kind == MP_WIRE_STATE)
            print_state(m, pid);
        else if (m->kind == MP_WIRE_ARM)
            print_arm(m);
        else if (m->kind == MP_WIRE_LAYER && (i == 0 || m[-1].kind != MP_WIRE_LAYER))
            print_layers(m, run_of(a, i, MP_WIRE_LAYER));
        else if (m->kind == MP_WIRE_PARITY) {
            print_parity(m, cosine_of(m, a->row + a->n), first);
            first = false;
        }
    }
    if (done->code == MP_OK && strcmp(verb, "status") != 0)
        printf("%s%s from step %u on\n",
               strcmp(done->name, "original") ? done->name : "the job's own experts", " run",
               done->step);
}

/* ---- JSON -------------------------------------------------------------------------------------- */

#if HAVE_JANSSON

static json_t *text_of(const char *s)
{
    json_t *t = *s ? json_string(s) : NULL; /* NULL: not UTF-8 */

    return t ? t : json_null();
}

static json_t *real(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *arm(const struct mp_msg *m)
{
    return json_pack("{s:o, s:b, s:b, s:o}", "name", text_of(m->name), "available",
                     m->flags & MP_WIRE_YES ? 1 : 0, "active", m->flags & MP_WIRE_ACTIVE ? 1 : 0,
                     "text", text_of(m->text));
}

static json_t *layer(const struct mp_msg *m)
{
    return json_pack("{s:i, s:o, s:b, s:b, s:o}", "layer", m->layer, "class", text_of(m->name),
                     "swappable", m->flags & MP_WIRE_YES ? 1 : 0, "swapped",
                     m->flags & MP_WIRE_ACTIVE ? 1 : 0, "text", text_of(m->text));
}

static json_t *parity(const struct mp_msg *m, const struct mp_msg *cosine)
{
    return json_pack("{s:i, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "layer", m->layer,
                     "passed", m->flags & MP_WIRE_YES ? 1 : 0, "worst", text_of(m->name), "error",
                     real(m->value[0]), "own_error", real(m->value[1]), "ratio", real(m->value[2]),
                     "tokens", real(m->value[3]), "text", text_of(m->text), "output_cosine",
                     real(cosine ? cosine->value[0] : NAN), "gradient_cosine",
                     real(cosine ? cosine->value[2] : NAN));
}

static void sort_in(json_t *arms, json_t *layers, json_t *checks, const struct mp_msg *m,
                    const struct mp_msg *end)
{
    if (m->kind == MP_WIRE_ARM)
        json_array_append_new(arms, arm(m));
    else if (m->kind == MP_WIRE_LAYER)
        json_array_append_new(layers, layer(m));
    else if (m->kind == MP_WIRE_PARITY)
        json_array_append_new(checks, parity(m, cosine_of(m, end)));
}

void cli_swap_json(const struct cli_swap_answer *a, int pid, const char *verb)
{
    const struct mp_msg *done = cli_swap_answer_done(a),
                        *state = a->row[0].kind == MP_WIRE_STATE ? &a->row[0] : NULL;
    json_t *arms = json_array(), *layers = json_array(), *checks = json_array(), *root;

    for (size_t i = 0; i < a->n; i++)
        sort_in(arms, layers, checks, &a->row[i], a->row + a->n);
    root =
        json_pack("{s:i, s:i, s:s, s:b, s:i, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "schema_version",
                  1, "pid", pid, "command", verb, "ok", done->code == MP_OK, "code", done->code,
                  "step", (json_int_t)done->step, "arm", text_of(state ? state->name : done->name),
                  "own_arm", text_of(state ? state->text : ""), "why", text_of(done->text), "arms",
                  arms, "layers", layers, "parity", checks);
    if (root && json_dumpf(root, stdout, JSON_INDENT(2)) == 0)
        putchar('\n');
    json_decref(root);
}

#else

void cli_swap_json(const struct cli_swap_answer *a, int pid, const char *verb)
{
    (void)a;
    (void)pid;
    (void)verb;
    cli_say("this build has no --json: it was made without jansson");
}

#endif
