/* Kernel names for reading: `_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_15CUDAFunctor_add…`
 * becomes `vectorized_elementwise_kernel<4, CUDAFunctor_add<BFloat16>>`. Pure; any thread.
 *
 * Not a demangler: what helps nobody to tell kernels apart is left out (namespaces, return types,
 * parameters, const, how memory is walked), and a lambda bears the name of the function it stands in.
 * The bytes may be anything: time and depth are bounded, and what does not parse comes out as it came in.
 * Names that are no C++ (nvjet, cutlass, triton) are left as they are.
 */
#ifndef RP_DEMANGLE_H
#define RP_DEMANGLE_H

#include <stddef.h>

#define RP_KERNEL_NAME 256 /* room that suffices for reading */

/* Returns out, which holds the name and a 0, cut with an ellipsis where it does not fit or where the
 * recorded name was cut. bytes >= 8. */
const char *rp_kernel_name(char *out, size_t bytes, const char *name);

#endif
