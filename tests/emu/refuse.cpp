/* refuse.cpp: what is refused, before anything is launched. */
#include "tests/emu/cases.h"
#include "tests/emu/device.h"
#include "tests/emu/problem.h"

#include <cstdio>
#include <cstring>

static const shape sound = { "no adapters", 40, 64, 48, 4, 2, MK_ACT_SWIGLU, MK_BF16, MK_FP32, CONCAT, NONE, PEFT, 0, 0, true, false, false };

struct broken {
    const char *name;
    int code;
    void (*breaks)(mk_problem *p, mk_forward *f, mk_backward *b);
};

static void *shifted(const void *p)
{
    return (char *)p + 2;
}

static const broken brokens[] = {
    { "misaligned x", MK_EALIGN, [](mk_problem *p, mk_forward *, mk_backward *) { p->x = shifted(p->x); } },
    { "rows of x not 16 bytes apart", MK_EALIGN, [](mk_problem *p, mk_forward *, mk_backward *) { p->x_stride += 4; } },
    { "misaligned gate", MK_EALIGN, [](mk_problem *p, mk_forward *, mk_backward *) { p->gate.base = shifted(p->gate.base); } },
    { "misaligned down", MK_EALIGN, [](mk_problem *p, mk_forward *, mk_backward *) { p->down.base = shifted(p->down.base); } },
    { "rows of up not 16 bytes apart", MK_EALIGN, [](mk_problem *p, mk_forward *, mk_backward *) { p->gate.stride_row = p->up.stride_row += 4; } },
    { "experts of down not 16 bytes apart", MK_EALIGN, [](mk_problem *p, mk_forward *, mk_backward *) { p->down.stride_expert += 4; } },
    { "fp32", MK_EDTYPE, [](mk_problem *p, mk_forward *, mk_backward *) { p->dtype = MK_FP32; } },
    { "score in fp64", MK_EDTYPE, [](mk_problem *p, mk_forward *, mk_backward *) { p->score_dtype = MK_FP64; } },
    { "gate unlike up", MK_ELAYOUT, [](mk_problem *p, mk_forward *, mk_backward *) { p->gate.stride_row *= 2; } },
    { "misaligned out", MK_EALIGN, [](mk_problem *, mk_forward *f, mk_backward *) { f->out = shifted(f->out); } },
    { "rows of out not 16 bytes apart", MK_EALIGN, [](mk_problem *, mk_forward *f, mk_backward *) { f->out_stride += 4; } },
    { "misaligned dout", MK_EALIGN, [](mk_problem *, mk_forward *, mk_backward *b) { b->dout = shifted(b->dout); } },
    { "misaligned dx", MK_EALIGN, [](mk_problem *, mk_forward *, mk_backward *b) { b->dx = shifted(b->dx); } },
    { "gate frozen, up not", MK_EBUFFER, [](mk_problem *, mk_forward *, mk_backward *b) { b->dgate.base = NULL; } },
};

/* A break of the problem is found by both, one of the call's own arguments by that call. */
static bool refuses(const broken &c)
{
    lot_begin(1);
    results r(sound);
    inputs in(sound, r.n_half);

    on_device = true;
    in.describe(sound, r.n_half);
    mk_forward f = describe_forward(r, in), f_before = f;
    mk_backward b = describe_backward(r, in), b_before = b;
    mk_problem p_before = in.p;
    c.breaks(&in.p, &f, &b);
    bool problem = memcmp(&p_before, &in.p, sizeof in.p);
    bool ok = (!problem && !memcmp(&f_before, &f, sizeof f)) || mk_portable_fits_forward(&f) == c.code;
    ok &= (!problem && !memcmp(&b_before, &b, sizeof b)) || mk_portable_fits_backward(&b) == c.code;
    printf("%s refused: %s\n", ok ? "ok  " : "FAIL", c.name);
    return ok;
}

int cases_refuse(const char *word)
{
    return count_failed(brokens, word, refuses);
}
