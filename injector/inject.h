/* The doors of the guest: the only symbols that libmoeprof.so exports. */
#ifndef INJ_INJECT_H
#define INJ_INJECT_H

/* Called by the CUDA driver inside cuInit when CUDA_INJECTION64_PATH names this library. Returns 1:
 * the training goes on whatever happened to us. */
int InitializeInjection(void);

/* The door for everything else (a late attach, tests): options as in MOEPROF, may be NULL.
 * Returns 0, or a negative enum mp_code. */
int moeprof_attach(const char *options);

#endif
