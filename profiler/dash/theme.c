/* Phase colours after Okabe and Ito, so that neighbours in the bar differ for most colour-blind eyes
 * too; heat from violet over teal to yellow grows in lightness. Letters say the same without colour. */
#include "profiler/dash/theme.h"

struct row {
    struct dash_look dark, light, sixteen;
};

#define B     DASH_ATTR_BOLD
#define R     DASH_ATTR_REVERSE
#define BLACK 16
#define WHITE 231

/* Phases look alike in both themes: text on a coloured ground. */
#define PHASE(fg256, bg256, fg16, bg16)                                                            \
    {                                                                                              \
        {fg256, bg256, 0}, {fg256, bg256, 0},                                                      \
        {                                                                                          \
            fg16, bg16, 0                                                                          \
        }                                                                                          \
    }

static const struct row table[DASH_STYLE_COUNT] = {
    [DASH_NORMAL] = {{-1, -1, 0}, {-1, -1, 0}, {-1, -1, 0}},
    [DASH_DIM] = {{245, -1, 0}, {242, -1, 0}, {-1, -1, 0}},
    [DASH_BOLD] = {{-1, -1, B}, {-1, -1, B}, {-1, -1, B}},
    [DASH_TITLE] = {{110, -1, 0}, {25, -1, B}, {6, -1, 0}},
    [DASH_BAR] = {{252, 237, 0}, {BLACK, 252, 0}, {0, 7, 0}},
    [DASH_TAB] = {{BLACK, 110, B}, {WHITE, 25, B}, {0, 6, B}},
    [DASH_GOOD] = {{114, -1, 0}, {28, -1, 0}, {2, -1, 0}},
    [DASH_WARN] = {{221, -1, B}, {130, -1, B}, {3, -1, B}},
    [DASH_BAD] = {{203, -1, B}, {160, -1, B}, {1, -1, B}},
    [DASH_SELECTED] = {{BLACK, 153, 0}, {WHITE, 25, 0}, {-1, -1, R}},
    [DASH_CHART] = {{74, -1, 0}, {26, -1, 0}, {4, -1, 0}},
    [DASH_HEAT + 0] = {{240, -1, 0}, {250, -1, 0}, {-1, -1, 0}},
    [DASH_HEAT + 1] = {{WHITE, 54, 0}, {WHITE, 54, 0}, {7, 4, 0}},
    [DASH_HEAT + 2] = {{WHITE, 60, 0}, {WHITE, 60, 0}, {7, 4, 0}},
    [DASH_HEAT + 3] = {{WHITE, 24, 0}, {WHITE, 24, 0}, {0, 6, 0}},
    [DASH_HEAT + 4] = {{WHITE, 30, 0}, {WHITE, 30, 0}, {0, 6, 0}},
    [DASH_HEAT + 5] = {{BLACK, 36, 0}, {BLACK, 36, 0}, {0, 2, 0}},
    [DASH_HEAT + 6] = {{BLACK, 77, 0}, {BLACK, 77, 0}, {0, 3, 0}},
    [DASH_HEAT + 7] = {{BLACK, 226, 0}, {BLACK, 220, 0}, {7, 1, 0}},
    [DASH_PHASE + MP_PHASE_OTHER] = PHASE(BLACK, 247, 0, 7),
    [DASH_PHASE + MP_PHASE_EMBED] = PHASE(BLACK, 109, 0, 6),
    [DASH_PHASE + MP_PHASE_ATTENTION] = PHASE(WHITE, 26, 7, 4),
    [DASH_PHASE + MP_PHASE_NORM] = PHASE(BLACK, 117, 0, 6),
    [DASH_PHASE + MP_PHASE_ROUTER] = PHASE(BLACK, 227, 0, 3),
    [DASH_PHASE + MP_PHASE_DISPATCH] = PHASE(BLACK, 214, 0, 3),
    [DASH_PHASE + MP_PHASE_EXPERT] = PHASE(BLACK, 36, 0, 2),
    [DASH_PHASE + MP_PHASE_COMBINE] = PHASE(WHITE, 166, 7, 1),
    [DASH_PHASE + MP_PHASE_SHARED_EXPERT] = PHASE(BLACK, 115, 0, 2),
    [DASH_PHASE + MP_PHASE_DENSE_MLP] = PHASE(BLACK, 150, 0, 2),
    [DASH_PHASE + MP_PHASE_LM_HEAD] = PHASE(BLACK, 175, 7, 5),
    [DASH_PHASE + MP_PHASE_LOSS] = PHASE(BLACK, 218, 0, 3),
    [DASH_PHASE + MP_PHASE_OPTIMIZER] = PHASE(WHITE, 97, 7, 5),
    [DASH_PHASE + MP_PHASE_GRADIENT] = PHASE(WHITE, 60, 7, 4),
    [DASH_PHASE + MP_PHASE_COMM] = PHASE(WHITE, 124, 7, 1),
    [DASH_PHASE + MP_PHASE_COPY] = PHASE(BLACK, 180, 0, 3),
    [DASH_IDLE] = {{250, 238, 0}, {BLACK, 253, 0}, {-1, -1, 0}},
};

/* Where there are no colours, an attribute carries the few differences that matter. */
static unsigned plain_attr(enum dash_style style)
{
    switch (style) {
    case DASH_BAR:
    case DASH_TAB:
    case DASH_SELECTED:
        return R;
    case DASH_BOLD:
    case DASH_TITLE:
    case DASH_WARN:
    case DASH_BAD:
        return B;
    default:
        return 0;
    }
}

struct dash_look dash_look(enum dash_theme theme, enum dash_style style, int colours)
{
    const struct row *row = &table[(unsigned)style < DASH_STYLE_COUNT ? style : DASH_NORMAL];

    if (theme == DASH_THEME_MONO || colours < 8)
        return (struct dash_look){-1, -1, plain_attr(style)};
    if (colours < 256)
        return row->sixteen;
    return theme == DASH_THEME_LIGHT ? row->light : row->dark;
}
