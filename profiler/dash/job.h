/* All that is known about one job: what it is, its newest figures, and the history of each.
 *
 * Owner: the one thread of the dashboard. The feed functions write, views only read. History is kept
 * for every metric in every step, whether or not a view shows it at the moment.
 */
#ifndef DASH_JOB_H
#define DASH_JOB_H

#include <limits.h>

#include "profiler/core/shm.h"
#include "profiler/dash/ab.h"
#include "profiler/dash/experts.h"
#include "profiler/dash/kernels.h"
#include "profiler/dash/ring.h"
#include "profiler/dash/timeline.h"

/* Whose count of model FLOPs stands above the line; mfu.md 1.1 and MFU.md say how they differ. */
enum dash_convention {
    DASH_OURS = 0,
    DASH_PALM,
    DASH_TRL,
    DASH_ADJUSTED,
    DASH_HF,
    DASH_CONVENTION_COUNT
};

enum dash_metric {
    DASH_M_STEP_NS = 0,
    DASH_M_MFU, /* + enum dash_convention */
    DASH_M_HFU = DASH_M_MFU + DASH_CONVENTION_COUNT,
    DASH_M_USEFUL_S,    /* useful tokens a second */
    DASH_M_PROCESSED_S, /* padding included */
    DASH_M_COVERAGE,    /* share of the GPU's busy time that is booked on a phase */
    DASH_M_SM_CLOCK,    /* MHz */
    DASH_M_POWER,       /* W */
    DASH_M_TEMP,        /* degrees C */
    DASH_M_MEM,         /* bytes */
    DASH_M_IDLE,        /* ns a step */
    DASH_M_PHASE,       /* + enum mp_phase: ns a step */
    DASH_M_COUNT = DASH_M_PHASE + MP_PHASE_COUNT
};

/* What core/mfu makes of one step. */
struct dash_figures {
    struct mp_val mfu[DASH_CONVENTION_COUNT]; /* fractions */
    struct mp_val hfu;
    struct mp_val model_flop;
    uint64_t step_ns;         /* what the others are over; 0 unknown */
    struct mp_val peak_flops; /* a second */
    char convention[240];     /* what the MFU means; "" when there is none */
    char why_not[160];        /* why there is no MFU; "" when there is one */
};

/* Newest values of the guest's gauges; unknown ones are UNKNOWN. */
struct dash_gauges {
    uint64_t time_ns;
    struct mp_val sm_clock_mhz, mem_clock_mhz, power_w, temp_c, mem_bytes;
    uint32_t throttle_bits;
    bool throttle_known;
};

struct dash_counters {
    uint64_t n_launch, n_record;
    uint64_t n_dropped;   /* by CUPTI */
    uint64_t n_lost;      /* in the guest */
    uint64_t n_unmatched; /* records without launch context */
    uint64_t n_lapped;    /* in this reader */
    uint64_t agent_cpu_ns;
    struct mp_val agent_frac; /* of a core, over the last interval */
};

struct dash_fact {
    char label[28];
    char text[228];
};

#define DASH_FACT_MAX 48u

struct dash_step { /* what stays of a step that was watched; 0 in `known` before the first */
    bool known;
    uint32_t step, flags, n_micro, launches, records, dropped, n_kernel;
    uint64_t window_ns, idle_ns, own_ns;
    uint64_t processed, useful; /* UINT64_MAX unknown */
    uint64_t booked_ns[MP_PHASE_COUNT][MP_PASS_COUNT];
};

struct dash_job {
    uint64_t key; /* tells jobs apart, also when a pid comes again */
    int pid, rank, world;
    char title[96]; /* command line's head, or the file replayed */
    char gpu_name[96];
    uint64_t gpu_mem_bytes;
    uint64_t watched_ns;   /* since when */
    uint64_t last_step_ns; /* when the newest step arrived, on the watcher's clock */

    enum mp_guest_state state;
    bool alive; /* the process runs */
    bool replay;
    char why[200]; /* reason of a state that is not RECORDING; "" none */
    uint32_t running_step;

    struct dash_gauges gauges;
    struct dash_counters counters;
    struct {
        enum mp_feature_state state;
        char why[156];
    } feature[MP_FEATURE_COUNT];
    struct mp_log_row log[MP_LOG_CAP]; /* oldest first */
    uint32_t n_log;
    uint64_t n_log_ever;
    struct dash_fact fact[DASH_FACT_MAX]; /* environment and model, as the guest described them */
    uint32_t n_fact;
    char model[96];   /* class of the model; "" unknown */
    char backend[64]; /* experts implementation that really runs; "" unknown */

    struct dash_step
        last; /* the newest whose operations are known: a guest watches bursts of steps */
    struct dash_figures figures;
    uint32_t newest_step; /* closed, watched or not */
    uint64_t n_step;      /* steps in the history */
    uint64_t n_skipped;   /* partial steps and steps under another profiler */
    struct dash_ring ring[DASH_M_COUNT];
    struct dash_experts experts;
    struct dash_kernels kernels;
    struct dash_timeline timeline;
    char profile[PATH_MAX]; /* the file that it is recorded into; "" none known */
    int recorder;           /* PID of who launched and records it; 0 unknown */
    struct dash_ab ab;
};

struct dash_job *dash_job_new(uint64_t key, int pid);
void dash_job_free(struct dash_job *job);

/* A copy to look at while the job goes on; NULL: no memory. */
struct dash_job *dash_job_dup(const struct dash_job *job);

/* Raw records, in stream order. */
void dash_job_records(struct dash_job *job, const union mp_record *record, size_t n);

/* A closed step, with the figures computed from it; now_ns on the watcher's clock. */
void dash_job_step(struct dash_job *job, const struct mp_step *step,
                   const struct dash_figures *figures, uint64_t now_ns);

/* Gauges, about once a second. */
void dash_job_gauges(struct dash_job *job, const struct dash_gauges *g);

void dash_job_fact(struct dash_job *job, const char *label, const char *text);

/* ---- questions of the views ----------------------------------------------------------------- */

struct mp_val dash_job_value(const struct dash_job *job, enum dash_metric metric);

/* Work over time of the steps in the history, warm-up left out; *n how many steps. */
struct mp_val dash_job_mean_mfu(const struct dash_job *job, enum dash_convention convention,
                                size_t *n);

/* Booked time of a phase in the last step, over all passes. */
uint64_t dash_step_phase_ns(const struct dash_step *s, enum mp_phase phase);

/* Share of the last step's window that the guest's own kernels took. */
struct mp_val dash_step_own(const struct dash_step *s);

/* One or two words: "recording", "asleep", "stepped aside", "off", "ended", "killed", "replay". */
const char *dash_job_state(const struct dash_job *job);
bool dash_job_is_live(const struct dash_job *job); /* recording, and its process runs */

const char *dash_feature_name(enum mp_feature feature);

#endif
