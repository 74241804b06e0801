/* registry.c: the rows. Order is preference: the first row that fits a problem on a device serves it. */
#include "kernels/registry.h"

#ifdef MK_HAVE_CUDA
#include "kernels/cuda_paths.h"

const struct mk_impl mk_registry[] = {
    { .row = { .op = "forward and backward", .name = "hopper", .version = 17, .sm_min = 90, .sm_max = 90 },
      .lora = true,
      .fits_forward = mk_hopper_fits_forward,
      .forward = mk_hopper_forward,
      .fits_backward = mk_hopper_fits_backward,
      .backward = mk_hopper_backward },
    { .row = { .op = "forward and backward", .name = "portable", .version = 3, .sm_min = 80, .sm_max = 999 },
      .lora = true,
      .fits_forward = mk_portable_fits_forward,
      .forward = mk_portable_forward,
      .fits_backward = mk_portable_fits_backward,
      .backward = mk_portable_backward },
};
const size_t mk_registry_count = sizeof mk_registry / sizeof *mk_registry;
#else
const struct mk_impl mk_registry[] = { { .row = { .op = "none" } } };
const size_t mk_registry_count = 0;

int mk_device_sm(void)
{
    return MK_EDEVICE;
}
#endif
