/* Stage 6 of the data path: what a guest publishes, one file a process in the job directory.
 *
 * Broadcast ring: one producer (the guest's agent thread), any number of readers. The producer never
 * waits and never knows its readers; a reader that is too slow is lapped, and counts what it lost.
 * So a killed recorder costs the training nothing, and `top` can look on while `run` records.
 *
 * File: `DIR/PID.shm`, 0600, in a 0700 directory of the job's user (mp_shm_dir). Fully allocated at
 * creation (posix_fallocate): a full tmpfs is an error code then, not a SIGBUS in the training later.
 * A reader's mapping outlives the guest, so nothing published is lost when the target is killed.
 */
#ifndef MP_SHM_H
#define MP_SHM_H

#include "profiler/core/event.h"

#include <stdatomic.h>

#define MP_SHM_MAGIC   0x31464f5250454f4dull /* "MOEPROF1" */
#define MP_SHM_VERSION 1u

/* 2^18 records = 8 MiB: 4.5 s of slack at 57 k launches/s, the eager worst case measured on an H100 */
#define MP_RING_LOG2 18
#define MP_RING_CAP  (1u << MP_RING_LOG2)
/* The producer publishes at least every MP_RING_BATCH records; a reader keeps that much distance. */
#define MP_RING_BATCH 512u

#define MP_NAME_CAP  8192u      /* distinct kernel names */
#define MP_NAME_HEAP (2u << 20) /* bytes of names; CUTLASS names run to 2 KB each */
#define MP_SPEC_CAP  (1u << 20) /* bytes of the model description (JSON) */
#define MP_LOG_CAP   64u        /* sentences kept */

enum mp_guest_state {
    MP_GUEST_ASLEEP = 0, /* in a process that has not trained yet */
    MP_GUEST_RECORDING,
    MP_GUEST_ASIDE, /* another profiler records; goes on after it */
    MP_GUEST_OFF,   /* gave up for good: see feature[] and log */
    MP_GUEST_ENDED  /* the process went through exit */
};

/* What can fail by itself; each is either on, or off with a sentence. */
enum mp_feature {
    MP_FEATURE_CUPTI = 0, /* GPU activity */
    MP_FEATURE_LAUNCH,    /* launch callbacks: scope and weight pointers */
    MP_FEATURE_PYTHON,    /* the bridge */
    MP_FEATURE_AUTOGRAD,  /* backward attribution by sequence number */
    MP_FEATURE_ROUTING,   /* tokens per expert */
    MP_FEATURE_TOKENS,    /* tokens and sequence lengths */
    MP_FEATURE_NVML,      /* clocks, power */
    MP_FEATURE_COUNT
};

enum mp_feature_state { MP_FEATURE_WAITING = 0, MP_FEATURE_ON, MP_FEATURE_FAILED };

struct mp_feature_row {
    _Atomic uint32_t state; /* enum mp_feature_state; release after why is written */
    char why[156];          /* a sentence, when failed */
};

struct mp_log_row {
    uint64_t time_ns; /* CLOCK_REALTIME */
    uint32_t count;   /* how often the same cause occurred */
    uint32_t level;   /* 0 info, 1 warning, 2 error */
    char text[176];
};

struct mp_shm {
    uint64_t magic;
    uint32_t version;
    uint32_t size_bytes; /* of the whole mapping */
    int32_t pid;
    uint32_t uid;
    uint64_t start_time; /* field 22 of /proc/PID/stat: tells a reused pid */
    uint64_t created_ns; /* CLOCK_REALTIME */
    char session[40];    /* names the `moeprof run` that launched it, or "" */
    char comm[64];       /* the command line's head, for people */

    _Atomic uint32_t state; /* enum mp_guest_state */
    _Atomic uint32_t step;  /* step now running */
    int32_t rank;           /* -1 not distributed */
    int32_t world;

    /* GPU facts, written once before state leaves ASLEEP; zero or "" when unknown. */
    char gpu_name[96];
    char gpu_uuid[48];
    int32_t gpu_index;
    int32_t gpu_cc; /* 90 = 9.0 */
    int32_t gpu_sm_count;
    int32_t gpu_clock_mhz; /* maximum SM clock the driver reports */
    uint64_t gpu_mem_bytes;
    int32_t cupti_version;
    int32_t driver_version;

    /* Live gauges; each is a plain atomic, newest value only. */
    _Atomic uint64_t heartbeat_ns;
    _Atomic uint64_t n_launch;
    _Atomic uint64_t n_record;
    _Atomic uint64_t n_dropped;    /* records that CUPTI dropped */
    _Atomic uint64_t n_lost;       /* records lost inside the guest: no buffer, table full */
    _Atomic uint64_t n_unmatched;  /* records without launch context */
    _Atomic uint64_t agent_cpu_ns; /* CPU time of the agent thread */
    _Atomic uint32_t sm_clock_mhz, mem_clock_mhz, power_mw, temp_c, throttle_bits;
    _Atomic uint64_t mem_used_bytes;
    _Atomic uint32_t gauges_valid; /* bit i: gauge i of {sm,mem,power,temp,throttle,mem_used} */

    struct mp_feature_row feature[MP_FEATURE_COUNT];
    _Atomic uint64_t n_log; /* sentences ever written; row = n % MP_LOG_CAP */
    struct mp_log_row log[MP_LOG_CAP];

    /* Model description: JSON text, replaced whole. Odd generation: being written. */
    _Alignas(8) _Atomic uint32_t spec_gen;
    uint32_t spec_bytes;
    char spec[MP_SPEC_CAP];

