/* See ab_drive.h. The arms' side (what there is, parity) is in ab_arms.c. */
#include "profiler/cli/ab_drive.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/cli/ab_arms.h"
#include "profiler/cli/ab_plan.h"
#include "profiler/cli/cmd.h"
#include "profiler/cli/gpu_facts.h"

#define LEAD   2  /* steps between asking for the first block and its begin */
#define WAIT_S 10 /* a guest listens when it begins to record, ranks begin seconds apart */
#define BUSY   64 /* steps in which a graph may be captured */

/* What an answer is about. */
enum purpose {
    HELLO = 1,
    STATUS,
    CHECK,
    SWAP,
    RESET,
    TRACE_ON,
    TRACE_OFF,
    TRACE_AUTO,
    MEMORY,
    RESTORE
};

static uint32_t later(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static void link_lost(struct ab_drive *d)
{
    ab_drive_stop(d, ab_link_is_ending(d->pid) ? "the job ended" : "the job closed the connection");
}

static void ask(struct ab_drive *d, uint16_t kind, const char *name, uint32_t step, uint32_t flags,
                int purpose, int about)
{
    struct mp_msg msg = {.kind = kind, .step = step, .layer = -1, .flags = flags};
    int rc;

    snprintf(msg.name, sizeof msg.name, "%s", name);
    rc = ab_links_ask(&d->links, msg, purpose, about);
    if (rc == MP_EFULL)
        ab_drive_stop(d, "the job did not answer");
    else if (rc)
        link_lost(d);
}

/* ---- from the first look to the first block ------------------------------------------------------ */

static void finish(struct ab_drive *d, const char *why)
{
    if (d->stage >= AB_RESTORE)
        return;
    if (!*d->record.end)
        snprintf(d->record.end, sizeof d->record.end, "%s", why);
    d->stage = AB_RESTORE;
    ask(d, MP_WIRE_SWAP, "original", 0, 0, RESTORE, 0);
    if (d->caps & MP_WIRE_CAN_TRACE)
        ask(d, MP_WIRE_TRACE, "auto", 0, 0, TRACE_AUTO, 0);
}

static void block_ask(struct ab_drive *d, size_t i, uint32_t step)
{
    d->n_asked = i + 1;
    if (d->caps & MP_WIRE_CAN_TRACE)
        ask(d, MP_WIRE_TRACE, "off", step, 0, TRACE_OFF, (int)i);
    ask(d, MP_WIRE_SWAP, d->record.arm[d->slot[i].arm].name, step, 0, SWAP, (int)i);
}

static void blocks_begin(struct ab_drive *d)
{
    d->slot = ab_plan_make(&d->n_slot, &d->record, d->o->n_block);
    if (!d->slot || d->n_slot == 0) {
        finish(d, !d->slot                                     ? "no memory for the order of blocks"
                  : d->record.arm[0].status != RP_ARM_MEASURED ? "the base cannot be measured"
                                                               : "no arm is left to compare with");
        return;
    }
    d->stage = AB_RUN;
    block_ask(d, 0, later(d->step + LEAD, d->o->n_warmup));
}

/* One arm after the other; what the job itself runs needs no check. */
static void check_next(struct ab_drive *d)
{
    d->stage = AB_CHECK;
    while (d->checked < d->record.n_arm) {
        unsigned i = d->checked++;

        if (d->record.arm[i].status != RP_ARM_MEASURED || ab_arm_is_own(&d->record, i) ||
            ab_arm_is_again(&d->record, i))
            continue;
        ask(d, MP_WIRE_CHECK, d->record.arm[i].name, 0, 0, CHECK, (int)i);
        return;
    }
    blocks_begin(d);
}

static void on_checked(struct ab_drive *d, const struct ab_answer *a)
{
    unsigned i = (unsigned)a->about;

    if (a->code == MP_EBUSY && d->n_busy++ < BUSY) {
        ask(d, MP_WIRE_CHECK, d->record.arm[i].name, a->step + 1, 0, CHECK, (int)i);
        return;
    }
    ab_arm_answered(&d->record, i, RP_ARM_REFUSED, a->code, a->text);
    check_next(d);
}

static void on_listed(struct ab_drive *d, const struct ab_answer *a)
{
    if (a->code == MP_EBUSY && d->n_busy++ < BUSY) {
        ask(d, MP_WIRE_STATUS, "", a->step + 1, 0, STATUS, 0);
        return;
    }
    for (unsigned i = 0; i < d->record.n_arm; i++)
        if (!d->is_listed[i])
            ab_arm_missing(&d->record, i, d->record.known);
    check_next(d);
}

static void on_greeted(struct ab_drive *d, const struct ab_answer *a)
{
    d->caps = a->flags;
    cli_gpu_facts(&d->record.gpu, d->dir, d->pid);
    d->record.is_untraced = (d->caps & MP_WIRE_CAN_TRACE) != 0;
    d->record.n_traced = d->record.is_untraced ? d->o->n_traced : 0;
    if (!d->record.is_untraced)
        cli_say("this guest cannot pause tracing: the counted steps are traced too");
    d->stage = AB_LOOK;
    ask(d, MP_WIRE_STATUS, "", 0, 0, STATUS, 0);
}

/* ---- blocks ------------------------------------------------------------------------------------- */

static struct rp_ab_block *last_block(struct ab_drive *d)
{
    return d->record.n_block ? &d->record.block[d->record.n_block - 1] : NULL;
}

/* The block that ran until now ends where the next one begins. */
static void block_end(struct ab_drive *d, uint32_t step)
{
    struct rp_ab_block *b = last_block(d);

    if (b && d->record.arm[b->arm].status == RP_ARM_MEASURED &&
        step > later(b->last_step, b->traced_to > b->traced_from ? b->traced_to : 0))
        b->is_cut = false;
}

static void next_ask(struct ab_drive *d, uint32_t step)
{
    if (d->n_begun < d->n_slot) {
        block_ask(d, d->n_begun, step);
        return;
    }
    ask(d, MP_WIRE_SWAP, "original", step, 0, RESTORE, 0);
    if (d->caps & MP_WIRE_CAN_TRACE)
        ask(d, MP_WIRE_TRACE, "auto", step, 0, TRACE_AUTO, 0);
}

/* What follows the newest block, whose own steps end before `next`. */
static void block_next(struct ab_drive *d, uint32_t next)
{
    if (d->caps & MP_WIRE_CAN_MEMORY)
        ask(d, MP_WIRE_MEMORY, "", next, 0, MEMORY, (int)d->n_begun - 1);
    next_ask(d, next);
}

static void block_begin(struct ab_drive *d, size_t i, uint32_t step)
{
    struct rp_ab_block b;

    ab_plan_block(&b, &d->slot[i], &d->record, step, later(step, d->untraced_from));
    if (rp_ab_add_block(&d->record, &b)) {
        finish(d, "no memory for another block");
        return;
    }
    d->n_begun = i + 1;
    if (d->caps & MP_WIRE_CAN_MEMORY)
        ask(d, MP_WIRE_MEMORY, "", b.first_step, MP_WIRE_RESET, RESET, (int)i);
    if (d->record.n_traced)
        ask(d, MP_WIRE_TRACE, "on", b.last_step + 1, 0, TRACE_ON, (int)i);
    else
        block_next(d, b.last_step + 1);
}

/* Without this arm from now on; false when nothing is left to measure, and it ends. */
static bool go_on_without(struct ab_drive *d, unsigned arm, const char *why)
{
    d->n_slot = ab_plan_drop(d->slot, d->n_slot, d->n_begun, arm);
    if (d->n_begun < d->n_slot)
        return true;
    finish(d, why);
    return false;
}

/* An arm that passed the check and does not run all the same. */
static void on_swapped(struct ab_drive *d, const struct ab_answer *a)
{
    unsigned arm = d->slot[a->about].arm;
    char why[160];

    if (a->code == MP_EBUSY && d->n_busy++ < BUSY) {
        block_ask(d, (size_t)a->about, a->step + 1);
        return;
    }
    block_end(d, a->step);
    if (a->code == 0) {
        block_begin(d, (size_t)a->about, a->step);
        return;
    }
    if (a->code != MP_EGONE)
        ab_arm_answered(&d->record, arm, RP_ARM_REVERTED, a->code, a->text);
    snprintf(why, sizeof why, "'%.60s' could not be swapped in for block %d: %.40s",
             d->record.arm[arm].name, a->about + 1, *a->text ? a->text : mp_strcode(a->code));
    if (a->code == MP_EGONE)
        finish(d, why);
    else if (go_on_without(d, arm, why))
        next_ask(d, a->step + 1);
}

static void on_memory(struct ab_drive *d, const struct ab_answer *a)
{
    static const int column[4] = {RP_ALLOCATED, RP_ALLOCATED_PEAK, RP_RESERVED, RP_RESERVED_PEAK};

    if (a->code || (size_t)a->about >= d->record.n_block || a->step <= d->reset_at)
        return; /* peaks since a reset that came late are none of this block */
    for (size_t i = 0; i < countof(column); i++)
        d->record.block[a->about].memory[column[i]] = a->value[i];
}

/* Comes before the answer that on_memory takes, and is of the same block. */
static void loss_row(struct ab_drive *d, const struct mp_msg *msg)
{
    struct rp_ab_block *b = last_block(d);

    if (!b || msg->step <= d->reset_at)
        return;
    b->loss = msg->value[0];
    b->memory[RP_SAVED] = msg->value[2];
}

/* Only now is the next switch asked for: tracing that begins late makes the block longer, no more. */
static void on_traced(struct ab_drive *d, const struct ab_answer *a)
{
    struct rp_ab_block *b = last_block(d);

    if (!b || (size_t)a->about + 1 != d->record.n_block)
        return;
    b->traced_from = later(b->traced_from, a->step);
    b->traced_to = b->traced_from + d->record.n_traced - 1;
    if (a->code) { /* then nothing is known of where the time goes */
        b->traced_from = 1;
        b->traced_to = 0;
    }
    block_next(d, later(b->last_step, b->traced_to) + 1);
}

static void on_restored(struct ab_drive *d, const struct ab_answer *a)
{
    block_end(d, a->step);
    d->stage = AB_DONE;
    ab_links_close(&d->links);
}

/* ---- what comes in ------------------------------------------------------------------------------ */

static void on_answer(void *arg, const struct ab_answer *a)
{
    struct ab_drive *d = arg;

    d->is_told = false;
    d->step = later(d->step, a->step);
    if (d->stage == AB_DONE || (d->stage == AB_RESTORE && a->purpose != RESTORE))
        return;
    switch ((enum purpose)a->purpose) {
    case HELLO:
        on_greeted(d, a);
        break;
    case STATUS:
        on_listed(d, a);
        break;
    case CHECK:
        on_checked(d, a);
        break;
    case SWAP:
        on_swapped(d, a);
        break;
    case TRACE_OFF:
        d->untraced_from = a->step;
        break;
    case TRACE_ON:
        on_traced(d, a);
        break;
    case MEMORY:
        on_memory(d, a);
        break;
    case RESTORE:
        on_restored(d, a);
        break;
    case RESET:
        d->reset_at = a->code ? UINT32_MAX : a->step;
        break;
    case TRACE_AUTO:
        break;
    }
}

/* The guest went back by itself: what ran under the arm until then stands, the block does not. */
static void on_reverted(struct ab_drive *d, const struct mp_msg *msg)
{
    const struct rp_ab_block *b = last_block(d);
    char why[160];

    if (d->stage != AB_RUN || !b)
        return;
    snprintf(why, sizeof why, "'%.60s' was reverted at step %u", d->record.arm[b->arm].name,
             msg->step);
    if (msg->code == MP_EGONE) { /* no fault of the arm */
        finish(d, msg->text);
        return;
    }
    ab_arm_say(&d->record, b->arm, RP_ARM_REVERTED, msg->text);
    if (d->n_asked > d->n_begun) /* the next switch is on its way, perhaps to this very arm */
        finish(d, why);
    else
        go_on_without(d, b->arm, why);
}

/* Notices come to everybody: an arm that is not the next in our order is somebody else's doing. */
static void on_swap_notice(struct ab_drive *d, const struct mp_msg *msg)
{
    char why[160];
    unsigned arm;

    if (d->stage != AB_RUN || d->n_begun == d->n_slot)
        return;
    arm = d->slot[d->n_begun].arm;
    if (strcmp(msg->name, d->record.arm[arm].name) == 0 ||
        (strcmp(msg->name, "original") == 0 && ab_arm_is_own(&d->record, arm)))
        return;
    snprintf(why, sizeof why, "another tool swapped in '%.60s' at step %u", msg->name, msg->step);
    finish(d, why);
}

static void arm_row(struct ab_drive *d, unsigned rank, const struct mp_msg *msg)
{
    size_t used = strlen(d->record.known);

    if (rank == 0 && msg->flags & MP_WIRE_YES)
        snprintf(d->record.known + used, sizeof d->record.known - used, "%s%s", used ? ", " : "",
                 msg->name);
    for (unsigned i = 0; i < d->record.n_arm; i++)
        d->is_listed[i] |= ab_arm_row(&d->record, i, msg);
}

/* An arm that has passed is checked again for one reason only. */
static void parity_row(struct ab_drive *d, const struct mp_msg *msg)
{
    if (d->stage == AB_CHECK)
        ab_parity_row(&d->record, d->checked - 1, msg);
    else if (d->stage == AB_RUN)
        finish(d, "another model trains than the one that was checked");
}

static void on_row(void *arg, unsigned rank, const struct mp_msg *msg)
{
    struct ab_drive *d = arg;

    d->is_told = false;
    switch (msg->kind) {
    case MP_WIRE_STATE:
        snprintf(d->record.own, sizeof d->record.own, "%.63s", msg->text);
        break;
    case MP_WIRE_ARM:
        arm_row(d, rank, msg);
        break;
    case MP_WIRE_PARITY:
        if (rank == 0)
            parity_row(d, msg);
        break;
    case MP_WIRE_COSINE:
        if (rank == 0 && d->stage == AB_CHECK)
            ab_cosine_row(&d->record, d->checked - 1, msg);
        break;
    case MP_WIRE_LOSS:
        if (rank == 0)
            loss_row(d, msg);
        break;
    case MP_WIRE_SWAPPED:
        on_swap_notice(d, msg);
        break;
    case MP_WIRE_REVERTED:
        on_reverted(d, msg);
        break;
    default: /* rows of layers */
        break;
    }
}

/* ---- waiting for the job ------------------------------------------------------------------------ */

static int ranks_check(const struct cli_target *target, size_t n, struct mp_err *err)
{
    if (n > AB_RANKS)
        return mp_fail(err, MP_EFULL, "%zu processes train: a before/after drives at most %d", n,
                       AB_RANKS);
    if ((int)n < target[0].world)
        return mp_fail(err, MP_EBUSY,
                       "%zu of %d ranks train here: a before/after drives all ranks, of one "
                       "machine",
                       n, target[0].world);
    return MP_OK;
}

static int links_open(struct ab_drive *d, const struct cli_target *target, size_t n,
                      struct mp_err *err)
{
    int rc = MP_OK;

    for (size_t i = 0; !rc && i < n; i++) {
        if (target[i].rank <= 0) {
            snprintf(d->path, sizeof d->path, "%s", target[i].path);
            d->pid = target[i].pid;
        }
        rc = ab_links_add(&d->links, d->dir, target[i].pid, err);
    }
    if (rc) {
        ab_links_close(&d->links);
        d->path[0] = 0;
    }
    return rc;
}

/* A job that trains and cannot be asked would go unmeasured to its end without a word. What was said
 * stays the reason: ranks that end one by one are none. */
static void wait_say(struct ab_drive *d, const struct mp_err *why)
{
    if (d->is_wait_said)
        return;
    d->wait = *why;
    if (!d->trains_since)
        d->trains_since = ab_now_s();
    if (ab_now_s() - d->trains_since < WAIT_S)
        return;
    d->is_wait_said = true;
    cli_say("the job trains and is not measured yet: %s; 'moeprof doctor' shows what failed in it, "
            "Ctrl-C ends it",
            why->msg);
}

/* All ranks, each listening: only then is anything asked. */
static void job_look(struct ab_drive *d, const struct cli_follow *f)
{
    struct cli_target target[AB_RANKS];
    size_t n = cli_follow_targets(f, target, AB_RANKS);
    struct mp_err err = {.msg = ""};

    if (n == 0)
        return;
    if (ranks_check(target, n, &err) || links_open(d, target, n, &err)) {
        wait_say(d, &err);
        return;
    }
    d->stage = AB_GREET;
    ask(d, MP_WIRE_HELLO, "moeprof ab " MP_VERSION, 0, MP_WIRE_LEASE, HELLO, 0);
}

/* Into the profile at once: a dashboard shows it, and a kill leaves the blocks until then. */
static void progress_tell(struct ab_drive *d, struct cli_follow *f)
{
    if (!d->is_told)
        cli_follow_ab(f, d->pid, &d->record);
    d->is_told = true;
}

bool ab_drive_tick(struct ab_drive *d, struct cli_follow *f)
{
    if (d->stage == AB_WAIT)
        job_look(d, f);
    if (d->stage != AB_WAIT && d->stage != AB_DONE && ab_links_poll(&d->links))
        link_lost(d);
    if (d->stage > AB_LOOK)
        progress_tell(d, f);
    return d->stage == AB_DONE;
}

time_t ab_now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1;
}

