/* Shared objects that the process has mapped: finding them, and redirecting their imports.
 * Never loads anything. Agent or Python thread. */
#ifndef INJ_ELF_H
#define INJ_ELF_H

#include "profiler/core/base.h"

/* dlopen handle (RTLD_NOLOAD) of the mapped object whose file name begins with `name`; NULL if none.
 * Its path, if wanted, goes to path. */
void *inj_elf_mapped_path(const char *name, char *path, size_t path_bytes);
void *inj_elf_mapped(const char *name);

/* A function that is looked up by name, and where its address goes in a struct of such. */
struct inj_symbol {
    const char *name;
    size_t offset;
    bool needed;
};

/* Fills the struct at `functions` from a dlopen handle; what is missing stays as it was, so a field may have two names. Returns the
 * name of one that is needed and missing, with which it stops, else NULL. */
const char *inj_elf_bind(void *lib, const struct inj_symbol *symbol, size_t n, void *functions);

struct inj_patch {
    const char *symbol;
    void *replacement;
};

/* Redirects the imports of the mapped object whose file name begins with `name` (PLT and GOT slots).
 * Call the real function through dlsym, never through what stood in the slot: that may be the lazy
 * binder's stub, which would write the slot back. Returns how many slots were redirected, or a code. */
int inj_elf_patch(const char *name, const struct inj_patch *patch, size_t n);

#endif
