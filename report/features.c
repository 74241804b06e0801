/* See features.h. */
#include "report/features.h"

#include <stdio.h>
#include <string.h>

#define FAILED "failed: "

static const char *const key[MP_FEATURE_COUNT] = {
    [MP_FEATURE_CUPTI] = "feature.cupti",     [MP_FEATURE_LAUNCH] = "feature.launch",
    [MP_FEATURE_PYTHON] = "feature.python",   [MP_FEATURE_AUTOGRAD] = "feature.autograd",
    [MP_FEATURE_ROUTING] = "feature.routing", [MP_FEATURE_TOKENS] = "feature.tokens",
    [MP_FEATURE_NVML] = "feature.nvml",
};

int rp_features_put(struct rp_profile *p, const struct mp_reader *r, struct mp_err *err)
{
    int rc = MP_OK;

    for (int f = 0; rc == MP_OK && f < MP_FEATURE_COUNT; f++) {
        char why[160], text[176];
        enum mp_feature_state state = mp_reader_feature(r, (enum mp_feature)f, why, sizeof why);

        snprintf(text, sizeof text, FAILED "%s", why);
        rc = rp_put_meta(p, key[f],
                         state == MP_FEATURE_ON       ? "on"
                         : state == MP_FEATURE_FAILED ? text
                                                      : "waiting",
                         err);
    }
    return rc;
}

enum mp_feature_state rp_feature_get(struct rp_profile *p, enum mp_feature feature, char *why,
                                     size_t why_bytes)
{
    char text[200] = "";

    why[0] = 0;
    rp_get_meta(p, key[feature], text, sizeof text);
    if (strncmp(text, FAILED, strlen(FAILED)) == 0) {
        snprintf(why, why_bytes, "%s", text + strlen(FAILED));
        return MP_FEATURE_FAILED;
    }
    return strcmp(text, "on") == 0 ? MP_FEATURE_ON : MP_FEATURE_WAITING;
}