/* ---- life --------------------------------------------------------------------------------------- */

int ab_drive_init(struct ab_drive *d, const struct ab_options *o, const char *dir,
                  struct mp_err *err)
{
    *d = (struct ab_drive){.o = o, .dir = dir};
    d->links.arg = d;
    d->links.on_row = on_row;
    d->links.on_answer = on_answer;
    d->record = (struct rp_ab_record){.seed = o->seed,
                                      .n_step = o->n_step,
                                      .n_drop = o->n_drop,
                                      .n_planned = o->n_block,
                                      .gpu = RP_GPU_FACTS_UNKNOWN,
                                      .n_arm = o->n_arm};
    for (unsigned i = 0; i < o->n_arm; i++)
        snprintf(d->record.arm[i].name, sizeof d->record.arm[i].name, "%s", o->arm[i]);
    return o->n_arm < 2 ? mp_fail(err, MP_EINVAL, "a before/after needs two arms") : MP_OK;
}

void ab_drive_stop(struct ab_drive *d, const char *why)
{
    if (d->stage == AB_DONE)
        return;
    if (d->stage == AB_RUN)
        snprintf(d->record.end, sizeof d->record.end, "%.100s in block %zu of %zu", why, d->n_begun,
                 d->n_slot);
    else if (!*d->record.end)
        snprintf(d->record.end, sizeof d->record.end, "%.100s before the first block", why);
    d->stage = AB_DONE;
    ab_links_close(&d->links);
}

void ab_drive_free(struct ab_drive *d)
{
    ab_links_close(&d->links);
    rp_ab_record_release(&d->record);
    free(d->slot);
    d->slot = NULL;
}
