/* The dashboard without a terminal: the Overview as text. */
#ifndef DASH_ONCE_H
#define DASH_ONCE_H

#include "profiler/dash/model.h"

#include <stdio.h>

/* Each job's Overview, 100 columns wide. */
int dash_once_text(const struct dash_model *m, bool ascii, FILE *out);

#endif
