/* `moeprof top --json`: everything that the dashboard knows, as one JSON object.
 * profiler/cli/schema/top.schema.json describes it. */
#ifndef CLI_TOP_JSON_H
#define CLI_TOP_JSON_H

#include <stdio.h>

#include "profiler/dash/model.h"

#define CLI_TOP_JSON_SCHEMA 1

/* Numbers in base units, null for unknown. MP_ENOTSUP: built without jansson. */
int cli_top_json(const struct dash_model *m, FILE *out, struct mp_err *err);

#endif
