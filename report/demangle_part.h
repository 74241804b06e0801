/* What the demangle*.c files share. Private to them. */
#ifndef RP_DEMANGLE_PART_H
#define RP_DEMANGLE_PART_H

#include <stddef.h>

/* The same shortening for a name that is demangled already; same contract as rp_kernel_name. */
const char *rp_kernel_text(char *out, size_t bytes, const char *name);

#endif
