# emu.mk: the portable kernels' source, run on the CPU (cuda_emu.h). Included by the top Makefile; needs CUDA's headers and a
# C++ compiler, no nvcc and no GPU.

emu_cu := lora lora_pack portable portable_up portable_down portable_grad cuda_call combine reduce
emu_h := common.cuh portable_gemm.cuh portable_epilogue.cuh portable_host.h lora_gemm.cuh
emu_src := $(patsubst %,$(B)/emu/kernels/%,$(emu_h) $(emu_cu:%=%.cu))
emu_obj := $(emu_cu:%=$(B)/emu/%.o) $(B)/emu/cuda_emu.o $(B)/emu/test_portable_emu.o
EMU_CXX = $(CXX) -std=c++17 -O1 -g -w -x c++ -I$(B)/emu -Itests/emu -I. -isystem $(CUDA)/include -MMD -MP $(SANFLAGS) -c

$(B)/emu/kernels/%: kernels/% tests/emu/translate.sed
	@mkdir -p $(@D)
	$(Q)sed -E -f tests/emu/translate.sed $< > $@
$(B)/emu/%.o: $(B)/emu/kernels/%.cu $(emu_src)
	$(call say,EMU,$(<F))$(EMU_CXX) -include tests/emu/cuda_emu.h -o $@ $<
$(B)/emu/%.o: tests/emu/%.cpp
	@mkdir -p $(@D)
	$(call say,CXX,$<)$(EMU_CXX) -o $@ $<
$(B)/emu/test_portable_emu: $(emu_obj) $(KERNELS_CPU_OBJ)
	$(call say,LINK,$@)$(CXX) $(SANFLAGS) -o $@ $^ -lm

.PHONY: emu
ifneq ($(and $(wildcard $(CUDA)/include/cuda_bf16.h),$(shell command -v $(CXX))),)
emu: $(B)/emu/test_portable_emu
	$(Q)timeout 300 $< > $(B)/emu.log 2>&1 || { cat $(B)/emu.log; echo "failed: $<"; exit 1; }; echo "  emu   $$(grep -c '^ok' $(B)/emu.log) cases passed"
unit: emu
else
emu:
	@echo "  emu   skipped: no CUDA headers or no C++ compiler"
endif
