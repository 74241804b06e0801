/* moeprof ab: launches a job, lets its experts run in arms by turns, says what the difference is worth. */
#include "profiler/cli/cmd.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "profiler/cli/ab_drive.h"
#include "profiler/cli/job.h"
#include "report/utf8.h"

/* A guest arms its tracing up to two steps after it was asked, and the last traced step has no end. */
#define N_TRACED 4

struct ab_run {
    struct ab_options o;
    struct cli_job job;
    struct ab_drive drive;
    const char *from; /* a profile to report on, NULL: run */
    bool json, md;
    bool wait, end_job;
    int kill_after_s;    /* -1: never */
    time_t asked_to_end; /* ab_now_s; 0: not */
};

static int help(void)
{
    puts("usage: moeprof ab [--arms A,B[,C..]] [--blocks N] [-o FILE] [--json|--md] -- CMD...\n"
         "       moeprof ab --from FILE [--json|--md]\n\n"
         "Starts CMD and measures experts implementations against each other inside it: the same "
         "model,\n"
         "data and GPU, switched between steps after their numbers were found to agree.\n\n"
         "  --arms A,B           base first; default original,moeprof. original is what the job "
         "runs;\n"
         "                       eager, grouped_mm, batched_mm and all that the job has "
         "registered;\n"
         "                       padded_bmm, equal_bmm, reduce-overhead; with their packages "
         "scattermoe,\n"
         "                       megablocks, qwen3-moe-fused.\n"
         "                       original,original tells what equal arms differ by here\n"
         "  --blocks N           of each arm (default 10; fewer than 6 are never conclusive)\n"
         "  --steps-per-block N  that count (default 8), behind 2 that settle\n"
         "  --traced-steps N     behind those that count, to see where the time goes (default 4, 0 "
         "none);\n"
         "                       the counted ones are not traced where the guest can pause "
         "tracing\n"
         "  --warmup N           steps before the first block (default 10)\n"
         "  --seed N             order of the blocks; random, and recorded, without it\n"
         "  -o FILE              the profile; 'moeprof report FILE' and --from show it again\n"
         "  --preload            enter through LD_PRELOAD too, as 'moeprof run' does with it\n"
         "  --json, --md         for programs (report/schema/ab.schema.json), for a pull request; "
         "what\n"
         "                       CMD prints then goes to standard error\n\n"
         "When the blocks are done the job has its own experts back and goes on; ab prints and "
         "ends.\n\n"
         "  --wait               goes on recording until the job ends\n"
         "  --end-job            ends the job with SIGINT\n"
         "  --kill-after S       with --end-job: SIGKILL when it still runs S seconds later\n\n"
         "Exit code: 0 measured, 1 failed or no arm could be compared, 2 usage, 3 the job ended\n"
         "before anything could be compared, 4 numbers differ or an arm was reverted.\n\n"
         "Example:  moeprof ab --arms original,moeprof --md --end-job -- python train.py > ab.md");
    return CLI_OK;
}

/* ---- options ------------------------------------------------------------------------------------ */

static int arms_parse(struct ab_options *o, const char *text)
{
    o->n_arm = 0;
    while (*text) {
        size_t n = strcspn(text, ",");

        if (n == 0 || n >= RP_AB_NAME)
            return cli_usage("ab", "'%.60s' is no name of an arm", text) + 1;
        if (o->n_arm == RP_AB_ARMS)
            return cli_usage("ab", "at most %d arms", RP_AB_ARMS) + 1;
        snprintf(o->arm[o->n_arm++], RP_AB_NAME, "%.*s", (int)n, text);
        text += n + (text[n] == ',');
    }
    return o->n_arm < 2 ? cli_usage("ab", "two arms are needed, %u given", o->n_arm) + 1 : 0;
}

static int number_parse(uint32_t *out, const char *name, const char *text, uint32_t min,
                        uint32_t max)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);

    if (end == text || *end || *text == '-' || v < min || v > max)
        return cli_usage("ab", "'%.40s' is no number of %s (%u to %u)", text, name, min, max) + 1;
    *out = (uint32_t)v;
    return 0;
}

