/* Terminal size → where things stand. Pure arithmetic, tested at every size.
 *
 * Slots of one screen never overlap and never leave the terminal. A full screen fills its slots; in
 * compact mode (under 60x16) one slot carries the few figures that matter.
 */
#ifndef DASH_LAYOUT_H
#define DASH_LAYOUT_H

#include "profiler/dash/cells.h"

enum dash_screen {
    DASH_OVERVIEW = 0,
    DASH_EXPERTS,
    DASH_KERNELS,
    DASH_TIMELINE,
    DASH_LOG,
    DASH_AB, /* only where there is a before/after */
    DASH_HELP,
    DASH_SCREEN_COUNT
};

enum dash_slot {
    DASH_SLOT_HEADER = 0,
    DASH_SLOT_TABS,
    DASH_SLOT_FOOTER,
    DASH_SLOT_COMPACT, /* the only one in compact mode */
    DASH_SLOT_MFU,
    DASH_SLOT_STEP,
    DASH_SLOT_PHASES, /* only where there is room, as the next two */
    DASH_SLOT_TOKENS,
    DASH_SLOT_TIME,
    DASH_SLOT_GPU,
    DASH_SLOT_GUEST,
    DASH_SLOT_JOBS, /* only with several jobs */
    DASH_SLOT_MAP,
    DASH_SLOT_WORST,
    DASH_SLOT_EXPERT,
    DASH_SLOT_TABLE,
    DASH_SLOT_DETAIL,
    DASH_SLOT_STRIP,
    DASH_SLOT_ENV,
    DASH_SLOT_LOG,
    DASH_SLOT_ARMS,
    DASH_SLOT_BLOCKS,
    DASH_SLOT_VERDICT,
    DASH_SLOT_HELP,
    DASH_SLOT_COUNT
};

enum dash_size { DASH_TINY = 0, DASH_COMPACT, DASH_FULL };

#define DASH_FULL_W    60
#define DASH_FULL_H    16
#define DASH_COMPACT_W 20
#define DASH_COMPACT_H 5

struct dash_layout {
    enum dash_size size;
    enum dash_screen screen;
    struct dash_rect slot[DASH_SLOT_COUNT]; /* w = h = 0: not on this screen */
};

void dash_layout(struct dash_layout *out, enum dash_screen screen, int w, int h, int n_job,
                 bool expanded);

#endif
