/* routing.cpp: routing alone, which is bit for bit what the reference says. */
#include "tests/emu/array.h"
#include "tests/emu/cases.h"
#include "tests/emu/device.h"

#include <cmath>
#include <cstdio>
#include <cstring>

extern "C" {
#include "kernels/ref_moe.h"
#include "kernels/ref_route.h"
}

struct routing {
    const char *name;
    int t, k, e;
    uint32_t index_dtype;
};

static const routing routings[] = {
    { "one choice", 1, 1, 1, MK_INT32 },
    { "six chunks", 700, 2, 7, MK_INT64 },
    { "many experts", 3000, 2, 1024, MK_INT32 },
    { "a chunk for most blocks", 5800, 4, 67, MK_INT64 },
    { "rounds of a chunk", 300000, 2, 3, MK_INT32 },
};

template <typename T> static bool same(const char *what, const T *got, const T *want, int n)
{
    bool ok = !n || !memcmp(got, want, (size_t)n * sizeof(T));
    if (!ok)
        printf("  %s differs\n", what);
    return ok;
}

static bool same_routing(const struct mk_ref_route &got, const struct mk_ref_route &want, const mk_problem &p)
{
    int n = want.offset[p.n_expert];
    bool ok = same("offset", got.offset, want.offset, p.n_expert + 1) & same("n_tile", got.n_tile, want.n_tile, 2);

    ok = ok && same("tile", got.tile, want.tile, want.n_tile[0]) & same("fit_tile", got.fit_tile, want.fit_tile, want.n_tile[1]) &
                   same("row_token", got.row_token, want.row_token, n) &
                   same("row_choice", got.row_choice, want.row_choice, n) & same("row_score", got.row_score, want.row_score, n);
    return ok & same("choice_row", got.choice_row, want.choice_row, p.n_token * p.top_k);
}

static bool routes(const routing &c)
{
    int n = c.t * c.k;
    lot_begin((uint64_t)n);
    array index(c.index_dtype, (size_t)n, 1), score(MK_FP32, (size_t)n, 1);
    mk_problem p = {};
    struct mk_plan plan;

    for (int i = 0; i < n; i++) /* -1 and E are dropped */
        mk_ref_put(index.bytes.data(), c.index_dtype, i, floor((lot_draw() + 1) / 2 * (c.e + 2)) - 1);
    index.put();
    p.size = sizeof p, p.n_token = c.t, p.hidden = p.inter = 8, p.n_expert = c.e, p.top_k = c.k;
    p.index_dtype = c.index_dtype, p.score_dtype = MK_FP32, p.index_stride = p.score_stride = c.k;
    p.index = index.bytes.data(), p.score = score.bytes.data();
    case_check(mk_plan(&plan, &p), "plan");
    std::vector<char> want(plan.saved.bytes), got(plan.saved.bytes);
    struct mk_ref_route w = mk_ref_route_at(want.data(), &plan.saved);
    mk_ref_route(&w, &p);
    on_device = true;
    blank saved(plan.saved.bytes), count(plan.forward.bytes);
    dev_put(saved.p, got.data(), got.size()); /* the list of tiles ends before its memory, all of which is copied back */
    p.index = index.dev, p.score = score.dev;
    case_check(mk_route(&p, &plan, &plan.saved, saved.p, (int32_t *)count.p, NULL), "route");
    dev_get(got.data(), saved.p, got.size());
    bool ok = same_routing(mk_ref_route_at(got.data(), &plan.saved), w, p);
    printf("%s routing, %s\n", ok ? "ok  " : "FAIL", c.name);
    return ok;
}

int cases_route(const char *word)
{
    return count_failed(routings, word, routes);
}
