# emu.mk: the kernels' source, run on the CPU (cuda_emu.h), and the same cases for a GPU. Included by the top
# Makefile. The first needs CUDA's headers and a C++ compiler, no nvcc and no GPU.

emu_cu := lora lora_pack portable portable_up portable_down portable_grad cuda_call combine reduce route \
	hopper hopper_map hopper_forward hopper_dact hopper_grad
emu_cpp := stack cuda_emu hopper_emu device_emu
small_cpp := kernels_small agree routing refuse problem array
emu_h := common.cuh sums.cuh portable_gemm.cuh portable_feed.cuh portable_epilogue.cuh portable_host.h lora_gemm.cuh \
	hopper_gemm.cuh hopper_producer.cuh hopper_dw.cuh hopper_leave.cuh hopper_sum.cuh hopper_fit.cuh hopper_fit_tile.cuh hopper_fit_act.cuh hopper_gather.cuh \
	hopper_host.h
emu_src := $(patsubst %,$(B)/emu/kernels/%,$(emu_h) $(emu_cu:%=%.cu))
small_obj := $(small_cpp:%=$(B)/emu/%.o)
emu_obj := $(emu_cu:%=$(B)/emu/%.o) $(emu_cpp:%=$(B)/emu/%.o) $(small_obj)
EMU_CXX = $(CXX) -std=c++17 -O2 -g -w -Wno-psabi -x c++ -I$(B)/emu -Itests/emu -I. -isystem $(CUDA)/include -MMD -MP $(SANFLAGS) -c

$(B)/emu/kernels/%: kernels/% tests/emu/translate.sed
	@mkdir -p $(@D)
	$(Q)sed -E -f tests/emu/translate.sed $< > $@
$(B)/emu/%.o: $(B)/emu/kernels/%.cu $(emu_src)
	$(call say,EMU,$(<F))$(EMU_CXX) -include tests/emu/cuda_emu.h -o $@ $<
$(B)/emu/%.o: tests/emu/%.cpp
	@mkdir -p $(@D)
	$(call say,CXX,$<)$(EMU_CXX) -o $@ $<
$(B)/emu/kernels_small: $(emu_obj) $(KERNELS_CPU_OBJ)
	$(call say,LINK,$@)$(CXX) $(SANFLAGS) -o $@ $^ -lm

.SECONDARY: $(emu_src) # kept: made once a change, not once a build

# Both paths, the portable one with shared memory as on Hopper and as on Ada: bytes of it, and the way.
emu_ways := emu-hopper emu-portable emu-ada
emu-hopper: how = 232448
emu-portable: how = 232448 --portable
emu-ada: how = 101376 --portable

.PHONY: emu $(emu_ways)
ifneq ($(and $(wildcard $(CUDA)/include/cuda_bf16.h),$(shell command -v $(CXX))),)
$(emu_ways): $(B)/emu/kernels_small
	$(Q)EMU_SMEM_BYTES=$(firstword $(how)) ASAN_OPTIONS=detect_stack_use_after_return=0 timeout 900 $< $(wordlist 2,9,$(how)) > $(B)/$@.log 2>&1 || \
		{ cat $(B)/$@.log; echo "failed: $@"; exit 1; }
emu: $(emu_ways)
	@echo "  emu   $$(grep -c '^ok' $(B)/emu-hopper.log) cases passed on the Hopper path, and on the portable one with shared memory as on Hopper and as on Ada"
ifeq ($(findstring thread,$(SANFLAGS)),)# the thread sanitizer does not follow fibers
unit: emu
endif
else
emu:
	@echo "  emu   skipped: no CUDA headers or no C++ compiler"
endif

ifneq ($(NVCC),)
$(B)/kernels_small: $(small_obj) $(B)/emu/device_gpu.o $(kernels_obj)
	$(call say,LINK,$@)$(NVCC) -cudart static -o $@ $(filter %.o,$^) -lm -ldl
kernels: $(B)/kernels_small
endif
