/* The C count of FLOPs, for tests in Python: no formula is written twice.
 *
 * flops_tool SPEC.json KEY=VALUE..   prints one JSON object
 *   useful= processed= head= segments=      tokens and rows (default: unknown; head: as processed)
 *   pairs=WINDOW:USEFUL:PROCESSED:MAXLEN    once a window
 *   route=LAYER:COUNT,COUNT,..              tokens per expert, layers ascending
 */
#include "report/spec.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUTES     256
#define SPEC_BYTES (4u << 20)

static struct mp_route route[ROUTES];

static int take_route(struct mp_step *s, const char *text)
{
    struct mp_route *r = &route[s->n_route];
    char *at;

    if (s->n_route == ROUTES)
        return -1;
    r->layer = (int16_t)strtol(text, &at, 10);
    r->basis = MP_MEASURED;
    r->count = malloc(strlen(text) * sizeof *r->count + sizeof *r->count);
    if (!r->count || *at != ':')
        return -1;
    do
        r->count[r->n_expert++] = (uint32_t)strtoul(at + 1, &at, 10);
    while (*at == ',');
    s->n_route++;
    return *at ? -1 : 0;
}

static int take_pairs(struct mp_step *s, const char *text)
{
    struct mp_pairs_sum *p = &s->pairs[s->n_pairs];

    if (s->n_pairs == MP_WINDOW_MAX)
        return -1;
    p->basis = MP_MEASURED;
    s->n_pairs++;
    return sscanf(text, "%" SCNu32 ":%" SCNu64 ":%" SCNu64 ":%" SCNu32, &p->window, &p->useful,
                  &p->processed, &p->max_len) == 4
               ? 0
               : -1;
}

static int take(struct mp_step *s, const char *arg)
{
    if (strncmp(arg, "pairs=", 6) == 0)
        return take_pairs(s, arg + 6);
    if (strncmp(arg, "route=", 6) == 0)
        return take_route(s, arg + 6);
    if (sscanf(arg, "useful=%" SCNu64, &s->useful) == 1 ||
        sscanf(arg, "processed=%" SCNu64, &s->processed) == 1 ||
        sscanf(arg, "head=%" SCNu64, &s->head_rows) == 1 ||
        sscanf(arg, "segments=%" SCNu32, &s->n_segment) == 1)
        return 0;
    return -1;
}

static void print_flop(const char *name, struct mp_flop f, const char *after)
{
    if (f.basis == MP_UNKNOWN)
        printf("\"%s\": null%s", name, after);
    else
        printf("\"%s\": {\"flop\": %" PRIu64 ", \"basis\": \"%s\"}%s", name, f.flop,
               mp_basis_name(f.basis), after);
}

static void print_phases(const struct mp_flops *f)
{
    const char *comma = "";

    printf("\"phases\": [");
    for (int p = 0; p < MP_PHASE_COUNT; p++)
        for (int q = 0; q < MP_PASS_COUNT; q++)
            if (f->phase[p][q].executed) {
                printf("%s{\"phase\": \"%s\", \"pass\": \"%s\", \"model\": %" PRIu64
                       ", \"executed\": %" PRIu64 "}",
                       comma, mp_phase_name((enum mp_phase)p), mp_pass_name((enum mp_pass)q),
                       f->phase[p][q].model, f->phase[p][q].executed);
                comma = ", ";
            }
    printf("]");
}

static size_t read_file(const char *path, char *out, size_t n)
{
    FILE *f = fopen(path, "r");
    size_t got = f ? fread(out, 1, n, f) : 0;

    if (f)
        fclose(f);
    return got;
}

int main(int argc, char **argv)
{
    static char json[SPEC_BYTES];
    struct mp_step step = {.useful = UINT64_MAX,
                           .processed = UINT64_MAX,
                           .head_rows = UINT64_MAX,
                           .trainable = UINT64_MAX,
                           .useful_basis = MP_MEASURED,
                           .route = route};
    struct mp_err err = {0};
    struct rp_spec spec;
    struct mp_flops f;

    if (argc < 2 || rp_spec_parse(&spec, json, read_file(argv[1], json, sizeof json), &err) != 0) {
        fprintf(stderr, "flops_tool: %s\n", argc < 2 ? "no description given" : err.msg);
        return 2;
    }
    for (int i = 2; i < argc; i++)
        if (take(&step, argv[i]) != 0) {
            fprintf(stderr, "flops_tool: '%s' not understood\n", argv[i]);
            return 2;
        }
    mp_flops_step(&f, &spec.model, &step);
    printf("{");
    print_flop("model", f.model, ", ");
    print_flop("executed", f.executed, ", ");
    print_flop("palm", f.palm, ", ");
    print_flop("trl", f.trl, ", ");
    print_flop("hf", f.hf, ", ");
    print_phases(&f);
    printf(", \"skipped\": %" PRIu32 "}\n", spec.n_skipped);
    rp_spec_release(&spec);
    return 0;
}