/* JSON integers are signed. */
static int seed_parse(uint64_t *out, const char *text)
{
    char *end;

    *out = strtoull(text, &end, 0);
    if (*text < '0' || *text > '9' || *end || *out > INT64_MAX) /* too large for it: UINT64_MAX */
        return cli_usage("ab", "'%.40s' is no seed (0 to %lld)", text, (long long)INT64_MAX) + 1;
    return 0;
}

static int option(struct ab_run *r, int c)
{
    uint32_t v = 0;
    int code;

    switch (c) {
    case 'o':
        r->job.out = optarg;
        return 0;
    case 'p':
        r->job.preload = true;
        return 0;
    case 'a':
        return arms_parse(&r->o, optarg);
    case 'b':
        return number_parse(&r->o.n_block, "blocks", optarg, 1, 1000);
    case 's':
        return number_parse(&r->o.n_step, "steps", optarg, 1, 10000);
    case 't':
        return number_parse(&r->o.n_traced, "steps", optarg, 0, 1000);
    case 'w':
        return number_parse(&r->o.n_warmup, "steps", optarg, 0, 1000000);
    case 'S':
        return seed_parse(&r->o.seed, optarg);
    case 'f':
        r->from = optarg;
        return 0;
    case 'j':
        r->json = true;
        return 0;
    case 'm':
        r->md = true;
        return 0;
    case 'W':
        r->wait = true;
        return 0;
    case 'e':
        r->end_job = true;
        return 0;
    case 'k':
        code = number_parse(&v, "seconds", optarg, 0, 86400);
        r->kill_after_s = (int)v;
        return code;
    case 'h':
        return help() + 1;
    default:
        return -1;
    }
}

static int together_check(const struct ab_run *r, int n_left)
{
    if (r->json && r->md)
        return cli_usage("ab", "--json and --md exclude each other") + 1;
    if (r->wait && r->end_job)
        return cli_usage("ab", "--wait and --end-job exclude each other") + 1;
    if (r->kill_after_s >= 0 && !r->end_job)
        return cli_usage("ab", "--kill-after needs --end-job") + 1;
    if (r->from && n_left)
        return cli_usage("ab", "--from wants no command") + 1;
    if (!r->from && !n_left)
        return cli_usage("ab", "no command to run") + 1;
    return 0;
}

/* 0: go on; else the exit code + 1. */
static int options(struct ab_run *r, int argc, char **argv)
{
    static const struct option long_option[] = {{"arms", required_argument, NULL, 'a'},
                                                {"blocks", required_argument, NULL, 'b'},
                                                {"steps-per-block", required_argument, NULL, 's'},
                                                {"traced-steps", required_argument, NULL, 't'},
                                                {"warmup", required_argument, NULL, 'w'},
                                                {"seed", required_argument, NULL, 'S'},
                                                {"from", required_argument, NULL, 'f'},
                                                {"json", no_argument, NULL, 'j'},
                                                {"md", no_argument, NULL, 'm'},
                                                {"wait", no_argument, NULL, 'W'},
                                                {"end-job", no_argument, NULL, 'e'},
                                                {"kill-after", required_argument, NULL, 'k'},
                                                {"preload", no_argument, NULL, 'p'},
                                                {"output", required_argument, NULL, 'o'},
                                                {"help", no_argument, NULL, 'h'},
                                                {0}};
    int c, code = 0;

    optind = 0;
    while (!code && (c = getopt_long(argc, argv, "+:o:h", long_option, NULL)) != -1)
        if ((code = option(r, c)) < 0)
            return cli_bad_option("ab", c, argv) + 1;
    r->job.argv = argv + optind;
    return code ? code : together_check(r, argc - optind);
}

/* ---- while the job runs ------------------------------------------------------------------------- */

/* The processes that train, and the command: a launcher that is killed would leave the others behind. */
static void all_kill(const struct ab_run *r)
{
    struct cli_target target[AB_RANKS];
    size_t n = cli_follow_targets(r->job.follow, target, AB_RANKS);

    for (size_t i = 0; i < n && i < AB_RANKS; i++)
        kill(target[i].pid, SIGKILL);
    if (!r->job.child_ended)
        kill(r->job.child, SIGKILL);
}

