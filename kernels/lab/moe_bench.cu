/* moe_bench: times the library's forward and backward by named shape; `moeprof bench` runs it.
 *
 *   moe_bench [--shape NAME[,NAME...]|all] [--tokens N[,N...]] [--routing KIND[,KIND...]|all] [--portable] [-n N] [--json] [--list]
 *
 * TFLOP/s count useful FLOPs: forward 6 T K H I, backward twice that; padding and recomputation do not count.
 * In the time: routing metadata, both GEMMs, activation, combine; gradients of x, all weights and the scores.
 * Three times: on the GPU alone (the call as a CUDA graph), as called, and what the host spends in a call (kit.cuh).
 * L2 is flushed before each call, data is normal. Yardsticks in the same run, by cuBLAS where it is on the library path: a dense
 * GEMM of the same FLOPs as the forward, (T*K, H) by (H, 3I), and dense 8192^3. */
#include <getopt.h>

#include "kernels/lab/bench_case.cuh"
#include "kernels/lab/cublas.cuh"

enum { MAX_TOKEN = 131072, GEMM_ROWS = 65536 }; // rows of a GEMM at once: enough for its full speed

struct options {
    const char *shape, *tokens, *routing;
    int n;
    bool json;
    uint32_t flags;
};

struct bench {
    const char *me; // as messages begin
    const struct mk_api *api;
    struct options o;
    struct cudaDeviceProp device;
    int sm_major, sm_minor;
    cudaStream_t stream;
    void *flush;
    struct cublas blas;
    double dense_flop_per_s; // 0: no cuBLAS
    int n_case;
};

/* What was measured of one pass of a case. */
struct pass {
    const char *name;
    double flop, gemm_flop_per_s;
    struct kit_time gpu, called;
    struct kit_host host;
};

/* ---- yardsticks ---- */

static double gemm_flop_per_s(struct bench *b, int m, int n, int k, int n_time)
{
    struct cublas_gemm g = { &b->blas, m, n, k, 1, NULL, NULL, NULL };

    if (!b->blas.handle)
        return 0;
    void *left = kit_normal((uint64_t)m * k, 1, 6), *right = kit_normal((uint64_t)n * k, 1, 7),
         *out = kit_alloc((size_t)m * n * 2);
    g.a = left;
    g.b = right;
    g.c = out;
    struct kit_time t = kit_time_calls(cublas_run, &g, n_time, b->flush, b->stream);
    KIT_CHECK(cudaFree(left));
    KIT_CHECK(cudaFree(right));
    KIT_CHECK(cudaFree(out));
    return 2.0 * m * n * k / t.median_s;
}

/* ---- output ---- */

static void print_times(const char *name, struct kit_time t)
{
    printf("\"%s\": {\"median\": %.9g, \"min\": %.9g, \"max\": %.9g}, ", name, t.median_s, t.min_s, t.max_s);
}

/* A number, or null where the yardstick is missing. */
static void print_ratio(const char *name, double value, double of, const char *end)
{
    if (of > 0)
        printf("\"%s\": %.6g%s", name, value / of, end);
    else
        printf("\"%s\": null%s", name, end);
}

static void print_pass_json(const struct bench *b, const struct pass *p)
{
    double flop_per_s = p->flop / p->gpu.median_s;

    printf("{\"pass\": \"%s\", \"flop\": %.0f, \"n\": %d, ", p->name, p->flop, b->o.n);
    print_times("gpu_seconds", p->gpu);
    print_times("called_seconds", p->called);
    print_times("host_seconds", p->host.next);
    print_times("host_first_seconds", p->host.first);
    printf("\"gpu_flop_per_second\": %.6g, \"called_flop_per_second\": %.6g, ", flop_per_s, p->flop / p->called.median_s);
    print_ratio("same_flop_gemm_ratio", flop_per_s, p->gemm_flop_per_s, ", ");
    print_ratio("dense_ratio", flop_per_s, b->dense_flop_per_s, "}");
}

