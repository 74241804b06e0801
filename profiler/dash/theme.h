/* How a style looks on a terminal of 256, 16 or no colours. Tables only. */
#ifndef DASH_THEME_H
#define DASH_THEME_H

#include "profiler/dash/cells.h"
#include "profiler/dash/model.h"

enum dash_attr { DASH_ATTR_BOLD = 1, DASH_ATTR_REVERSE = 2, DASH_ATTR_DIM = 4 };

struct dash_look {
    short fg, bg;  /* colour numbers; -1: the terminal's own */
    unsigned attr; /* enum dash_attr */
};

/* colours: what the terminal has; under 8 there is only the attribute. */
struct dash_look dash_look(enum dash_theme theme, enum dash_style style, int colours);

#endif
