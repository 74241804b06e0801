# CUDA source to what cuda_emu.h runs: launches, dynamic shared memory, two PTX instructions. Blocks cannot wait for each other.
s/\bmk_launch\(HOP_KERNEL/emu_launch_pair(HOP_KERNEL/
s/\bmk_launch\(/emu_launch(/
s/#include <cooperative_groups\.h>//
s/cooperative_groups::this_grid\(\)\.sync\(\)/emu_sync_grid()/
s/([A-Za-z_0-9]+(<[A-Za-z_0-9, ]*>)?)<<<(.*)>>>\(/emu_run({ \3 }, \1, /
s/extern __shared__ __align__\((128|1024)\) uint8_t ([a-z_]+)\[\];/uint8_t *\2 = emu_smem();/
s/asm\("ex2\.approx.*$/e = exp2f(v * -1.4426950409f);/
s/asm\("rcp\.approx.*$/s = 1.f \/ (1.f + e);/
