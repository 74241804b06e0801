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

/* Adapters in the order of enum inj_operand. */
static void set_adapters(struct mk_matrix *const matrix[INJ_N_OPERAND - INJ_GATE_A],
                         void *const *operand)
{
    for (int i = INJ_GATE_A; i < INJ_N_OPERAND; i++)
        matrix[i - INJ_GATE_A]->base = operand[i];
}

static void fill(struct mk_problem *out, struct mk_lora *lora, const struct inj_plan *plan,
                 const struct inj_call *c)
{
    *out = plan->problem;
    if (plan->has_lora) {
        *lora = plan->lora;
        set_adapters((struct mk_matrix *[]){&lora->gate_a, &lora->up_a, &lora->gate_b, &lora->up_b,
                                            &lora->down_a, &lora->down_b},
                     c->operand);
        out->lora = lora;
    }
    out->x = c->x;
    out->index = c->index;
    out->score = c->score;
    out->gate.base = c->operand[INJ_GATE];
    out->up.base = c->operand[INJ_UP];
    out->down.base = c->operand[INJ_DOWN];
    out->gate_bias.base = c->operand[INJ_GATE_BIAS];
    out->up_bias.base = c->operand[INJ_UP_BIAS];
    out->down_bias.base = c->operand[INJ_DOWN_BIAS];
}

static void fill_lora_gradients(struct mk_lora_grad *out, const struct inj_plan *plan,
                                void *const *operand)
{
    *out = plan->dlora;
    set_adapters((struct mk_matrix *[]){&out->gate_a, &out->up_a, &out->gate_b, &out->up_b,
                                        &out->down_a, &out->down_b},
                 operand);
}

int inj_plan_sizes(struct inj_plan *plan)
{
    struct mk_problem p = plan->problem;

    p.lora = plan->has_lora ? &plan->lora : NULL;
    return api ? api->sizes(&plan->sizes, &p) : MK_EDEVICE;
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
        .saved_bytes = c->flags & MK_FLAG_INFERENCE ? plan->sizes.saved_inference_bytes
                                                    : plan->sizes.saved_bytes,
        .workspace = aligned(c->workspace),
        .workspace_bytes = plan->sizes.forward_workspace_bytes,
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
        .workspace_bytes =
            plan->sizes.backward_workspace_bytes - (out->dx_row ? plan->row_bytes : 0),
        .dout = dout,
        .dout_stride = plan->problem.hidden,
        .saved = aligned(c->saved),
        .problem = &p,
    };

    fill(&p, &lora, plan, c);
    if (plan->has_lora) {
        fill_lora_gradients(&dlora, plan, out->operand);
        b.dlora = &dlora;
    }
    b.dgate.base = out->operand[INJ_GATE];
    b.dup.base = out->operand[INJ_UP];
    b.ddown.base = out->operand[INJ_DOWN];
    b.dgate_bias.base = out->operand[INJ_GATE_BIAS];
    b.dup_bias.base = out->operand[INJ_UP_BIAS];
    b.ddown_bias.base = out->operand[INJ_DOWN_BIAS];
    return api ? api->backward(&b, c->stream) : MK_EDEVICE;
}
