/* What ran, on what: facts from the meta table and the model description. Tables say which key goes to
 * which field; a missing or null key leaves the field empty, which renderers show as unknown. */
#include "report/analyze_part.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "report/features.h"

#define FIELD(member) offsetof(struct rp_run, member), sizeof(((struct rp_run *)0)->member)

static const struct {
    const char *key;
    size_t offset, bytes;
} meta_text[] = {
    {"gpu_name", FIELD(gpu)}, {"gpu_uuid", FIELD(gpu_uuid)}, {"hostname", FIELD(hostname)},
    {"comm", FIELD(command)}, {"end", FIELD(end)},           {"moeprof_version", FIELD(moeprof)},
};

static const char *const without[MP_FEATURE_COUNT] = {
    [MP_FEATURE_CUPTI] = "GPU activity is missing",
    [MP_FEATURE_LAUNCH] = "launches were not seen",
    [MP_FEATURE_PYTHON] = "the model is not known",
    [MP_FEATURE_AUTOGRAD] = "backward time may stand on the wrong layer",
    [MP_FEATURE_ROUTING] = "tokens per expert are not known",
    [MP_FEATURE_TOKENS] = "tokens are not known",
};

/* The recorder writes every second. */
static bool is_recent(uint64_t updated_ns)
{
    struct timespec t;
    uint64_t now;

    clock_gettime(CLOCK_REALTIME, &t);
    now = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    return updated_ns <= now && now - updated_ns < 5000000000u;
}

static void meta_read(struct rp_run *run, struct rp_profile *p)
{
    for (size_t i = 0; i < countof(meta_text); i++)
        rp_get_meta(p, meta_text[i].key, (char *)run + meta_text[i].offset, meta_text[i].bytes);
    rp_gpu_get(&run->machine, p, "gpu_");
    run->rank = (int)rp_get_meta_int(p, "rank", -1);
    run->world = (int)rp_get_meta_int(p, "world", 1);
    run->began_ns = (uint64_t)rp_get_meta_int(p, "created_ns", 0);
    run->ended_ns = (uint64_t)rp_get_meta_int(p, "ended_ns", 0);
    run->is_complete = run->ended_ns != 0;
    run->is_live = !run->is_complete && is_recent((uint64_t)rp_get_meta_int(p, "updated_ns", 0));
}

static int any_step(void *arg, const struct mp_step *step)
{
    (void)step;
    *(bool *)arg = true;
    return 1;
}

/* The first commit writes updated_ns: a file without it is one whose log did not come along. */
static int empty_check(struct rp_report *r, struct rp_profile *p, struct mp_err *err)
{
    const char *slash = strrchr(r->run.file, '/');
    bool has_step = false;
    int rc;

    if (r->run.is_complete || rp_get_meta_int(p, "updated_ns", 0))
        return MP_OK;
    if ((rc = rp_each_step(p, any_step, &has_step, err)) < 0)
        return rc;
    r->run.is_empty = !has_step;
    if (has_step)
        return MP_OK;
    snprintf(r->mfu.why_not, sizeof r->mfu.why_not, "nothing of the run is in the file");
    rp_note(r,
            "what was recorded is still in the log '%.60s-wal', which is missing or empty: "
            "copy it beside the file and report again",
            slash ? slash + 1 : r->run.file);
    return MP_OK;
}

static void features_note(struct rp_report *r, struct rp_profile *p)
{
    char why[176];

    for (int i = 0; i < MP_FEATURE_COUNT; i++)
        if (without[i] &&
            rp_feature_get(p, (enum mp_feature)i, why, sizeof why) == MP_FEATURE_FAILED)
            rp_note(r, "%s: %s", without[i], why);
}

/* The description is kept as it is; what is wrong with it, and what it says to the user, are notes. */
static int spec_read(struct rp_report *r, struct rp_profile *p, struct mp_err *err)
{
    struct mp_err why;
    char *json = NULL;
    int rc = rp_get_spec(p, &json, err);

    if (rc)
        return rc;
    if (!json && r->run.is_empty)
        return MP_OK;
    if (!json) {
        rp_note(r, "no model was found in the job: no MFU, and time is booked by phase only where "
                   "kernels tell it");
        return MP_OK;
    }
    rc = rp_spec_parse(&r->spec, json, strlen(json), &why);
    r->has_spec = rc == MP_OK;
    if (rc)
        snprintf(r->mfu.why_not, sizeof r->mfu.why_not, "the model description is not used: %.150s",
                 why.msg);
    free(json);
    return MP_OK;
}

int rp_analyze_run(struct rp_report *r, struct rp_profile *p, struct mp_err *err)
{
    int rc;

    meta_read(&r->run, p);
    if ((rc = empty_check(r, p, err)))
        return rc;
    features_note(r, p);
    if ((rc = spec_read(r, p, err)))
        return rc;
    for (uint32_t i = 0; r->has_spec && i < r->spec.n_note; i++)
        rp_note(r, "%s", r->spec.note[i]);
    return MP_OK;
}
