/* See swap.h. Buffers come as torch tensors, which the CPU allocator aligns to 64 bytes only: the callers ask
 * for 256 bytes more, and the addresses are rounded up here. */
#include "injector/swap.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define KERNELS "libmoeprof_kernels.so"
#define ALIGN   256u

static const struct mk_api *api;
static char why_not[200];

/* RTLD_LOCAL: nothing of the library becomes visible to the job. */
static void load(void)
{
    const struct mk_api *(*get)(uint32_t);
    char path[1024];
    Dl_info self;
    void *library, *symbol;
    const char *slash;

    snprintf(why_not, sizeof why_not, "cannot tell where " KERNELS " is");
    if (!dladdr((void *)(uintptr_t)load, &self) || !self.dli_fname ||
        !(slash = strrchr(self.dli_fname, '/')))
        return;
    snprintf(path, sizeof path, "%.*s/" KERNELS, (int)(slash - self.dli_fname), self.dli_fname);
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    symbol = library ? dlsym(library, "mk_get_api") : NULL;
    if (!symbol) {
        snprintf(why_not, sizeof why_not, "cannot load the kernels: %.160s", dlerror());
        return;
    }
    memcpy(&get, &symbol, sizeof get);
    api = get(MK_API_VERSION);
    if (!api)
        snprintf(why_not, sizeof why_not, KERNELS " is of another version than the guest");
}

const struct mk_api *inj_kernels(struct mp_err *err)
{
    if (!api && !why_not[0])
        load();
    if (!api)
        mp_fail(err, MP_ENOTSUP, "%s", why_not);
    return api;
}

static void *aligned(void *p)
{
    return (void *)(((uintptr_t)p + ALIGN - 1) & ~(uintptr_t)(ALIGN - 1));
}

static void fill(struct mk_problem *out, struct mk_lora *lora, const struct inj_plan *plan,
                 const struct inj_call *c)
{
    *out = plan->problem;
    if (plan->has_lora) {
        *lora = plan->lora;
        lora->gate_a.base = c->lora.gate_a;
        lora->up_a.base = c->lora.up_a;
        lora->gate_b.base = c->lora.gate_b;
        lora->up_b.base = c->lora.up_b;
        lora->down_a.base = c->lora.down_a;
        lora->down_b.base = c->lora.down_b;
        out->lora = lora;
    }
    out->x = c->x;
    out->index = c->index;
    out->score = c->score;
    out->gate.base = c->w.gate;
    out->up.base = c->w.up;
    out->down.base = c->w.down;
    out->gate_bias.base = c->w.gate_bias;
    out->up_bias.base = c->w.up_bias;
    out->down_bias.base = c->w.down_bias;
}

static void fill_lora_gradients(struct mk_lora_grad *out, const struct inj_plan *plan,
                                const struct inj_lora *to)
{
    *out = plan->dlora;
    out->gate_a.base = to->gate_a;
    out->up_a.base = to->up_a;
    out->gate_b.base = to->gate_b;
    out->up_b.base = to->up_b;
    out->down_a.base = to->down_a;
    out->down_b.base = to->down_b;
}

int inj_plan_sizes(const struct inj_plan *plan, struct mk_sizes *out)
{
    struct mk_problem p = plan->problem;

    p.lora = plan->has_lora ? &plan->lora : NULL;
    return api ? api->sizes(out, &p) : MK_EDEVICE;
}

int inj_plan_forward(const struct inj_plan *plan, const struct inj_call *c, void *out)
{
    struct mk_problem p;
    struct mk_lora lora;
    struct mk_forward f = {
        .size = sizeof f,
        .flags = plan->flags | c->flags,
        .out = out,
        .out_stride = plan->problem.hidden,
        .saved = aligned(c->saved),
        .saved_bytes = c->saved_bytes,
        .workspace = aligned(c->workspace),
        .workspace_bytes = c->workspace_bytes,
        .problem = &p,
    };

    fill(&p, &lora, plan, c);
    return api ? api->forward(&f, c->stream) : MK_EDEVICE;
}

int inj_plan_backward(const struct inj_plan *plan, const struct inj_call *c,
                      const struct inj_gradients *out, const void *dout)
{
    struct mk_problem p;
    struct mk_lora lora;
    struct mk_lora_grad dlora;
    struct mk_backward b = {
        .size = sizeof b,
        .flags = plan->flags | c->flags,
        .dx = out->dx,
        .dx_stride = plan->problem.hidden,
        .dscore = out->dscore,
        .dx_row = out->dx_row,
        .dscore_stride = plan->problem.top_k,
        .dgate = plan->dgate,
        .dup = plan->dup,
        .ddown = plan->ddown,
        .dgate_bias = plan->dgate_bias,
        .dup_bias = plan->dup_bias,
        .ddown_bias = plan->ddown_bias,
        .dweight_dtype = plan->dweight_dtype,
        .workspace = aligned(c->workspace),
        .workspace_bytes = c->workspace_bytes,
        .dout = dout,
        .dout_stride = plan->problem.hidden,
        .saved = aligned(c->saved),
        .problem = &p,
    };

    fill(&p, &lora, plan, c);
    if (plan->has_lora) {
        fill_lora_gradients(&dlora, plan, &out->lora);
        b.dlora = &dlora;
    }
    b.dgate.base = out->w.gate;
    b.dup.base = out->w.up;
    b.ddown.base = out->w.down;
    b.dgate_bias.base = out->w.gate_bias;
    b.dup_bias.base = out->w.up_bias;
    b.ddown_bias.base = out->w.down_bias;
    return api ? api->backward(&b, c->stream) : MK_EDEVICE;
}