static void begin_case_json(struct bench *b, const struct bench_case *c, const char *path)
{
    const struct shape *s = c->shape;

    printf("%s  {\"shape\": \"%s\", \"hidden\": %d, \"inter\": %d, \"experts\": %d, \"top_k\": %d, \"tokens\": %d, "
           "\"routing\": \"%s\", ",
           b->n_case++ ? ",\n" : "\n", s->name, s->hidden, s->inter, s->n_expert, s->top_k, c->n_token, c->routing);
    printf(path ? "\"path\": \"%s\", " : "\"path\": null, ", path);
    printf("\"saved_bytes\": %zu, \"forward_workspace_bytes\": %zu, \"backward_workspace_bytes\": %zu, ",
           c->sizes.saved_bytes, c->sizes.forward_workspace_bytes, c->sizes.backward_workspace_bytes);
}

static void print_ratio_text(double value, double of)
{
    if (of > 0)
        printf("  %5.3f", value / of);
    else
        printf("  %5s", "-");
}

static void print_pass_text(const struct bench *b, const struct bench_case *c, const struct pass *p, const char *path)
{
    double flop_per_s = p->flop / p->gpu.median_s;

    printf("%-12s %6d %-8s %-8s  %9.3f (%.3f..%.3f) %7.1f", c->shape->name, c->n_token, c->routing, p->name,
           p->gpu.median_s * 1e3, p->gpu.min_s * 1e3, p->gpu.max_s * 1e3, flop_per_s / 1e12);
    print_ratio_text(flop_per_s, p->gemm_flop_per_s);
    print_ratio_text(flop_per_s, b->dense_flop_per_s);
    printf("  %9.3f (%.3f..%.3f)  %5.1f (%.1f..%.1f) %5.1f", p->called.median_s * 1e3, p->called.min_s * 1e3,
           p->called.max_s * 1e3, p->host.next.median_s * 1e6, p->host.next.min_s * 1e6, p->host.next.max_s * 1e6,
           p->host.first.median_s * 1e6);
    printf("  %9.1f %9.1f  %s\n", c->sizes.saved_bytes / 1e6,
           (c->sizes.forward_workspace_bytes + c->sizes.backward_workspace_bytes) / 1e6, path);
    fflush(stdout);
}

static void print_head(const struct bench *b)
{
    if (b->o.json) {
        printf("{\"schema_version\": 1, \"gpu\": \"%s\", \"sm\": %d, ", b->device.name, b->sm_major * 10 + b->sm_minor);
        print_ratio("dense_flop_per_second", b->dense_flop_per_s, b->dense_flop_per_s > 0 ? 1 : 0, ", \"cases\": [");
        return;
    }
    printf("%s. Medians (least..greatest) of %d. TFLOP/s: useful ones, on the GPU alone.\n", b->device.name, b->o.n);
    printf("Host: in a call behind another; first: in one after the host has waited for the GPU.\n");
    if (b->dense_flop_per_s > 0)
        printf("GEMM: by cuBLAS, of the forward's FLOPs. Dense: by cuBLAS, 8192^3, %.0f TFLOP/s.\n",
               b->dense_flop_per_s / 1e12);
    printf("\n%-12s %6s %-8s %-8s  %-25s %7s  %5s  %5s  %-25s  %-20s %5s  %9s %9s  %s\n", "shape", "tokens", "routing",
           "pass", "GPU alone, ms", "TFLOP/s", "/GEMM", "/dense", "as called, ms", "host, us", "first", "saved, MB",
           "work, MB", "path");
}

/* Says of a case why it was left out. */
static void print_skipped(struct bench *b, const struct bench_case *c, const char *path, const char *why)
{
    if (b->o.json) {
        begin_case_json(b, c, path);
        printf("\"skipped\": \"%s\", \"passes\": []}", why);
    } else {
        printf("%-12s %6d %-8s left out: %s\n", c->shape->name, c->n_token, c->routing, why);
    }
}

