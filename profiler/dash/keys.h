/* Key → change of the model. One row a key; the help screen reads the same table. */
#ifndef DASH_KEYS_H
#define DASH_KEYS_H

#include "profiler/dash/model.h"

/* Keys that are not characters, beyond the last code point. */
enum dash_key {
    DASH_KEY_NONE = 0,
    DASH_KEY_UP = 0x110000,
    DASH_KEY_DOWN,
    DASH_KEY_LEFT,
    DASH_KEY_RIGHT,
    DASH_KEY_PGUP,
    DASH_KEY_PGDN,
    DASH_KEY_HOME,
    DASH_KEY_END,
    DASH_KEY_TAB,
    DASH_KEY_BACKTAB,
    DASH_KEY_ESC,
    DASH_KEY_ENTER,
    DASH_KEY_BACKSPACE,
    DASH_KEY_F1,
    DASH_KEY_F6,
    DASH_KEY_F10,
    DASH_KEY_RESIZE,
};

/* True when the key meant something. */
bool dash_key_press(struct dash_model *m, uint32_t key);

struct dash_key_help {
    const char *keys, *text;
};

/* Rows for the help screen, in order; text NULL: `keys` is a heading. */
const struct dash_key_help *dash_keys_help(size_t *n);

#endif
