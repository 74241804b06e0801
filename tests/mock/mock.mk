# mock.mk: the stand-ins, and the tests that are linked with the guest's own objects. Included by the
# top Makefile.

MOCKS := $(addprefix $(B)/mock/,libc10.so libcupti.so.13 libcuda.so.1 libtorch_cpu.so)
mock_of = $(Q)mkdir -p $(@D); $(CC) $(MP_CFLAGS) -shared -Wl,-z,now -Wl,-soname,$(@F) -Wl,-rpath,'$$ORIGIN' -o $@ $(filter %.o %.so %.13,$^) -ldl -pthread

$(B)/mock/libc10.so: $(B)/tests/mock/mock_c10.o
	$(mock_of)
$(B)/mock/libcupti.so.13: $(B)/tests/mock/mock_cupti.o
	$(mock_of)
$(B)/mock/libcuda.so.1: $(B)/tests/mock/mock_cuda.o
	$(mock_of)
$(B)/mock/libtorch_cpu.so: $(B)/tests/mock/mock_torch.o $(B)/mock/libc10.so $(B)/mock/libcupti.so.13
	$(mock_of)

GUEST_TEST_OBJ := $(call obj,$(core_src) $(inj_src))
guest_tests := launch launch_backward join join_steps count elf cupti_abi tracer sample
$(guest_tests:%=$(B)/unit/test_%): $(B)/unit/test_%: $(B)/tests/unit/test_%.o $(GUEST_TEST_OBJ) | $(MOCKS)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(MP_CFLAGS) -o $@ $^ -lcmocka -ldl -pthread
$(B)/tests/unit/test_cupti_abi.o: TOOL_CFLAGS += $(if $(CUDA),-isystem $(CUDA)/include -isystem $(CUDA)/extras/CUPTI/include)

# Programs that have the guest's objects in them: a made-up job, and the replay of recorded ones.
$(B)/mock/job: $(B)/tests/mock/job.o $(GUEST_TEST_OBJ) | $(MOCKS)
	$(call say,LINK,$@)$(CC) $(MP_CFLAGS) -o $@ $^ -ldl -pthread
$(B)/mock/replay: $(addprefix $(B)/tests/mock/,replay.o replay_file.o cells.o) $(GUEST_TEST_OBJ) | $(MOCKS)
	$(call say,LINK,$@)$(CC) $(MP_CFLAGS) -o $@ $^ $(TOOL_LIBS) -ldl -pthread
$(B)/mock/host: $(B)/tests/mock/host.o
	$(call say,LINK,$@)$(CC) $(MP_CFLAGS) -o $@ $^ -ldl -pthread
# The guest with a door for kernels that a test launches itself (tests/bridge/probe.py).
$(B)/mock/libprobe.so: $(B)/tests/mock/probe.o $(GUEST_TEST_OBJ)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(MP_CFLAGS) -shared -Wl,-z,nodelete -o $@ $^ -ldl -pthread
unit: $(addprefix $(B)/mock/,job replay host libprobe.so) $(B)/dump_shm

# The bench of the kernels on a GPU that is not there. Made by tests/e2e/bench.sh, where there is a CUDA toolkit.
$(B)/mock/libcublas.so.13: $(B)/tests/mock/mock_cublas.o
	$(mock_of)
$(B)/mock/moe_bench: $(B)/kernels/lab/moe_bench.o $(kernels_obj) $(B)/tests/mock/mock_cudart.o | $(B)/mock/libcublas.so.13
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CXX) -o $@ $(filter %.o,$^) -lm -ldl