/* ---- a case ---- */

static struct pass time_pass(struct bench *b, struct bench_case *c, const char *name, kit_fn fn, double flop, double gemm)
{
    struct pass p = { name, flop, gemm, {}, {}, {} };

    p.called = kit_time_calls(fn, c, b->o.n, b->flush, b->stream);
    p.gpu = kit_time_graph(fn, c, b->o.n, b->flush, b->stream);
    p.host = kit_host_time(fn, c, b->o.n, b->stream);
    return p;
}

static void time_case(struct bench *b, struct bench_case *c, const char *path)
{
    const struct shape *s = c->shape;
    int64_t rows = (int64_t)c->n_token * s->top_k;
    double flop = 6.0 * rows * s->hidden * s->inter;
    double gemm = gemm_flop_per_s(b, 3 * s->inter, (int)(rows < GEMM_ROWS ? rows : GEMM_ROWS), s->hidden, b->o.n);

    bench_open(c, b->o.flags);
    const struct pass passes[] = { time_pass(b, c, "forward", run_forward, flop, gemm),
                                   time_pass(b, c, "fwd+bwd", run_both, 3 * flop, gemm) };
    bench_close(c);
    if (!b->o.json) {
        print_pass_text(b, c, &passes[0], path);
        print_pass_text(b, c, &passes[1], path);
        return;
    }
    begin_case_json(b, c, path);
    printf("\"skipped\": null, \"passes\": [");
    print_pass_json(b, &passes[0]);
    printf(", ");
    print_pass_json(b, &passes[1]);
    printf("]}");
    fflush(stdout);
}

static void run_case(struct bench *b, const struct shape *s, int n_token, const char *routing)
{
    struct bench_case c;
    size_t free_bytes, all_bytes;
    char why[160];

    bench_describe(&c, b->api, s, n_token, routing);
    const struct mk_row *row = b->api->choose("forward", b->o.flags, &c.p);
    KIT_CHECK(cudaMemGetInfo(&free_bytes, &all_bytes));
    if (!row) {
        print_skipped(b, &c, NULL, "the kernels have no path for this GPU");
    } else if (bench_bytes(&c) + (64 << 20) > free_bytes) {
        snprintf(why, sizeof why, "needs %.1f GB of GPU memory, %.1f GB are free", bench_bytes(&c) / 1e9, free_bytes / 1e9);
        print_skipped(b, &c, row->name, why);
    } else {
        time_case(b, &c, row->name);
    }
}

/* ---- options ---- */

/* Is name one of the comma-separated list? */
static bool listed(const char *list, const char *name)
{
    size_t n = strlen(name);

    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, name, n) && (at[n] == ',' || !at[n]))
            return true;
    return !strcmp(list, "all");
}

static const char *shape_name(int i)
{
    return i < N_SHAPE ? shapes[i].name : NULL;
}

static const char *routing_name(int i)
{
    return i < N_ROUTING ? routings[i] : NULL;
}

/* Every word of the list is a name, or all. Exits with 2 where one is not. */
static void check_names(const char *me, const char *what, const char *list, const char *(*name)(int))
{
    for (const char *at = list, *end; at; at = *end ? end + 1 : NULL) {
        char word[32];
        bool known = !strcmp(list, "all");
        end = at + strcspn(at, ",");
        snprintf(word, sizeof word, "%.*s", (int)(end - at), at);
        for (int i = 0; name(i) && !known; i++)
            known = !strcmp(word, name(i));
        if (!known) {
            fprintf(stderr, "%s: no %s is called '%s'; '%s --list' names them\n", me, what, word, me);
            exit(2);
        }
    }
}

static void check_tokens(const char *me, const char *list)
{
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        char *end;
        long n = strtol(at, &end, 10);
        if (end == at || (*end && *end != ',') || n < 1 || n > MAX_TOKEN) {
            fprintf(stderr, "%s: '%.*s' is no number of tokens from 1 to %d\n", me, (int)strcspn(at, ","), at, MAX_TOKEN);
            exit(2);
        }
    }
}

