/* What a kernel does, told from its (mangled) name. Pure; any thread. One row in kname.c adds a name. */
#ifndef MP_KNAME_H
#define MP_KNAME_H

enum mp_kclass {
    MP_KC_UNKNOWN = 0, /* generated kernels (Triton, inductor) and whatever no row names */
    MP_KC_GEMM,        /* one dense matrix product; includes its split-K reduction */
    MP_KC_GROUPED,     /* a grouped matrix product over all experts, or its preparation */
    MP_KC_ATTENTION,
    MP_KC_COMM,
    MP_KC_FOREACH,  /* multi-tensor: optimizers, norms over many tensors */
    MP_KC_GATHER,   /* reads rows by index */
    MP_KC_SCATTER,  /* writes or adds rows by index */
    MP_KC_INDEXING, /* makes indices: sort, top-k, scan, histogram, nonzero, one-hot */
    MP_KC_SOFTMAX,
    MP_KC_NORM,
    MP_KC_REDUCE,
    MP_KC_FILL,
    MP_KC_COPY,
    MP_KC_ELEMENTWISE,
    MP_KC_COUNT
};

/* First row whose text occurs in name; MP_KC_UNKNOWN for NULL. */
enum mp_kclass mp_kname_class(const char *name);

#endif
