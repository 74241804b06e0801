/* What the render_html_*.c files share: a page being written. Private to them. */
#ifndef RP_RENDER_HTML_PART_H
#define RP_RENDER_HTML_PART_H

#include "report/render_html.h"

#include "report/ab.h"
#include "report/format.h"

#define HTML_BINS  600 /* columns of a timeline */
#define HTML_WIDTH 1000.0
#define HTML_LABEL 96

struct rp_timeline {
    uint32_t step;
    uint64_t begin_ns, window_ns; /* window 0: no step could be shown */
    uint32_t n_operation;
    uint32_t ns[MP_PASS_COUNT][MP_PHASE_COUNT][HTML_BINS];
    int16_t layer[HTML_BINS]; /* the one with most time; -1 none */
};

struct html_gauge {
    uint64_t n, sum, min, max;
};

struct rp_html_data {
    struct rp_timeline timeline;
    struct html_gauge gauge[RP_GAUGE_COUNT];
    uint64_t throttled; /* seconds with a reason to throttle */
    struct rp_ab *ab;   /* a before/after inside the run; NULL: none */
};

struct rp_html {
    FILE *f;
    const struct rp_page *page;
    size_t n;
    bool is_pair;                     /* before and after */
    const struct rp_compare *compare; /* of the pair; NULL: none */
    char (*label)[HTML_LABEL];        /* (n) */
};

/* ---- text: everything that comes from outside goes through html_text ----------------------------- */

/* Escaped for text and for attributes in quotes; what is no UTF-8 becomes a replacement character. */
void html_text(FILE *f, const char *text);
void html_printf(FILE *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "shared expert" for shared_expert. */
const char *html_phase(enum mp_phase phase);
/* Opens a section with its heading. */
void html_section(struct rp_html *h, const char *id, const char *title, const char *sub);
/* A heading for page i, when there are several. */
void html_page_head(struct rp_html *h, size_t i, int level);
/* A cell with a figure: text, and v for sorting. */
void html_cell(FILE *f, struct mp_val v, const char *text);
void html_seconds(FILE *f, struct mp_val v);
void html_percent(FILE *f, struct mp_val v);
/* <svg role=img> with title and description; size is its viewBox. */
void svg_open(FILE *f, const char *classes, double width, double height, bool stretch,
              const char *title, const char *desc);

struct html_bar {
    const char *name;
    char right[80];
    double phase_s[MP_PHASE_COUNT], idle_s; /* of a mean step */
};

/* A step by phase, as wide as its share of max. */
void html_bar(FILE *f, const struct html_bar *b, double max);
void html_bar_axis(FILE *f, double max);

#define HTML_PLOT_LEFT 64.0 /* of HTML_WIDTH, for the figures at the lines */
#define HTML_PLOT_H    150.0

/* An upward axis: from zero, unless the values are all but equal: then what differs is the question. */
struct html_axis {
    double low, high; /* seconds; the same twice: nothing to show */
};

struct html_axis html_axis_of(double low, double high);
double html_axis_y(const struct html_axis *a, double seconds);
/* Opens a plot and draws the axis's lines; `</svg>` is the caller's. */
void html_axis_open(FILE *f, const struct html_axis *a, const char *title, const char *desc);
/* The class of a profile or an arm: its name in class="c-NAME". */
const char *html_series(size_t i);

/* ---- parts of the page ----------------------------------------------------------------------------- */

void html_verdict(struct rp_html *h);
/* The headline of a before/after; false when there is none to put. */
bool html_ab_sentence(FILE *f, const struct rp_ab *ab);
void html_ab(struct rp_html *h);
void html_where(struct rp_html *h);
void html_timeline(struct rp_html *h);
void html_heat(struct rp_html *h);
void html_icicle(struct rp_html *h);
void html_kernels(struct rp_html *h);
void html_steps(struct rp_html *h);
void html_coverage(struct rp_html *h);
void html_environment(struct rp_html *h);
int html_raw(struct rp_html *h, struct mp_err *err);

/* Seconds per step of a phase over all passes; the unit of most figures. */
double html_phase_s(const struct rp_report *r, enum mp_phase phase);
struct mp_val html_per_step(const struct rp_report *r, struct mp_val v);
/* Marks that at least `least` long steps lie on an axis of `max`: 1, 2, 5 times a power of ten. */
double html_tick(double max, int count);

#endif