/* Asked once; torchrun passes SIGINT on, and a Trainer ends well upon it. */
static void job_end(struct ab_run *r)
{
    if (!r->asked_to_end) {
        r->asked_to_end = ab_now_s();
        if (!r->job.child_ended)
            kill(r->job.child, SIGINT);
    } else if (r->kill_after_s >= 0 && ab_now_s() - r->asked_to_end >= r->kill_after_s) {
        all_kill(r);
    }
}

static bool tick(void *arg)
{
    struct ab_run *r = arg;

    if (!ab_drive_tick(&r->drive, r->job.follow))
        return false;
    if (r->end_job)
        job_end(r);
    return !r->end_job && !r->wait;
}

/* The switches of short blocks are asked for just in time. */
static int wake_fd(void *arg)
{
    const struct ab_links *l = &((const struct ab_run *)arg)->drive.links;

    return l->n ? l->sock[0].fd : -1;
}

/* "block 5 of 20 (moeprof)", "checking 'moeprof'". */
static void stage_line(const struct ab_drive *d, char *out, size_t n)
{
    static const char *const word[] = {[AB_WAIT] = "waiting for the job to listen",
                                       [AB_GREET] = "greeting",
                                       [AB_LOOK] = "looking at the arms",
                                       [AB_CHECK] = "checking",
                                       [AB_RUN] = "waiting for the first block",
                                       [AB_RESTORE] = "restoring the job",
                                       [AB_DONE] = "done"};

    if (d->stage == AB_RUN && d->n_begun)
        snprintf(out, n, "block %zu of %zu (%.40s)", d->n_begun, d->n_slot,
                 d->record.arm[d->slot[d->n_begun - 1].arm].name);
    else if (d->stage == AB_CHECK)
        snprintf(out, n, "checking '%.40s'", d->record.arm[d->checked - 1].name);
    else
        snprintf(out, n, "%s", word[d->stage]);
}

static void prefix(void *arg, char *line, size_t n)
{
    const struct ab_run *r = arg;
    char stage[96], whole[400];

    stage_line(&r->drive, stage, sizeof stage);
    snprintf(whole, sizeof whole, "%s | %s", stage, line);
    snprintf(line, n, "%s", whole);
}

/* ---- the result --------------------------------------------------------------------------------- */

static int record_write(struct ab_run *r, struct mp_err *err)
{
    struct rp_profile *p;
    int rc = rp_profile_append(&p, r->drive.path, err), closed;

    if (rc)
        return rc;
    rc = rp_ab_put(p, &r->drive.record, err);
    closed = rp_profile_close(p, rc ? NULL : err);
    return rc ? rc : closed;
}

static int render(const struct ab_run *r, const struct rp_ab *ab, struct mp_err *err)
{
    if (r->json)
        return rp_render_ab_json(stdout, ab, err);
    return r->md ? rp_render_ab_md(stdout, ab, err) : rp_render_ab_text(stdout, ab, err);
}

static int code_of(const struct rp_ab *ab)
{
    if (rp_ab_is_parity_failure(&ab->record))
        return CLI_PARITY;
    if (ab->record.arm[0].status != RP_ARM_MEASURED || !ab->main_arm)
        return CLI_FAILED;
    if (ab->contrast[ab->main_arm].n_pair)
        return CLI_OK;
    return *ab->record.end ? CLI_GONE : CLI_FAILED;
}

/* The arm because of which the exit code is not 0, NULL: none of them is. */
static const struct rp_arm *arm_at_fault(const struct rp_ab *ab, int code)
{
    const struct rp_ab_record *r = &ab->record;
    bool parity = code == CLI_PARITY;
    bool is_arm = parity || !ab->main_arm || r->arm[0].status != RP_ARM_MEASURED;

    for (unsigned i = 0; is_arm && i < r->n_arm; i++)
        if (parity ? r->arm[i].status > RP_ARM_REFUSED : r->arm[i].status == RP_ARM_REFUSED)
            return &r->arm[i];
    return NULL;
}

