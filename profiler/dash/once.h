/* The dashboard's figures without a terminal: the Overview as text, or everything as one JSON object. */
#ifndef DASH_ONCE_H
#define DASH_ONCE_H

#include "profiler/dash/model.h"

#include <stdio.h>

#define DASH_JSON_SCHEMA 1

/* Each job's Overview, 100 columns wide. */
int dash_once_text(const struct dash_model *m, bool ascii, FILE *out);

/* Numbers in base units, null for unknown. MP_ENOTSUP: built without jansson. */
int dash_once_json(const struct dash_model *m, FILE *out, struct mp_err *err);

#endif
