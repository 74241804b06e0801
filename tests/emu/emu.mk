# emu.mk: the kernels' source, run on the CPU (cuda_emu.h), and the same cases for a GPU. Included by the top
# Makefile. The first needs CUDA's headers and a C++ compiler, no nvcc and no GPU.

emu_cu := lora lora_pack portable portable_up portable_down portable_grad cuda_call combine reduce route \
	hopper hopper_map hopper_forward hopper_dact hopper_grad
emu_h := common.cuh portable_gemm.cuh portable_feed.cuh portable_epilogue.cuh portable_host.h lora_gemm.cuh \
	hopper_gemm.cuh hopper_producer.cuh hopper_epilogue.cuh hopper_host.h
emu_src := $(patsubst %,$(B)/emu/kernels/%,$(emu_h) $(emu_cu:%=%.cu))
emu_obj := $(emu_cu:%=$(B)/emu/%.o) $(B)/emu/cuda_emu.o $(B)/emu/hopper_emu.o $(B)/emu/kernels_small.o
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
.PHONY: emu
ifneq ($(and $(wildcard $(CUDA)/include/cuda_bf16.h),$(shell command -v $(CXX))),)
emu: $(B)/emu/kernels_small
	$(Q)for how in "232448" "101376 --portable" "232448 --portable"; do set -- $$how; EMU_SMEM_BYTES=$$1 ASAN_OPTIONS=detect_stack_use_after_return=0 timeout 900 $< $$2 > $(B)/emu.log 2>&1 || { cat $(B)/emu.log; echo "failed: $< $$2 with $$1 bytes of shared memory"; exit 1; }; done; echo "  emu   $$(grep -c '^ok' $(B)/emu.log) cases passed on the Hopper path, and on the portable one with shared memory as on Ada and on Hopper"
ifeq ($(findstring thread,$(SANFLAGS)),)# the thread sanitizer does not follow fibers
unit: emu
endif
else
emu:
	@echo "  emu   skipped: no CUDA headers or no C++ compiler"
endif

ifneq ($(NVCC),)
$(B)/tests/emu/kernels_small_gpu.o: tests/emu/kernels_small.cpp
	@mkdir -p $(@D)
	$(call say,CXX,$<)$(CXX) -std=c++17 -O2 -g -w -DMK_ON_GPU -I. -isystem $(CUDA)/include -MMD -MP -c -o $@ $<
$(B)/kernels_small: $(B)/tests/emu/kernels_small_gpu.o $(kernels_obj)
	$(call say,LINK,$@)$(NVCC) -cudart static -o $@ $(filter %.o,$^) -lm -ldl
kernels: $(B)/kernels_small
endif