/* Standard output may be a file that nobody reads: why the exit code is not 0 is said beside it. */
static int code_say(const struct rp_ab *ab, const char *path)
{
    int code = code_of(ab);
    const struct rp_arm *arm = arm_at_fault(ab, code);
    char text[RP_AB_NAME + 300];

    if (code == CLI_OK)
        return code;
    if (arm)
        snprintf(text, sizeof text, "'%s' %s: %s%s", arm->name, rp_arm_status_name(arm->status),
                 arm->why, code == CLI_FAILED ? "; --arms chooses others" : "");
    else if (*ab->record.end)
        snprintf(text, sizeof text,
                 "%s; run it again, shorter with --blocks, --steps-per-block, --warmup",
                 ab->record.end);
    else
        snprintf(text, sizeof text,
                 "no two whole blocks that belong together are left in '%.160s'; record it again",
                 path);
    cli_say("%s%s", code == CLI_PARITY ? "" : "nothing was compared: ", rp_utf8_clean(text));
    return code;
}

static int result_show(const struct ab_run *r, const char *path)
{
    struct rp_report *report = NULL;
    struct rp_profile *p = NULL;
    struct rp_ab *ab = NULL;
    struct mp_err err = {.msg = ""};
    int code, rc = rp_profile_open(&p, path, &err);

    if (!rc)
        rc = rp_analyze(&report, p, path, &(struct rp_options){0}, &err);
    if (!rc)
        rc = rp_ab_analyze(&ab, report, p, &err);
    if (!rc && !ab)
        rc = mp_fail(&err, MP_EFORMAT,
                     "'%.120s' holds no before/after: record one with 'moeprof ab'", path);
    if (!rc)
        rc = render(r, ab, &err);
    code = rc ? cli_fail(&err) : code_say(ab, path);
    rp_ab_free(ab);
    rp_report_free(report);
    rp_profile_close(p, NULL);
    return code;
}

static int nothing_found(const struct ab_run *r)
{
    const char *why = r->drive.wait.msg;

    cli_job_code(&r->job); /* says how the job ended */
    cli_say("nothing was measured: %s before all of it listened on its control sockets%s%s",
            r->job.child_ended ? "the job ended" : "the job was left", *why ? ": " : "; ",
            *why ? why : "it does once a model trains in it");
    return r->job.child_ended ? CLI_GONE : CLI_FAILED;
}

static int result(struct ab_run *r)
{
    struct mp_err err;

    ab_drive_stop(&r->drive, r->job.child_ended ? "the job ended" : "stopped");
    if (!r->job.child_ended)
        cli_say("the job goes on with its own experts as process %d; its recording ended",
                (int)r->job.child);
    if (!*r->drive.path)
        return nothing_found(r);
    if (r->job.child_ended && !r->asked_to_end)
        cli_job_code(&r->job); /* says how the job ended; the exit code speaks of the measurement */
    if (record_write(r, &err))
        return cli_fail(&err);
    return result_show(r, r->drive.path);
}

static int run(struct ab_run *r)
{
    struct mp_err err;
    int code;

    r->job.stdout_to_stderr = r->json || r->md;
    r->job.tick = tick;
    r->job.prefix = prefix;
    r->job.wake_fd = wake_fd;
    r->job.arg = r;
    if (ab_drive_init(&r->drive, &r->o, r->job.dir, &err) || cli_job_start(&r->job, &err)) {
        code = cli_fail(&err);
    } else {
        cli_job_follow(&r->job);
        code = result(r);
    }
    ab_drive_free(&r->drive);
    cli_job_free(&r->job);
    return code;
}

int cmd_ab_main(int argc, char **argv)
{
    struct ab_run r = {.o = {.arm = {"original", "moeprof"},
                             .n_arm = 2,
                             .n_block = RP_AB_BLOCKS,
                             .n_step = RP_AB_STEPS,
                             .n_drop = RP_AB_DROP,
                             .n_traced = N_TRACED,
                             .n_warmup = 10},
                       .kill_after_s = -1};
    int code;

    if (getrandom(&r.o.seed, sizeof r.o.seed, 0) != (ssize_t)sizeof r.o.seed)
        r.o.seed = (uint64_t)time(NULL);
    r.o.seed &= INT64_MAX;
    code = options(&r, argc, argv);
    if (code)
        return code - 1;
    return r.from ? result_show(&r, r.from) : run(&r);
}
