/* From a profile to the figures that a report shows. Pure but for reading the profile; no text layout.
 *
 * Statistics are made of the whole steps after warm-up. A guest traces bursts of steps: times by phase
 * are those of traced steps, step time, tokens and MFU those of all. A run too short to have any falls
 * back to what there is, and a note says so. Unknown figures have basis MP_UNKNOWN.
 */
#ifndef RP_ANALYZE_H
#define RP_ANALYZE_H

#include "report/gpu_facts.h"
#include "report/profile_file.h"

#include "profiler/core/phase.h"
#include "report/spec.h"

#define RP_TEXT        96
#define RP_NOTES       16
#define RP_TOP_KERNELS 256

struct rp_run {
    char file[256];
    char gpu[RP_TEXT], gpu_uuid[RP_TEXT], hostname[RP_TEXT], command[RP_TEXT];
    char moeprof[24];
    int rank, world;             /* rank -1: not distributed */
    bool is_complete;            /* the recorder came to its end */
    bool is_live;                /* .. has not yet: it wrote a moment ago */
    bool is_empty;               /* what was recorded is not in the file */
    char end[24];                /* "exit", "killed", "stopped", "" */
    struct rp_gpu_facts machine; /* when the recording began */
    uint64_t began_ns, ended_ns; /* CLOCK_REALTIME; 0 unknown */
};

struct rp_step_stat {
    uint32_t count, first, last; /* the steps it is made of */
    uint32_t recorded;           /* all steps in the profile */
    uint32_t incomplete;         /* among the counted: lost records */
    struct mp_val median_s, min_s, max_s, mean_s;
    double *seconds; /* (count), in order */
    double window_s; /* their sum: what every ratio divides by */
};

struct rp_tokens {
    struct mp_val useful, processed, trainable; /* over the counted steps */
    struct mp_val useful_s, processed_s, trainable_s;
};

struct rp_mfu {
    uint32_t n_step;          /* that it is made of: rp_report.timed.count */
    struct mp_val mfu, hfu;   /* 0..1 */
    struct mp_val model_flop; /* over the counted steps */
    struct mp_val executed_flop;
    struct mp_val peak_flops; /* per second, dense */
    char convention[240];     /* what the MFU means */
    char converted[240];      /* the same run in other conventions */
    char why_not[200];        /* why there is none; "" when there is one */
};

struct rp_phase {
    enum mp_phase phase;
    enum mp_pass pass;
    uint64_t booked_ns;
    uint64_t n;
    struct mp_val seconds, step_s, ratio; /* in all, per step, of the window */
};

struct rp_layer {
    int layer;
    double seconds[MP_PHASE_COUNT]; /* booked, all passes */
    double total_s;
    struct mp_val tokens;
    struct mp_val max_vio;      /* (busiest - mean) / mean of the summed load */
    struct mp_val max_vio_step; /* the same within a step, mean over the steps */
    int n_expert, n_dead;       /* experts without a token */
};

struct rp_expert {
    int layer, expert;
    struct mp_val tokens;
    struct mp_val seconds;        /* its expert kernels */
    struct mp_val shared_seconds; /* its share of dispatch, combine and grouped leftovers */
};

struct rp_top_kernel {
    char *name;
    enum mp_phase phase; /* the one with most of its time */
    uint64_t n;
    double seconds, ratio; /* ratio: of all kernel time */
    double mean_s, min_s, max_s;
};

struct rp_coverage {
    struct mp_val attributed;  /* 0..1: kernel time not on `other` */
    uint64_t dropped;          /* by CUPTI, the guest, and the ring */
    uint64_t unmatched;        /* records without launch context */
    uint64_t unbalanced;       /* steps whose time does not add up */
    double kernel_s, own_s;    /* the job's kernels, the guest's own */
    struct mp_val agent_ratio; /* CPU time of the agent thread, of a core */
};

struct rp_report {
    struct rp_run run;
    struct rp_spec spec; /* of the model; empty when has_spec is false */
    bool has_spec;
    struct rp_step_stat step; /* traced steps: what times by phase, layer, expert, kernel are of */
    struct rp_step_stat
        timed;           /* all steps of known duration, traced or not: step time, tokens, MFU */
    uint32_t n_untraced; /* of the timed ones; their duration is by the host's clock */
    struct mp_val untraced_s; /* their median: what a step takes when nobody watches */
    struct rp_tokens tokens;
    struct rp_mfu mfu;
    struct rp_coverage coverage;
    struct rp_phase *phase; /* (n_phase), most time first */
    size_t n_phase;
    struct mp_val idle_s, idle_ratio; /* of the counted steps */
    struct rp_layer *layer;           /* (n_layer), by index */
    size_t n_layer;
    struct rp_expert *expert; /* (n_expert), by layer and expert */
    size_t n_expert;
    struct rp_top_kernel *kernel; /* (n_kernel), most time first */
    size_t n_kernel;
    char note[RP_NOTES][200]; /* (n_note): what the reader must know */
    size_t n_note;
};

struct rp_options {
    double peak_flops; /* overrides the GPU table; 0: do not */
};

int rp_analyze(struct rp_report **out, struct rp_profile *p, const char *file,
               const struct rp_options *o, struct mp_err *err);
void rp_report_free(struct rp_report *r);

#endif