    _Atomic uint32_t n_name; /* release after offset and bytes are written */
    uint32_t name_heap_used;
    uint32_t name_offset[MP_NAME_CAP]; /* into name_heap; NUL-terminated */
    char name_heap[MP_NAME_HEAP];

    /* release by the producer; pairs with the acquire in mp_reader_read */
    _Alignas(64) _Atomic uint64_t head;
    uint64_t n_written; /* producer only: ahead of head by less than MP_RING_BATCH */
    _Alignas(64) union mp_record ring[MP_RING_CAP];
};

/* ---- both sides -------------------------------------------------------------------------- */

/* Job directory: `wanted` if not NULL or "", else $XDG_RUNTIME_DIR/moeprof, else /dev/shm/moeprof-UID.
 * Created 0700 when missing; refused (MP_EPERM) when it belongs to another user or is open to others. */
int mp_shm_dir(char *out, size_t out_bytes, const char *wanted, struct mp_err *err);

/* ---- guest: agent thread only, but for the three that say otherwise ---------------------- */

/* Creates and maps DIR/PID.shm, in place of a stale one: this process has the pid now. The file
 * appears under its name only when complete. Fills what concerns the process (pid, uid, start_time,
 * created_ns, comm), rank -1, world 1, gpu_index -1. *shm is the caller's until mp_shm_close. */
int mp_shm_create(struct mp_shm **shm, const char *dir, struct mp_err *err);

/* Appends one record; publishes at the latest every MP_RING_BATCH. Never fails, never waits. */
void mp_shm_put(struct mp_shm *shm, const union mp_record *record);
void mp_shm_flush(struct mp_shm *shm);

/* Adds a kernel name; returns its index, or MP_NAME_CAP - 1 ("(name table full)") when full.
 * The caller interns: one call a distinct name. */
uint32_t mp_shm_name_add(struct mp_shm *shm, const char *name);

/* Replaces the model description; refuses with MP_EFULL what does not fit. Any thread of the guest;
 * MP_EBUSY in the unlikely case that another one is at it. */
int mp_shm_spec_set(struct mp_shm *shm, const char *json, size_t bytes);

/* A failed feature keeps its first reason until it works again. Any thread of the guest. */
void mp_shm_feature(struct mp_shm *shm, enum mp_feature feature, enum mp_feature_state state,
                    const char *why);
/* One row a cause: the same text raises the row's count and keeps its first time. Any thread of the
 * guest; a sentence is dropped rather than waited for. */
void mp_shm_log(struct mp_shm *shm, int level, const char *text);

/* Publishes what is pending, unmaps and, with `unlink_file`, removes the file (not in a fork's child). */
void mp_shm_close(struct mp_shm *shm, const char *dir, bool unlink_file);

/* ---- readers: any thread, any process of the same user -----------------------------------
 * The mapping is bytes from outside: whatever it holds, no function here reads out of range. Take
 * texts by the functions below, numbers as they are, and indices only after a check. */

struct mp_reader {
    const struct mp_shm *shm;
    uint64_t pos;    /* next record to read */
    uint64_t n_lost; /* records overwritten before they were read */
    uint32_t spec_gen;
};

/* Opens a guest's file read-only (only its mapping outlives the call) and checks magic, version, size and owner. From the oldest record
 * still in the ring when `from_oldest`, else from now. */
int mp_reader_open(struct mp_reader *r, const char *dir, int pid, bool from_oldest,
                   struct mp_err *err);
void mp_reader_close(struct mp_reader *r);

/* Copies up to n records in order; returns how many. What was lapped is added to r->n_lost. */
size_t mp_reader_read(struct mp_reader *r, union mp_record *out, size_t n);

/* Name of index i: borrowed, lives as long as the reader; "?" when out of range or malformed. */
const char *mp_reader_name(const struct mp_reader *r, uint32_t i);

/* Copies the model description when it is newer than what this reader last saw.
 * Returns its length, 0 when unchanged or being written, MP_EFULL when out is too small. */
int mp_reader_spec(struct mp_reader *r, char *out, size_t out_bytes);

/* Copies sentence i of the log, text terminated and printable. False: overwritten or not there yet.
 * Sentences in reach: max(0, n_log - MP_LOG_CAP + 1) .. n_log - 1. */
bool mp_reader_log(const struct mp_reader *r, uint64_t i, struct mp_log_row *out);

/* State of a feature; with MP_FEATURE_FAILED the reason is in why, else why is "". */
enum mp_feature_state mp_reader_feature(const struct mp_reader *r, enum mp_feature feature,
                                        char *why, size_t why_bytes);

/* Copies a fixed text field (gpu_name, comm, ..): terminated, control bytes replaced by '?', so that
 * a process cannot write escapes to the terminal of who looks at it. */
void mp_shm_text(char *out, size_t out_bytes, const char *field, size_t field_bytes);

/* True when the guest's process still runs (pid and start time both match). */
bool mp_reader_alive(const struct mp_reader *r);

/* Calls fn for each guest file in dir until it returns non-zero. Files of dead processes are passed
 * too: the caller decides. Returns what fn returned, 0 at the end, or a negative code. */
int mp_shm_each(const char *dir, int (*fn)(void *arg, int pid), void *arg, struct mp_err *err);

/* Removes files whose process is gone and which are older than keep_s seconds. */
void mp_shm_sweep(const char *dir, int keep_s);

#endif
