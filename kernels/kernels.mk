# kernels.mk: the kernels' library, its bench and the lab. Included by the top Makefile.
#
# Without a CUDA toolkit only the CPU reference is built into the library.
# CUDA's runtime is linked statically: the library loads where no driver is.

kernels_c := $(wildcard kernels/*.c)
kernels_cpu_src := kernels/plan.c $(wildcard kernels/ref_*.c)
KERNELS_CPU_OBJ := $(patsubst %.c,$(B)/%.o,$(kernels_cpu_src))
KERNELS_SO := $(B)/libmoeprof_kernels.so

NVFLAGS = -std=c++17 -O3 -Xptxas -warn-spills $(if $(LINEINFO),-lineinfo) -I. -MMD -MP -Xcompiler -fPIC,-fvisibility=hidden,-Wall --diag-suppress 177
# Hopper's own instructions need sm_90a; the portable path is sm_80 code, and PTX for what comes later.
NVARCH_hopper = -gencode=arch=compute_90a,code=sm_90a
NVARCH_portable = -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90,code=sm_90 -gencode=arch=compute_80,code=compute_80

ifneq ($(NVCC),)
kernels_cu := $(wildcard kernels/*.cu)
$(B)/kernels/registry.o: TOOL_CFLAGS += -DMK_HAVE_CUDA
kernels_link = $(NVCC) -shared -cudart static -Xlinker -z,defs,--version-script=kernels/exports.map,--exclude-libs,ALL
else
kernels_cu :=
kernels_link = $(CC) -shared -Wl,-z,defs,--version-script=kernels/exports.map
endif

# What depends on whether there is a toolkit is made again when that changes.
.PHONY: always
$(B)/toolkit: always
	@mkdir -p $(@D)
	@echo '$(NVCC)' | cmp -s - $@ || echo '$(NVCC)' > $@
$(B)/kernels/registry.o $(KERNELS_SO): $(B)/toolkit

kernels_obj := $(patsubst %.c,$(B)/%.o,$(kernels_c)) $(patsubst %.cu,$(B)/%.o,$(kernels_cu))

$(KERNELS_SO): $(kernels_obj) kernels/exports.map
	$(if $(NVCC),,@echo '  no CUDA toolkit: $@ holds the CPU reference alone')
	$(call say,LINK,$@)$(kernels_link) -o $@ $(filter %.o,$^) -lm

$(filter $(B)/kernels/hopper%,$(kernels_obj)): NVARCH = $(NVARCH_hopper)
NVARCH ?= $(NVARCH_portable)
$(B)/%.o: %.cu
	@mkdir -p $(@D)
	$(call say,NVCC,$<)$(NVCC) $(NVFLAGS) $(NVARCH) -c -o $@ $<

# The bench links the library's objects, so that it runs from wherever it lies.
$(B)/moe_bench: $(B)/kernels/lab/moe_bench.o $(kernels_obj)
	$(call say,LINK,$@)$(NVCC) -cudart static -o $@ $(filter %.o,$^) -lm -ldl

# Which bytes come from memory in which order of tiles, modelled: needs no GPU, and no nvcc.
$(B)/l2_model: kernels/lab/l2_model.c kernels/lab/shapes.h
	@mkdir -p $(@D)
	$(call say,CC,$@)$(CC) -std=c11 -O2 -Wall -Wextra -Werror -D_GNU_SOURCE -I. -o $@ $< -lm

# Every call of CUDA that the library makes, timed: --wrap puts host_time.cu between.
host_wraps := cudaGetDevice cudaDeviceGetAttribute cudaFuncSetAttribute cudaGetLastError __cudaPushCallConfiguration __cudaPopCallConfiguration \
	__cudaGetKernel __cudaLaunchKernel cudaLaunchKernelExC cudaGetDriverEntryPointByVersion
$(B)/host_time: $(B)/kernels/lab/host_time.o $(kernels_obj)
	$(call say,LINK,$@)$(NVCC) -cudart static -o $@ $(addprefix -Xlinker --wrap=,$(host_wraps)) $(filter %.o,$^) -lm -ldl

.PHONY: kernels
ALL_EXTRA += $(KERNELS_SO) $(B)/l2_model
ifneq ($(NVCC),)
ALL_EXTRA += $(B)/moe_bench
kernels: $(KERNELS_SO) $(B)/moe_bench
else
kernels: $(KERNELS_SO)
endif
