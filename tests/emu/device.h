/* device.h: where the kernels of a case run: emulated on the CPU (device_emu.cpp), or on a GPU (device_gpu.cpp). What fails
 * there ends the program. */
#ifndef TESTS_EMU_DEVICE_H
#define TESTS_EMU_DEVICE_H

#include <cstddef>

extern "C" {
#include "kernels/cuda_paths.h"
}

/* Memory of n bytes and not one more, which nobody has written. */
void *dev_alloc(size_t n);
void dev_free(void *p);

/* n bytes to the device; back from it, after all kernels before. */
void dev_put(void *to, const void *from, size_t n);
void dev_get(void *to, const void *from, size_t n);

/* The library's calls; returns their codes. */
int dev_forward(const mk_forward *f, const struct mk_plan *plan);
int dev_backward(const mk_backward *b, const struct mk_plan *plan);

/* Which row of the registry served the last call. */
extern const char *dev_path;

#endif
