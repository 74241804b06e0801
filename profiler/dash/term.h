/* The terminal: cells out, keys in. The only room of curses; built without it, opening says so.
 *
 * Whatever ends the process, the terminal is usable again afterwards: INT, TERM and HUP end the loop,
 * fatal signals restore it on their way out.
 */
#ifndef DASH_TERM_H
#define DASH_TERM_H

#include "profiler/dash/keys.h"

struct dash_term_options {
    bool ascii, no_color;
};

/* True when both ends are terminals and curses is built in. */
bool dash_term_possible(void);

/* True when the locale draws UTF-8. */
bool dash_term_utf8(void);

/* One at a time. */
int dash_term_open(const struct dash_term_options *o, struct mp_err *err);
void dash_term_close(void);

void dash_term_size(int *w, int *h);
bool dash_term_ascii(void);
bool dash_term_mono(enum dash_theme theme);

/* Shows what changed since the last call; everything when `anew`. */
void dash_term_show(const struct dash_cells *c, enum dash_theme theme, bool anew);

/* The next key, or DASH_KEY_NONE after timeout_ms. */
uint32_t dash_term_key(int timeout_ms);

/* A signal asked to end, or the terminal went away. */
bool dash_term_ended(void);

#endif
