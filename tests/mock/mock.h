/* What tests say to the stand-ins for libcupti, libcuda, libc10 and libtorch_cpu, and ask them. The
 * stand-ins are shared objects with the real names, built into $(B)/mock; a test maps them by
 * mock_load() and the guest finds them as it finds the real ones. */
#ifndef TESTS_MOCK_H
#define TESTS_MOCK_H

#include "injector/cupti_abi.h"
#include "injector/cupti_api.h"

/* ---- libc10.so, libtorch_cpu.so ------------------------------------------------------------ */

struct mock_node {             /* torch::autograd::Node as far as the guest knows it */
    const void *const *vtable; /* behind a type_info */
    void *self[2];
    uint64_t seq, topological;
    uint64_t has_parent;
    uint64_t tid;
};

struct mock_torch {         /* of the calling thread */
    struct mock_node *node; /* the one that runs; NULL none */
    bool grad;
    uint64_t next_seq, thread_id;
    int use_count; /* references to node: 1 unless somebody kept one */
};

/* As Kineto sees its own records. */
struct mock_kineto_seen {
    unsigned kernels, others, unknown_buffers, refused, out_of_window;
};

/* ---- libcupti.so.13 ------------------------------------------------------------------------- */

struct mock_cupti {
    uint32_t version; /* 26: 12.8, 130001: 13.0U1 */
    char holder[40];  /* another tool has the one subscriber; "" nobody */
    int subscribe_result, enable_result, register_result; /* to fail with; 0 work */
    void *_Atomic subscriber;
    _Atomic(cupti_callback_fn) callback;
    void *user;
    _Atomic bool callback_on[CB_MAX];
    _Atomic uint64_t kinds; /* bit per activity kind that is on */
    _Atomic(cupti_request_fn) request;
    _Atomic(cupti_complete_fn) complete;
    _Atomic size_t dropped; /* since last asked */
    unsigned n_register, n_flush, n_finalize;
    cupti_clock_fn clock;    /* registered by somebody; NULL its own */
    unsigned torn;           /* so many records to come are stamped by the wrong clock */
    int hang_ms;             /* a flush takes so long */
    bool keeps_on_flush;     /* a buffer whose records are not all complete stays */
    size_t record_bytes[64]; /* of a kind; 0: as the version says */
};

/* ---- libcuda.so.1 --------------------------------------------------------------------------- */

struct mock_cuda {
    int capturing;  /* a stream capture is under way */
    int busy;       /* so many event queries say "not ready" */
    int fail_alloc; /* 1: cuMemAlloc fails */
    int fail_launch, fail_copy;
    size_t param_bytes; /* of the one parameter every kernel has, 0: unknown kernel */
    unsigned n_launch, n_alloc, n_query_param;
    unsigned n_illegal; /* accesses outside what was allocated: error 700 on a GPU */
    unsigned n_spoiled; /* calls that ended the job's capture */
    unsigned n_taken;   /* copies and events that became part of it */
    bool silent;        /* launches tell no CUPTI */
};

/* Entry points of all the stand-ins that are mapped; the others stay NULL. */
struct mock {
    struct mock_torch *(*torch)(void);
    int (*kineto_start)(void); /* 0, or CUPTI's refusal */
    struct mock_kineto_seen (*kineto_stop)(void);
    int (*kineto_disable)(int kind);
    struct mock_cupti *(*cupti)(void);
    /* One driver call of this thread as CUPTI reports it: at entry and at exit. */
    void (*call)(uint32_t cbid, const void *params, const char *symbol, uint32_t corr);
    /* One finished activity; lost when its kind is off. */
    void (*record)(const void *record, size_t bytes);
    void (*kernel)(uint32_t corr, const char *name, uint64_t start_ns, uint64_t end_ns);
    struct mock_cuda *(*cuda)(void);
};

/* Class of an autograd node by the name of its C++ type, for mock_node.vtable. */
#define MOCK_NODE_TYPE(variable, type_name)                                                        \
    static const void *const variable##_info[] = {NULL, (type_name)};                              \
    static const void *const variable##_table[] = {NULL, variable##_info, NULL};                   \
    static const void *const *const variable = &variable##_table[2]

#endif