static void list_names(void)
{
    for (const struct shape &s : shapes)
        printf("%-12s hidden %5d  inter %5d  experts %3d  top-k %2d\n", s.name, s.hidden, s.inter, s.n_expert, s.top_k);
    printf("routing:");
    for (const char *name : routings)
        printf(" %s", name);
    printf("\n");
}

// The exit code, once all that was printed is out.
static int printed(const struct bench *b)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    fprintf(stderr, "%s: cannot write to standard output\n", b->me);
    return 1;
}

static void parse(struct bench *b, int argc, char **argv)
{
    static const struct option longs[] = { { "shape", 1, NULL, 's' },   { "tokens", 1, NULL, 't' },
                                           { "routing", 1, NULL, 'r' }, { "portable", 0, NULL, 'p' },
                                           { "json", 0, NULL, 'j' },    { "list", 0, NULL, 'l' },
                                           { NULL, 0, NULL, 0 } };
    struct options *o = &b->o;
    int c;

    while ((c = getopt_long(argc, argv, "n:", longs, NULL)) != -1) {
        if (c == 's')
            o->shape = optarg;
        else if (c == 't')
            o->tokens = optarg;
        else if (c == 'r')
            o->routing = optarg;
        else if (c == 'p')
            o->flags |= MK_FLAG_PORTABLE;
        else if (c == 'j')
            o->json = true;
        else if (c == 'n')
            o->n = atoi(optarg);
        else if (c == 'l') {
            list_names();
            exit(printed(b));
        } else
            exit(2);
    }
    check_names(b->me, "shape", o->shape, shape_name);
    check_names(b->me, "routing", o->routing, routing_name);
    check_tokens(b->me, o->tokens);
    if (o->n < 1 || o->n > KIT_MAX_N) {
        fprintf(stderr, "%s: -n wants a number from 1 to %d\n", b->me, KIT_MAX_N);
        exit(2);
    }
}

static void open_device(struct bench *b)
{
    cudaError_t rc = cudaGetDeviceProperties(&b->device, 0);

    if (rc) {
        fprintf(stderr, "%s: no GPU here that CUDA can use (%s): 'moeprof doctor' says what is missing\n", b->me,
                cudaGetErrorString(rc));
        exit(1);
    }
    cudaDeviceGetAttribute(&b->sm_major, cudaDevAttrComputeCapabilityMajor, 0);
    cudaDeviceGetAttribute(&b->sm_minor, cudaDevAttrComputeCapabilityMinor, 0);
    KIT_CHECK(cudaStreamCreate(&b->stream));
    b->flush = kit_alloc(KIT_FLUSH_BYTES);
    if (!cublas_open(&b->blas))
        fprintf(stderr, "%s: no cuBLAS on the library path: fractions of a GEMM are not known\n", b->me);
    b->dense_flop_per_s = gemm_flop_per_s(b, 8192, 8192, 8192, b->o.n);
}

int main(int argc, char **argv)
{
    static struct bench b;

    b.me = strchr(argv[0], ' ') ? argv[0] : "moe_bench"; // "moeprof bench"
    b.api = mk_get_api(MK_API_VERSION);
    b.o = { "qwen3-30b", "4096,32768", "uniform", 9, false, 0 };
    parse(&b, argc, argv);
    open_device(&b);
    print_head(&b);
    for (const struct shape &s : shapes)
        for (const char *t = b.o.tokens; listed(b.o.shape, s.name) && t; t = strchr(t, ',') ? strchr(t, ',') + 1 : NULL)
            for (const char *kind : routings)
                if (listed(b.o.routing, kind))
                    run_case(&b, &s, atoi(t), kind);
    if (b.o.json)
        printf("\n]}\n");
    return printed(&b);
}
